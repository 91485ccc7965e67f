"""Which rows a design is to pin, and how much of what is timed they meet."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.bench.batch import Batch
from harness.bench.failures import CellError
from harness.records import Cell
from harness.traces import replay
from harness.traces.replay import Rows

LEAST_PROFILE = 0.1
"""Accesses to choose held-out rows from ÷ accesses of the batch. Of fewer, chance would choose."""


def choose(cell: Cell, traces: Sequence[Rows], batch: Batch, count: int) -> list[Tensor]:
    """For each table the `count` hottest rows, or as many as were accessed at all.

    "held_out": of the accesses of its trace that the batch leaves out, as a profile of earlier traffic would
    give them. "oracle": of the accesses of the batch itself, which no one knows beforehand.
    CellError where the batch leaves out too little of a trace.
    """
    if cell.hot_rows == "oracle":
        return [hottest(indices, count) for indices in batch.indices]
    found = []
    for table, (trace, indices) in enumerate(zip(traces, batch.indices, strict=True)):
        rest = replay.rest(trace, table, len(traces), len(indices))
        if len(rest) < LEAST_PROFILE * len(indices):
            raise CellError(
                f"{cell.dataset.name}: a table's trace has {len(trace):,} accesses and the batch takes"
                f" {len(indices):,} of them, which leaves too few to choose rows to pin from: use a longer"
                ' trace, fewer or shorter bags, or an arm with hot_rows = "oracle".'
            )
        found.append(hottest(torch.from_numpy(rest).to(indices.device), count))
    return found


def hottest(accesses: Tensor, count: int) -> Tensor:
    """The `count` most frequent of these row numbers, hottest first, equals by number; all were accessed."""
    seen = torch.bincount(accesses)
    order = seen.argsort(descending=True, stable=True)
    return order[: min(count, int(torch.count_nonzero(seen)))]


def facts(batch: Batch, rows: Sequence[Tensor]) -> dict[str, float]:
    """`pinned_rows` and `pinned_share`, the part of the batch's accesses that meets a pinned row; on average
    over the tables."""
    shares = [_share(indices, pinned) for indices, pinned in zip(batch.indices, rows, strict=True)]
    return {"pinned_rows": statistics.fmean(map(len, rows)), "pinned_share": statistics.fmean(shares)}


def _share(accesses: Tensor, pinned: Tensor) -> float:
    return float(torch.isin(accesses, pinned.to(accesses.dtype)).double().mean())
