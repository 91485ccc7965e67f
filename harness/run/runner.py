"""The interface behind which a launch runs, in a container or not, and what both ways share."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from harness.errors import BadInputError, MachineError
from harness.plan import Plan
from harness.progress import Progress
from harness.records import Workload
from harness.run import gpu as gpus
from harness.run import lease
from harness.run.attempt import Attempt
from harness.run.checkout import commit_of
from harness.run.log import Allowance, Lines
from harness.run.watch import Neighbours
from harness.wall import Provenance

if TYPE_CHECKING:
    from harness.run.ncu import Ncu

REPOSITORY = Path(__file__).resolve().parent.parent.parent
_LEAST_FREE_BYTES = 256 * 2**20
"""Records and logs of a run take a few megabytes."""
_CONTEXT_BYTES = 2**30
"""What CUDA, PyTorch and the buffers of the ceilings take besides the data."""

_SMALLER = {
    False: "fewer tables (--set workload.tables=…)",
    True: "smaller tables (--set model.max_rows=…)",
}
"""What makes a workload smaller, by whether it is a model's."""


@dataclass(frozen=True)
class Outcome:
    """How a launch ended, whatever records it left."""

    status: Literal["ended", "failed", "timeout", "oom"]
    message: str = ""
    """One sentence where it did not end well."""


class Listener(Protocol):
    """Is told what happens while a launch runs."""

    def line(self, text: str) -> None:
        """A line of its log, without the line's end."""

    def neighbours(self, names: Sequence[str]) -> None:
        """Who else is on its GPU now; told every now and then, where it can be known."""


@dataclass(frozen=True)
class Terms:
    """On what terms a launch runs."""

    deadline_s: float
    listener: Listener
    """Is told as it goes."""
    lines: Lines = field(default_factory=lambda: Allowance().of_launch())
    """Cuts its log."""
    under: Ncu | None = None
    """A profiler that looks on; then nothing is timed, and its report lies beside the records."""

    @property
    def overrun(self) -> Outcome:
        """How it ends at its deadline."""
        return Outcome("timeout", f"The launch was stopped at its deadline of {self.deadline_s:g} s.")


class Runner(Protocol):
    """Runs launches; the campaign knows nothing else about how."""

    @property
    def boards(self) -> Sequence[gpus.Gpu]:
        """Those on which launches may run side by side, once `check` has found them; none without a GPU."""

    def check(self, plan: Plan, folder: Path, progress: Progress) -> None:
        """MachineError where this machine cannot run the plan with its results below `folder`."""

    def clear(self, root: Path, progress: Progress) -> None:
        """Removes what killed runs left running, this run included: the caller holds the run."""

    def hold(self, root: Path, progress: Progress) -> contextlib.AbstractContextManager[None]:
        """Holds what the run needs for itself: its GPUs."""

    def run(self, attempt: Attempt, terms: Terms) -> Outcome:
        """Runs a launch's cells in order.

        When this returns or raises, `attempt.over` says whether nothing of it runs any more. MachineError
        where what runs launches is lost, so that the next would fare no better."""


def choose(
    *,
    local: bool,
    podman: bool = False,
    gpu: str,
    wait: bool,
    build: bool,
    allow_sys_admin: bool = False,
    several: bool = False,
) -> Runner:
    """The runner that the command line asks for. `allow_sys_admin`: see `DockerRunner`. BadInputError where
    `gpu` asks for several and the command can use one only."""
    if gpus.several(gpu) and not several:
        raise BadInputError(f"--gpu {gpu}: this command uses one GPU; name its index or UUID.")
    if local:
        from harness.run.local import LocalRunner

        return LocalRunner(gpu=gpu, wait=wait)
    if podman:
        from harness.run.podman import PodmanRunner

        return PodmanRunner(gpu=gpu, wait=wait)
    from harness.run.docker import DockerRunner

    return DockerRunner(gpu=gpu, wait=wait, build=build, allow_sys_admin=allow_sys_admin)


def needs_gpu(plan: Plan) -> bool:
    """Whether any cell runs on a GPU."""
    return any(cell.workload.device == "cuda" for cell in plan.cells)


def check_machine(plan: Plan, folder: Path, choice: str) -> list[gpus.Gpu]:
    """The GPUs that the plan will use (none: it needs none); MachineError where the machine will not do."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    if (free := shutil.disk_usage(existing).free) < _LEAST_FREE_BYTES:
        raise MachineError(
            f"{existing}: has {free / 2**20:.0f} MiB left, a run needs {_LEAST_FREE_BYTES // 2**20} MiB; "
            "free some space or choose another place with --output."
        )
    if not needs_gpu(plan):
        return []
    found = gpus.find(choice)
    check_driver(plan, found[0])
    # Of a sweep's other points some may be too large for this GPU: their records will say so.
    own = [cell.workload for cell in plan.cells if not cell.point]
    for work in dict.fromkeys(work for work in own if work.device == "cuda"):
        gpu = min(found, key=lambda gpu: gpu.free_bytes)
        if (need := gpu_bytes(work)) > gpu.free_bytes:
            raise MachineError(
                f"A cell needs about {need / 2**30:.1f} GiB of GPU memory, but GPU {gpu.index} ({gpu.name}) "
                f"has {gpu.free_bytes / 2**30:.1f} of {gpu.memory_bytes / 2**30:.1f} GiB free; "
                f"choose {_SMALLER[bool(work.groups)]} or another GPU (--gpu)."
            )
    return found


@contextlib.contextmanager
def held_gpus(boards: Sequence[gpus.Gpu], root: Path, *, wait: bool, progress: Progress) -> Iterator[None]:
    """Holds the GPUs, where there are any to hold, and says who else is on them: no lease keeps strangers
    off."""
    with contextlib.ExitStack() as held:
        # In one order for all, so that no two runs wait for each other's.
        for gpu in sorted(boards, key=lambda gpu: gpu.uuid):
            held.enter_context(lease.gpu(gpu.uuid, root, wait=wait, progress=progress))
            with Neighbours(gpu, is_ours=lambda pid: False) as neighbours:
                if found := neighbours.look():
                    progress.say(
                        f"GPU {gpu.index} is also in use by {', '.join(found)}; cells measured beside others "
                        "are marked, and are not to be cited."
                    )
        yield


def check_driver(plan: Plan, gpu: gpus.Gpu) -> None:
    """MachineError where the driver is too old for a toolchain of the plan."""
    from harness.build import kernels

    known = kernels.toolchains()
    for version in {launch.toolchain: None for launch in plan.launches}:
        toolchain = known.get(version)
        if toolchain is not None and gpus.older(gpu.driver, toolchain.minimum_driver):
            raise MachineError(
                f"Kernels of NVRTC {version} need NVIDIA driver {toolchain.minimum_driver} or newer, this "
                f"machine has {gpu.driver}; update the driver, or use another toolchain (--toolchain)."
            )


def gpu_bytes(work: Workload) -> int:
    """About how much GPU memory one cell takes: tables, indices, offsets, weights, outputs and the rest."""
    indices = work.all_lookups * (8 if work.index_dtype == "int64" else 4) * 2
    return work.table_bytes + indices + work.batch * work.columns * 16 + _CONTEXT_BYTES


def provenance(name: str, image: str = "") -> Provenance:
    """What a launch cannot see from within, and is told."""
    commit = commit_of(Path(__file__).resolve())
    return Provenance(name, image, commit.name, commit.dirty, socket.gethostname())


def exit_sentence(code: int) -> str:
    """What an exit code says. Containers report a signal as 128 plus its number, processes as minus it."""
    number = -code if code < 0 else code - 128
    names: Mapping[int, str] = {s.value: s.name for s in signal.Signals}
    if number in names:
        why = {"SIGSEGV": " (a crash in native code)", "SIGKILL": " (from outside, or for want of memory)"}
        return f"The measuring process was ended by {names[number]}{why.get(names[number], '')}."
    return f"The measuring process ended with exit code {code}."
