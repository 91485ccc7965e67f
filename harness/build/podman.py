"""The way to Podman: its command, and sentences for what is missing. It has no daemon to ask."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import MachineError

PROGRAM = "podman"
_PATIENCE_S = 120.0
"""How long Podman may take for what is no launch and no archive; a GPU that hangs takes its time."""
_LIMITS = ("memory", "pids")
"""Controllers without which a container could not be held to its limits."""


@dataclass(frozen=True)
class Container:
    """An existing container, running or not."""

    id: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    """One that is there."""

    id: str
    """The hash of its configuration, sha256:…: Docker's name for the same image."""
    labels: dict[str, str] = field(default_factory=dict)


def command(*words: str) -> list[str]:
    """A command of Podman's that is told nothing by the user's settings of remote machines."""
    return [PROGRAM, "--remote=false", *words]


def call(*words: str, timeout_s: float | None = _PATIENCE_S) -> str:
    """What a command says. MachineError where Podman is not here, hangs, or refuses, with its words."""
    done = run(*words, timeout_s=timeout_s)
    if done.returncode:
        raise MachineError(f"`podman {words[0]}` failed: {_sentence(done.stderr)}.")
    return done.stdout


def run(*words: str, timeout_s: float | None = _PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """The same, however the command ends."""
    try:
        return subprocess.run(
            command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"`podman {words[0]}` did not answer within {timeout_s:g} s; try it by hand."
        ) from None
    except OSError as error:
        raise MachineError(
            f"There is no `podman` command here ({error.strerror}); install it (`sudo apt-get install "
            "podman`), or measure with Docker or --local."
        ) from None


def _sentence(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if line.lower().startswith("error")] or lines or ["it said nothing"]
    return telling[-1].removeprefix("Error: ").rstrip(".")[:500]


def require_limits() -> None:
    """MachineError where Podman is not here, or containers cannot be held to their limits of memory and
    processes: then the lock-down would be less than Docker's."""
    host = _json(call("info", "--format", "json")).get("host", {})
    having = host.get("cgroupControllers") or []
    rootless = bool((host.get("security") or {}).get("rootless"))
    missing = [name for name in _LIMITS if name not in having]
    if missing or (rootless and host.get("cgroupVersion") != "v2"):
        what = " and ".join(missing) or "memory and pids"
        raise MachineError(
            f"Podman cannot limit {what} of containers for this user (cgroups {host.get('cgroupVersion')}); "
            "use cgroups v2 and have systemd delegate these controllers to users, or run as root."
        )


def require_running(image: Image, limits: Sequence[str]) -> None:
    """MachineError, in its words, where Podman cannot run a container of this image with these limits."""
    words = ["--rm", "--pull=never", "--network=none", "--entrypoint=/bin/true", *limits]
    done = run("run", *words, image.id)
    if done.returncode:
        raise MachineError(
            f"Podman cannot run a container here: {_sentence(done.stderr)}; try `podman run --rm "
            f"{image.id[:19]}`, and perhaps another runtime (`runtime` in containers.conf)."
        )


def rootless() -> bool:
    """Whether containers run in a user namespace of this user's."""
    return os.geteuid() != 0


def image(reference: str) -> Image | None:
    """None where there is no such image."""
    done = run("image", "inspect", "--format", "json", reference)
    if done.returncode:
        if "no such image" in done.stderr or "image not known" in done.stderr:
            return None
        raise MachineError(f"Podman cannot look at the image {reference}: {_sentence(done.stderr)}.")
    (told,) = json.loads(done.stdout)
    return Image(f"sha256:{str(told['Id']).removeprefix('sha256:')}", told.get("Labels") or {})


def containers(label: str) -> list[Container]:
    """Those with this label, "name" or "name=value"."""
    told = json.loads(call("ps", "--all", "--filter", f"label={label}", "--format", "json") or "[]") or []
    return [Container(one["Id"], one.get("Labels") or {}) for one in told]


def remove(container: str) -> bool:
    """Whether the container is gone for sure, with the volumes that came with it."""
    run("rm", "--force", "--time", "0", "--volumes", container)
    return run("container", "exists", container).returncode == 1


def inspect(container: str) -> Mapping[str, Any]:
    """What Podman tells of a container."""
    (told,) = json.loads(call("container", "inspect", container))
    found: Mapping[str, Any] = told
    return found


def _json(text: str) -> dict[str, Any]:
    told = json.loads(text)
    return told if isinstance(told, dict) else {}


def options(settings: Sequence[tuple[str, str]]) -> list[str]:
    """As words of a command line, each with its value behind an equals sign: a value is never an option."""
    return [f"--{name}={value}" for name, value in settings]
