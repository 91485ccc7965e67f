"""Reads a trace on disk: a folder with `trace.json` (what it is), `indices.npy` and perhaps `offsets.npy`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from harness import records
from harness.bounds import Range
from harness.errors import BadInputError
from harness.text import readable
from harness.traces.arrays import open_array

Progress = Callable[[float], None]
"""Told the share of the work that is done, from 0 to 1."""
Block = tuple[npt.NDArray[np.integer[Any]], float]
"""Some row numbers, and the share of the whole that has been read with them."""

_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Header:
    """What `trace.json` says."""

    rows: Annotated[int, Range(1, 2**63 - 1)]
    """Rows of the table; every row number is below."""
    accesses: Annotated[int, Range(1, 2**63 - 1)]
    bags: int | None
    """None: the trace has no bags of its own, any pooling may be laid over it."""
    table: int | None
    """Which table of its source it is, where the source has several."""
    origin: str
    """Where the row numbers came from and how, for the reader of a report."""
    dtype: str
    sha256: str
    """Of the arrays' contents, indices then offsets."""
    schema_version: int = records.SCHEMA_VERSION


@dataclass(frozen=True)
class Trace:
    """The row numbers looked up in one table, in order, with bag boundaries where there are any."""

    header: Header
    indices: npt.NDArray[np.integer[Any]]
    """[accesses], each in 0..rows-1."""
    offsets: npt.NDArray[np.int64] | None
    """[bags + 1]: where each bag begins, and the end."""
    folder: Path

    def verify(self) -> None:
        """Reads everything; BadInputError where the contents are not those that were written."""
        for _ in self.blocks():
            pass

    def blocks(self) -> Iterator[Block]:
        """The row numbers a part at a time; BadInputError at the end where the contents are not those that
        were written."""
        digest = hashlib.sha256()
        for block, share in array_blocks(self.indices):
            digest.update(np.ascontiguousarray(block).data)
            yield block, share
        if self.offsets is not None:
            digest.update(np.ascontiguousarray(self.offsets).data)
        if digest.hexdigest() != self.header.sha256:
            raise BadInputError(
                f"{readable(self.folder)}: is damaged: its row numbers or bags are not those that were "
                "imported; import the trace again."
            )


def open_trace(folder: Path) -> Trace:
    """Maps a trace into memory; BadInputError where it is damaged or newer than this program."""
    header = records.load(Header, folder / "trace.json")
    indices = _mapped(folder / "indices.npy", header.dtype, header.accesses)
    offsets = None
    if header.bags is not None:
        offsets = _mapped(folder / "offsets.npy", "int64", header.bags + 1)
        check_offsets(offsets, header.accesses, readable(folder / "offsets.npy"))
    return Trace(header, indices, offsets, folder)


def array_blocks(array: npt.NDArray[np.integer[Any]]) -> Iterator[Block]:
    """An array, which may be a memory map, a part at a time."""
    for begin in range(0, len(array), _AT_ONCE):
        end = min(begin + _AT_ONCE, len(array))
        yield array[begin:end], end / len(array)


def check_rows(block: npt.NDArray[Any], rows: int, source: str, first: int) -> None:
    """BadInputError for the first of these numbers that is no row; `first` is how many came before them."""
    if (wrong := (block < 0) | (block >= rows)).any():
        at = int(wrong.argmax())
        problem = "is negative" if block[at] < 0 else f"is outside the table (0 to {rows - 1})"
        raise BadInputError(f"{source}: access {first + at + 1}: row {block[at]} {problem}.")


def check_all_rows(indices: npt.NDArray[Any], rows: int, source: str) -> None:
    """`check_rows` of a whole trace, which may be a memory map."""
    done = 0
    for block, _ in array_blocks(indices):
        check_rows(block, rows, source, done)
        done += len(block)


def check_offsets(offsets: npt.NDArray[Any], accesses: int, source: str) -> None:
    """BadInputError where these are not the boundaries of bags that make up so many accesses."""
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != accesses:
        raise BadInputError(
            f"{source}: the offsets do not reach from 0 to the number of accesses, {accesses}."
        )
    if (falling := offsets[1:] < offsets[:-1]).any():  # differences of unsigned numbers are never negative
        raise BadInputError(f"{source}: offset {int(falling.argmax()) + 2} is less than the one before it.")


def _mapped(path: Path, dtype: str, length: int) -> npt.NDArray[Any]:
    array = open_array(path, readable(path))
    if array.dtype.name != dtype or len(array) != length:
        raise BadInputError(
            f"{readable(path)}: holds {array.dtype} {list(array.shape)} where trace.json says "
            f"{dtype} [{length}]; import the trace again."
        )
    return array


def digest(*arrays: npt.NDArray[Any] | None) -> str:
    """SHA-256 of the contents of these arrays, one after the other."""
    found = hashlib.sha256()
    for array in arrays:
        if array is not None:
            for block, _ in array_blocks(array):
                found.update(np.ascontiguousarray(block).data)
    return found.hexdigest()
