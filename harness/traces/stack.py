"""LRU stack distances: for every access, how many other rows were touched since the same row was last touched.

A fully associative LRU cache of C rows hits exactly the accesses whose distance is below C, so one pass over a
trace answers for every cache size at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.integer[Any]]

NEVER = -1
"""The distance of a row's first access: no cache, however large, could have held it."""


def previous_accesses(indices: Indices) -> npt.NDArray[np.int64]:
    """For every position, the position of the row's access before it; `NEVER` at a row's first access."""
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    again = np.flatnonzero(ordered[1:] == ordered[:-1])
    previous = np.full(len(indices), NEVER, dtype=np.int64)
    previous[order[again + 1]] = order[again]
    return previous


def stack_distances(indices: Indices) -> npt.NDArray[np.int64]:
    """The exact LRU stack distance of every access, `NEVER` at first accesses. [n] -> [n], O(n log n).

    The rows touched between an access i and its predecessor p are the positions j in (p, i) whose own
    predecessor lies at or before p. Every j up to p has that too, so their number is
    #{j < i: previous(j) < previous(i)} - (p + 1) with previous replaced by ranks that differ from one another.
    """
    previous = previous_accesses(indices)
    first = previous == NEVER
    if first.all():
        return previous
    # Ranks of `previous`: the first accesses take the lowest (in any order), the others follow by predecessor.
    has_successor = np.zeros(len(indices), dtype=bool)
    has_successor[previous[~first]] = True
    firsts = int(first.sum())
    ranks = np.empty(len(indices), dtype=np.int64)
    ranks[first] = np.arange(firsts)
    ranks[~first] = firsts - 1 + np.cumsum(has_successor)[previous[~first]]
    distances = _smaller_before(ranks) - (previous + 1)
    distances[first] = NEVER
    return distances


def _smaller_before(permutation: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For every i, the number of j < i with permutation[j] < permutation[i].

    One stable partition per bit, highest first, as in a radix sort from the top. Two elements part at the
    highest bit in which they differ; until then they share a block and stand in it in their first order. So at
    each bit an element that has it set gains the elements before it, in its block, that have it clear. In a
    permutation of 0..n-1 the block of a prefix begins at the position that equals its least value.
    """
    n = len(permutation)
    small = np.int32 if n < 2**31 else np.int64
    values = permutation.astype(small)
    counts = np.zeros(n, dtype=small)
    clear_before = np.zeros(n + 1, dtype=small)
    positions = np.arange(n, dtype=small)
    for bit in reversed(range(max(1, (n - 1).bit_length()))):
        is_set = (values >> bit) & 1
        np.cumsum(1 - is_set, out=clear_before[1:])
        block = (values >> (bit + 1)) << (bit + 1)
        clear = clear_before[:-1] - clear_before[block]
        counts += clear * is_set
        target = np.where(is_set, positions - clear + (1 << bit), block + clear)
        moved_values, moved_counts = np.empty_like(values), np.empty_like(counts)
        moved_values[target], moved_counts[target] = values, counts
        values, counts = moved_values, moved_counts
    return counts[permutation].astype(np.int64)  # the values now stand in order
