"""Where traces are read from: files, packed files, pipes and standard input, as one stream of bytes each."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from harness.errors import BadInputError, MachineError
from harness.text import readable
from harness.traces.trace import Progress

STANDARD_INPUT = Path("-")
PACKINGS = (".gz", ".bz2", ".xz", ".zst")
"""Endings of packed files. What a file is packed with is seen from how it begins, not from these."""
UNPACKS_TO = 50
"""Row numbers pack to a tenth or so; what unpacks to more times its size than this is not taken on trust."""
ALWAYS_UNPACKED = 1 << 26
"""So much is unpacked of any file: tiny ones may pack better."""
_HEAD_BYTES = 6
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Stream:
    """The bytes of a source, unpacked, from beginning to end."""

    source: Path
    file: BinaryIO
    share: Callable[[], float]
    """The share of the source that has been read; 0 where its size cannot be known."""
    packed: bool


@contextlib.contextmanager
def opened(source: Path) -> Iterator[Stream]:
    """The stream of a file, plain or packed, of a pipe, or of standard input ("-").

    BadInputError where it cannot be opened, is a device, or cannot, within the context, be read to its end;
    MachineError where a library to unpack it is missing.
    """
    try:
        with contextlib.ExitStack() as closed:
            raw = closed.enter_context(_raw(source))
            _refuse_device(source, raw)
            head = raw.read(_HEAD_BYTES)
            file: BinaryIO = io.BufferedReader(_Rest(head, raw))
            if packer := next((name for magic, name in _NOT_UNPACKED.items() if head.startswith(magic)), ""):
                raise BadInputError(
                    f"{called(source)}: is packed by {packer}, which is not read here; unpack it first."
                )
            unpack = next((unpack for magic, unpack in _UNPACKING if magic.match(head)), None)
            if unpack is not None:
                file = closed.enter_context(unpack(file))
            yield Stream(source, file, _share(raw), unpack is not None)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise BadInputError(f"{called(source)}: is cut short or damaged and cannot be unpacked.") from error
    except OSError as error:
        if error.errno is None:  # bz2's and Arrow's way to say the same
            raise BadInputError(
                f"{called(source)}: is cut short or damaged and cannot be unpacked."
            ) from error
        remedy = "; name one of its files, or put them together in one" if error.errno == errno.EISDIR else ""
        raise BadInputError(f"{called(source)}: cannot be read: {error.strerror}{remedy}.") from error


def as_file(source: Path, scratch: Path, progress: Progress | None = None) -> Path:
    """A plain file with the source's bytes, for those formats that are not read from beginning to end.

    The source itself where it is one, otherwise a copy in the folder `scratch`. BadInputError where it cannot
    be read or written, or unpacks to far more than a trace would.
    """
    with opened(source) as stream:
        a_file = source != STANDARD_INPUT and source.is_file()
        if a_file and not stream.packed:
            return source
        limit = max(ALWAYS_UNPACKED, UNPACKS_TO * source.stat().st_size) if a_file else None
        copy = scratch / "unpacked"
        with _written(copy) as write:
            done = 0
            while block := stream.file.read(_AT_ONCE):
                done += len(block)
                if limit is not None and done > limit:
                    raise BadInputError(
                        f"{called(source)}: unpacks to more than {limit:,} bytes, which no trace of its size "
                        "does; if it is one all the same, unpack it first."
                    )
                write(block)
                if progress:
                    progress(stream.share())
        return copy


@contextlib.contextmanager
def _written(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Writes a file; a full disk is not to be taken for a source that cannot be read."""

    def write(block: bytes) -> None:
        rest = memoryview(block)
        try:
            while rest:  # a disk that has room for a part writes that, and is full only at the next write
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise BadInputError(f"{readable(path.parent)}: cannot be written: {error.strerror}.") from error

    with path.open("wb", buffering=0) as file:
        yield write


def called(source: Path) -> str:
    """What messages and origins call a source."""
    return "standard input" if source == STANDARD_INPUT else readable(source)


def _raw(source: Path) -> contextlib.AbstractContextManager[IO[bytes]]:
    if source != STANDARD_INPUT:
        return source.open("rb")
    if sys.stdin is None:
        raise BadInputError("standard input: is closed; name a file.")
    return contextlib.nullcontext(sys.stdin.buffer)


def _refuse_device(source: Path, raw: IO[bytes]) -> None:
    """BadInputError for what may have no end, such as /dev/zero, by whatever link; a terminal has one."""
    try:
        mode, device = (found := os.fstat(raw.fileno())).st_mode, found.st_rdev
    except (OSError, io.UnsupportedOperation):  # no file of the system's
        return
    empty = os.path.exists(os.devnull) and device == os.stat(os.devnull).st_rdev
    if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not empty and not os.isatty(raw.fileno())):
        raise BadInputError(f"{called(source)}: is a device and not a file.")


def _share(raw: IO[bytes]) -> Callable[[], float]:
    try:
        state = os.fstat(raw.fileno())
    except (OSError, io.UnsupportedOperation):  # no file of the system's
        return lambda: 0.0
    if not stat.S_ISREG(state.st_mode) or not state.st_size:
        return lambda: 0.0
    return lambda: min(1.0, raw.tell() / state.st_size)


class _Rest(io.RawIOBase):
    """A file whose first bytes have been read already; pipes cannot be asked to go back."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head, self._file = head, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block, self._head = self._head or self._file.read(len(buffer)), b""
        buffer[: len(block)] = block
        return len(block)


class _Blocks(io.RawIOBase):
    """A file of blocks that come one after the other, none of them empty."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._left = blocks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._left = self._left or memoryview(next(self._blocks, b""))
        block, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(block)] = block
        return len(block)


def _unpacked(file: BinaryIO, begin: Callable[[], Any], padding: bytes = b"") -> Iterator[bytes]:
    """Packed streams, one behind the other. (Python's own readers take a damaged one for the end.)

    `begin` makes what unpacks one stream; `padding` may stand behind each. EOFError where one is cut short.
    """
    packed = b""
    while True:
        unpack = begin()
        while not unpack.eof:
            if unpack.needs_input and not packed and not (packed := file.read(_AT_ONCE)):
                raise EOFError
            block, packed = unpack.decompress(packed, _AT_ONCE), b""
            if block:
                yield block
        packed = unpack.unused_data
        while not (packed := packed.lstrip(padding)):
            if not (packed := file.read(_AT_ONCE)):
                return


def _bzip2(file: BinaryIO) -> BinaryIO:
    return io.BufferedReader(_Blocks(_unpacked(file, bz2.BZ2Decompressor, padding=b"\0")))


def _xz(file: BinaryIO) -> BinaryIO:
    return io.BufferedReader(_Blocks(_unpacked(file, lzma.LZMADecompressor, padding=b"\0")))


_NOT_UNPACKED = {
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress",
    b"\x5d\0\0": "lzma (of xz's predecessor)",
    b"7z\xbc\xaf": "7z",
}
"""By how a file begins; no trace of a kind that is read begins so."""


def _zstd(file: BinaryIO) -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MachineError(
            "Unpacking zstd needs pyarrow; install it with: pip install pyarrow. Or unpack it into a pipe: "
            "zstd -dc FILE | harness trace import - OUT."
        ) from error
    return pa.CompressedInputStream(file, "zstd")


_UNPACKING: list[tuple[re.Pattern[bytes], Callable[[BinaryIO], Any]]] = [
    (re.compile(rb"\x1f\x8b"), lambda file: gzip.GzipFile(fileobj=file)),
    (re.compile(rb"BZh"), _bzip2),
    (re.compile(rb"\xfd7zXZ\0"), _xz),
    # A frame of zstd, or one to be skipped, with which pzstd begins.
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _zstd),
]
