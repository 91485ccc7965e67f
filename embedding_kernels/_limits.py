"""Limits between the kernels of "fused" (`EmbeddingTables.use_limits`) that a group could be served by."""

from __future__ import annotations

from collections.abc import Sequence

from embedding_kernels._asked import Asked
from embedding_kernels.tables import EmbeddingTables

FEW_ROWS, MANY_BAGS = 32, 3
"""The usual ones (opt_designs/fused/design.toml)."""
Limits = tuple[int | None, int | None]


def moved(
    tables: EmbeddingTables, calls: Sequence[Asked], row_type: str, multiprocessors: int
) -> list[Limits]:
    """For each kernel that the usual limits give none of the calls, or not all: limits moved as little as
    gives it all of them."""
    shapes = [shape.of_type(row_type) for shape in tables._shapes]
    alike = len({(shape.dim, shape.row_type) for shape in shapes}) == len(set(tables.modes)) == 1
    whole = all(shape.row_bytes % 16 == 0 for shape in shapes)
    weighted = any(call.weights is not None for call in calls)
    full = [call for call in calls if call.bags]
    if not alike or not whole or weighted or "max" in tables.modes or not full:
        return []  # one kernel takes them all
    rows = [call.indices.numel() / (call.bags * call.features) for call in full]
    bags = [call.bags / multiprocessors for call in full]
    few = min(FEW_ROWS, int(min(rows)))
    for_few = max(FEW_ROWS, int(max(rows)) + 1), MANY_BAGS
    for_many = few, min(MANY_BAGS, int(min(bags)))
    for_any = few, max(MANY_BAGS, int(max(bags)) + 1)
    wanted = [for_few, for_many, for_any] if shapes[0].row_type == "float32" else [for_few, (few, MANY_BAGS)]
    usual = FEW_ROWS, MANY_BAGS
    found: list[Limits] = []
    for limits in wanted:
        told = tuple(None if limit == old else limit for limit, old in zip(limits, usual, strict=True))
        if told != (None, None):
            found.append((told[0], told[1]))
    return found
