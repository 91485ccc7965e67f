"""Traces as people name them: a file, an imported trace's folder, or the name of a synthetic one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError
from harness.text import readable
from harness.traces import formats, synth
from harness.traces.streams import STANDARD_INPUT
from harness.traces.text import MAX_DIGITS
from harness.traces.trace import (
    Block,
    Progress,
    array_blocks,
    check_all_rows,
    open_trace,
    refuse_existing,
    write_array,
    write_trace,
)

_ANY_ROW = 10**MAX_DIGITS
"""Beyond every row number that text can hold."""
UNTOLD_ROWS = 2**28
"""Larger tables are believed only where their size is given: such a row is more likely a slip."""


@dataclass(frozen=True)
class Source:
    """A trace to look at."""

    indices: npt.NDArray[np.integer[Any]]
    """[accesses]; of a folder or a .npy file, a memory map."""
    offsets: npt.NDArray[np.int64] | None
    """[bags + 1], where the trace has bags of its own."""
    rows: int | None
    """Rows of the table, where known."""


def look_up(name: str, rows: int | None, seed: int) -> Source:
    """The trace of that name. `rows`: of the table; None: what an imported trace says, 500,000 for synthetic.

    A synthetic trace is one period long and made from `seed`; a folder of the same name is meant by `./name`.
    Raises BadInputError with file and position where a row is not in the table.
    """
    if name == "mixed":
        raise BadInputError(
            f"mixed is several traces: its tables replay {', '.join(synth.MIXED)} in turn; name one of these."
        )
    if name in synth.NAMES:
        rows = rows or synth.PUBLISHED_ROWS
        return Source(synth.synthesize(name, rows, synth.period_length(name, rows), seed), None, rows)
    path, called = Path(name), readable(name)
    if path == STANDARD_INPUT and name != str(STANDARD_INPUT):
        path = path.absolute()  # a file of that name, by "./-"
    imported = (path / "trace.json").is_file()
    if not imported and path != STANDARD_INPUT and (path.is_dir() or not path.exists()):
        known = ", ".join(synth.NAMES)
        raise BadInputError(
            f"{called}: is no file, no imported trace and none of the synthetic ones: {known}."
        )
    found = at(path, rows)
    if found.rows is None and (largest := int(found.indices.max())) >= UNTOLD_ROWS:
        raise BadInputError(f"{called}: holds row {largest:,}; say with --rows that the table is so large.")
    return found


def at(path: Path, rows: int | None) -> Source:
    """The trace in this file, or in this folder of an imported one, whatever it is called and however large
    its row numbers are. `rows` and errors: see `look_up`."""
    called = readable(path)
    if path.is_dir():
        trace = open_trace(path)
        trace.verify()
        check_all_rows(trace.indices, rows or trace.header.rows, called)
        return Source(trace.indices, trace.offsets, rows or trace.header.rows)
    limit = rows or _ANY_ROW
    is_array = formats.format_of(path) == "npy" and path.is_file()
    array = formats.open_array(path, called) if is_array else formats.read_trace(path, limit)
    check_all_rows(array, limit, called)
    return Source(array, None, rows)


def write_synthetic(
    name: str, out: Path, *, rows: int, accesses: int | None, seed: int, progress: Progress | None = None
) -> int:
    """Makes a synthetic trace and writes it: as text where `out` ends in .txt, as an array where in .npy,
    otherwise as a trace folder. `accesses`: None for one period. Returns how many there are.

    `out` appears complete or not at all; BadInputError where it exists already or cannot be written.
    """
    refuse_existing(out)
    made = synth.synthesize(name, rows, accesses or synth.period_length(name, rows), seed)
    origin = f"synthetic {name}, seed {seed}"
    if out.suffix not in (".txt", ".npy"):
        write_trace(out, array_blocks(made), rows=rows, origin=origin, progress=progress)
        return len(made)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own, so that nothing is left of a file that is not finished.
        with tempfile.TemporaryDirectory(prefix=".synth-", dir=out.parent) as scratch:
            part = Path(scratch) / out.name
            if out.suffix == ".npy":
                write_array(part, array_blocks(made), rows=rows, origin=origin, progress=progress)
            else:
                _write_text(part, array_blocks(made), progress)
            part.rename(out)
    except OSError as error:
        raise BadInputError(f"{readable(out)}: cannot be written: {error.strerror or error}.") from error
    return len(made)


def _write_text(path: Path, blocks: Iterable[Block], progress: Progress | None) -> None:
    with path.open("w", encoding="ascii") as file:
        for block, share in blocks:
            file.writelines(f"{row}\n" for row in block.tolist())
            if progress:
                progress(share)
