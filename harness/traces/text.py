"""Text traces: one row number per line, nothing else."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError
from harness.traces import streams
from harness.traces.streams import Stream
from harness.traces.trace import Block

BLOCK_BYTES = 1 << 22
"""Read at once; no line is longer, and no field."""
MAX_DIGITS = 18
"""More digits might not fit into 64 bits."""
_NEWLINE = ord("\n")
_BINARY = {
    b"\x93NUMPY": "a NumPy file",
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "packed with gzip twice",
    b"\xff\xfe\0\0": "UTF-32 text",
    b"\0\0\xfe\xff": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_EXCHANGED = bytes.maketrans(b"\r\n", b"\n\r")
_TAR_AT = 257
"""Where a tar archive says that it is one, in the header of its first file."""
_REMEDY = {
    "a NumPy file": "call it .npy, or import it with --format npy",
    "a Parquet file": "call it .parquet, or import it with --format parquet",
    "UTF-16 text": "convert it to UTF-8",
    "UTF-32 text": "convert it to UTF-8",
}


def text_blocks(source: Path, rows: int) -> Iterator[Block]:
    """The row numbers of a text trace for a table of `rows` rows, a few megabytes at a time, each with the
    share of the source read so far. The source may be packed, or a pipe.

    Raises BadInputError with file and line where a line is not a whole number in 0..rows-1, and where the
    file is empty, binary or unreadable.
    """
    line, name = 1, streams.called(source)
    with streams.opened(source) as stream:
        for lines in whole_lines(stream):
            numbers = _parse(name, lines, line, rows)
            line += len(numbers)
            yield numbers, stream.share()


def whole_lines(stream: Stream, by_return: re.Pattern[bytes] | None = None) -> Iterator[bytes]:
    """The lines of a text file, some megabytes of them at a time; each ends in a newline, the last one too.

    Where carriage returns alone end lines, as with old Macs and some exports, they and newlines change places
    throughout, so that a carriage return in the middle of a line is always a break of the other kind. They do
    where the file begins with `by_return`, a line that ends so, and where there is no newline at all.

    BadInputError where it is empty, holds a line of megabytes, or is no text.
    """
    name = streams.called(stream.source)
    first = stream.file.read(BLOCK_BYTES)
    while first.endswith(b"\r") and (more := stream.file.read(1)):  # which tells whether it ends the line
        first += more
    refuse_binary(name, first)
    block = first.removeprefix(codecs.BOM_UTF8)
    if not block:
        raise BadInputError(f"{name}: is empty; a trace needs at least one row number.")
    line, rest = 1, b""
    by_returns = b"\r" in block and (b"\n" not in block or bool(by_return and by_return.match(block)))
    while block:
        if by_returns:
            block = block.translate(_EXCHANGED)
        whole, newline, rest = (rest + block).rpartition(b"\n")
        if newline:
            yield whole + newline
            line += whole.count(b"\n") + 1
        elif len(rest) > BLOCK_BYTES:
            raise BadInputError(f"{name}: line {line}: is more than {BLOCK_BYTES:,} bytes long.")
        block = stream.file.read(BLOCK_BYTES)
    if rest:
        yield rest + b"\n"


def parse_numbers(lines: bytes) -> npt.NDArray[np.int64] | None:
    """Whole lines, each ended by a newline, as numbers; None where one is anything but 1 to 18 digits."""
    characters = np.frombuffer(lines, dtype=np.uint8)
    is_newline = characters == _NEWLINE
    lengths = np.diff(np.flatnonzero(is_newline), prepend=-1) - 1
    is_digit = characters - np.uint8(ord("0")) < 10  # wraps round below "0"
    if not (is_digit | is_newline).all() or lengths.min() < 1 or lengths.max() > MAX_DIGITS:
        return None
    return np.fromstring(lines, dtype=np.int64, sep="\n")


def refuse_binary(name: str, start: bytes) -> None:
    """BadInputError that says what it is where something does not begin as text does."""
    for magic, what in _BINARY.items():
        if start.startswith(magic):
            remedy = _REMEDY.get(what, "unpack it")
            raise BadInputError(f"{name}: is {what}, not plain text; {remedy}.")
    if start[_TAR_AT:].startswith(b"ustar"):
        raise BadInputError(f"{name}: is a tar archive, not plain text; unpack it.")
    if b"\0" in start[:4096]:
        raise BadInputError(f"{name}: is a binary file, not plain text.")


def _parse(name: str, lines: bytes, first_line: int, rows: int) -> npt.NDArray[np.int64]:
    """Whole lines, each ended by a newline, as row numbers."""
    if b"\r" in lines:
        lines = lines.replace(b"\r\n", b"\n")
    numbers = parse_numbers(lines)
    if numbers is None:
        _explain(name, lines, first_line)
    if (large := numbers >= rows).any():
        at = int(large.argmax())
        raise BadInputError(
            f"{name}: line {first_line + at}: row {numbers[at]} is outside the table (0 to {rows - 1})."
        )
    return numbers


def _explain(name: str, lines: bytes, first_line: int) -> NoReturn:
    """Raises for the first line that is not a plain number."""
    for number, line in enumerate(lines.split(b"\n")[:-1], first_line):
        if line.isdigit() and len(line) <= MAX_DIGITS:
            continue
        shown = line[:40].decode("utf-8", errors="replace")
        if not line.strip():
            problem = "is blank"
        elif line[1:].isdigit() and line.startswith(b"-"):
            problem = f"row {shown} is negative"
        elif line.isdigit() and line.startswith(b"0"):
            problem = f"row {shown} has more than {MAX_DIGITS} digits"
        elif line.isdigit():
            problem = f"row {shown} is too large"
        else:
            problem = f"{shown!r} is not a whole number"
        raise BadInputError(f"{name}: line {number}: {problem}; expected one row number per line.")
    raise AssertionError("every line is a number")
