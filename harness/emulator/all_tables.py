"""Checks of designs that take all tables in one launch, against sums in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.build.instances import Instance
from harness.designs import Design
from harness.emulator.arguments import Memory, TablesArgs, packed, table_list
from harness.emulator.checking import (
    MULTIPROCESSORS,
    Check,
    WrongResultError,
    columns,
    covering_blocks,
    expect_refusal,
    launch_of,
    outside_rows,
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
        rows: int = 1000,
        seed: int = 0,
    ) -> None:
        """`lengths`: rows of each bag, of each table. `dim` is rounded to what the instance takes."""
        random = np.random.default_rng(seed)
        self.design, self.instance = design, instance
        self.dim, self.rows, self.mode = columns(design, instance, dim), rows, SUM
        self.lengths = np.array(lengths)
        tables = [random.normal(size=(rows, self.dim)) for _ in lengths]
        self.tables = [stored(table, instance.dtype) for table in tables]
        n, index = int(self.lengths.sum()), STORED_AS[instance.index_dtype]
        self.indices = random.integers(0, rows, n).astype(index)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(index)
        self.weights: np.ndarray | None = None
        """Per sample, in float32."""
        self.ends_at_guard = True
        self.output = unwritten((self.lengths.shape[1], len(lengths) * self.dim), instance.output_dtype)

    def grids(self) -> list[tuple[int, int]]:
        """Grids with which it may be launched; of those that depend on the GPU a small and a large one."""
        launch, (tables, bags) = launch_of(self.design, self.instance), self.lengths.shape
        if launch.blocks or launch.blocks_per_sm:
            most = covering_blocks(launch, bags, self.dim) * tables
            return [(blocks, 1) for blocks in sorted({1, min(MULTIPROCESSORS, most)})]
        if launch.rows_per_block[1]:
            return [(blocks, tables) for blocks in sorted({max(bags // 7, 1), bags})]
        return [(covering_blocks(launch, bags, self.dim), tables)]

    def run(self, program: Program, grid: tuple[int, int]) -> Ran:
        """Launches it; the results are in `output` afterwards."""
        return program.run(
            self.instance, packed(TablesArgs, self._fields()), grid, threads_of(self.design, self.instance)
        )

    def _fields(self) -> dict[str, Memory | int | None]:
        def memory(name: str, array: np.ndarray, unit: str, remedy: str = "", **more: int) -> Memory:
            return Memory(name, array, unit, remedy, ends_at_guard=self.ends_at_guard, **more)  # type: ignore[arg-type]

        plain = self.instance.general is not True
        aligned = 16 if plain or self.instance.dtype in ("int8", "int4") else 0
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
            }
            for n, table in enumerate(self.tables)
        ]
        weights = self.weights
        return {
            "tables": table_list(tables),
            "indices": memory("the indices", self.indices, "position", "read none past the end of a bag"),
            "offsets": memory(
                "the offsets", self.offsets, "place", "there is one per table and bag, and one for the end"
            ),
            "sample_weights": None if weights is None else memory("the sample weights", weights, "position"),
            "output": memory("the output", self.output, "bag", written=True, alignment=16 if plain else 0),
            "n_indices": len(self.indices),
            "n_bags": self.lengths.shape[1],
            "n_tables": self.lengths.shape[0],
            "dim": self.dim,
            "output_stride": self.output.shape[1],
            "mode": self.mode,
        }

    def check(self) -> None:
        """Compares every result with float64 sums; WrongResultError names the first difference."""
        for table, bags in enumerate(self.lengths):
            for bag in range(len(bags)):
                at = table * len(bags) + bag
                part = slice(int(self.offsets[at]), int(self.offsets[at + 1]))
                picked = self.indices[part].astype(np.int64)
                terms, magnitudes = (
                    of[picked] for of in (self.tables[table].values, self.tables[table].magnitudes)
                )
                if self.weights is not None:
                    scales = self.weights[part, None].astype(np.float64)
                    terms, magnitudes = terms * scales, magnitudes * np.abs(scales)
                expected, magnitude = terms.sum(axis=0), magnitudes.sum(axis=0)
                if self.mode == MEAN and len(terms):
                    expected, magnitude = expected / len(terms), magnitude / len(terms)
                if self.mode == MAX and len(terms):
                    expected = terms.max(axis=0)
                wrong = complaint(
                    self.output[bag, table * self.dim : (table + 1) * self.dim],
                    self.instance.output_dtype,
                    expected,
                    magnitude,
                )
                if wrong:
                    raise WrongResultError(f"table {table}, bag {bag}, of {len(terms)} rows: {wrong}")


def _right(program: Program, call: Call) -> None:
    for grid in call.grids():
        call.output[...] = unwritten(call.output.shape, call.instance.output_dtype)
        ran = call.run(program, grid)
        if ran.refused:
            raise WrongResultError(f"refuses a correct call: {ran.refused!r}")
        call.check()


def _modes(program: Program, instance: Instance) -> list[int]:
    """Those of the design that the instance may be asked for: a plain call adds up."""
    known = [MODES[mode] for mode in program.design.supports.modes]
    return known if instance.general else [mode for mode in known if mode != MAX]


def ragged(program: Program, instance: Instance) -> None:
    """Bags of no, few and some hundred rows, in every mode; at either end of every buffer a guard."""
    lengths = np.random.default_rng(7).integers(0, 60, (2, 21))
    lengths[0, :6] = [0, 1, 256, 257, 150, 0]
    lengths[1, -3:] = [31, 0, 128]
    for mode in _modes(program, instance):
        call = Call(program.design, instance, lengths.tolist())
        call.mode, call.ends_at_guard = mode, mode != MEAN
        _right(program, call)


def one_long_bag(program: Program, instance: Instance) -> None:
    """A bag much longer than the others."""
    _right(program, Call(program.design, instance, [[3, 2100, 0, 40, 7], [1, 0, 30, 601, 2]], seed=1))


def any_width(program: Program, instance: Instance) -> None:
    """Rows of fewer, as many and more columns than one round of a warp takes."""
    wanted = (1, 33, 100, 257) if instance.general else (32, 64, 96, 160, 256, 320)
    for dim in sorted({columns(program.design, instance, dim) for dim in wanted}):
        lengths = [[5, 0, 70, 33], [1, 9, 0, 17]]
        _right(program, Call(program.design, instance, lengths, dim=dim, rows=90, seed=dim))


def few_bags(program: Program, instance: Instance) -> None:
    """One bag, and nothing but empty ones."""
    for lengths in ([[0]], [[1]], [[300]], [[5], [0], [40]], [[0, 0, 0]]):
        _right(program, Call(program.design, instance, lengths))


def weighted(program: Program, instance: Instance) -> None:
    """Sample weights, in every mode that takes them."""
    for mode in (SUM, MEAN):
        call = Call(program.design, instance, [[5, 0, 70, 33], [1, 9, 0, 17]], dim=48)
        call.mode = mode
        call.weights = np.random.default_rng(5).normal(size=len(call.indices)).astype(np.float32)
        _right(program, call)


def outside(program: Program, instance: Instance) -> None:
    """An index that is no row of its table is refused wherever it stands, and never read."""
    for position in (0, 37, 38, 290, 340):
        call = Call(program.design, instance, [[38, 0, 250], [12, 40, 1]], rows=300)
        for wrong in outside_rows(instance, call.rows):
            call.indices[position] = wrong
            call.ends_at_guard = wrong >= 0
            what = f"index {wrong} at position {position} is no row of a table of {call.rows}"
            expect_refusal(call.run(program, call.grids()[-1]), what)


def descending(program: Program, instance: Instance) -> None:
    """Offsets that descend or leave the indices are refused."""
    for offsets in ([0, -1, 3, 11], [0, 5, 3, 11], [0, 3, 12, 11], [0, 3, 5, 12]):
        call = Call(program.design, instance, [[3, 4, 4]])
        call.offsets[:] = offsets
        expect_refusal(
            call.run(program, call.grids()[-1]), f"offsets {offsets} of 11 indices descend or leave them"
        )


def checks(design: Design) -> list[Check]:
    """What is checked of a design for all tables."""

    def every(_: Instance) -> bool:
        return True

    found = [
        Check("sums and means of bags of any length", every, ragged),
        Check("a bag much longer than the others", every, one_long_bag),
        Check("any number of columns", every, any_width),
        Check("few bags, and empty ones", every, few_bags),
        Check("an index outside its table is refused and never read", every, outside),
        Check("offsets that leave the indices are refused", every, descending),
    ]
    if design.supports.weighted:
        found.append(Check("sample weights", lambda instance: bool(instance.general), weighted))
    return found
