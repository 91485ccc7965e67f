"""Which files of another library answer in this process, by their contents."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from harness.bench.failures import CellError

_GONE = " (deleted)"
"""What Linux puts behind the name of a mapped file that has been taken away or replaced."""


def loaded(folder: Path, maps: Path = Path("/proc/self/maps")) -> dict[str, str]:
    """SHA-256 of each shared library below a package's folder whose code this process has mapped, by path
    from beside that folder. Each file is read once per process. `maps`: as /proc/PID/maps.

    CellError where one was replaced since it was loaded: what answers is no longer there to be hashed.
    """
    mapped = _with_code(maps)
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.so*")):
        real = str(path.resolve())  # as the kernel names it, where packages are linked into place
        name = path.relative_to(folder.parent).as_posix()
        if real + _GONE in mapped:
            raise CellError(f"{path}: was replaced while this process had it loaded; measure again.")
        if real in mapped:
            found[name] = _hash(real)
    return found


def _with_code(maps: Path) -> set[str]:
    """Paths of files that are mapped to be executed."""
    lines = maps.read_bytes().splitlines()
    # Address, permissions, offset, device and inode; then the path, in which only a line's end is escaped.
    columns = (line.split(maxsplit=5) for line in lines)
    executable = (c[5] for c in columns if len(c) == 6 and b"x" in c[1])
    return {os.fsdecode(path.replace(rb"\012", b"\n")) for path in executable}


@functools.cache
def _hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
