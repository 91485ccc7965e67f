"""Sentences for what Python raises where a machine, not this program, is at fault."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from harness.errors import (
    BadInputError,
    CellsFailedError,
    HarnessError,
    InterruptedRunError,
    MachineError,
    ReportError,
    is_full,
    unwritable,
)
from harness.text import readable

_CALLED = {"pynvml": "nvidia-ml-py", "vl_convert": "vl-convert-python"}
"""Packages by the names under which they are installed, where these are others."""


def obstacle(error: Exception) -> HarnessError | None:
    """The error as one that a user can mend; None where it is a defect of ours."""
    if isinstance(error, HarnessError):
        return error
    if isinstance(error, ImportError):
        return _missing(error)
    if isinstance(error, MemoryError):
        return MachineError("This takes more memory than there is; choose smaller work, or a larger machine.")
    if isinstance(error, OSError) and error.errno is not None:
        return _refused_by_the_system(error)
    return None


def _missing(error: ImportError) -> HarnessError | None:
    package = (error.name or "").partition(".")[0]
    if package in ("", "harness"):
        return None
    if isinstance(error, ModuleNotFoundError):
        why = f"This needs the Python package {package}, which is not installed"
    else:
        why = f"The Python package {package} does not load here ({error})"
    return MachineError(f"{why}; install it with: pip install {_CALLED.get(package, package)}")


def require_working_directory() -> None:
    """BadInputError where the folder that this was started in has been removed, where no path means anything
    and no other program starts."""
    try:
        os.getcwd()
    except OSError as error:
        raise BadInputError(
            f"The folder that this was started in cannot be had ({error.strerror}); change to another."
        ) from error


def _refused_by_the_system(error: OSError) -> HarnessError:
    try:
        require_working_directory()
    except BadInputError as gone:
        return gone
    if error.filename is None:
        return MachineError(f"The system refuses: {error.strerror}.")
    name = error.filename if isinstance(error.filename, str) else os.fsdecode(error.filename)
    if is_full(error):
        return unwritable(readable(name), error)
    return BadInputError(f"{readable(name)}: {error.strerror}; choose another place.")


@contextlib.contextmanager
def records_are_safe(root: Path, command: str = "harness report") -> Iterator[None]:
    """Whatever keeps a measured run from being shown ends in a sentence that says where its records are, and
    which command shows them later.

    Even where it is a defect of ours: that command shows it with its traceback, and takes no GPU.
    """
    there = f"Every record is in {readable(root)}; `{command} {shlex.quote(readable(root))}`"
    try:
        yield
    except CellsFailedError:
        raise
    except KeyboardInterrupt as error:
        raise InterruptedRunError(f"Interrupted after all was measured. {there} shows it.") from error
    except Exception as error:
        told = obstacle(error)
        why = str(told) if told else f"{type(error).__name__}: {' '.join(str(error).split())}."
        raise ReportError(
            f"All is measured, but it could not be shown: {why.rstrip('.')}. {there} shows it once "
            "that is mended."
        ) from error
