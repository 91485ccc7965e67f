"""What ends a run politely, and when it has to wait. Signals reach the main thread alone; others are left
as they are."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import AnyStr

_POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def as_interrupt() -> Iterator[None]:
    """SIGTERM and a closed terminal unwind as Ctrl-C does, so that nothing is left running."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled((signal.SIGTERM, signal.SIGHUP), interrupt):
        yield


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Finishes what must not be left half done: signals that come meanwhile take effect behind it, as one
    interrupt.

    Where an exception is on its way already, they have nothing to add and are forgotten.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    with _handled(_POLITE, note):
        yield
    if came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def ended_behind(
    start: Callable[[], subprocess.Popen[AnyStr]], end: Callable[[subprocess.Popen[AnyStr]], None]
) -> Iterator[subprocess.Popen[AnyStr]]:
    """A child process that is ended, and waited for, behind this, whatever interrupts us: also where that
    comes when the child is at work already and we do not know its number yet."""
    begun: list[subprocess.Popen[AnyStr]] = []
    try:
        with held_back():
            begun.append(start())
        yield begun[0]
    finally:
        for process in begun:
            with held_back(), process:
                end(process)


@contextlib.contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: object) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may set handlers, and only it is interrupted.
        return
    with contextlib.ExitStack() as restored:
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup, which is to be obeyed
                restored.callback(signal.signal, number, signal.signal(number, handler))  # type: ignore[arg-type]
        yield
