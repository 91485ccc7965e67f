"""Tables, indices and sample weights of one cell, made on its device from its seed, and the lookup itself."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.bench.failures import CellError
from harness.bench.tables import DTYPES, Tables
from harness.records import DTYPE_BITS, INDEX_BYTES, Cell, Workload
from harness.traces import bags
from harness.traces.stretches import Stretches

Lookup = Callable[[], Tensor]
"""Looks up one table, [batch, dim], or all of them, [batch, sum of dims]."""
Prepare = Callable[[int], None]
"""Pins the hot rows of one table, by its number."""

_SAMPLE_WEIGHT_STREAM = 1 << 32
"""Added to the seed, so that sample weights are not the first values of the tables over again."""


@dataclass(frozen=True)
class Asked:
    """What a batch asks of all tables, table after table, bag after bag."""

    indices: Tensor
    """[lookups of all tables]."""
    offsets: Tensor
    """[tables * batch + 1]: where each bag begins, and at the end where the last one ends."""
    sample_weights: Tensor | None
    """float32 [lookups of all tables], or None."""


@dataclass(frozen=True)
class Batch:
    """One batch through the embedding stage: for every table `batch` bags.

    A table that several features look up counts once for each of them, with bags of its own."""

    work: Workload
    tables: Tables
    indices: list[Tensor]
    """Per table [its lookups], bag after bag."""
    offsets: Tensor
    """Where each bag begins: [batch], the same for every table, or of a model [tables, batch]."""
    sample_weights: list[Tensor | None]
    """Per table [its lookups], or None."""

    @property
    def weights(self) -> list[Tensor]:
        """A table each: [rows, dim]; of quantised ones what is stored, without scales."""
        return self.tables.weights

    @cached_property
    def asked(self) -> Asked:
        """The bags of all tables together, as it wants them who looks up all tables at once."""
        *begins, end = itertools.accumulate(map(len, self.indices), initial=0)
        starts = (self.offsets + self.offsets.new_tensor(begins)[:, None]).flatten()
        offsets = torch.cat([starts, starts.new_tensor([end])])
        scales = [scale.float() for scale in self.sample_weights if scale is not None]
        return Asked(torch.cat(self.indices), offsets, torch.cat(scales) if scales else None)

    def starts(self, table: int) -> Tensor:
        """Where each bag of a table begins among its indices: [batch]."""
        return self.offsets if self.offsets.dim() == 1 else self.offsets[table]

    def lookup(self, table: int) -> Tensor:
        """PyTorch's operator, as users call it, of one table: [batch, dim]."""
        return functional.embedding_bag(
            self.indices[table],
            self.weights[table],
            self.starts(table),
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


def make(cell: Cell, stretches: Stretches, tables: Tables, number: int = 0) -> Batch:
    """Batch `number` of a cell, on its device; `stretches` knows what it looks up."""
    work = cell.workload
    counts = [stretches.count(table, number) for table in range(work.tables)]
    ends = list(itertools.accumulate(counts))
    taken = np.empty(ends[-1], dtype=work.index_dtype)
    for table, (count, end) in enumerate(zip(counts, ends, strict=True)):
        taken[end - count : end] = stretches.rows(table, number)
    index_dtype = DTYPES[work.index_dtype]
    indices = torch.from_numpy(taken).to(work.device)
    sample_weights: list[Tensor | None] = [None] * work.tables
    if work.weighted:
        generator = torch.Generator(work.device).manual_seed(cell.seed + _SAMPLE_WEIGHT_STREAM + number)
        made = torch.empty(ends[-1], dtype=DTYPES[work.sample_weight_dtype], device=work.device)
        sample_weights = list(made.uniform_(-1, 1, generator=generator).split(counts))
    offsets = torch.from_numpy(bags.starts(cell, stretches, number)).to(work.device, index_dtype)
    return Batch(work, tables, list(indices.split(counts)), offsets, sample_weights)


def joined(batches: Sequence[Batch]) -> Batch:
    """The bags of all these batches of the same tables, batch after batch, as one batch."""
    first = batches[0]
    if len(batches) == 1:
        return first
    work = dataclasses.replace(first.work, batch=len(batches) * first.work.batch)
    counts = torch.tensor([[len(indices) for indices in one.indices] for one in batches])
    before = (counts.cumsum(0) - counts).to(first.offsets.device)
    before = before[:, 0] if first.offsets.dim() == 1 else before[:, :, None]
    offsets = torch.cat(
        [one.offsets.long() + skipped for one, skipped in zip(batches, before, strict=True)], dim=-1
    )
    indices = [torch.cat([one.indices[table] for one in batches]) for table in range(work.tables)]
    sample_weights: list[Tensor | None] = []
    for table in range(work.tables):
        scales = [scale for one in batches if (scale := one.sample_weights[table]) is not None]
        sample_weights.append(torch.cat(scales) if scales else None)
    return Batch(work, first.tables, indices, offsets, sample_weights)


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
    if any(group.trace for group in work.groups):
        remedy = "its tables replay traces and cannot be cut down; leave some out, or use smaller batches"
    elif work.groups:
        smaller = (_cut(work, 2**power) for power in range(work.rows.bit_length() - 1, 0, -1))
        fits = next((asked.rows for asked in smaller if needed(asked) <= have), 0)
        remedy = f"model.max_rows = {fits} would fit" if fits else "use smaller batches"
    else:
        fewer = (dataclasses.replace(work, tables=tables) for tables in range(work.tables - 1, 0, -1))
        fits = next((asked.tables for asked in fewer if needed(asked) <= have), 0)
        remedy = f"workload.tables = {fits} would fit" if fits else "use fewer rows, columns or bags"
    raise CellError(
        f"The workload needs {needed(work) / 1e9:.2f} GB of memory, {work.table_bytes / 1e9:.2f} GB of them"
        f" for its tables, and {have / 1e9:.2f} GB are free on the"
        f" {'GPU' if work.device == 'cuda' else 'host'}: {remedy}.",
        "oom",
    )


def _cut(work: Workload, rows: int) -> Workload:
    """A model with its larger tables cut down to so many rows."""
    groups = tuple(dataclasses.replace(group, rows=min(group.rows, rows)) for group in work.groups)
    return dataclasses.replace(work, groups=groups, rows=rows)


def _batch_bytes(work: Workload, batches: int) -> int:
    """Indices and sample weights of all batches, with PyTorch's own notes on every index, or with copies for
    all tables together; and what one pass puts out."""
    index = INDEX_BYTES[work.index_dtype]
    weights = work.lookups * (4 + DTYPE_BITS[work.sample_weight_dtype] // 8) if work.weighted else 0
    asked = 2 * index * work.lookups + weights + 3 * index * work.batch
    return work.tables * (batches * asked + work.output_bytes)
