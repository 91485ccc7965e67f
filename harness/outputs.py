"""Where a user wants a result: a file, or a device or pipe such as /dev/null and /dev/stdout."""

from __future__ import annotations

import stat
from pathlib import Path

from harness.records import write_whole

_NO_FILES = (Path("/dev"), Path("/proc"))
"""What lies here is never replaced, not even a link to a file."""


def write(path: Path, text: str) -> None:
    """Writes a file such that a reader sees all of it or nothing; what is no file is written into.

    For paths that a user has named, not for those in the folder of a run, where anybody may have planted a
    link. OSError, with the path, where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _is_special(path):
        return write_whole(path, text)
    try:
        with path.open("w", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) or any(path.absolute().is_relative_to(place) for place in _NO_FILES)
