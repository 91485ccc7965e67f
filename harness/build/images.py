"""One image per design and toolchain: the bake definition made of opt_designs/, and what is missing or stale.

Building goes through `docker buildx bake`, which shares the stages that the images have in common; looking at
images goes through the SDK.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness import __version__, designs
from harness.build import daemon as daemons
from harness.build import engine, kernels, published
from harness.designs import Design
from harness.errors import BadInputError, HarnessError, MachineError
from harness.progress import Progress, Silent
from harness.records import PYTORCH, STOCK, is_torch_version
from harness.signals import ended_behind

if TYPE_CHECKING:
    import docker

REPOSITORY = Path(__file__).resolve().parent.parent.parent
REGISTRY = "embedding-harness"
LABEL = "embedding-harness"
"""Prefix of the labels on images and containers."""

_PATIENCE_S = 10.0
"""How long a build that is told to end may take to do so."""
State = Literal["missing", "stale", "current"]


@dataclass(frozen=True)
class Settings:
    """What a build may be told. Empty: the Dockerfile's own default."""

    base_image: str = ""
    torch_image: str = ""
    """An image that brings python3 and PyTorch, in place of installing them."""
    torch_version: str = ""
    archs: tuple[str, ...] = ()
    """For example ("sm_80",); empty: what the toolchain compiles for."""
    wheelhouse: Path | None = None
    """A folder of Python packages. With it the build has no network at all."""
    precompiled: bool = False
    """Whether kernels are compiled on this machine and handed to the build, instead of within it."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """From HARNESS_BASE_IMAGE, HARNESS_TORCH_IMAGE, HARNESS_TORCH_VERSION, HARNESS_ARCHS (separated by
        spaces), HARNESS_WHEELHOUSE and HARNESS_PRECOMPILED (1)."""
        wheelhouse = environment.get("HARNESS_WHEELHOUSE", "")
        if wheelhouse and not Path(wheelhouse).is_dir():
            raise BadInputError(f"HARNESS_WHEELHOUSE={wheelhouse}: is not a folder.")
        return cls(
            base_image=environment.get("HARNESS_BASE_IMAGE", ""),
            torch_image=environment.get("HARNESS_TORCH_IMAGE", ""),
            torch_version=environment.get("HARNESS_TORCH_VERSION", ""),
            archs=tuple(environment.get("HARNESS_ARCHS", "").split()),
            wheelhouse=Path(wheelhouse).resolve() if wheelhouse else None,
            precompiled=environment.get("HARNESS_PRECOMPILED", "") == "1",
        )

    def arguments(self) -> dict[str, str]:
        """The build arguments that decide what the image holds."""
        given = {
            "BASE_IMAGE": self.base_image,
            "TORCH_IMAGE": self.torch_image,
            "TORCH_VERSION": self.torch_version,
            "ARCHS": " ".join(self.archs),
        }
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True)
class Target:
    """One image."""

    design: Design
    toolchain: str
    """NVRTC version; `PYTORCH` where the design brings no kernel; of `stock` the version of a PyTorch whose
    kernel runs in this one (see `published`)."""

    @property
    def reference(self) -> str:
        """The image's name and tag, in which a plus may not stand."""
        return f"{REGISTRY}/{self.design.name}:{self.toolchain.replace('+', '-')}"

    @property
    def patched(self) -> bool:
        """Whether PyTorch in it runs a kernel other than its own."""
        return self.design.compiled or self.published

    @property
    def published(self) -> bool:
        """Whether the kernel is one that others compiled."""
        return is_torch_version(self.toolchain)

    @property
    def bake_name(self) -> str:
        """Its name in the bake definition, where a dot may not stand."""
        return re.sub(r"[^A-Za-z0-9_-]", "_", f"{self.design.name}-{self.toolchain}")


def targets(names: Sequence[str] = (), versions: Sequence[str] = ()) -> list[Target]:
    """Every image of these designs under these toolchains (default: all); BadInputError for unknown ones."""
    known = kernels.toolchains()
    taken_out = [version for version in versions if is_torch_version(version)]
    ours = [version for version in versions if version not in taken_out]
    for version in ours:
        if version not in known:
            raise BadInputError(f"There is no toolchain {version!r}; known: {', '.join(known)}.")
    chosen = [designs.get(name) for name in names] or list(designs.discover().values())

    def of(design: Design) -> Sequence[str]:
        if design.compiled:
            return ours if versions else tuple(known)
        return taken_out or (PYTORCH,) if design.name == STOCK else (PYTORCH,)

    found = [Target(design, version) for design in chosen for version in of(design)]
    if not found:
        raise BadInputError(f"There is no toolchain {versions[0]!r} for {', '.join(names)}.")
    return found


def build(
    wanted: Sequence[Target],
    settings: Settings | None = None,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, str]]:
    """Builds what is missing or stale (with `force`: all) and tells each image's state.

    MachineError without Docker, buildx or the image to begin with; HarnessError naming the log where the
    build fails.
    """
    settings = settings or Settings.from_environment()
    progress = progress or Silent()
    engine.require_buildx()
    with engine.connection() as client:
        states = {t.reference: state(client, t, settings) for t in wanted}
    todo = [target for target in wanted if force or states[target.reference] != "current"]
    if todo:
        with tempfile.TemporaryDirectory(prefix="embedding-harness-") as staging:
            compiled = _stage_compiled(todo, settings, Path(staging), progress)
            progress.expect(len(todo))
            _bake(bake_definition(todo, settings, compiled), progress)
    return [{"image": t.reference, "state": "built" if t in todo else "up to date"} for t in wanted]


def state(client: docker.DockerClient, target: Target, settings: Settings | None = None) -> State:
    """Whether the image is there and made of today's sources, with these settings (None: with any)."""
    from docker.errors import ImageNotFound

    try:
        labels = client.images.get(target.reference).labels
    except ImageNotFound:
        return "missing"
    return state_of(labels, target, settings)


def state_of(labels: Mapping[str, str], target: Target, settings: Settings | None = None) -> State:
    """The same, of an image with these labels."""
    arguments = labels.get(f"{LABEL}.build-arguments", "") if settings is None else _as_text(settings)
    return "current" if labels.get(f"{LABEL}.build-hash") == build_hash(target, arguments) else "stale"


def _as_text(settings: Settings) -> str:
    return json.dumps(settings.arguments(), sort_keys=True)


def build_hash(target: Target, arguments: str) -> str:
    """Hash of everything that goes into an image. `arguments`: the build arguments as JSON.

    The design counts by its source hash: a new comment makes no image stale.
    """
    toolchain = repr(kernels.toolchains().get(target.toolchain))
    if target.published:
        toolchain = published.find(target.toolchain).name
    facts = [target.design.source_hash, target.toolchain, toolchain, arguments, __version__]
    digest = hashlib.sha256("\0".join(facts).encode())
    for path in _copied():
        digest.update(f"\0{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _copied() -> list[Path]:
    """The Dockerfile and every file of ours that it copies, save the designs'."""
    dockerfile = REPOSITORY / "Dockerfile"
    found = {dockerfile, REPOSITORY / ".dockerignore"}
    ignored = {
        REPOSITORY / line.strip()
        for line in (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    }
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE):
        for name in shlex.split(line)[:-1]:
            source = REPOSITORY / name
            if name.startswith("opt_designs/") and not source.is_file():
                continue
            found.update([source] if source.is_file() else source.rglob("*"))
    return sorted(p for p in found if p.is_file() and "__pycache__" not in p.parts and p not in ignored)


def bake_definition(
    wanted: Sequence[Target], settings: Settings, compiled: Mapping[str, Path]
) -> dict[str, Any]:
    """The definition for `docker buildx bake`; `compiled`: folders of kernels to hand
    to the build, by image."""
    return {
        "group": {"default": {"targets": [target.bake_name for target in wanted]}},
        "target": {t.bake_name: _bake_target(t, settings, compiled.get(t.reference)) for t in wanted},
    }


def _bake_target(target: Target, settings: Settings, compiled: Path | None) -> dict[str, Any]:
    arguments = settings.arguments()
    contexts = {}
    stage = "stock"
    if target.patched:
        stage = "design"
        arguments |= {"DESIGN": target.design.name, "TOOLCHAIN": target.toolchain}
    elif target.design.measured_by_peer:
        stage = "peer"
        arguments |= {"DESIGN": target.design.name}
    if compiled is not None:
        contexts["compiled"] = str(compiled)
    offline: dict[str, Any] = {}
    if settings.wheelhouse is not None:
        contexts["wheelhouse"] = str(settings.wheelhouse)
        arguments |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheelhouse"}
        offline = {"network": "none"}
    text = _as_text(settings)
    torch = f"from {settings.torch_image}" if settings.torch_image else settings.torch_version
    labels = {
        "design": target.design.name,
        "design-hash": target.design.source_hash,
        "build-hash": build_hash(target, text),
        "build-arguments": text,
        "toolchain": target.toolchain,
        "torch": torch or torch_version(),
        "version": __version__,
    }
    return {
        "context": str(REPOSITORY),
        "dockerfile": "Dockerfile",
        "target": stage,
        "args": arguments,
        "contexts": contexts,
        "labels": {f"{LABEL}.{name}": value for name, value in labels.items()},
        "tags": [target.reference],
        "output": ["type=docker"],
        **offline,
    }


def torch_version() -> str:
    """The PyTorch that images hold unless told otherwise: the Dockerfile's default."""
    found = re.search(
        r"^ARG TORCH_VERSION=(\S+)", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert found is not None
    return found[1]


def _stage_compiled(
    wanted: Sequence[Target], settings: Settings, staging: Path, progress: Progress
) -> dict[str, Path]:
    """By image a folder laid out as the compile cache, with its kernels alone: with `precompiled` for every
    image, otherwise for those with kernels that others compiled.

    One folder each, so that touching one design leaves the other images' build inputs as they were.
    """
    folders = {}
    for target in wanted:
        if not (target.published or (settings.precompiled and target.design.compiled)):
            continue
        done = kernels.compile_design(
            target.design, target.toolchain, settings.archs or None, progress=progress
        )
        folder = folders[target.reference] = staging / target.bake_name
        shutil.copytree(done, folder / done.relative_to(kernels.cache_dir()))
    return folders


def _bake(definition: dict[str, Any], progress: Progress) -> None:
    """Runs buildx; its whole output goes to a log file, the current step to `progress`."""
    log = kernels.cache_dir() / "build.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # The definition is ours, so buildx need not ask whether it may read the folders that it names; and images
    # carry no provenance, which would make an image's identity depend on when it was built.
    environment = os.environ | {"BUILDX_BAKE_ENTITLEMENTS_FS": "0", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    daemon = daemons.find()
    # The daemon's own builder, which bears its context's name: another might leave images elsewhere.
    command = ["docker", "buildx", "--builder", daemon.context, "bake", "--progress", "plain", "-f", "-"]
    with _running(command, environment | daemon.environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once; what it said says why
            process.stdin.write(json.dumps(definition))
        with contextlib.suppress(BrokenPipeError):  # again, of what was written and not yet read
            process.stdin.close()
        lines = []
        with log.open("w", encoding="utf-8") as out:
            for line in process.stdout:
                out.write(line)
                lines.append(line.rstrip("\n"))
                _tell(line, progress)
        if process.wait():
            failure = _failure(lines)
            if re.search("failed to (resolve|do request|fetch)|pull access", failure):
                remedy = "give an image that is there by HARNESS_BASE_IMAGE or HARNESS_TORCH_IMAGE"
                raise MachineError(
                    f"The images could not be built: {failure}; {remedy} (the whole log: {log})"
                )
            raise HarnessError(f"The images could not be built: {failure} (the whole log: {log})")


def _running(
    command: list[str], environment: Mapping[str, str]
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """A child process that does not outlive us, whatever interrupts us, with all that it starts: docker's
    command hands builds to its plugin, which a signal to the command alone does not reach."""

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=dict(environment),
            start_new_session=True,
        )

    return ended_behind(start, _end)


def _end(process: subprocess.Popen[str]) -> None:
    """Asks the process and its children to end, and after a while sees to it."""
    for number, patience_s in ((signal.SIGTERM, _PATIENCE_S), (signal.SIGKILL, None)):
        if process.poll() is not None and number == signal.SIGTERM:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience_s)


def _tell(line: str, progress: Progress) -> None:
    """One line of buildx's plain log as progress: a stage that runs something, or a finished image."""
    if step := re.match(r"#\d+ \[(.+) \d+/\d+\] RUN ", line):
        progress.now(f"stage {step[1]}")
    elif re.match(rf"#\d+ naming to \S*{REGISTRY}/\S+ (\S+ )?done", line):
        progress.advance()


def _failure(lines: Sequence[str]) -> str:
    """What went wrong, from buildx's log: the failed step's own first error, or else buildx's."""
    marks = [i for i, line in enumerate(lines) if line == "------"]
    if len(marks) >= 2:
        said = [re.sub(r"^\d+\.\d+ ", "", line).strip() for line in lines[marks[-2] + 2 : marks[-1]]]
        if telling := [s for s in said if re.search("error|cannot|could not", s, re.IGNORECASE)] or said:
            return telling[0]
    errors = [line for line in lines if line.startswith(("ERROR", "error"))]
    return (errors or list(lines[-1:]) or ["docker buildx bake said nothing."])[-1]
