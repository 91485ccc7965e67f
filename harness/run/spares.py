"""Processes of launches to come, which load PyTorch while another launch is measured (`harness.bench.spare`).

They use a core of their own and no GPU. Where cores are few, and where what the host does is itself timed,
there are none."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from typing import IO

from harness.plan import Launch
from harness.run import cores
from harness.run.gpu import Gpu
from harness.signals import held_back
from harness.wall import Told

_CORES_EACH = 4
"""Of a board: what runs beside a launch has cores that nobody waits for."""
Process = subprocess.Popen[bytes]


def may_load_beside(launch: Launch, boards: int) -> bool:
    """Whether another process may load PyTorch while this launch, on one of so many boards, is measured."""
    if any(cell.model is not None or cell.workload.device != "cuda" for cell in launch.cells):
        return False  # end to end the host's time counts, and on the CPU nothing else does
    return cores.ours() >= _CORES_EACH * max(boards, 1)


class Spares:
    """One process for each board, at most."""

    def __init__(self, start: Callable[[Gpu | None], Process]) -> None:
        """`start`: starts one that will be a launch's on this board."""
        self._start = start
        self._waiting: dict[str, Process] = {}

    def prepare(self, board: Gpu | None) -> None:
        """Starts one for the next launch there."""
        if _key(board) not in self._waiting:
            with held_back():
                self._waiting[_key(board)] = self._start(board)

    def take(self, board: Gpu | None, arguments: list[str], environment: Mapping[str, str]) -> Process | None:
        """The one that waits there, on its way to be this launch; None where none does."""
        process = self._waiting.pop(_key(board), None)
        if process is None:
            return None
        told = process.stdin
        assert told is not None
        try:
            if process.poll() is None and _said(told, Told(arguments, dict(environment)).line()):
                return process
        except BaseException:
            end(process)
            raise
        end(process)
        return None

    def close(self) -> None:
        """Ends those that nobody took."""
        with held_back():  # all of them, whatever interrupts us at the first
            for process in self._waiting.values():
                with process:
                    kill(process)
            self._waiting.clear()


def end(process: Process) -> None:
    """Kills all that is in the process's session, and waits for it."""
    with held_back(), process:
        kill(process)


def kill(process: Process) -> None:
    """Kills all that is in the process's session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _said(to: IO[bytes], line: str) -> bool:
    """Whether it could be told; not where it has ended, nor where the line is longer than the pipe holds:
    nobody waits for a process that is still loading, or that never ends to."""
    with to:
        os.set_blocking(to.fileno(), False)
        try:
            return os.write(to.fileno(), line.encode()) == len(line)
        except (BrokenPipeError, BlockingIOError):
            return False


def _key(board: Gpu | None) -> str:
    return "" if board is None else board.uuid
