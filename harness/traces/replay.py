"""What a cell's tables look up: which trace each replays, and from where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError
from harness.records import Cell
from harness.traces import synth
from harness.traces.arrays import open_array

Rows = npt.NDArray[np.int64]


def read_traces(cell: Cell, root: Path) -> list[Rows]:
    """The row numbers that each table replays: one period of a synthetic trace, or the file's.

    All tables share one trace, but those of "mixed": these are of several hotnesses, in turn.
    BadInputError where the file is not there, holds no row numbers, or one lies outside the table.
    """
    rows, tables = cell.workload.rows, cell.workload.tables
    if cell.dataset.path is not None:
        return [_read_file(root, cell.dataset.path, rows)] * tables
    names = [synth.dataset_of_table(cell.dataset.name, table) for table in range(tables)]
    made = {n: synth.synthesize(n, rows, synth.period_length(n, rows), cell.seed) for n in set(names)}
    return [made[name] for name in names]


def lookups(trace: Rows, table: int, tables: int, count: int, *, skip: int = 0) -> Rows:
    """What one table looks up: [count] row numbers, behind the first `skip` of them.

    Table t of T begins its trace at t ÷ T of the trace's length, and wraps round. So batch number k of
    `count` lookups each, which goes on where batch k - 1 ends, is `skip` = k × `count`.
    """
    start = table * len(trace) // tables + skip
    return np.take(trace, np.arange(start, start + count), mode="wrap")


def rest(trace: Rows, table: int, tables: int, count: int, *, skip: int = 0) -> Rows:
    """The accesses of the trace that `lookups` leaves out, in order, beginning behind them: no access of the
    trace is in both. Empty where these take the whole trace or more."""
    start = table * len(trace) // tables + skip
    return np.take(trace, np.arange(start + count, start + len(trace)), mode="wrap")


def _read_file(root: Path, path: str, rows: int) -> Rows:
    trace = open_array(root / path, path)
    if trace.min() < 0 or trace.max() >= rows:
        at = int(np.flatnonzero((trace < 0) | (trace >= rows))[0])
        raise BadInputError(f"{path}: entry {at}: row {trace[at]} is outside a table of {rows} rows.")
    return np.array(trace, dtype=np.int64)
