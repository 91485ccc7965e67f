"""Text traces: one row number per line, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError

_BLOCK_BYTES = 1 << 23
_MAX_DIGITS = 18
"""More digits might not fit into 64 bits."""
_NEWLINE = ord("\n")
_BINARY = {
    b"\x93NUMPY": "a NumPy file",
    b"\x1f\x8b": "compressed with gzip",
    b"\xfd7zXZ": "compressed with xz",
    b"BZh": "compressed with bzip2",
    b"(\xb5/\xfd": "compressed with zstd",
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
}


def read_text(path: Path, rows: int) -> npt.NDArray[np.int64]:
    """The row numbers of a text trace for a table of `rows` rows. [accesses]

    Raises BadInputError with file and line where a line is not a whole number in 0..rows-1, and where the
    file is empty, binary or unreadable.
    """
    return np.concatenate([numbers for numbers, _ in text_blocks(path, rows)])


def text_blocks(path: Path, rows: int) -> Iterator[tuple[npt.NDArray[np.int64], float]]:
    """As `read_text`, a few megabytes of the file at a time, each with the share of the file read so far."""
    line, rest, empty = 1, b"", True
    try:
        size = path.stat().st_size
        with path.open("rb") as source:
            while block := source.read(_BLOCK_BYTES):
                if empty:
                    _refuse_binary(path, block)
                    empty = False
                whole, newline, rest = (rest + block).rpartition(b"\n")
                if not newline and len(rest) > _BLOCK_BYTES:
                    raise BadInputError(f"{path}: line {line}: is {len(rest)} bytes long, no row number.")
                if newline:
                    numbers = _parse(path, whole + newline, line, rows)
                    line += len(numbers)
                    yield numbers, source.tell() / size
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}.") from error
    if empty:
        raise BadInputError(f"{path}: is empty; a trace needs at least one row number.")
    if rest:
        yield _parse(path, rest + b"\n", line, rows), 1.0


def _refuse_binary(path: Path, start: bytes) -> None:
    for magic, what in _BINARY.items():
        if start.startswith(magic):
            raise BadInputError(
                f"{path}: is {what}, not text with one row number per line; import or unpack it."
            )
    if b"\0" in start[:4096]:
        raise BadInputError(f"{path}: is a binary file, not text with one row number per line.")


def _parse(path: Path, lines: bytes, first_line: int, rows: int) -> npt.NDArray[np.int64]:
    """Whole lines, each ended by a newline, as numbers."""
    if b"\r" in lines:
        lines = lines.replace(b"\r\n", b"\n")
    characters = np.frombuffer(lines, dtype=np.uint8)
    is_newline = characters == _NEWLINE
    lengths = np.diff(np.flatnonzero(is_newline), prepend=-1) - 1
    is_digit = characters - np.uint8(ord("0")) < 10  # wraps round below "0"
    if not (is_digit | is_newline).all() or lengths.min() < 1 or lengths.max() > _MAX_DIGITS:
        _explain(path, lines, first_line)
    numbers = np.fromstring(lines, dtype=np.int64, sep="\n")
    if (large := numbers >= rows).any():
        at = int(large.argmax())
        raise BadInputError(
            f"{path}: line {first_line + at}: row {numbers[at]} is outside the table (0 to {rows - 1})."
        )
    return numbers


def _explain(path: Path, lines: bytes, first_line: int) -> NoReturn:
    """Raises for the first line that is not a plain number."""
    for number, line in enumerate(lines.split(b"\n")[:-1], first_line):
        if line.isdigit() and len(line) <= _MAX_DIGITS:
            continue
        shown = line[:40].decode("utf-8", errors="replace")
        if not line.strip():
            problem = "is blank"
        elif line[1:].isdigit() and line.startswith(b"-"):
            problem = f"row {shown} is negative"
        elif line.isdigit():
            problem = f"row {shown} is too large"
        else:
            problem = f"{shown!r} is not a whole number"
        raise BadInputError(f"{path}: line {number}: {problem}; expected one row number per line.")
    raise AssertionError("every line is a number")
