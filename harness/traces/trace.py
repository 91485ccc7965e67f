"""Writes a trace as the folder that `harness.traces.reading` reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import records
from harness.errors import BadInputError
from harness.text import readable
from harness.traces.reading import (
    Block,
    Header,
    Progress,
    Trace,
    array_blocks,
    check_all_rows,
    check_offsets,
    check_rows,
    digest,
    open_trace,
)

__all__ = [
    "Bags",
    "Block",
    "Header",
    "Progress",
    "Trace",
    "array_blocks",
    "check_all_rows",
    "check_offsets",
    "check_rows",
    "open_trace",
    "refuse_existing",
    "write_array",
    "write_trace",
]

_MOST_ROWS = 2**63 - 1
"""Row numbers are kept in 64 bits."""


class Bags:
    """Lengths of bags, collected while the rows in them are read."""

    def __init__(self) -> None:
        self._lengths: list[npt.NDArray[np.int64]] = []
        self.count = 0

    def add(self, lengths: npt.NDArray[np.integer[Any]]) -> None:
        """So many rows are in the next bags. [bags]"""
        self._lengths.append(lengths.astype(np.int64))
        self.count += len(lengths)

    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each bag begins, and the end. [bags + 1]"""
        return np.cumsum(np.concatenate([np.zeros(1, np.int64), *self._lengths]))


def write_trace(
    out: Path,
    blocks: Iterable[Block],
    *,
    rows: int,
    origin: str,
    table: int | None = None,
    offsets: npt.NDArray[np.int64] | Bags | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Writes a trace, block by block, and opens it. `offsets` may be bags that fill up as blocks are taken.

    The folder `out` appears when it is complete and not before. Raises BadInputError where it exists already,
    cannot be written, or a row number is not in 0..rows-1.
    """
    if not 1 <= rows <= _MOST_ROWS:
        raise BadInputError(f"A table needs at least one row, and at most {_MOST_ROWS} (given: {rows}).")
    refuse_existing(out)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        accesses = write_array(part / "indices.npy", blocks, rows=rows, origin=origin, progress=progress)
        if isinstance(offsets, Bags):
            offsets = offsets.offsets()
        if offsets is not None:
            check_offsets(offsets, accesses, origin)
            np.save(part / "offsets.npy", offsets.astype("<i8"))
        written = np.load(part / "indices.npy", mmap_mode="r")
        bags = None if offsets is None else len(offsets) - 1
        header = Header(rows, accesses, bags, table, origin, written.dtype.name, digest(written, offsets))
        (part / "trace.json").write_text(records.to_json(header), encoding="utf-8")
        part.rename(out)
    except OSError as error:
        raise BadInputError(f"{readable(out)}: cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return open_trace(out)


def refuse_existing(out: Path) -> None:
    """BadInputError where there is something of that name: nothing is written over."""
    if out.exists():
        raise BadInputError(f"{readable(out)}: exists already; remove it or choose another name.")


def write_array(
    out: Path, blocks: Iterable[Block], *, rows: int, origin: str, progress: Progress | None = None
) -> int:
    """Writes row numbers, block by block, as a .npy file of the narrowest type; returns how many there are.

    Raises BadInputError where there is none, or one is not in 0..rows-1.
    """
    dtype = np.dtype("<i4" if rows <= 2**31 else "<i8")
    described = {"descr": dtype.str, "fortran_order": False}
    with out.open("wb") as file:
        # The length is known only at the end.
        np.lib.format.write_array_header_1_0(file, {**described, "shape": (0,)})
        data_begins, accesses = file.tell(), 0
        for block, share in blocks:
            check_rows(block, rows, origin, accesses)
            file.write(np.ascontiguousarray(block, dtype=dtype).data)
            accesses += len(block)
            if progress:
                progress(share)
        if accesses == 0:
            raise BadInputError(f"{origin}: is empty; a trace needs at least one row number.")
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**described, "shape": (accesses,)})
        # NumPy leaves room in the header for the first dimension to grow.
        assert file.tell() == data_begins
    return accesses
