"""How a measuring process ends that nobody ends from outside. Records already written stay."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
from typing import NoReturn


def at_deadline(deadline_s: float) -> None:
    """Ends the process when the time is up, also where whoever should have stopped it is gone.

    From a thread of the interpreter's own, which waits for no Python: a native call that never returns
    would keep every other. What each thread was at goes to stderr."""
    faulthandler.dump_traceback_later(deadline_s, exit=True)


def on_sigterm() -> None:
    """Ends the process at once when it is told to.

    As a container's first process it would be deaf to the signal by default, and a handler in Python would
    wait for the GPU call in progress. So a thread waits for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def now(code: int) -> NoReturn:
    """Ends the process that is done, with all that it has said.

    Python and PyTorch would take themselves apart first, which takes as long as a cell and the next launch
    would wait for."""
    with contextlib.suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)  # what native code said
    os._exit(code)
