"""Limits of "fused" (`EmbeddingTables.use_limits`) that a group could be served by."""

from __future__ import annotations

from collections.abc import Sequence

from embedding_kernels._asked import Asked
from embedding_kernels._clock import Clock
from embedding_kernels._layout import CROWDED_BITS, USUAL, Limits, Shape
from embedding_kernels.tables import EmbeddingTables

FEW_ROWS, MANY_BAGS, WIDE = 32, 3, 129
"""The usual ones (opt_designs/fused/design.toml)."""
_SHARES = 0.5, 0.75, 4 / 3
"""Of the usual crowded_clocks. On an H200 0.65 to 1.1 of it were as fast as each other, 1.5 slower
(opt_designs/fused/LOG.md)."""
_ALWAYS, _NEVER = 0, (1 << CROWDED_BITS) - 1


def moved(tables: EmbeddingTables, calls: Sequence[Asked], row_type: str, clock: Clock) -> list[Limits]:
    """For each kernel that the usual limits give none of the calls, or not all: limits moved as little as
    gives it all of them. Of the kernel for many bags, where its bags are long enough that it takes the time
    of its loads, others of `crowded_clocks` besides."""
    shapes = [shape.of_type(row_type) for shape in tables._shapes]
    alike = len({(shape.dim, shape.row_type) for shape in shapes}) == len(set(tables.modes)) == 1
    whole = all(shape.row_bytes % 16 == 0 for shape in shapes)
    weighted = any(call.weights is not None for call in calls)
    full = [call for call in calls if call.bags]
    if not alike or not whole or weighted or "max" in tables.modes or not full:
        return []  # one kernel takes them all
    rows = [call.indices.numel() / (call.bags * call.features) for call in full]
    bags = [call.bags / clock.multiprocessors for call in full]
    few = min(FEW_ROWS, int(min(rows)))
    for_few = _told(max(FEW_ROWS, int(max(rows)) + 1), MANY_BAGS)
    for_many = _told(few, min(MANY_BAGS, int(min(bags))))
    for_any = _told(few, max(MANY_BAGS, int(max(bags)) + 1))
    if shapes[0].row_type != "float32" or shapes[0].dim >= WIDE:  # whatever many bags are
        found = [for_few, _told(few, MANY_BAGS)]
    else:
        found = [for_few, for_many, for_any]
        if any(_longest(call) >= _rows_timed(shapes[0]) for call in full):
            usual = clock.crowded_clocks
            between = {min(round(share * usual), _NEVER) for share in _SHARES}
            others = sorted({_ALWAYS, *between, _NEVER} - {usual})
            found += [for_many._replace(crowded_clocks=each) for each in others]
    return [limits for limits in found if limits != USUAL]


def _told(few_rows: int, many_bags: int) -> Limits:
    """Those that are not the usual ones."""
    return Limits(None if few_rows == FEW_ROWS else few_rows, None if many_bags == MANY_BAGS else many_bags)


def _longest(call: Asked) -> int:
    """The rows of the longest bag."""
    return max(int(call.ends(slot).diff().max()) for slot in call.slots)


def _rows_timed(shape: Shape) -> int:
    """How many rows the kernel for many bags takes the time of, at the least: 32 steps of 1 KB, by 128
    columns at a time, or 64 or 32 where that is all there are (opt_designs/fused/large/walk.cuh)."""
    return 32 * 1024 // (512 if shape.dim > 64 else 256 if shape.dim > 32 else 128)
