"""Tables, indices and sample weights of one cell, made on its device from its seed, and the lookup itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.bench import bags
from harness.bench.failures import CellError
from harness.bench.tables import DTYPES, Tables
from harness.records import DTYPE_BITS, INDEX_BYTES, Cell, Workload
from harness.traces import replay
from harness.traces.replay import Rows

T = TypeVar("T")
Lookup = Callable[[], Tensor]
"""Looks up one table, [batch, dim], or all of them, [batch, tables * dim]."""
Prepare = Callable[[int], None]
"""Pins the hot rows of one table, by its number."""

_SAMPLE_WEIGHT_STREAM = 1 << 32
"""Added to the seed, so that sample weights are not the first values of the tables over again."""


@dataclass(frozen=True)
class Asked:
    """What a batch asks of all tables, table after table, bag after bag."""

    indices: Tensor
    """[tables * batch * pooling]."""
    offsets: Tensor
    """[tables * batch + 1]: where each bag begins, and at the end where the last one ends."""
    sample_weights: Tensor | None
    """float32 [tables * batch * pooling], or None."""


@dataclass(frozen=True)
class Batch:
    """One batch through the embedding stage: for every table `batch` bags, of `pooling` rows on average."""

    work: Workload
    tables: Tables
    indices: list[Tensor]
    """Per table [batch * pooling], bag after bag."""
    offsets: Tensor
    """[batch]: where each bag begins; the same for every table."""
    sample_weights: list[Tensor | None]
    """Per table [batch * pooling], or None."""

    @property
    def weights(self) -> list[Tensor]:
        """A table each: [rows, dim]; of quantised ones what is stored, without scales."""
        return self.tables.weights

    @cached_property
    def asked(self) -> Asked:
        """The bags of all tables together, as it wants them who looks up all tables at once."""
        work, starts = self.work, self.offsets.repeat(self.work.tables)
        first = torch.arange(work.tables, dtype=starts.dtype, device=starts.device) * work.lookups
        starts += first.repeat_interleave(work.batch)
        end = starts.new_tensor([work.tables * work.lookups])
        scales = [scale.float() for scale in self.sample_weights if scale is not None]
        return Asked(torch.cat(self.indices), torch.cat([starts, end]), torch.cat(scales) if scales else None)

    def lookup(self, table: int) -> Tensor:
        """PyTorch's operator, as users call it, of one table: [batch, dim]."""
        return functional.embedding_bag(
            self.indices[table],
            self.weights[table],
            self.offsets,
            mode=self.work.mode,
            per_sample_weights=self.sample_weights[table],
        )

    def rows(self, table: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Some rows of a table, and how large the terms are that make up each value: float64 [n, dim]."""
        return self.tables.rows(table, numbers)


Bind = Callable[[Batch], list[Lookup]]
"""Makes of a batch the calls of a pass: one for each table in turn, or a single one for all."""


def per_table(batch: Batch) -> list[Lookup]:
    """A call of PyTorch's operator for each table."""
    return [partial(batch.lookup, table) for table in range(batch.work.tables)]


def of_each(traces: Sequence[Rows], function: Callable[[Rows], T]) -> list[T]:
    """What the function makes of each table's trace, worked out once for those that share one."""
    made = {key: function(trace) for key, trace in {id(trace): trace for trace in traces}.items()}
    return [made[id(trace)] for trace in traces]


def make(cell: Cell, traces: Sequence[Rows], tables: Tables, number: int = 0) -> Batch:
    """A batch of a cell: table t replays its trace from its own starting point, wrapping round, and each
    batch goes on where the one before it ends."""
    work = cell.workload
    taken = np.empty((work.tables, work.lookups), dtype=np.int64)
    for table, trace in enumerate(traces):
        taken[table] = replay.lookups(trace, table, work.tables, work.lookups, skip=number * work.lookups)
    index_dtype = DTYPES[work.index_dtype]
    indices = torch.from_numpy(taken).to(work.device, index_dtype)
    sample_weights: list[Tensor | None] = [None] * work.tables
    if work.weighted:
        generator = torch.Generator(work.device).manual_seed(cell.seed + _SAMPLE_WEIGHT_STREAM + number)
        shape, dtype = (work.tables, work.lookups), DTYPES[work.sample_weight_dtype]
        made = torch.empty(shape, dtype=dtype, device=work.device).uniform_(-1, 1, generator=generator)
        sample_weights = list(made.unbind())
    ends = np.cumsum(bags.lengths(work, cell.seed, number))
    offsets = torch.from_numpy(np.concatenate([[0], ends[:-1]])).to(work.device, index_dtype)
    return Batch(work, tables, list(indices.unbind()), offsets, sample_weights)


def joined(batches: Sequence[Batch]) -> Batch:
    """The bags of all these batches of the same tables, batch after batch, as one batch."""
    first = batches[0]
    if len(batches) == 1:
        return first
    work = dataclasses.replace(first.work, batch=len(batches) * first.work.batch)
    begins = [number * first.work.lookups for number in range(len(batches))]
    offsets = torch.cat([one.offsets.long() + begin for one, begin in zip(batches, begins, strict=True)])
    indices = [torch.cat([one.indices[table] for one in batches]) for table in range(work.tables)]
    sample_weights: list[Tensor | None] = []
    for table in range(work.tables):
        scales = [scale for one in batches if (scale := one.sample_weights[table]) is not None]
        sample_weights.append(torch.cat(scales) if scales else None)
    return Batch(work, first.tables, indices, offsets, sample_weights)


def distinct_rows(batch: Batch) -> float:
    """Distinct rows that one table looks up in this batch, on average over the tables."""
    counts = [len(torch.unique(indices)) for indices in batch.indices]
    return sum(counts) / len(counts)


def check_memory(
    work: Workload,
    tables_held: bool,
    more_bytes: Callable[[Workload], int],
    free_bytes: int,
    batches: int = 1,
) -> None:
    """CellError("oom") where the device lacks the memory, before anything is allocated.

    `tables_held`: its tables are in memory already. `more_bytes`: what a workload takes beside tables and
    batches, for its check and its model.
    """

    def needed(asked: Workload) -> int:
        return asked.table_bytes + _batch_bytes(asked, batches) + more_bytes(asked)

    have = free_bytes + (work.table_bytes if tables_held else 0)
    if needed(work) <= have:
        return
    fewer = (dataclasses.replace(work, tables=tables) for tables in range(work.tables - 1, 0, -1))
    fits = next((asked.tables for asked in fewer if needed(asked) <= have), 0)
    remedy = f"workload.tables = {fits} would fit" if fits else "use fewer rows, columns or bags"
    raise CellError(
        f"The workload needs {needed(work) / 1e9:.2f} GB of memory, {work.table_bytes / 1e9:.2f} GB of them"
        f" for its tables, and {have / 1e9:.2f} GB are free on the"
        f" {'GPU' if work.device == 'cuda' else 'host'}: {remedy}.",
        "oom",
    )


def _batch_bytes(work: Workload, batches: int) -> int:
    """Indices and sample weights of all batches, with PyTorch's own notes on every index, or with copies for
    all tables together; and what one pass puts out."""
    index = INDEX_BYTES[work.index_dtype]
    weights = work.lookups * (4 + DTYPE_BITS[work.sample_weight_dtype] // 8) if work.weighted else 0
    asked = 2 * index * work.lookups + weights + 3 * index * work.batch
    return work.tables * (batches * asked + work.output_bytes)
