"""The interface behind which a launch runs, in a container or not, and what both ways share."""

from __future__ import annotations

import contextlib
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from harness.errors import MachineError
from harness.plan import Launch, Plan
from harness.progress import Progress
from harness.records import Workload
from harness.run import gpu as gpus

if TYPE_CHECKING:
    from harness.run.ncu import Ncu

REPOSITORY = Path(__file__).resolve().parent.parent.parent
_LEAST_FREE_BYTES = 256 * 2**20
"""Records and logs of a run take a few megabytes."""
_CONTEXT_BYTES = 2**30
"""What CUDA, PyTorch and the buffers of the ceilings take besides the data."""


@dataclass(frozen=True)
class Outcome:
    """How a launch ended, whatever records it left."""

    status: Literal["ended", "failed", "timeout", "oom"]
    message: str = ""
    """One sentence where it did not end well."""


class Runner(Protocol):
    """Runs launches; the campaign knows nothing else about how."""

    def check(self, plan: Plan, folder: Path, progress: Progress) -> None:
        """MachineError where this machine cannot run the plan with its results below `folder`."""

    def hold(self, root: Path, progress: Progress) -> contextlib.AbstractContextManager[None]:
        """Holds what the run needs for itself (the GPU) and clears away what a killed run left behind."""

    def run(
        self,
        launch: Launch,
        root: Path,
        *,
        deadline_s: float,
        on_line: Callable[[str], None],
        under: Ncu | None = None,
    ) -> Outcome:
        """Runs a launch's cells in order and hands every line of its log to `on_line` as it comes.

        `under`: a profiler that looks on; then nothing is timed, and ROOT/profile/ gets what was seen.
        """


def choose(*, local: bool, gpu: str, wait: bool, build: bool) -> Runner:
    """The runner that the command line asks for."""
    if local:
        from harness.run.local import LocalRunner

        return LocalRunner(gpu=gpu, wait=wait)
    from harness.run.docker import DockerRunner

    return DockerRunner(gpu=gpu, wait=wait, build=build)


def needs_gpu(plan: Plan) -> bool:
    """Whether any cell runs on a GPU."""
    return any(cell.workload.device == "cuda" for cell in plan.cells)


def check_machine(plan: Plan, folder: Path, choice: str) -> gpus.Gpu | None:
    """The GPU that the plan will use (None: it needs none); MachineError where the machine will not do."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    if (free := shutil.disk_usage(existing).free) < _LEAST_FREE_BYTES:
        raise MachineError(
            f"{existing}: has {free / 2**20:.0f} MiB left, a run needs {_LEAST_FREE_BYTES // 2**20} MiB; "
            "free some space or choose another place with --output."
        )
    if not needs_gpu(plan):
        return None
    gpu = gpus.find(choice)
    check_driver(plan, gpu)
    # Of a sweep's other points some may be too large for this GPU: their records will say so.
    own = [cell.workload for cell in plan.cells if not cell.point]
    for work in dict.fromkeys(work for work in own if work.device == "cuda"):
        if (need := gpu_bytes(work)) > gpu.free_bytes:
            raise MachineError(
                f"A cell needs about {need / 2**30:.1f} GiB of GPU memory, but GPU {gpu.index} ({gpu.name}) "
                f"has {gpu.free_bytes / 2**30:.1f} of {gpu.memory_bytes / 2**30:.1f} GiB free; "
                "choose fewer tables (--set workload.tables=…) or another GPU (--gpu)."
            )
    return gpu


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
    per_table = work.lookups * (8 if work.index_dtype == "int64" else 4) * 2 + work.batch * work.dim * 16
    return work.table_bytes + work.tables * per_table + _CONTEXT_BYTES


def provenance(name: str, image: str = "") -> dict[str, str]:
    """The environment in which a launch learns what cannot be seen from within it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *words]
        with contextlib.suppress(OSError):
            return subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="replace", check=False
            ).stdout.strip()
        return ""

    return {
        "HARNESS_RUNNER": name,
        "HARNESS_IMAGE": image,
        "HARNESS_GIT_COMMIT": git("rev-parse", "HEAD"),
        "HARNESS_GIT_DIRTY": "1" if git("status", "--porcelain") else "0",
        "HARNESS_HOSTNAME": socket.gethostname(),
    }


def follow(stream: Iterable[bytes], on_line: Callable[[str], None], until: float) -> bool:
    """Hands the stream's lines to `on_line` as they come; False where `until` (monotonic) passes first.

    The stream is read by a thread of its own: a read that waits could not be given a deadline.
    """
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        try:
            for line in _lines(stream):
                lines.put(line)
        except Exception as error:
            # Whatever breaks the stream (a daemon that goes away, most of all) ends it; why it ended is found
            # out by asking how the launch fares.
            lines.put(f"(the log broke off: {error})")
        finally:
            lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (left := until - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=left)
        except queue.Empty:
            return False
        if line is None:
            return True
        on_line(line)
    return False


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Whole lines of a stream that comes in pieces."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def exit_sentence(code: int) -> str:
    """What an exit code says. Containers report a signal as 128 plus its number, processes as minus it."""
    number = -code if code < 0 else code - 128
    names: Mapping[int, str] = {s.value: s.name for s in signal.Signals}
    if number in names:
        why = {"SIGSEGV": " (a crash in native code)", "SIGKILL": " (from outside, or for want of memory)"}
        return f"The measuring process was ended by {names[number]}{why.get(names[number], '')}."
    return f"The measuring process ended with exit code {code}."
