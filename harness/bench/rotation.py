"""How many batches take turns in a cell, and whose turn it is.

Passes over one batch again and again would find in L2 what a server's passes do not: the rows, indices and
offsets of the pass before. So distinct batches take turns. Between two turns of a batch the others touch as
much as empties L2 (`TIMES_L2` times its size); what they share with it, hot rows above all, may stay there,
as it does in traffic. Counted is what is touched at the least: each distinct row, index and sample weight
once, and the memory of one pass's outputs, which every pass writes anew.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from harness.bench.batch import Lookup, Prepare
from harness.bench.l2 import TIMES_L2
from harness.records import INDEX_BYTES, Cell, Workload
from harness.traces.stretches import Stretches

LEAST, MOST, MOST_IN_A_MODEL = 2, 4096, 512
"""Batches that take turns; in a model each has a CUDA graph of its own. More would take longer to make than
to time; where they are too few to empty L2, the facts say so."""


@dataclass(frozen=True)
class Turn:
    """A batch as a pass looks it up."""

    calls: Sequence[Lookup]
    """One for each table, or one for all."""
    prepare: Prepare | None = None
    """Where a design pins: before each call."""

    def look_up(self, call: int) -> Tensor:
        """A call, after its prepare."""
        if self.prepare is not None:
            self.prepare(call)
        return self.calls[call]()


class Order:
    """Whose turn it is. One for all that a cell times, so that no batch is looked up twice in a row: neither
    where one clock stops and another begins, nor where a block is taken again."""

    def __init__(self, batches: int) -> None:
        self._batches, self._next = batches, 0

    def next(self) -> int:
        """The number of the batch that the pass which begins now looks up."""
        now, self._next = self._next, (self._next + 1) % self._batches
        return now


class Plan(NamedTuple):
    """How many batches take turns."""

    batches: int
    facts: dict[str, float]
    """Of the record. `batches`; and of those that take turns on a GPU `bytes_between_turns`, what is touched
    between two turns of a batch, and `bytes_until_trace_repeats`, what is touched before a table meets the
    same accesses of its trace again. That is less where a trace wraps round within fewer batches."""


def least_batches(cell: Cell) -> int:
    """As many there are in any case."""
    return LEAST if cell.timing.cache == "rotating" else 1


def plan(cell: Cell, stretches: Stretches, l2_bytes: int | None) -> Plan:
    """How many batches a cell takes; the same for all that look up the same on the same kind of GPU.

    `l2_bytes`: None on a CPU, whose caches nobody asks for; two batches take turns there.
    """
    batches = least_batches(cell)
    if batches == 1 or l2_bytes is None:
        return Plan(batches, {"batches": batches})

    @functools.cache
    def between(turns: int) -> float:
        return touched_bytes(cell.workload, stretches, turns)

    most = MOST if cell.model is None else MOST_IN_A_MODEL
    while batches < most and between(batches) < TIMES_L2 * l2_bytes:
        batches = min(most, 2 * batches - 1)
    in_trace = min(map(stretches.in_trace, range(cell.workload.tables)))
    facts = {
        "batches": batches,
        "bytes_between_turns": between(batches),
        "bytes_until_trace_repeats": between(max(1, min(batches, in_trace))),
    }
    return Plan(batches, facts)


def touched_bytes(work: Workload, stretches: Stretches, turns: int) -> float:
    """What is touched at the least between two lookups of the same table and batch, `turns` passes apart:
    all of the passes between them, or, if that is more, the other tables in all of the passes."""
    others, other_tables = turns - 1, (work.tables - 1) / work.tables
    looking_up: dict[int, list[int]] = {}
    for place, feature in enumerate(work.features):
        looking_up.setdefault(feature.table, []).append(place)

    def rows_bytes(first: int) -> int:
        """Of the rows that are looked up from batch `first` on and before the next turn."""
        return sum(
            stretches.distinct(features, first, turns - first)
            * work.row_bytes_of(work.features[features[0]].group.dim)
            for features in looking_up.values()
        )

    between, through = rows_bytes(1), rows_bytes(0)
    rows = max(between, other_tables * through)
    offsets = work.tables * work.batch * INDEX_BYTES[work.index_dtype]
    asked = work.all_lookups * work.asked_bytes_each + offsets
    return rows + max(others, other_tables) * asked + work.all_output_bytes
