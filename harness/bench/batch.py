"""Tables, indices and sample weights of one cell, made on its device from its seed, and the lookup itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.bench.failures import CellError
from harness.records import Cell, Workload
from harness.traces import replay
from harness.traces.replay import Rows

T = TypeVar("T")

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "int64": torch.int64, "int32": torch.int32}
_SAMPLE_WEIGHT_STREAM = 1 << 32
"""Added to the seed, so that sample weights are not the first values of the tables over again."""


@dataclass(frozen=True)
class Batch:
    """One batch through the embedding stage: for every table, `batch` bags of `pooling` rows."""

    work: Workload
    weights: list[Tensor]
    """A table each: [rows, dim]."""
    indices: list[Tensor]
    """Per table [batch * pooling], bag after bag."""
    offsets: Tensor
    """[batch]: where each bag begins; the same for every table."""
    sample_weights: list[Tensor | None]
    """Per table [batch * pooling], or None."""

    def lookup(self, table: int) -> Tensor:
        """The operator under test, as users call it: [batch, dim]."""
        return functional.embedding_bag(
            self.indices[table],
            self.weights[table],
            self.offsets,
            mode=self.work.mode,
            per_sample_weights=self.sample_weights[table],
        )


class Tables:
    """Keeps the last tables made, for the cells of a launch share them and making them takes time."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._tables: list[Tensor] = []

    def hold(self, work: Workload, seed: int) -> bool:
        """Whether these very tables are in memory already."""
        return self._key == _key(work, seed)

    def drop(self) -> None:
        """Gives their memory back."""
        self._key, self._tables = (), []
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def get(self, work: Workload, seed: int) -> list[Tensor]:
        """`tables` tables [rows, dim] of values in -0.9..0.9, so that float16 holds the sum of any usual bag.

        The generator's values are multiples of 2^-23; times 0.9 they use every bit of their mantissas.
        """
        if not self.hold(work, seed):
            self.drop()
            generator = torch.Generator(work.device).manual_seed(seed)
            for _ in range(work.tables):
                table = torch.empty(work.rows, work.dim, dtype=_DTYPES[work.dtype], device=work.device)
                self._tables.append(table.uniform_(-1, 1, generator=generator).mul_(0.9))
            self._key = _key(work, seed)
        return self._tables


def _key(work: Workload, seed: int) -> tuple[object, ...]:
    return work.tables, work.rows, work.dim, work.dtype, work.device, seed


def of_each(traces: Sequence[Rows], function: Callable[[Rows], T]) -> list[T]:
    """What the function makes of each table's trace, worked out once for those that share one."""
    made = {key: function(trace) for key, trace in {id(trace): trace for trace in traces}.items()}
    return [made[id(trace)] for trace in traces]


def make(cell: Cell, traces: Sequence[Rows], weights: list[Tensor]) -> Batch:
    """The batch of a cell: table t replays its trace from its own starting point, wrapping round."""
    work = cell.workload
    taken = np.empty((work.tables, work.lookups), dtype=np.int64)
    for table, trace in enumerate(traces):
        taken[table] = replay.lookups(trace, table, work.tables, work.lookups)
    index_dtype = _DTYPES[work.index_dtype]
    indices = torch.from_numpy(taken).to(work.device, index_dtype)
    sample_weights: list[Tensor | None] = [None] * work.tables
    if work.weighted:
        generator = torch.Generator(work.device).manual_seed(cell.seed + _SAMPLE_WEIGHT_STREAM)
        shape, dtype = (work.tables, work.lookups), _DTYPES[work.dtype]
        made = torch.empty(shape, dtype=dtype, device=work.device).uniform_(-1, 1, generator=generator)
        sample_weights = list(made.unbind())
    offsets = torch.arange(work.batch, dtype=index_dtype, device=work.device) * work.pooling
    return Batch(work, weights, list(indices.unbind()), offsets, sample_weights)


def distinct_rows(batch: Batch) -> float:
    """Distinct rows that one table looks up in this batch, on average over the tables."""
    counts = [len(torch.unique(indices)) for indices in batch.indices]
    return sum(counts) / len(counts)


def check_memory(work: Workload, tables_held: bool, scratch_bytes: int, free_bytes: int) -> None:
    """CellError("oom") where the device lacks the memory, before anything is allocated."""
    needed = (0 if tables_held else work.table_bytes) + _batch_bytes(work) + scratch_bytes
    if needed > free_bytes:
        raise CellError(
            f"The workload needs {needed / 1e9:.2f} GB of memory and {free_bytes / 1e9:.2f} GB are free on"
            f" the {'GPU' if work.device == 'cuda' else 'host'}: use fewer tables, rows or columns.",
            "oom",
        )


def _batch_bytes(work: Workload) -> int:
    """Indices, sample weights and what one pass puts out, with PyTorch's own notes on every index."""
    index, scalar = (8 if work.index_dtype == "int64" else 4), (4 if work.dtype == "float32" else 2)
    per_lookup = 2 * index + (scalar if work.weighted else 0)
    return work.tables * (work.lookups * per_lookup + work.batch * (work.dim * scalar + 3 * index))
