"""Checks of designs that take all tables in one launch, against sums in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from harness.build import instances
from harness.build.instances import Instance
from harness.design_source import COMMON_DIR, text_of
from harness.designs import Design
from harness.emulator.checking import (
    STRIDES,
    Check,
    WrongResultError,
    columns,
    expect_refusal,
    more_than_a_block,
    outside_rows,
    strides,
)
from harness.emulator.program import Program
from harness.emulator.tables_call import MAX, MEAN, MODES, SUM, Call
from harness.emulator.values import stored, unwritten

EXACT = ("float32", "float16", "bfloat16")
"""Types of rows that hold eighths exactly."""


def _right(program: Program, call: Call, grids: Sequence[tuple[int, int]] = ()) -> None:
    """`grids`: by default those that the harness would launch."""
    for grid in grids or call.grids():
        call.output[...] = unwritten(call.output.shape, call.instance.output_dtype)
        ran = call.run(program, grid)
        if ran.refused:
            raise WrongResultError(f"refuses a correct call: {ran.refused!r}")
        call.check()


def _modes(program: Program, instance: Instance) -> list[int]:
    """Those of the design that the instance may be asked for: a fast call adds up."""
    known = [MODES[mode] for mode in program.design.supports.modes]
    return known if instance.generic else [mode for mode in known if mode != MAX]


def _right_in_every_mode(program: Program, call: Call) -> None:
    for mode in _modes(program, call.instance):
        call.modes = [mode] * len(call.modes)
        _right(program, call)


def ragged(program: Program, instance: Instance) -> None:
    """Bags of no, few and some hundred rows, in every mode; at either end of every buffer a guard."""
    lengths = np.random.default_rng(7).integers(0, 60, (2, 21))
    lengths[0, :6] = [0, 1, 256, 257, 150, 0]
    lengths[1, -3:] = [31, 0, 128]
    for mode in _modes(program, instance):
        call = Call(program.design, instance, lengths.tolist())
        call.modes, call.ends_at_guard = [mode] * 2, mode != MEAN
        _right(program, call)


def one_long_bag(program: Program, instance: Instance) -> None:
    """A bag much longer than the others."""
    _right(program, Call(program.design, instance, [[3, 2100, 0, 40, 7], [1, 0, 30, 601, 2]], seed=1))


def padded(program: Program, instance: Instance) -> None:
    """Bags that end in one row over and over, or hold nothing else, as padding makes them, in every mode."""
    lengths = [[40, 150, 300, 33, 2, 96], [31, 96, 280, 0, 1, 40]]
    for wanted in (64, 128):
        dim = columns(program.design, instance, wanted)
        call = Call(program.design, instance, lengths, dim=dim, seed=3)
        for bag, (begin, end) in enumerate(pairwise(call.offsets.tolist())):
            first = begin + (end - begin) * (bag % 3) // 4
            call.indices[max(first, end - 70) : end] = 7 + bag  # more of one number add up too inexactly
        _right_in_every_mode(program, call)


def alike(program: Program, instance: Instance) -> None:
    """Bags of one row alone, and with others behind its last or its 256th, as many as kernels may take at a
    time; of numbers whose sums are exact, for as many equal rows would add up too inexactly otherwise."""
    lengths = [[256, 257, 300, 600, 33, 0], [64, 256, 513, 1, 257, 255]]
    random = np.random.default_rng(9)
    for wanted in (64, 128):
        call = Call(program.design, instance, lengths, dim=columns(program.design, instance, wanted), seed=4)
        eighths = [random.integers(-16, 17, table.values.shape) / 8 for table in call.tables]
        call.tables = [stored(table, instance.dtype) for table in eighths]
        for bag, (begin, end) in enumerate(pairwise(call.offsets.tolist())):
            call.indices[begin : (end, end - 1, min(begin + 256, end))[bag % 3]] = 7 + bag
        _right_in_every_mode(program, call)


def one_block(program: Program, instance: Instance) -> None:
    """Many bags of two tables for a single block, which has to go on to the next when it is done with one."""
    lengths = np.arange(2 * more_than_a_block(program.design, instance)).reshape(2, -1) % 3
    _right(program, Call(program.design, instance, lengths.tolist(), dim=1, rows=50), grids=[(1, 1)])


def any_width(program: Program, instance: Instance) -> None:
    """Rows of fewer, as many and more columns than one round of a warp takes."""
    wanted = (1, 33, 100, 257) if instance.generic else (32, 64, 96, 160, 256, 320)
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
        call.modes = [mode] * 2
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
    call = Call(program.design, instance, [[38, 0, 250], [12, 40, 1]], rows=300)
    call.indices[70:110] = outside_rows(instance, call.rows)[0]
    expect_refusal(call.run(program, call.grids()[-1]), "40 indices in a row that are no row of a table")


def descending(program: Program, instance: Instance) -> None:
    """Offsets that descend or leave the indices are refused."""
    for offsets in ([0, -1, 3, 11], [0, 5, 3, 11], [0, 3, 12, 11], [0, 3, 5, 12]):
        call = Call(program.design, instance, [[3, 4, 4]])
        call.offsets[:] = offsets
        expect_refusal(
            call.run(program, call.grids()[-1]), f"offsets {offsets} of 11 indices descend or leave them"
        )


def widths_that_differ(program: Program, instance: Instance) -> None:
    """Tables of other widths and modes side by side, some no whole groups of 16 bytes; bags cut often."""
    dims = [4, 130, 6, 128, 2, 300] if instance.dtype not in ("int8", "int4") else [4, 130, 7, 128, 1, 300]
    lengths = np.random.default_rng(11).integers(0, 40, (6, 19)) * np.random.default_rng(12).integers(
        0, 2, (6, 19)
    )
    lengths[3, 4], lengths[0, 7] = 3000, 500
    call = Call(program.design, instance, lengths.tolist(), dims=dims, rows=70)
    call.modes = [SUM, MEAN, SUM, SUM, MEAN, MEAN]
    _right(program, call)


def any_order(program: Program, instance: Instance) -> None:
    """Tables whose bags stand in another order than their columns."""
    lengths = np.random.default_rng(13).integers(0, 60, (3, 9))
    call = Call(program.design, instance, lengths.tolist(), rows=70)
    call.numbers = [2, 0, 1]
    _right(program, call)


def counted(program: Program, instance: Instance) -> None:
    """Where faults are counted, wrong rows are zeros, bags with wrong offsets empty, all else is right."""
    lengths = [[3, 40, 0, 150], [7, 1, 33, 2], [0, 0, 5, 9]]
    call = Call(program.design, instance, lengths, dim=32, rows=100)
    for position, wrong in ((0, -1), (50, 100), (51, 2**31 - 1), (195, -(2**31)), (230, 7777)):
        call.indices[position] = wrong
    _right_but(program, call, rows=5, offsets=0)
    for offsets, wrong in (
        ([0, -1, 7, 11, 13, 15, 17], 2),
        ([0, 9, 7, 11, 13, 15, 17], 1),
        ([0, 3, 7, 11, 99, 15, 17], 2),
        ([5, 7, 9, 11, 13, 15, 15], 0),
    ):
        call = Call(program.design, instance, [[3, 4, 4], [2, 2, 2]], dim=32, rows=100)
        call.offsets[:] = offsets
        _right_but(program, call, rows=0, offsets=wrong)


def _right_but(program: Program, call: Call, **wrong: int) -> None:
    """Right but for so many faults, which are counted."""
    for grid in call.grids():
        call.faults = np.zeros((1, 8), np.uint32)
        call.output[...] = unwritten(call.output.shape, call.instance.output_dtype)
        ran = call.run(program, grid)
        if ran.refused:
            raise WrongResultError(f"does not count a fault but refuses it: {ran.refused!r}")
        told = {"rows": int(call.faults[0, 0]), "offsets": int(call.faults[0, 1])}
        if told != wrong:
            raise WrongResultError(f"counts {told}, where there are {wrong}")
        call.check()


def _takes_any_table(design: Design) -> Callable[[Instance], bool]:
    """Whether an instance is launched for tables that differ."""
    alike = {special.kernel: all(when.alike for when in special.when) for special in design.special}
    return lambda instance: not alike.get(instance.function, instance.generic is False)


def checks(design: Design) -> list[Check]:
    """What is checked of a design for all tables."""

    def every(_: Instance) -> bool:
        return True

    found = [
        Check("sums and means of bags of any length", every, ragged),
        Check("a bag much longer than the others", every, one_long_bag),
        Check("bags padded with one row", every, padded),
        Check("bags of one row alone", lambda instance: instance.dtype in EXACT, alike),
        Check("any number of columns", every, any_width),
        Check("few bags, and empty ones", every, few_bags),
        Check("bags of tables in any order", every, any_order),
        Check("an index outside its table is refused and never read", every, outside),
        Check("offsets that leave the indices are refused", every, descending),
    ]
    if any(strides(design)(instance) for instance in instances.of(design)):
        found.append(Check(STRIDES, strides(design), one_block))
    if design.special:
        found.append(Check("tables that differ", _takes_any_table(design), widths_that_differ))
    if any("faults" in text_of(source) for source in design.sources if source.parent != COMMON_DIR):
        found.append(Check("wrong row numbers and offsets are counted and harm nobody", every, counted))
    if design.supports.weighted:
        found.append(Check("sample weights", lambda instance: bool(instance.generic), weighted))
    return found
