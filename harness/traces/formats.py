"""Reads traces from the formats that others keep them in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError
from harness.text import readable, shown
from harness.traces import columns, delimited, meta, parquet, streams
from harness.traces.arrays import Integers, open_array
from harness.traces.text import refuse_binary, text_blocks
from harness.traces.trace import (
    Bags,
    Block,
    Progress,
    Trace,
    array_blocks,
    check_rows,
    open_trace,
    refuse_existing,
    write_trace,
)

__all__ = [
    "FORMATS",
    "Format",
    "format_of",
    "import_trace",
    "open_array",
    "read_trace",
    "trace_blocks",
]

Format = Literal["text", "csv", "tsv", "parquet", "npy", "pt"]
FORMATS: tuple[Format, ...] = get_args(Format)
_ENDINGS: dict[str, Format] = {
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".npy": "npy",
    ".pt": "pt",
}
_WITH_COLUMNS = ("csv", "tsv", "parquet")
_HEAD_BYTES = 4096
_UNPACKING = 0.9
"""The share of the time that copying takes of the import of a file that has to be copied first."""


def format_of(path: Path) -> Format | None:
    """What a name's ending tells, in whatever case, ".gz" and the like left out; None where it is unknown."""
    name = path.name.lower()
    packing = next((ending for ending in streams.PACKINGS if name.endswith(ending)), "")
    return _ENDINGS.get(Path(name.removesuffix(packing)).suffix)


def import_trace(
    source: Path,
    out: Path,
    *,
    rows: int,
    form: Format | None = None,
    column: str | None = None,
    table: int | None = None,
    mapping: columns.Mapping = "rows",
    progress: Progress | None = None,
    warn: columns.Warn | None = None,
) -> Trace:
    """Reads somebody's traffic and writes it as the trace folder `out`, which appears complete or not at all.

    `source`: a file, packed or not, a pipe, or "-" for standard input. Without `form` its name's ending tells
    the format: .csv, .tsv, .tab, .parquet and .pq (give `column`, and `mapping` where its values are
    categories), .npy, .pt (Meta's public traces; give `table`), otherwise text with one row number per line.
    `rows`: rows of the table. `warn` is told what is read all the same but may not be meant. Raises
    BadInputError naming file and position of what is wrong, MachineError where a library is missing.
    """
    form = form or format_of(source)
    name = streams.called(source)
    if column is not None and form in (None, "text"):
        _refuse_archive(source, name)
    _check_options(name, form, column, table, mapping)
    refuse_existing(out)
    origin = _origin(name, column, mapping, table)
    bags: Bags | npt.NDArray[np.int64] | None = None
    with tempfile.TemporaryDirectory(prefix=".import-", dir=_existing(out.parent)) as scratch:
        if form == "csv" or form == "tsv":
            blocks = delimited.delimited_blocks(
                source, column or "", mapping, rows, tabs=form == "tsv", warn=warn
            )
        elif form is None or form == "text":
            blocks = text_blocks(source, rows)
        else:
            file = streams.as_file(source, Path(scratch), _part(progress, 0, _UNPACKING))
            if file != source:
                progress = _part(progress, _UNPACKING, 1)
            if form == "npy":
                blocks = array_blocks(_only_array(file, name))
            elif form == "parquet":
                blocks, bags = parquet.parquet_blocks(file, name, column or "", mapping, rows)
            else:
                blocks, bags = meta.meta_table(file, name, table)
        return write_trace(
            out, blocks, rows=rows, origin=origin, table=table, offsets=bags, progress=progress
        )


def _only_array(path: Path, called: str) -> Integers:
    """As `open_array`; BadInputError where NumPy's next array stands behind, which nobody would look up."""
    array = open_array(path, called)
    if isinstance(array, np.memmap) and path.stat().st_size > array.offset + array.nbytes:
        raise BadInputError(f"{called}: holds more behind its first array; save one array alone.")
    return array


def read_trace(path: Path, rows: int) -> npt.NDArray[np.int64]:
    """The row numbers of a trace folder, a .npy file or text, in memory; text may be packed, or a pipe, or
    standard input ("-"). [accesses]

    Raises BadInputError with file and position where one is not in 0..rows-1.
    """
    return np.concatenate([block.astype(np.int64) for block, _ in trace_blocks(path, rows)])


def trace_blocks(path: Path, rows: int) -> Iterator[Block]:
    """As `read_trace`, a part at a time, so that a trace may be larger than memory."""
    form = format_of(path)
    if path.is_dir():
        blocks = open_trace(path).blocks()
    elif form == "npy" and path.suffix.lower() == ".npy":
        blocks = array_blocks(_only_array(path, readable(path)))
    elif form in (None, "text"):
        blocks = text_blocks(path, rows)
    else:
        raise BadInputError(
            f"{readable(path)}: must be imported first, by `harness trace import`; then name its folder."
        )
    done = 0
    for block, share in blocks:
        check_rows(block, rows, readable(path), done)
        yield block, share
        done += len(block)


def _check_options(
    name: str, form: Format | None, column: str | None, table: int | None, mapping: columns.Mapping
) -> None:
    if column is not None and form in (None, "text"):
        raise BadInputError(
            f"{name}: its name does not tell how its columns are separated; say --format csv, tsv or parquet."
        )
    if column is not None and form not in _WITH_COLUMNS:
        raise BadInputError(f"{name}: has no columns; a column is for {', '.join(_WITH_COLUMNS)}.")
    if column is None and form in _WITH_COLUMNS:
        raise BadInputError(f"{name}: name the column that holds the row numbers (--column).")
    if mapping != "rows" and form not in _WITH_COLUMNS:
        as_column = "" if form in ("npy", "pt") else "; for a value a line say --format csv --column '#1'"
        raise BadInputError(
            f"{name}: only a column's values may be categories ({', '.join(_WITH_COLUMNS)}); leave the "
            f"mapping {mapping} out{as_column}."
        )
    if table is not None and form != "pt":
        raise BadInputError(f"{name}: has no tables; a table is for .pt and .pt.gz.")


def _refuse_archive(source: Path, name: str) -> None:
    """BadInputError where a file is no text at all: no format that its reader might give would help. What is
    not a file is left as it is; a pipe could not be read twice."""
    if source.is_file():
        with streams.opened(source) as stream:
            refuse_binary(name, stream.file.read(_HEAD_BYTES))


def _origin(name: str, column: str | None, mapping: columns.Mapping, table: int | None) -> str:
    """Where the row numbers come from, for the reader of a report."""
    origin = name
    if column is not None:
        origin += f", column {shown(column)!r}"
        if mapping == "first_appearance":
            origin += ", values numbered in the order of their first appearance"
    return origin if table is None else f"{origin}, table {table}"


def _part(progress: Progress | None, begin: float, end: float) -> Progress | None:
    """Tells the progress of a step that is the part from `begin` to `end` of the whole."""
    return (lambda share: progress(begin + (end - begin) * share)) if progress else None


def _existing(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"{readable(folder)}: cannot be made: {error.strerror}.") from error
    return folder
