"""LRU stack distances: for every access, how many other rows were touched since the same row was touched.

A fully associative LRU cache of C rows hits exactly the accesses whose distance is below C, so one pass over
a trace answers for every cache size at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.integer[Any]]

NEVER = -1
"""The distance of a row's first access: no cache, however large, could have held it."""

_LITTLE_BYTES = 1 << 24


def occurrences(indices: Indices) -> tuple[Indices, npt.NDArray[np.int64]]:
    """The rows accessed, in their order, and how often each is. [n] -> [distinct], [distinct]

    None may be negative. Memory goes by the accesses, however large the row numbers are.
    """
    if not len(indices):
        return indices, np.zeros(0, np.int64)
    if int(indices.max()) < 4 * len(indices):  # twenty times as fast
        counts = np.bincount(indices)
        rows = np.flatnonzero(counts)
        return rows, counts[rows]
    ordered = np.sort(indices)
    last_of_row = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return ordered[last_of_row], np.diff(last_of_row, prepend=-1)


def distinct(indices: Indices) -> int:
    """How many different rows are accessed. None may be negative.

    A byte for each row up to the highest is faster than counts or sorting, and is taken where it is hardly
    more memory than the accesses are, or little."""
    accesses = len(indices)
    if not accesses or int(indices.max()) >= max(8 * accesses, min(512 * accesses, _LITTLE_BYTES)):
        return len(occurrences(indices)[0])
    seen = np.zeros(int(indices.max()) + 1, dtype=bool)
    seen[indices] = True
    return int(np.count_nonzero(seen))


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
    predecessor lies before p. Every j up to p has that too, so their number is
    #{j < i: previous(j) < previous(i)} - (p + 1).
    """
    previous = previous_accesses(indices)
    first = previous == NEVER
    # Numbered by size, so that no two are equal: first accesses come lowest, their order does not matter.
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
    """For every i, the number of j < i with permutation[j] < permutation[i]; values 0..n-1, below 2^31.

    One stable partition per bit, highest first. Two elements part at the highest bit in which they differ;
    until then they share a block and stand in it in their first order. So at each bit an element that has it
    set gains the elements before it, in its block, that have it clear. In a permutation of 0..n-1 a block
    begins at the position that equals its least value.
    """
    n = len(permutation)
    values = permutation.astype(np.int32)
    counts = np.zeros(n, dtype=np.int32)
    positions = np.arange(n, dtype=np.int32)
    clear_before = np.zeros(n + 1, dtype=np.int32)
    for bit in reversed(range((n - 1).bit_length())):
        is_set = (values & np.int32(1 << bit)) != 0
        np.cumsum(~is_set, out=clear_before[1:])
        block = values & np.int32(-(2 << bit))
        clear = clear_before[:-1] - clear_before[block]
        counts[is_set] += clear[is_set]
        target = np.where(is_set, positions - clear + np.int32(1 << bit), block + clear)
        moved_values, moved_counts = np.empty_like(values), np.empty_like(counts)
        moved_values[target], moved_counts[target] = values, counts
        values, counts = moved_values, moved_counts
    return counts[permutation].astype(np.int64)  # the values stand in order now
