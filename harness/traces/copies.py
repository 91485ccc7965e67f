"""Copies traces that a model's tables replay into the folder of what replays them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.traces.trace import Block, Trace, check_rows, open_trace, write_array


def check(table: TableGroup) -> None:
    """Reads the whole trace. BadInputError with file and access where a row number is not in the table, or
    the trace has changed since the model's file was read."""
    for _ in _blocks(table, _opened(table)):
        pass


def copy(table: TableGroup, write: Callable[[str, Callable[[Path], object]], None]) -> None:
    """Copies row numbers and bags. `write` is given each file's path, as the table has it, and a function
    that writes it where that may be."""
    trace = _opened(table)
    rows, origin = table.rows, table.trace
    write(table.trace_file, lambda out: write_array(out, _blocks(table, trace), rows=rows, origin=origin))
    if table.bags == "own":
        offsets = trace.offsets
        assert offsets is not None
        write(table.bags_file, lambda out: _save(out, offsets.astype("<i8")))


def _save(out: Path, array: np.ndarray) -> None:
    with out.open("wb") as file:  # np.save would add an ending to the name
        np.save(file, array)


def _opened(table: TableGroup) -> Trace:
    trace = open_trace(Path(table.trace))
    if trace.header.sha256 != table.trace_sha256 or (table.bags == "own" and trace.offsets is None):
        raise BadInputError(
            f"{table.trace}: is another trace than the one that was here when the model's file was read; "
            "begin anew."
        )
    return trace


def _blocks(table: TableGroup, trace: Trace) -> Iterator[Block]:
    done = 0
    for block, share in trace.blocks():
        check_rows(block, table.rows, f"{table.trace}: indices.npy", done)
        yield block, share
        done += len(block)
