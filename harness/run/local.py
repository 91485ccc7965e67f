"""Runs a launch on this machine itself: the same command, in a process of its own, with the same deadline."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from harness import designs
from harness.build import kernels
from harness.errors import MachineError
from harness.plan import Launch, Plan
from harness.progress import Progress, Silent
from harness.records import PYTORCH
from harness.run import gpu as gpus
from harness.run import lease
from harness.run.ncu import PROFILED, Ncu, report_of
from harness.run.runner import REPOSITORY, Outcome, check_machine, exit_sentence, follow, provenance

# The child dies with its parent, also when that is killed: nobody would stop it at its deadline otherwise.
_TIED = (
    "import ctypes, os, runpy, signal, sys; parent = int(sys.argv.pop(1)); "
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0); "  # PR_SET_PDEATHSIG
    "os.getppid() == parent or sys.exit(1); "
)
_BENCH = _TIED + "runpy.run_module('harness.bench', run_name='__main__', alter_sys=True)"
_PROFILER = _TIED + "os.execv(sys.argv[1], sys.argv[1:])"
_OURS = ("HARNESS_DESIGN", "HARNESS_OP_LIBRARY", "HARNESS_PEER")
"""What says which design runs: never inherited."""
_GRACE_S = 30.0


class LocalRunner:
    """Processes instead of containers. Compiles what a launch needs, which the caches make quick."""

    def __init__(self, *, gpu: str = "0", wait: bool = False) -> None:
        self._choice = gpu
        self._wait = wait
        self._gpu: gpus.Gpu | None = None

    def check(self, plan: Plan, folder: Path, progress: Progress) -> None:
        """PyTorch, GPU, driver, memory, disk; compiles kernels and the patch. MachineError otherwise."""
        if find_spec("torch") is None:
            raise MachineError(
                "PyTorch is not installed here; `pip install 'embedding-harness[bench]'` adds it."
            )
        self._gpu = check_machine(plan, folder, self._choice)
        for launch in plan.launches:
            self._environment(launch, progress)

    @contextlib.contextmanager
    def hold(self, root: Path, progress: Progress) -> Iterator[None]:
        """Holds the GPU; on the CPU there is nothing to hold, and a killed run leaves nothing behind."""
        with contextlib.ExitStack() as held:
            if self._gpu is not None:
                held.enter_context(lease.gpu(self._gpu.uuid, root, wait=self._wait, progress=progress))
            yield

    def run(
        self,
        launch: Launch,
        root: Path,
        *,
        deadline_s: float,
        on_line: Callable[[str], None],
        under: Ncu | None = None,
    ) -> Outcome:
        """Runs the launch in a fresh process, which is gone with its children when this returns or raises."""
        until = time.monotonic() + deadline_s
        cells = ["--root", str(root.absolute()), *(cell.id for cell in launch.cells)]
        command = [sys.executable, "-c", _BENCH, str(os.getpid()), *cells]
        if under is not None:
            program = [sys.executable, *PROFILED, *cells]
            report = str(root.absolute() / report_of(launch))
            profiler = under.command(str(under.executable), report, program)
            command = [sys.executable, "-c", _PROFILER, str(os.getpid()), *profiler]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=self._environment(launch, Silent()),
        ) as process:
            try:
                assert process.stdout is not None
                if not follow(iter(process.stdout.readline, b""), on_line, until):
                    return Outcome("timeout", f"The launch was stopped at its deadline of {deadline_s:g} s.")
                code = process.wait(timeout=max(until - time.monotonic(), _GRACE_S))
            except subprocess.TimeoutExpired:
                return Outcome("timeout", "The process closed its log but did not end before the deadline.")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return Outcome("failed", exit_sentence(code)) if code else Outcome("ended")

    def _environment(self, launch: Launch, progress: Progress) -> dict[str, str]:
        """The process's environment, with what an image would bring: design, operator, package, GPU."""
        from harness.patch.build import build_op

        inherited = {k: v for k, v in os.environ.items() if k not in _OURS}
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
        environment = inherited | provenance("local") | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        if self._gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpu.uuid
        design = designs.get(launch.design)
        if design.measured_by_peer:
            environment["HARNESS_PEER"] = str(design.folder)
        # On the CPU PyTorch's own operator runs, whatever the design.
        if launch.toolchain != PYTORCH and any(cell.workload.device == "cuda" for cell in launch.cells):
            archs = kernels.archs_for(launch.toolchain, self._gpu.capability) if self._gpu else None
            compiled = kernels.compile_design(design, launch.toolchain, archs, progress=progress)
            environment |= {"HARNESS_DESIGN": str(compiled), "HARNESS_OP_LIBRARY": str(build_op())}
        return environment
