"""Reads traces from the formats that others keep them in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError
from harness.traces import columns, meta
from harness.traces.text import read_text, text_blocks
from harness.traces.trace import (
    Block,
    Progress,
    Trace,
    array_blocks,
    check_rows,
    open_trace,
    refuse_existing,
    write_trace,
)

__all__ = ["import_trace", "open_array", "read_text", "read_trace", "trace_blocks"]

_TABLES = (".csv", ".tsv", ".parquet", ".pq")
_UNPACKING = 0.9
"""The share of the time that unpacking takes of the import of a packed file."""


def import_trace(
    source: Path,
    out: Path,
    *,
    rows: int,
    column: str | None = None,
    table: int | None = None,
    mapping: columns.Mapping = "rows",
    progress: Progress | None = None,
) -> Trace:
    """Reads somebody's traffic and writes it as the trace folder `out`, which appears complete or not at all.

    The name's ending tells the format: .csv, .tsv, .parquet and .pq (give `column`, and `mapping` where its
    values are categories), .npy, .pt and .pt.gz (Meta's public traces; give `table`), otherwise text with one
    row number per line. `rows`: rows of the table. Raises BadInputError naming file and position of what is
    wrong, MachineError where a library is missing.
    """
    _check_options(source, column, table)
    refuse_existing(out)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=_existing(out.parent)) as scratch:
        offsets = None
        origin = str(source)
        if source.suffix == ".npy":
            blocks = array_blocks(open_array(source))
        elif source.suffix in _TABLES:
            if column is None:
                raise BadInputError(f"{source}: name the column that holds the row numbers (--column).")
            read = columns.parquet_blocks if source.suffix in (".parquet", ".pq") else columns.csv_blocks
            blocks = read(source, column, mapping, rows)
            origin += f", column {column!r}"
            if mapping == "first_appearance":
                origin += ", values numbered in the order of their first appearance"
        elif _is_torch(source):
            blocks, offsets = meta.meta_table(source, table, Path(scratch), _part(progress, 0, _UNPACKING))
            progress = _part(progress, _UNPACKING, 1)
            origin += f", table {table}"
        else:
            blocks = text_blocks(source, rows)
        return write_trace(
            out, blocks, rows=rows, origin=origin, table=table, offsets=offsets, progress=progress
        )


def read_trace(path: Path, rows: int) -> npt.NDArray[np.int64]:
    """The row numbers of a trace folder, a .npy file or a text file, in memory. [accesses]

    Raises BadInputError with file and position where one is not in 0..rows-1.
    """
    return np.concatenate([block.astype(np.int64) for block, _ in trace_blocks(path, rows)])


def trace_blocks(path: Path, rows: int) -> Iterator[Block]:
    """As `read_trace`, a part at a time, so that a trace may be larger than memory."""
    if path.is_dir():
        blocks = array_blocks(open_trace(path).indices)
    elif path.suffix == ".npy":
        blocks = array_blocks(open_array(path))
    elif path.suffix in _TABLES or _is_torch(path):
        raise BadInputError(
            f"{path}: must be imported first, by `harness trace import`; then name its folder."
        )
    else:
        blocks = text_blocks(path, rows)
    done = 0
    for block, share in blocks:
        check_rows(block, rows, str(path), done)
        yield block, share
        done += len(block)


def _check_options(source: Path, column: str | None, table: int | None) -> None:
    if column is not None and source.suffix not in _TABLES:
        raise BadInputError(f"{source}: has no columns; a column is for {', '.join(_TABLES)}.")
    if table is not None and not _is_torch(source):
        raise BadInputError(f"{source}: has no tables; a table is for .pt and .pt.gz.")


def _is_torch(path: Path) -> bool:
    return path.name.endswith((".pt", ".pt.gz"))


def _part(progress: Progress | None, begin: float, end: float) -> Progress | None:
    """Tells the progress of a step that is the part from `begin` to `end` of the whole."""
    return (lambda share: progress(begin + (end - begin) * share)) if progress else None


def _existing(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"{folder}: cannot be made: {error.strerror}.") from error
    return folder


def open_array(path: Path) -> npt.NDArray[np.integer[Any]]:
    """The row numbers of a .npy file, memory-mapped [accesses]; BadInputError where it holds other things."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except (ValueError, EOFError) as error:
        raise BadInputError(f"{path}: is cut short, or no plain NumPy array.") from error
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iu":
        raise BadInputError(f"{path}: holds no one-dimensional array of integers.")
    if len(array) == 0:
        raise BadInputError(f"{path}: is empty; a trace needs at least one row number.")
    return array
