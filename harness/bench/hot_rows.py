"""Which rows a design is to pin, and how much of what is timed they meet."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.bench.batch import Batch
from harness.bench.failures import CellError
from harness.records import Cell
from harness.traces.replay import Rows
from harness.traces.stretches import Stretches

LEAST_PROFILE = 0.1
"""Accesses to choose held-out rows from ÷ accesses of the batch. Of fewer, chance would choose."""


def choose(cell: Cell, stretches: Stretches, batches: Sequence[Batch], count: int) -> list[list[Tensor]]:
    """For each batch and table the `count` hottest rows, or as many as were accessed at all.

    "held_out": of the accesses of its trace that no batch takes, as a profile of earlier traffic would give
    them, the same for all batches; where the batches together leave too few, for each batch of those that it
    leaves out itself. "oracle": of the accesses of the batch itself, which no one knows beforehand.
    CellError where a batch leaves out too little of a trace.
    """
    if cell.hot_rows == "oracle":
        return [[hottest(indices, count) for indices in batch.indices] for batch in batches]
    found: list[list[Tensor]] = [[] for _ in batches]
    for table in range(cell.workload.tables):
        for rows, chosen in zip(found, _held_out(cell, stretches, table, batches, count), strict=True):
            rows.append(chosen)
    return found


def _held_out(
    cell: Cell, stretches: Stretches, table: int, batches: Sequence[Batch], count: int
) -> list[Tensor]:
    """One table's, batch by batch."""
    device, trace = batches[0].offsets.device, stretches.traces[table]

    def of(rest: Rows) -> Tensor:
        return hottest(torch.from_numpy(rest).to(device), count)

    if _leave_enough(trace, stretches.count(table, 0, len(batches))):
        return [of(stretches.rest(table, 0, len(batches)))] * len(batches)
    timed = max(stretches.count(table, number) for number in range(len(batches)))
    if not _leave_enough(trace, timed):
        raise CellError(
            f"{cell.dataset.name}: a table's trace has {len(trace):,} accesses and the batch takes"
            f" {timed:,} of them, which leaves too few to choose rows to pin from: use a longer"
            ' trace, fewer or shorter bags, or an arm with hot_rows = "oracle".'
        )
    return [of(stretches.rest(table, number)) for number in range(len(batches))]


def _leave_enough(trace: Rows, timed: int) -> bool:
    return len(trace) - timed >= LEAST_PROFILE * timed


def held_bytes(cell: Cell, stretches: Stretches, batches: int, count: int) -> int:
    """The most memory that they take."""
    work = cell.workload
    tables = range(work.tables)
    timed = max(stretches.count(table, number) for table in tables for number in range(batches))
    most = min(count, work.rows, *([timed] if cell.hot_rows == "oracle" else []))
    one_for_all = cell.hot_rows == "held_out" and all(
        _leave_enough(trace, stretches.count(table, 0, batches))
        for table, trace in enumerate(stretches.traces)
    )
    return 8 * work.tables * most * (1 if one_for_all else batches)


def hottest(accesses: Tensor, count: int) -> Tensor:
    """The `count` most frequent of these row numbers, hottest first, equals by number; all were accessed."""
    seen = torch.bincount(accesses)
    order = seen.argsort(descending=True, stable=True)
    # A copy: the order of all rows need not stay in memory for some of them.
    return order[: min(count, int(torch.count_nonzero(seen)))].clone()


def facts(batches: Sequence[Batch], rows: Sequence[Sequence[Tensor]]) -> dict[str, float]:
    """`pinned_rows` and `pinned_share`, the part of the batches' accesses that meets a pinned row; on average
    over the tables of all batches."""
    of_each = [
        (len(pinned), _share(indices, pinned))
        for batch, chosen in zip(batches, rows, strict=True)
        for indices, pinned in zip(batch.indices, chosen, strict=True)
    ]
    counts, shares = zip(*of_each, strict=True)
    return {"pinned_rows": statistics.fmean(counts), "pinned_share": statistics.fmean(shares)}


def _share(accesses: Tensor, pinned: Tensor) -> float:
    if not len(accesses):  # in a batch of empty bags
        return 0.0
    return float(torch.isin(accesses, pinned.to(accesses.dtype)).double().mean())
