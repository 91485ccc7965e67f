"""What a GPU's memory gives to the rows of a cell's lookups where nobody adds them up. No bound: see "Rows
fetched and not added up" in docs/measurement.md.

`fetch_rows.cu` fetches them, in three forms; the fastest counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.bench import batch, rotation
from harness.bench.batch import Batch
from harness.bench.driver import Kernel
from harness.bench.failures import CellError
from harness.bench.gpu import Gpu
from harness.bench.rotation import Order, Turn
from harness.bench.stopwatch import GpuStopwatch
from harness.bench.tables import TableStore
from harness.records import Cell
from harness.traces.stretches import Stretches

PTX = Path(__file__).with_name("fetch_rows.ptx")
FORMS = {"fetch_4_of_48": 6, "fetch_8_of_32": 4, "fetch_8_of_24": 3}
"""Kernels, and how many blocks of each a multiprocessor holds: rows that a warp has in flight, and warps."""
ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "in_order": lambda rows: rows,
    "sorted": lambda rows: rows.sort().values,
}
"""Of a table's row numbers: as the bags have them; and ascending, so that each row is fetched once."""
_THREADS, _CHUNK, _VECTOR = 256, 64, 16
_LEAST_BYTES, _MOST_ROWS = 64, 2**31 - 2**20
_PASSES = 60


@dataclass(frozen=True)
class Layout:
    """How a row lies on the lanes of a warp."""

    lanes: int
    """That share it, a power of two."""
    vectors: int
    """Of 16 bytes."""


def layout(row_bytes: int) -> Layout:
    """CellError for rows that the kernels do not take."""
    if row_bytes % _VECTOR or row_bytes < _LEAST_BYTES:
        raise CellError(
            f"Rows of {row_bytes} bytes are not fetched: only of {_LEAST_BYTES} and more, in whole {_VECTOR}."
        )
    vectors = row_bytes // _VECTOR
    return Layout(min(32, 1 << (vectors - 1).bit_length()), vectors)


class FetchedRows:
    """Measures one cell after the other."""

    def __init__(self, root: Path) -> None:
        """`root`: the run's folder, where trace files lie. CellError where there is no usable GPU."""
        self._root, self._store, self._gpu = root, TableStore(), Gpu()
        self._kernels = {form: Kernel(PTX, form) for form in FORMS}

    def measure(self, cell: Cell) -> dict[str, dict[str, float]]:
        """By order and form: µs of a pass, a median, timed as the cell's own stage is. CellError for tables
        of several widths, which are no rows of one kind."""
        work = cell.workload
        stretches = Stretches.read(cell, self._root)
        tables = self._store.get(work, cell.seed)
        widths = {table.size(1) * table.element_size() for table in tables.weights}
        if len(widths) > 1:
            raise CellError(f"Tables of {len(widths)} widths are not fetched as one.")
        how = layout(widths.pop())
        count = rotation.plan(cell, stretches, self._gpu.l2.size).batches
        batches = [batch.make(cell, stretches, tables, number) for number in range(count)]
        output = torch.empty(work.all_output_bytes // _VECTOR, 4, dtype=torch.int32, device="cuda")
        found: dict[str, dict[str, float]] = {}
        for name, order in ORDERS.items():
            listed = [addresses(one, order) for one in batches]
            due = of_first_chunk(batches[0], order, how)
            for form in FORMS:
                self._check(form, listed[0], how, output, due)
            found[name] = {form: self._median_us(form, listed, how, output, cell) for form in FORMS}
        return found

    def _launch(self, form: str, at: Tensor, how: Layout, output: Tensor) -> Tensor:
        blocks = FORMS[form] * torch.cuda.get_device_properties(0).multi_processor_count
        arguments: list[Tensor | int] = [at, len(at), how.lanes, how.vectors, output, len(output)]
        self._kernels[form].launch(blocks, _THREADS, arguments)
        return output

    def _check(self, form: str, at: Tensor, how: Layout, output: Tensor, due: Tensor) -> None:
        """CellError where a kernel has not read what it was asked to. `due`: see `of_first_chunk`."""
        self._launch(form, at, how, output.fill_(-1))
        each = -(-output.size(0) // -(-at.numel() // _CHUNK))
        first = output[: min(each, len(due))].cpu()
        if not torch.equal(first, due[: len(first)]):
            raise CellError(f"{form} has not read the rows that it was to fetch.")

    def _median_us(self, form: str, listed: list[Tensor], how: Layout, output: Tensor, cell: Cell) -> float:
        turns = [Turn([partial(self._launch, form, at, how, output)]) for at in listed]
        stopwatch = GpuStopwatch(
            turns,
            Order(len(turns)),
            cell.workload.tables,
            self._gpu.l2,
            cold=cell.timing.cache == "cold",
            overhead_us=self._gpu.ceilings["event_overhead_us"],
        )
        stopwatch.stages(stopwatch.block)
        times: list[float] = []
        while len(times) < _PASSES:
            times += stopwatch.stages(stopwatch.block)
        return statistics.median(times)


def addresses(one: Batch, order: Callable[[Tensor], Tensor]) -> Tensor:
    """Where each row that a batch looks up begins, table after table: int64 [lookups]. CellError for more
    than the kernels count."""
    found = [
        order(rows).long() * (table.stride(0) * table.element_size()) + table.data_ptr()
        for table, rows in zip(one.weights, one.indices, strict=True)
    ]
    if (count := sum(map(len, found))) > _MOST_ROWS:
        raise CellError(f"{count} rows in a batch are too many to be fetched at once.")
    return torch.cat(found)


def of_first_chunk(one: Batch, order: Callable[[Tensor], Tensor], how: Layout) -> Tensor:
    """What the lanes of a warp have of a batch's first rows, by exclusive or: int32 [32, 4]."""
    rows: list[Tensor] = []
    for table, numbers in zip(one.weights, one.indices, strict=True):
        taken = table[order(numbers)[: _CHUNK - sum(map(len, rows))].long()]
        rows.append(taken.contiguous().view(torch.int32).view(len(taken), how.vectors, 4))
    chunk = torch.cat(rows)
    chunk = torch.cat([chunk, chunk[-1:].expand(_CHUNK - len(chunk), -1, -1)])
    chunk = functional.pad(chunk, (0, 0, 0, -how.vectors % how.lanes))
    teams, rounds = 32 // how.lanes, chunk.size(1) // how.lanes
    of_lanes = chunk.view(_CHUNK // teams, teams, rounds, how.lanes, 4).cpu().numpy()
    of_rounds = np.bitwise_xor.reduce(of_lanes, axis=2)
    return torch.from_numpy(np.bitwise_xor.reduce(of_rounds, axis=0).reshape(32, 4))
