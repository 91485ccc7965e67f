"""Mistakes and obstacles that a user can mend, each one clear sentence with an exit code of its own.

Exit codes of the program: 0 done, 1 a defect of ours, 2 bad input, 3 regression, 4 inconclusive,
5 this machine cannot do it, 6 done but some cells failed, 7 measured but not reported, 130 interrupted.
"""

from __future__ import annotations

import errno
from pathlib import Path


class HarnessError(Exception):
    """Base of every error shown to the user as one sentence, without a traceback."""

    exit_code = 1


class BadInputError(HarnessError):
    """A file, flag, value or kernel is wrong; the message names it and the remedy."""

    exit_code = 2


class MachineError(HarnessError):
    """This machine lacks something (Docker, GPU, driver, memory, compiler); the message says the remedy."""

    exit_code = 5


class CellsFailedError(HarnessError):
    """The run finished, but some cells carry no measurement."""

    exit_code = 6


class ReportError(HarnessError):
    """Everything is measured and recorded, but could not be shown; the message says where it is."""

    exit_code = 7


class InterruptedRunError(HarnessError):
    """The user, or the system, ended the run; the message says how to go on."""

    exit_code = 130


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's share of it, has no room left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def unwritable(place: Path | str, error: OSError) -> HarnessError:
    """Why nothing could be written there: the machine's lack where the disk is full, else a bad place."""
    if is_full(error):
        return MachineError(f"{place}: the disk is full; make room, or choose another place.")
    return BadInputError(f"{place}: cannot be written: {error.strerror or error}.")
