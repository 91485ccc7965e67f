"""Checks of designs for EmbeddingBag, a launch per table, against sums in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.build import instances
from harness.build.instances import Instance
from harness.designs import Design
from harness.emulator.arguments import Array, LookupArgs, Memory, PrepareArgs, packed
from harness.emulator.checking import (
    MULTIPROCESSORS,
    STRIDES,
    Check,
    WrongResultError,
    columns,
    covering_blocks,
    expect_refusal,
    launch_of,
    more_than_a_block,
    outside_rows,
    strides,
    threads_of,
)
from harness.emulator.program import Program, Ran
from harness.emulator.values import STORED_AS, complaint, stored, unwritten

SUM, MEAN = 0, 1
RAGGED = (0, 1, 7, 0, 0, 2, 33, 3, 16, 0)


class Batch:
    """One table and one batch. Every buffer touches a guard with its end, or else with its beginning."""

    def __init__(
        self,
        design: Design,
        instance: Instance,
        lengths: Sequence[int],
        *,
        rows: int = 50,
        dim: int = 40,
        seed: int = 0,
    ) -> None:
        """`lengths`: rows of each bag. `dim` is rounded to what the instance takes."""
        random = np.random.default_rng(seed)
        self.design, self.instance = design, instance
        self.dim = columns(design, instance, dim)
        self.table = random.normal(size=(rows, self.dim))
        self.n, self.ends, index = sum(lengths), np.cumsum(lengths), STORED_AS[instance.index_dtype]
        self.indices = random.integers(0, rows, self.n).astype(index)
        self.offsets = (self.ends - lengths).astype(index)
        self.weights: Array | None = None
        """Per sample, in float64."""
        self.mode, self.padding_idx = SUM, -1
        self.ends_at_guard, self.columns_apart, self.output_only = True, False, design.output_only
        self.output = unwritten((len(lengths), self.dim), instance.dtype)
        self.offset2bag = np.full(self.n, -1, index)
        self.bag_size = np.full(len(lengths), -1, index)

    def run(self, program: Program, threads: tuple[int, int] | None = None, blocks: int = 0) -> Ran:
        """Launches the lookup as its design says; what it wrote is in the arrays afterwards."""
        launch, bags = launch_of(self.design, self.instance), len(self.offsets)
        fixed = min(launch.blocks, MULTIPROCESSORS)
        covering = covering_blocks(launch, bags, self.dim)
        if launch.blocks_per_sm:
            covering = min(covering, launch.blocks_per_sm * MULTIPROCESSORS)
        return program.run(
            self.instance,
            packed(LookupArgs, self._fields()),
            (blocks or fixed or covering, 1),
            threads or threads_of(self.design, self.instance),
        )

    def _fields(self) -> dict[str, Memory | int | None]:
        dtype = self.instance.dtype
        table = stored(self.table, dtype).data
        fast = self.instance.generic is False
        self.table_memory = self._memory(
            "the table",
            np.ascontiguousarray(table.T if self.columns_apart else table),
            "column" if self.columns_apart else "row",
            ""
            if self.columns_apart
            else "assert that it is a row of the table before it is read (LOOKUP_ASSERT)",
            alignment=16 if fast else 0,
        )
        weights = None
        if self.weights is not None:  # every second of them is another's
            apart = np.zeros(max(2 * self.n - 1, 0), STORED_AS[dtype])
            apart[::2] = stored(self.weights[:, None], dtype).data[:, 0]
            weights = self._memory("the sample weights", apart, "place", "those of a bag are 2 apart here")
        fields: dict[str, Memory | int | None] = {
            "weights": self.table_memory,
            "indices": self._memory(
                "the indices", self.indices, "position", "read none past the end of a bag"
            ),
            "offsets": self._memory(
                "the offsets", self.offsets, "bag", "there is one per bag; the last bag ends at n_indices"
            ),
            "sample_weights": weights,
            "output": self._memory(
                "the output", self.output, "bag", written=True, alignment=16 if fast else 0
            ),
            "n_indices": self.n,
            "n_bags": len(self.offsets),
            "dim": self.dim,
            "rows": len(self.table),
            "row_stride": 1 if self.columns_apart else self.dim,
            "column_stride": len(self.table) if self.columns_apart else 1,
            "sample_weight_stride": 2 if weights else 0,
            "padding_idx": self.padding_idx,
            "mode": self.mode,
        }
        if not self.output_only:
            fields["offset2bag"] = self._memory("offset2bag", self.offset2bag, "position", written=True)
            fields["bag_size"] = self._memory("bag_size", self.bag_size, "bag", written=True)
        return fields

    def _memory(
        self,
        name: str,
        array: Array,
        unit: str,
        remedy: str = "",
        *,
        written: bool = False,
        alignment: int = 0,
    ) -> Memory:
        return Memory(
            name, array, unit, remedy, written=written, alignment=alignment, ends_at_guard=self.ends_at_guard
        )

    def check(self) -> None:
        """Compares all that was written with float64 sums; WrongResultError names the first difference."""
        table = stored(self.table, self.instance.dtype).values
        for bag, end in enumerate(self.ends):
            begin = self.ends[bag - 1] if bag else 0
            picked = self.indices[begin:end].astype(np.int64)
            kept = picked != self.padding_idx
            terms = table[picked[kept]]
            if self.weights is not None:
                scales = stored(self.weights[begin:end, None], self.instance.dtype).values
                terms = terms * scales[kept]
            divisor = max(int(kept.sum()), 1) if self.mode == MEAN else 1
            wrong = complaint(
                self.output[bag],
                self.instance.dtype,
                terms.sum(axis=0) / divisor,
                np.abs(terms).sum(axis=0) / divisor,
            )
            where = f"bag {bag}, of {len(picked)} rows"
            if wrong:
                raise WrongResultError(f"{where}: {wrong}")
            if self.output_only:
                continue
            if self.bag_size[bag] != kept.sum():
                raise WrongResultError(f"{where}: bag_size is {self.bag_size[bag]} instead of {kept.sum()}")
            others = np.flatnonzero(self.offset2bag[begin:end] != bag)
            if others.size:
                at = int(others[0] + begin)
                raise WrongResultError(f"{where}: offset2bag[{at}] is {self.offset2bag[at]} instead of {bag}")


def _right(program: Program, batch: Batch, *, blocks: int = 0) -> None:
    ran = batch.run(program, blocks=blocks)
    if ran.refused:
        raise WrongResultError(f"refuses a correct call: {ran.refused!r}")
    batch.check()


def ragged(program: Program, instance: Instance) -> None:
    """At either end of every buffer a guard; in the table's own modes."""
    for mode, name in enumerate(("sum", "mean")):
        for ends_at_guard in (True, False) if name in program.design.supports.modes else ():
            batch = Batch(program.design, instance, RAGGED, seed=mode)
            batch.mode, batch.ends_at_guard = mode, ends_at_guard
            _right(program, batch)


def one_block(program: Program, instance: Instance) -> None:
    """Many bags for a single block, which has to go on to the next when it is done with one."""
    bags = np.arange(more_than_a_block(program.design, instance)) % 3
    _right(program, Batch(program.design, instance, bags.tolist(), dim=1), blocks=1)


def any_length(program: Program, instance: Instance) -> None:
    """The last bag ends at the end of the indices; whoever reads one more is noticed."""
    for length in (*range(3 * max([0, *instance.tunables.values()]) + 4), 31, 32, 33, 65, 150):
        _right(program, Batch(program.design, instance, [2, length], dim=3, seed=length))


def any_width(program: Program, instance: Instance) -> None:
    """Rows of fewer, as many and more columns than a warp has lanes, and of several rounds of them."""
    wanted = (1, 31, 32, 33, 100, 128, 160, 257)
    for dim in sorted({columns(program.design, instance, dim) for dim in wanted}):
        _right(program, Batch(program.design, instance, [3, 0, 40], dim=dim, seed=dim))


def padding(program: Program, instance: Instance) -> None:
    """The padding row is never added, whatever it holds; a bag of nothing else is empty."""
    batch = Batch(program.design, instance, [5, 0, 9, 4], rows=4, seed=3)
    batch.padding_idx = 2
    batch.mode = MEAN if "mean" in program.design.supports.modes else SUM
    batch.table[2] = np.nan
    batch.indices[14:18] = 2
    _right(program, batch)


def weighted(program: Program, instance: Instance) -> None:
    """Sample weights that do not lie side by side."""
    batch = Batch(program.design, instance, [5, 0, 9, 4], seed=4)
    batch.weights = np.random.default_rng(5).normal(size=18)
    _right(program, batch)


def unusual(program: Program, instance: Instance) -> None:
    """A table whose columns lie apart, and outputs that nobody wants."""
    batch = Batch(program.design, instance, [3, 4], dim=50)
    batch.columns_apart = batch.output_only = True
    _right(program, batch)
    batch = Batch(program.design, instance, [3, 4], dim=50)
    batch.output_only = False
    _right(program, batch)


def outside(program: Program, instance: Instance) -> None:
    """An index that is no row of the table is refused wherever it stands, and never read."""
    for position in (0, 1, 4, 10):
        batch = Batch(program.design, instance, [4, 7], dim=1)
        for wrong in outside_rows(instance, len(batch.table)):
            batch.indices[position] = wrong
            batch.ends_at_guard = wrong >= 0
            what = f"index {wrong} at position {position} is no row of a table of {len(batch.table)}"
            expect_refusal(batch.run(program), what)


def descending(program: Program, instance: Instance) -> None:
    """Offsets that descend or leave the indices are refused."""
    for offsets in ([0, -1, 3], [0, 5, 3], [0, 3, 12]):
        batch = Batch(program.design, instance, [3, 4, 4])
        batch.offsets[:] = offsets
        expect_refusal(batch.run(program), f"offsets {offsets} of 11 indices descend or leave them")


def prefetched(program: Program, instance: Instance) -> None:
    """Every 128-byte line that holds a part of a hot row is prefetched once, and no other."""
    hot = np.array([7, 0, 3, 9], np.int64)
    for row_bytes in (2, 4, 100, 128, 132, 256, 510, 512):
        for gap in (0, 4, 128):
            for misaligned in (0, 4, 64, 127):
                begin, stride = 2**40 + misaligned, row_bytes + gap  # an address that is never read
                args = packed(
                    PrepareArgs,
                    {
                        "weights": begin,
                        "hot_rows": Memory("the hot rows", hot, "place"),
                        "n_hot_rows": 4,
                        "row_bytes": row_bytes,
                        "row_stride_bytes": stride,
                    },
                )
                wanted: list[int] = []
                for row in hot.tolist():
                    first, last = begin + row * stride, begin + row * stride + row_bytes - 1
                    wanted += range(first // 128 * 128, last + 1, 128)
                for blocks, threads in ((1, (32, 1)), (2, (32, 8))):
                    got = program.run(instance, args, (blocks, 1), threads).prefetched.tolist()
                    if sorted(got) != sorted(wanted):
                        raise WrongResultError(
                            f"of 4 hot rows of {row_bytes} bytes, {stride} apart, {misaligned} bytes into a "
                            f"line: {len(got)} lines are prefetched instead of {len(wanted)}, or others"
                        )


def checks(design: Design) -> list[Check]:
    """What is checked of a design for EmbeddingBag."""

    def is_lookup(instance: Instance) -> bool:
        return instance.function == "lookup"

    def is_generic(instance: Instance) -> bool:
        return is_lookup(instance) and instance.generic is not False

    found = [
        Check("sums and means of ragged and empty bags", is_lookup, ragged),
        Check("no index is read past the end of a bag, whatever its length", is_lookup, any_length),
        Check("any number of columns", is_lookup, any_width),
        Check("an index outside the table is refused and never read", is_lookup, outside),
        Check("offsets that leave the indices are refused", is_lookup, descending),
        Check("columns apart, and outputs that nobody wants", is_generic, unusual),
    ]
    if any(strides(design)(instance) for instance in instances.of(design)):
        found.append(Check(STRIDES, strides(design), one_block))
    if design.supports.padding:
        found.append(Check("a padding row is never added", is_generic, padding))
    if design.supports.weighted:
        found.append(Check("sample weights", is_generic, weighted))
    if design.prepares:
        found.append(
            Check("every line of a hot row is prefetched once", lambda i: i.function == "prepare", prefetched)
        )
    return found
