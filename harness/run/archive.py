"""Single files out of a container's volume, through the daemon: what is there is only ever read as a stream
of bytes."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.errors import MachineError
from harness.files import Folder

if TYPE_CHECKING:
    from docker.models.containers import Container

_AT_ONCE = 2**20
_NOT_REGULAR = sum(1 << bit for bit in (31, 27, 26, 25, 24, 21, 19))
"""In the mode as the daemon writes it, which is Go's: folders, links, devices, pipes, sockets and what else
there is."""
_TAR_BYTES = 2**16
"""What an archive of one file holds besides: headers, and padding to a whole block."""


def fetch(container: Container, folder: str, name: str, into: Folder, most_bytes: int) -> None:
    """Copies one file out of a container that has ended: its contents, no owner and no mode.

    Where it is no regular file, too large, or not there, there is none in `into` either. MachineError where
    the daemon's archive is damaged."""
    from docker.errors import NotFound

    try:
        chunks, found = container.get_archive(f"{folder}/{name}")
    except NotFound:
        return
    told = found or {}
    if int(told["mode"]) & _NOT_REGULAR or int(told["size"]) > most_bytes:
        return
    try:
        with tarfile.open(
            fileobj=io.BufferedReader(_Stream(chunks, most_bytes + _TAR_BYTES)), mode="r|"
        ) as archive:
            member = archive.next()
            content = archive.extractfile(member) if member is not None and member.isreg() else None
            if content is None:
                return
            with os.fdopen(into.create(name), "wb") as out:
                while block := content.read(_AT_ONCE):
                    out.write(block)
    except tarfile.TarError as error:
        raise MachineError(f"Docker's archive of {folder}/{name} cannot be read: {error}.") from error


class _Stream(io.RawIOBase):
    """Pieces of bytes as a file to read from, up to a limit."""

    def __init__(self, chunks: Iterator[bytes], most_bytes: int) -> None:
        self._chunks = chunks
        self._left = most_bytes
        self._held = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer as far as the piece at hand goes; 0 at the end."""
        while not self._held and self._left > 0:
            chunk = next(self._chunks, b"")
            if not chunk:
                return 0
            self._held = memoryview(chunk)[: self._left]
            self._left -= len(self._held)
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count
