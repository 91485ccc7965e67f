"""Medians, their intervals, and whether two times can be told apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from embedding_kernels.plan import Interval

LEVEL = 0.95
LEAST_BLOCKS = 11
"""Of fewer, not even the whole range holds at the level asked for where all choices there are (six types of
rows, by at most five kernels and limits, those of one at five more crowded_clocks, and the module's own
lookup) are compared with one."""
PROCESS = 0.016
"""How far two times of one process each may lie apart by chance, as a share: processes of one kernel differ
by a standard deviation of 0.4 %, and a tune is one process (docs/measurement.md)."""


def ends(values: Sequence[float], level: float) -> tuple[float, float]:
    """The interval of the median, from order statistics: by the binomial distribution of how many values lie
    below it, so without an assumption on how they are distributed. The whole range where it takes that."""
    ordered, count = sorted(values), len(values)
    rank, below = 0, 0.0
    while rank < (count - 1) // 2:
        below += math.comb(count, rank) / 2**count
        if below > (1 - level) / 2:
            break
        rank += 1
    first = max(0, rank - 1)
    return ordered[first], ordered[count - 1 - first]


def time(blocks: Sequence[float]) -> Interval:
    """The median of the blocks' times with its interval, that of processes included."""
    median = statistics.median(blocks)
    first, last = ends(blocks, LEVEL)
    low, high = _widened(math.log(median), math.log(first), math.log(last), PROCESS / 2**0.5)
    return Interval(median, math.exp(low), math.exp(high))


def told_apart(first: Sequence[float], second: Sequence[float], comparisons: int) -> bool:
    """Whether one is faster: the interval of their ratio, block by block, leaves out 1, widened by
    what processes differ by.

    `comparisons`: so many are made at once, and the level is raised accordingly (Bonferroni).
    """
    ratios = [math.log(one / other) for one, other in zip(first, second, strict=True)]
    level = 1 - (1 - LEVEL) / max(1, comparisons)
    low, high = _widened(statistics.median(ratios), *ends(ratios, level), PROCESS)
    return low > 0 or high < 0


def _widened(middle: float, low: float, high: float, more: float) -> tuple[float, float]:
    return middle - math.hypot(middle - low, more), middle + math.hypot(high - middle, more)
