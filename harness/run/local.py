"""Runs a launch on this machine itself: the same command, in a process of its own, with the same deadline."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from harness import designs, wall
from harness.build import kernels
from harness.errors import MachineError
from harness.plan import Launch, Plan
from harness.progress import Progress, Silent
from harness.records import PYTORCH
from harness.run import containers, spares
from harness.run import gpu as gpus
from harness.run.attempt import Attempt
from harness.run.log import blocks_of, follow
from harness.run.runner import (
    REPOSITORY,
    Outcome,
    Terms,
    check_machine,
    exit_sentence,
    held_gpus,
    provenance,
)
from harness.run.spares import Process, Spares
from harness.run.watch import Neighbours, Watch, in_session
from harness.signals import ended_behind

# The child dies with its parent, also when that is killed: nobody would stop it at its deadline otherwise.
_TIED = (
    "import ctypes, os, runpy, signal, sys; parent = int(sys.argv.pop(1)); "
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0); "  # PR_SET_PDEATHSIG
    "os.getppid() == parent or sys.exit(1); "
)
_BENCH = _TIED + f"runpy.run_module({wall.BENCH!r}, run_name='__main__', alter_sys=True)"
_SPARE = _TIED + f"runpy.run_module({wall.SPARE!r}, run_name='__main__', alter_sys=True)"
_PROFILER = _TIED + "os.execv(sys.argv[1], sys.argv[1:])"
_OURS = ("HARNESS_DESIGN", "HARNESS_OP_LIBRARY", "HARNESS_PEER")
"""What says which design runs: never inherited."""
_GRACE_S = 30.0
"""How much later than this process stops it a launch ends itself."""
_LOG_S = 5.0
"""How long the log of a process that has ended may still come: what it started may hold on to it for good."""


class LocalRunner:
    """Processes instead of containers. Compiles what a launch needs, which the caches make quick."""

    def __init__(self, *, gpu: str = "0", wait: bool = False) -> None:
        self._choice = gpu
        self._wait = wait
        self.boards: list[gpus.Gpu] = []
        self._spares: Spares | None = None
        """While GPUs are held."""

    def check(self, plan: Plan, folder: Path, progress: Progress) -> None:
        """PyTorch, GPU, driver, memory, disk; compiles kernels and the patch. MachineError otherwise."""
        if find_spec("torch") is None:
            raise MachineError(
                "PyTorch is not installed here; `pip install 'embedding-harness[bench]'` adds it."
            )
        self.boards = check_machine(plan, folder, self._choice)
        for launch in plan.launches:
            self._environment(launch, next(iter(self.boards), None), progress)

    def clear(self, root: Path, progress: Progress) -> None:
        """A killed run without containers leaves nothing running; one with containers may be on the same
        GPU."""
        containers.clear_leftovers_if_any(root, progress)

    @contextlib.contextmanager
    def hold(self, root: Path, progress: Progress) -> Iterator[None]:
        """Holds the GPUs; on the CPU there is nothing to hold."""
        with (
            held_gpus(self.boards, root, wait=self._wait, progress=progress),
            contextlib.closing(Spares(self._spare)) as self._spares,
        ):
            try:
                yield
            finally:
                self._spares = None

    def run(self, attempt: Attempt, terms: Terms) -> Outcome:
        """Runs the launch in a fresh process, which is gone with its children when this returns or raises."""
        launch, board = attempt.launch, attempt.board or next(iter(self.boards), None)
        told = provenance("local")
        attempt.sign(told)
        environment = self._environment(launch, board, Silent()) | told.variables()
        place = wall.Place(str(attempt.root), str(attempt.cells), str(attempt.output))
        asked = place.arguments([cell.id for cell in launch.cells], terms.deadline_s + _GRACE_S)
        command = [sys.executable, "-c", _BENCH, str(os.getpid()), *asked]
        if terms.under is not None:
            program = [sys.executable, "-m", wall.PROFILED, *asked]
            report = str(attempt.output / wall.REPORT)
            profiler = terms.under.command(str(terms.under.executable), report, program)
            command = [sys.executable, "-c", _PROFILER, str(os.getpid()), *profiler]
        waiting = None if terms.under else self._spares
        attempt.over = False

        def start() -> Process:
            taken = waiting.take(board, asked, environment) if waiting else None
            return taken or _start(command, environment)

        try:
            with ended_behind(start, spares.kill) as process:
                if waiting and spares.may_load_beside(launch, len(self.boards)):
                    waiting.prepare(board)
                neighbours = Neighbours(board, in_session(process.pid))
                with Watch(attempt, neighbours, terms.listener) as watch:
                    return _followed(process, terms, watch)
        finally:
            attempt.over = True

    def _spare(self, board: gpus.Gpu | None) -> Process:
        """A process that waits to be told its launch; until then PyTorch is as installed."""
        command = [sys.executable, "-c", _SPARE, str(os.getpid())]
        return _start(command, _bare(board) | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}, subprocess.PIPE)

    def _environment(self, launch: Launch, board: gpus.Gpu | None, progress: Progress) -> dict[str, str]:
        """The process's environment, with what an image would bring: design, operator, package, GPU."""
        from harness.patch.build import build_op

        environment = _bare(board)
        design = designs.get(launch.design)
        if design.measured_by_peer:
            environment["HARNESS_PEER"] = str(design.folder)
        # On the CPU PyTorch's own operator runs, whatever the design.
        if launch.toolchain != PYTORCH and any(cell.workload.device == "cuda" for cell in launch.cells):
            archs = kernels.archs_for(launch.toolchain, board.capability) if board else None
            compiled = kernels.compile_design(design, launch.toolchain, archs, progress=progress)
            environment |= {"HARNESS_DESIGN": str(compiled), "HARNESS_OP_LIBRARY": str(build_op())}
        return environment


def _bare(board: gpus.Gpu | None) -> dict[str, str]:
    """The environment of any launch on the board."""
    inherited = {k: v for k, v in os.environ.items() if k not in _OURS}
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    on_board = {} if board is None else {"CUDA_VISIBLE_DEVICES": board.uuid}
    return inherited | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | on_board


def _start(command: list[str], environment: dict[str, str], stdin: int = subprocess.DEVNULL) -> Process:
    """A process in a session of its own."""
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=environment,
    )


def _followed(process: Process, terms: Terms, watch: Watch) -> Outcome:
    """Follows a process until it ends or has to be stopped."""
    until = time.monotonic() + terms.deadline_s
    assert process.stdout is not None
    # A descriptor of the reader's own: it may still wait for a line when ours is closed.
    log = blocks_of(os.dup(process.stdout.fileno()))
    ended: list[float] = []

    def stop() -> bool:
        if process.poll() is not None:
            ended.append(time.monotonic())
        return watch.stop() or (bool(ended) and ended[-1] - ended[0] > _LOG_S)

    if not follow(log, terms.lines, terms.listener.line, until, stop):
        return terms.overrun
    if watch.why:
        return Outcome("failed", f"The launch was stopped: {watch.why}.")
    try:
        code = process.wait(timeout=max(until - time.monotonic(), _GRACE_S))
    except subprocess.TimeoutExpired:
        return Outcome("timeout", "The process closed its log but did not end before the deadline.")
    watch.stop()
    return Outcome("failed", exit_sentence(code)) if code else Outcome("ended")
