"""A call of a design that takes all tables in one launch, and what it should come to in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.build.instances import Instance
from harness.designs import Design
from harness.emulator.arguments import Memory, TablesArgs, packed, table_list
from harness.emulator.checking import (
    MULTIPROCESSORS,
    WrongResultError,
    columns,
    covering_blocks,
    launch_of,
    threads_of,
)
from harness.emulator.program import Program, Ran
from harness.emulator.values import STORED_AS, complaint, stored, unwritten

SUM, MEAN, MAX = 0, 1, 2
MODES = {"sum": SUM, "mean": MEAN, "max": MAX}


class Call:
    """Tables and a batch. Every buffer touches a guard with its end, or else with its beginning."""

    def __init__(
        self,
        design: Design,
        instance: Instance,
        lengths: Sequence[Sequence[int]],
        *,
        dim: int = 128,
        dims: Sequence[int] = (),
        rows: int = 1000,
        seed: int = 0,
    ) -> None:
        """`lengths`: rows of each bag, of each table. `dim` is rounded to what the instance takes; `dims`,
        where given, are each table's and are left as they are."""
        random = np.random.default_rng(seed)
        self.design, self.instance = design, instance
        self.lengths, self.rows = np.array(lengths), rows
        self.differ = bool(dims)
        self.dims = list(dims) or [columns(design, instance, dim)] * len(lengths)
        self.modes = [SUM] * len(lengths)
        self.numbers = list(range(len(lengths)))
        """Each table's among all: its bags are those from there on."""
        tables = [random.normal(size=(rows, dim)) for dim in self.dims]
        self.tables = [stored(table, instance.dtype) for table in tables]
        n, index = int(self.lengths.sum()), STORED_AS[instance.index_dtype]
        self.indices = random.integers(0, rows, n).astype(index)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(index)
        self.weights: np.ndarray | None = None
        """Per sample, in float32."""
        self.ends_at_guard = True
        self.faults: np.ndarray | None = None
        """LookupFaults, where they are counted: three numbers, a table, a bag and an index."""
        self.tickets = np.zeros((1, 2), np.uint32)
        self.output = unwritten((self.lengths.shape[1], sum(self.dims)), instance.output_dtype)

    @property
    def column(self) -> list[int]:
        """Where each table's columns begin in the output."""
        return [sum(self.dims[:table]) for table in range(len(self.dims))]

    def grids(self) -> list[tuple[int, int]]:
        """Grids with which it may be launched; of those that depend on the GPU a small and a large one."""
        launch, (tables, bags) = launch_of(self.design, self.instance), self.lengths.shape
        if launch.blocks or launch.blocks_per_sm:
            most = min(
                covering_blocks(launch, bags, max(self.dims)) * tables,
                MULTIPROCESSORS * launch.blocks_per_sm or launch.blocks,
            )
            return [(blocks, 1) for blocks in sorted({1, most})]
        return [(covering_blocks(launch, bags, max(self.dims)), tables)]

    def run(self, program: Program, grid: tuple[int, int]) -> Ran:
        """Launches it; the results are in `output` afterwards."""
        return program.run(
            self.instance, packed(TablesArgs, self._fields()), grid, threads_of(self.design, self.instance)
        )

    def _fields(self) -> dict[str, Memory | int | None]:
        def memory(name: str, array: np.ndarray, unit: str, remedy: str = "", **more: int) -> Memory:
            return Memory(name, array, unit, remedy, ends_at_guard=self.ends_at_guard, **more)  # type: ignore[arg-type]

        fast = self.instance.generic is not True and not self.differ
        aligned = 16 if fast or self.instance.dtype in ("int8", "int4") else 4 if self.differ else 0
        tables: list[dict[str, Memory | int | None]] = [
            {
                "weights": memory(
                    f"table {n}",
                    table.data,
                    "row",
                    "assert that it is a row of its table before it is read (LOOKUP_ASSERT)",
                    alignment=aligned,
                ),
                "scales": None
                if table.scales is None
                else memory(f"the scales of table {n}", table.scales, "row", alignment=4),
                "rows": self.rows,
                "row_stride_bytes": table.data.strides[0],
                "column": self.column[n],
                "dim": self.dims[n],
                "mode": self.modes[n],
                "number": self.numbers[n],
            }
            for n, table in enumerate(self.tables)
        ]
        weights, faults = self.weights, self.faults
        return {
            "tables": table_list(tables),
            "indices": memory("the indices", self.indices, "position", "read none past the end of a bag"),
            "offsets": memory(
                "the offsets", self.offsets, "place", "there is one per table and bag, and one for the end"
            ),
            "sample_weights": None if weights is None else memory("the sample weights", weights, "position"),
            "output": memory("the output", self.output, "bag", written=True, alignment=16 if fast else 0),
            "faults": None
            if faults is None
            else memory("the counters of faults", faults, "counter", written=True, alignment=8),
            "tickets": memory("the tickets", self.tickets, "ticket", written=True, alignment=8),
            "n_indices": len(self.indices),
            "n_bags": self.lengths.shape[1],
            "n_tables": self.lengths.shape[0],
            "dim": max(self.dims),
            "output_stride": self.output.shape[1],
            "rows_per_bag": len(self.indices) / max(self.lengths.size, 1),
            "first_number": -1 if self.differ or self.numbers != sorted(self.numbers) else 0,
            "crowded_clocks": 720,
        }

    def check(self) -> None:
        """Compares every result with float64 sums; WrongResultError names the first difference."""
        if self.tickets.any():
            raise WrongResultError(
                "leaves tickets that are not zero, which the next launch would count on from"
            )
        for table, bags in enumerate(self.lengths):
            for bag in range(len(bags)):
                self._check_bag(table, bag)

    def _check_bag(self, table: int, bag: int) -> None:
        at, mode = self.numbers[table] * self.lengths.shape[1] + bag, self.modes[table]
        n = len(self.indices)
        begin, end = int(self.offsets[at]), int(self.offsets[at + 1])
        part = slice(begin, end if 0 <= begin <= end <= n else begin)  # wrong offsets: an empty bag
        picked = self.indices[part].astype(np.int64)
        known = (picked >= 0) & (picked < self.rows)  # others count as rows of zeros
        terms, magnitudes = (
            np.where(known[:, None], of[np.where(known, picked, 0)], 0)
            for of in (self.tables[table].values, self.tables[table].magnitudes)
        )
        if self.weights is not None:
            scales = self.weights[part, None].astype(np.float64)
            terms, magnitudes = terms * scales, magnitudes * np.abs(scales)
        expected, magnitude = terms.sum(axis=0), magnitudes.sum(axis=0)
        if mode == MEAN and len(terms):
            expected, magnitude = expected / len(terms), magnitude / len(terms)
        if mode == MAX and len(terms):
            expected = terms.max(axis=0)
        columns_of = slice(self.column[table], self.column[table] + self.dims[table])
        wrong = complaint(self.output[bag, columns_of], self.instance.output_dtype, expected, magnitude)
        if wrong:
            raise WrongResultError(f"table {table}, bag {bag}, of {len(terms)} rows: {wrong}")
