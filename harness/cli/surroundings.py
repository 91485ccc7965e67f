"""What a process is given by whoever starts it, made such that nothing about it can end a command.

Standard input, output and error may be closed, nobody may read them, and a terminal may lack most characters.
What is printed is then dropped or replaced; the command continues, and exit codes do not change. The user may
have no home, without which libraries do not even load.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from pathlib import Path
from typing import Any, TextIO

from harness.text import readable

_ERRORS = "harness"
_NAMES = ("the standard input", "the standard output", "the standard error")
_NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET)
_INSTEAD = str.maketrans(
    {"–": "-", "−": "-", "×": "x", "÷": "/", "±": "+-", "·": ".", "µ": "u", "→": "->", "…": "..."}
    | {"≥": ">=", "≤": "<=", "≈": "~", "✓": "+", "✕": "x", "⁶": "^6", "“": '"', "”": '"'}
)


def prepare() -> None:
    """To be called first. Streams that somebody has put in the place of the usual ones are left alone."""
    _occupy()
    _settle()
    codecs.register_error(_ERRORS, _replaced)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _writer(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _writer(2, sys.stderr)


def _occupy() -> None:
    """Opens /dev/null in place of what is closed: else the next file takes that number, and what a child
    process prints ends up in it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _settle() -> None:
    try:
        Path.home()
    except RuntimeError:
        from harness.build.cache import NO_HOME

        os.environ["HOME"] = NO_HOME


def _writer(number: int, usual: TextIO | None) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_Patient(number, "w", closefd=False)),
        encoding=usual.encoding if usual else "utf-8",
        errors=_ERRORS,
        line_buffering=number == 2 or os.isatty(number),
    )


class _Patient(io.FileIO):
    """Drops what nobody reads, waits where a pipe is full, and says once that a disk is.

    Of standard error it drops that, too: nobody could be told, and neither what a command does nor its exit
    code depends on its log.
    """

    _closed_by_others = False

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self._closed_by_others:
            return size
        try:
            # None: the other side made it one that does not wait, and is slow.
            while (written := super().write(data)) is None:
                select.select([], [self], [])
            return written
        except OSError as error:
            self._closed_by_others = True
            if error.errno in _NOBODY_READS or self.fileno() == 2:
                return size
            raise OSError(error.errno, error.strerror, _NAMES[self.fileno()]) from error


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Replacements for characters that the terminal lacks, and for bytes in file names that are not text."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = readable(error.object[error.start : error.end]).translate(_INSTEAD)
    return text.encode("ascii", "replace").decode("ascii"), error.end
