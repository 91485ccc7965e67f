"""Runs a launch in a container of Podman's, shut off as Docker's are: no daemon, and no root where the
machine allows that."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from harness import designs, wall
from harness.build import images
from harness.build import podman as engine
from harness.errors import MachineError
from harness.files import Folder
from harness.plan import Plan
from harness.progress import Progress
from harness.run import containers, owner, reaper
from harness.run import gpu as gpus
from harness.run.attempt import MOST_REPORT_BYTES, Attempt
from harness.run.docker import memory_bytes, user_of
from harness.run.log import blocks_of, follow
from harness.run.runner import (
    Outcome,
    Terms,
    check_machine,
    exit_sentence,
    held_gpus,
    needs_gpu,
    provenance,
)
from harness.run.watch import Neighbours, Watch, in_container
from harness.signals import ended_behind, held_back

_GRACE_S = 30.0
"""How much later than the host ends it a launch ends itself, so that it is the host which says why."""
_ENDING_S = 30.0
"""How long Podman may take to say that a container has ended whose log has."""
_REFUSED = (125, 126, 127)
"""Exit codes by which Podman says that it could not run the program at all."""
CDI = "nvidia.com/gpu"
"""The kind of device under which NVIDIA's toolkit describes GPUs."""
CDI_FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))


class PodmanRunner:
    """Containers through Podman's command. The images are those that Docker built, see `harness images`."""

    def __init__(self, *, gpu: str = "0", wait: bool = False) -> None:
        self._choice = gpu
        self._wait = wait
        self.boards: list[gpus.Gpu] = []

    def check(self, plan: Plan, folder: Path, progress: Progress) -> None:
        """Podman, limits, the GPUs as CDI devices, memory, disk and images; MachineError before anything
        starts."""
        engine.require_limits()
        self.boards = check_machine(plan, folder, self._choice)
        if needs_gpu(plan):
            require_cdi([board.uuid for board in self.boards])
        arms = dict.fromkeys((launch.design, launch.toolchain) for launch in plan.launches)
        found = [_image(images.Target(designs.get(design), toolchain)) for design, toolchain in arms]
        engine.require_running(found[0], engine.options(_limits(2**30)))

    def clear(self, root: Path, progress: Progress) -> None:
        """Removes the containers of killed runs, and of this one."""
        for container in engine.containers(containers.RUN_LABEL):
            if containers.is_left(container.labels, root) and not engine.remove(container.id):
                raise MachineError(
                    f"The container {container.id[:12]} of a run that was killed does not go; remove it with "
                    f"`podman rm -f {container.id[:12]}`."
                )

    @contextlib.contextmanager
    def hold(self, root: Path, progress: Progress) -> Iterator[None]:
        """Holds the GPUs; if this process is killed meanwhile, its containers are removed all the same."""
        with (
            held_gpus(self.boards, root, wait=self._wait, progress=progress),
            reaper.beside(owner.mine(), "podman"),
        ):
            yield

    def run(self, attempt: Attempt, terms: Terms) -> Outcome:
        """Runs the launch in a fresh container, which is gone when this returns or raises."""
        if terms.under is not None:
            raise MachineError("Podman's containers are not profiled; profile with Docker or --local.")
        launch = attempt.launch
        target = images.Target(designs.get(launch.design), launch.toolchain)
        image = _image(target)
        told = provenance("podman", f"{target.reference}@{image.id}")
        attempt.sign(told)
        board = attempt.board or next(iter(self.boards), None)
        words = self._options(attempt, board, told, terms.deadline_s)
        asked = wall.IN_CONTAINER.arguments([cell.id for cell in launch.cells], terms.deadline_s + _GRACE_S)
        until = time.monotonic() + terms.deadline_s
        with _contained([*words, image.id, *asked], attempt) as container:
            neighbours = Neighbours(board, in_container(container))
            with Watch(attempt, neighbours, terms.listener) as watch, _started(container, attempt) as process:
                assert process.stdout is not None
                log = blocks_of(os.dup(process.stdout.fileno()))
                if not follow(log, terms.lines, terms.listener.line, until, watch.stop):
                    return terms.overrun
                if watch.why:
                    return Outcome("failed", f"The launch was stopped: {watch.why}.")
                try:
                    code = process.wait(timeout=_ENDING_S)
                except subprocess.TimeoutExpired:
                    return Outcome("timeout", "The container closed its log but did not end.")
                if watch.stop():
                    return Outcome("failed", f"The launch was stopped: {watch.why}.")
            return _ending(container, code, attempt)

    def _options(
        self, attempt: Attempt, board: gpus.Gpu | None, told: wall.Provenance, deadline_s: float
    ) -> list[str]:
        """What the container may do: read its cells and the traces, write its output, use one GPU. Nothing
        else. See `DockerRunner`, whose containers may do the same."""
        launch, place = attempt.launch, wall.IN_CONTAINER
        bound = [(attempt.cells, place.cells, ",ro=true"), (attempt.output, place.output, "")]
        with Folder.open(attempt.root) as root:
            if root.kind(wall.TRACES):
                root.inner(wall.TRACES).close()  # a folder, and no link to one of somebody else's choice
                bound.append((attempt.root / wall.TRACES, f"{place.root}/{wall.TRACES}", ",ro=true"))
        memory = max(memory_bytes(cell.workload) for cell in launch.cells)
        variables = told.variables()
        on_gpu = any(cell.workload.device == "cuda" for cell in launch.cells)
        if not on_gpu:
            variables |= {"NVIDIA_VISIBLE_DEVICES": "void"}
        settings = [
            ("pull", "never"),
            ("user", user_of(attempt)),
            ("network", "none"),
            ("read-only", "true"),
            ("read-only-tmpfs", "false"),
            ("tmpfs", "/tmp:rw,nosuid,nodev,size=1g"),
            ("cap-drop", "all"),
            ("security-opt", "no-new-privileges"),
            *_limits(memory),
            ("log-driver", "none"),
            ("http-proxy", "false"),  # Podman would hand the user's on, with what passwords are in it
            ("no-hosts", "true"),
            ("systemd", "false"),
            # Podman itself ends it where nobody is left who would.
            ("timeout", f"{deadline_s + 2 * _GRACE_S:.0f}"),
        ]
        if engine.rootless():
            settings.append(("userns", "keep-id"))  # what it writes is ours, as under Docker
        settings += [("mount", f"type=bind,src={_plain(source)},dst={to}{how}") for source, to, how in bound]
        settings += [("env", f"{name}={value}") for name, value in variables.items()]
        labels = containers.labels(attempt.root, attempt.name, deadline_s)
        settings += [("label", f"{name}={value}") for name, value in labels.items()]
        if on_gpu:
            settings.append(("device", f"{CDI}={board.uuid if board else self._choice}"))
        return engine.options(settings)


def _limits(memory: int) -> list[tuple[str, str]]:
    """What a container may take."""
    most = {
        "fsize": MOST_REPORT_BYTES,
        "core": 0,
        # Podman would ask for more of these than this user may have.
        "nofile": _own(resource.RLIMIT_NOFILE, 2**20),
        "nproc": _own(resource.RLIMIT_NPROC, 2**14),
    }
    return [
        ("memory", str(memory)),
        ("memory-swap", str(memory)),  # equal to the limit: no swap, which would spoil every timing
        ("pids-limit", "4096"),
        ("shm-size", "1g"),
        *(("ulimit", f"{name}={value}:{value}") for name, value in most.items()),
    ]


def _own(limit: int, most: int) -> int:
    _, hard = resource.getrlimit(limit)
    return most if hard == resource.RLIM_INFINITY else min(hard, most)


def _plain(path: Path) -> str:
    """A path as a mount can name it; MachineError where a comma in it would end it there."""
    if "," in str(path):
        raise MachineError(f"{path}: Podman mounts no path with a comma in it; choose another --output.")
    return str(path)


def require_cdi(uuids: list[str]) -> None:
    """MachineError where no CDI specification describes the GPUs."""
    known = "".join(
        path.read_text(encoding="utf-8", errors="replace")
        for folder in CDI_FOLDERS
        for path in sorted(folder.glob("*"))
        if path.suffix in (".yaml", ".json") and path.is_file()
    )
    missing = [uuid for uuid in uuids if uuid not in known]
    if CDI not in known or missing:
        raise MachineError(
            f"No CDI specification here describes GPU {(missing or uuids or ['0'])[0]}; install the NVIDIA "
            "Container Toolkit and run `sudo nvidia-ctk cdi generate --device-name-strategy=uuid "
            "--output=/etc/cdi/nvidia.yaml`."
        )


def _image(target: images.Target) -> engine.Image:
    """The image, made of today's sources; MachineError otherwise."""
    found = engine.image(target.reference)
    if found is None or images.state_of(found.labels, target) != "current":
        why = "is missing" if found is None else "was built from other sources than today's"
        raise MachineError(
            f"Podman's image {target.reference} {why}; where Docker is, run `harness build` and `harness "
            "images save FILE`, and here `harness images load FILE --podman`."
        )
    return found


@contextlib.contextmanager
def _contained(words: list[str], attempt: Attempt) -> Iterator[str]:
    """The id of a container that is gone behind this, whatever happens within, and then the attempt is
    over."""
    attempt.over = False
    made: list[str] = []
    try:
        with held_back():
            made.append(engine.call("create", *words).split()[-1])
        yield made[0]
    finally:
        with held_back():
            label = f"{containers.ATTEMPT_LABEL}={attempt.name}"
            # Where `create` broke off, there may be one all the same.
            left = made or [container.id for container in engine.containers(label)]
            attempt.over = all([engine.remove(container) for container in left])
    if not attempt.over:
        raise MachineError(
            f"Podman does not remove the container {made[0][:12]}; look at `podman inspect {made[0][:12]}`."
        )


def _started(container: str, attempt: Attempt) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """The command that starts the container and hands on what it says; gone behind this."""

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            engine.command("start", "--attach", container),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=attempt.folder.path,  # some versions note there that memory ran out
            start_new_session=True,  # a terminal's interrupt is for us, who then remove the container
        )

    return ended_behind(start, subprocess.Popen.kill)


def _ending(container: str, code: int, attempt: Attempt) -> Outcome:
    """How a container has ended, by what Podman tells of it."""
    told = engine.inspect(container)
    state = told["State"]
    if state.get("OOMKilled") or attempt.folder.kind("oom"):
        limit = told["HostConfig"]["Memory"] / 2**30
        return Outcome("oom", f"The container reached its memory limit of {limit:.0f} GiB and was killed.")
    if code in _REFUSED and not str(state.get("StartedAt", "0001")).startswith("2"):
        return Outcome(
            "failed", f"Podman could not run the container: {state.get('Error') or f'code {code}'}."
        )
    ended = int(state["ExitCode"])
    return Outcome("failed", exit_sentence(ended)) if ended else Outcome("ended")
