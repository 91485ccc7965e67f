"""What this machine can do, and the command that mends what it cannot. Looks only; changes nothing."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.build import engine, kernels
from harness.build.cache import cache_dir
from harness.errors import HarnessError
from harness.run import gpu as gpus
from harness.run import ncu

_IMAGES_BYTES = 25 * 10**9
"""PyTorch with its CUDA libraries, once while it is installed and once as an image."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    what: str
    """What was found, or what is missing."""
    remedy: str = ""
    """What to do, where it is not well; a command where there is one."""
    required: bool = True
    """Whether measuring in containers needs it."""


def examine(gpu: str = "0") -> list[Finding]:
    """Everything that compiling, building and measuring need. `gpu`: index or UUID of the GPU to measure on.

    Never raises: what cannot be found out is a finding too.
    """
    return [
        *_docker(),
        *_gpu(gpu),
        _safely("free disk", _disk, required=False),
        _safely("C++ compiler", _compiler),
        _safely("Nsight Compute", _profiler, required=False),
        *(_safely(f"NVRTC {version}", partial(_nvrtc, version)) for version in kernels.toolchains()),
    ]


def _safely(name: str, look: Callable[[], Finding], *, required: bool = True) -> Finding:
    """A finding even where looking fails in a way that nobody thought of."""
    try:
        return look()
    except Exception as error:
        return _obstacle(name, error, required=required)


def _obstacle(name: str, error: Exception, *, required: bool = True) -> Finding:
    """Our own sentences name the obstacle first and the remedy behind a semicolon."""
    if not isinstance(error, HarnessError):
        what = f"could not be found out: {type(error).__name__}: {error}"
        return Finding(name, False, what, required=required)
    what, _, remedy = str(error).partition("; ")
    return Finding(name, False, what, remedy, required)


def _docker() -> list[Finding]:
    return [
        _safely("Docker daemon", _daemon),
        _safely("Docker buildx", lambda: Finding("Docker buildx", True, engine.require_buildx())),
        _safely("GPUs in containers", _containers),
    ]


def _daemon() -> Finding:
    with engine.connection() as client:
        return Finding("Docker daemon", True, f"Docker Engine {client.version()['Version']}")


def _containers() -> Finding:
    name = "GPUs in containers"
    with engine.connection() as client:
        if obstacle := engine.gpu_obstacle(client):
            return Finding(
                name,
                False,
                f"Docker cannot give containers a GPU ({obstacle})",
                "install the NVIDIA Container Toolkit, then `sudo nvidia-ctk runtime configure "
                "--runtime=docker && sudo systemctl restart docker`",
            )
    return Finding(name, True, "Docker knows how to give containers a GPU")


def _gpu(choice: str) -> list[Finding]:
    """The GPUs of this choice, and whether their driver loads what each toolchain makes."""
    try:
        chosen = gpus.find(choice)
    except Exception as error:
        return [_obstacle("NVIDIA GPU", error)]
    found = []
    for gpu in chosen:
        memory = f"{gpu.free_bytes / 2**30:.0f} of {gpu.memory_bytes / 2**30:.0f} GiB free"
        found.append(Finding("NVIDIA GPU", True, f"{gpu.name}, {memory}, {gpu.uuid}"))
    for version, toolchain in kernels.toolchains().items():
        least = toolchain.minimum_driver
        found.append(
            Finding(
                f"driver for NVRTC {version}",
                not gpus.older(chosen[0].driver, least),
                f"driver {chosen[0].driver}, needed: {least} or newer",
                "update the NVIDIA driver, or measure with an older toolchain (--toolchain)",
            )
        )
    return found


def _disk() -> Finding:
    """Room for images where Docker keeps them, as far as that can be seen from here."""
    with engine.connection() as client:
        folder = Path(str(client.info()["DockerRootDir"]))
    while not os.access(folder, os.R_OK | os.X_OK) or not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Finding(
        "free disk",
        free >= _IMAGES_BYTES,
        f"{free / 10**9:.0f} GB at {folder}; building all images takes up to {_IMAGES_BYTES / 10**9:.0f} GB",
        "free some space, for example with `docker system prune`",
        required=False,  # images that are built already need no more
    )


def _compiler() -> Finding:
    command = shlex.split(os.environ.get("CXX") or "c++")[0]
    found = shutil.which(command)
    return Finding(
        "C++ compiler",
        found is not None,
        found or f"there is no {command!r}; `harness check` needs it, and `harness run --local` on a GPU",
        "`sudo apt-get install g++`",
        required=False,
    )


def _profiler() -> Finding:
    """What `harness profile` needs; whom the driver lets read counters is a parameter of its module."""
    found = ncu.find()
    who = "reads counters as administrator (in containers by a capability)"
    if not ncu.capability("0"):
        who = "the driver lets everybody read counters"
    return Finding("Nsight Compute", True, f"{found.version} in {found.folder}; {who}", required=False)


def _nvrtc(version: str) -> Finding:
    name = f"NVRTC {version}"
    if any((cache_dir() / "toolchains").glob(f"nvrtc-{version}-*/")):
        return Finding(name, True, "in the cache", required=False)
    possible = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
    where = "will be downloaded on first use" if possible else f"has no wheels for {platform.platform()}"
    return Finding(
        name, possible, where, "compile on Linux, or build images, which compile within", required=False
    )
