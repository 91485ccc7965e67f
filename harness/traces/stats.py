"""What a trace looks like to a cache: how few rows take most accesses, and how soon they come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError
from harness.traces.stack import Indices, occurrences, stack_distances

EXACT_UP_TO = 2_000_000
"""Accesses; the stack distances of longer traces are estimated from a sample of about as many."""
_SIZES = tuple(sorted({step * 10**power for power in range(11) for step in (1, 2, 5)} | {60_000}))
"""Rows at which curves are given; 60,000 is what the paper pins in the cache."""
_BLOCK = 1 << 22
_SAMPLED_ROWS_PER_SIZE = 32
"""A cache size is estimated only where the sample keeps this many rows of it."""
_GROUPS = 16
"""The sampled rows fall into so many groups, whose differences tell the sampling error."""


@dataclass(frozen=True)
class TraceStatistics:
    """Popularity and locality of a trace. Shares and rates are parts of all accesses."""

    accesses: int
    distinct_rows: int
    rows: int | None
    """Rows of the table, where known."""
    distinct_share: float | None
    """Distinct rows ÷ rows of the table."""
    hottest_row_accesses: int
    bags: int
    bag_repeats: float
    """Share of accesses to a row that the same bag has accessed before."""
    coverage: list[tuple[int, float]]
    """(n, share of the n hottest rows), up to the first n that covers every access."""
    hit_rate: list[tuple[int, float]]
    """(n, hit rate of an LRU cache of n rows, empty at first), up to the first n that holds all rows."""
    median_stack_distance: float | None
    """Of the accesses to rows accessed before; None where there is none or the sample cannot resolve it."""
    stack_distances: list[tuple[int, int]]
    """(d, accesses with a stack distance from d up to the next entry's d)."""
    first_accesses: int
    """Accesses to rows not accessed before; they have no stack distance."""
    sampling_rate: float
    """Share of the rows whose stack distances were computed; 1: of all, exactly."""
    hit_rate_error: float
    """Two standard errors of the hit rates by sampling, the largest along the curve; 0 where exact."""


def describe(
    indices: Indices,
    pooling: int,
    *,
    rows: int | None = None,
    offsets: Indices | None = None,
    exact_up_to: int = EXACT_UP_TO,
) -> TraceStatistics:
    """The statistics of row numbers [accesses], in bags of `pooling` accesses.

    With `offsets` [bags + 1], a bag reaches from each of them to the next instead.
    Everything is exact but the stack distances of traces longer than `exact_up_to`: those are estimated from
    the accesses to a random subset of the rows (fixed-rate spatial sampling), with the error beside them.
    Works in blocks, so `indices` may be a memory map larger than memory.
    """
    if len(indices) == 0 or pooling < 1:
        raise BadInputError(
            f"Statistics need at least one access and bags of at least one (given: {len(indices)} accesses,"
            f" pooling {pooling})."
        )
    if offsets is None:
        offsets = np.append(np.arange(0, len(indices), pooling), len(indices))
    rate = min(1.0, exact_up_to / len(indices))
    counts, repeats, sample = _scan(indices, offsets, rate)
    curve = _Curve(sample, rate, len(indices), len(counts))
    hottest_first = np.sort(counts)[::-1]
    distinct = len(hottest_first)
    covered = np.cumsum(hottest_first) / len(indices)
    return TraceStatistics(
        accesses=len(indices),
        distinct_rows=distinct,
        rows=rows,
        distinct_share=distinct / rows if rows else None,
        hottest_row_accesses=int(hottest_first[0]),
        bags=len(offsets) - 1,
        bag_repeats=repeats / len(indices),
        coverage=[(size, float(covered[min(size, distinct) - 1])) for size in _sizes(1, distinct)],
        hit_rate=curve.hit_rates(),
        median_stack_distance=curve.median(),
        stack_distances=curve.histogram(),
        first_accesses=distinct,
        sampling_rate=rate,
        hit_rate_error=curve.error(),
    )


def table(traces: Mapping[str, TraceStatistics]) -> list[list[str]]:
    """The traces side by side: a heading row, then a row per figure; the first cell of each is its name."""
    every = list(traces.values())
    lines = [["", *traces]]
    lines.append(["accesses", *(f"{s.accesses:,}" for s in every)])
    lines.append(["distinct rows", *(f"{s.distinct_rows:,}" for s in every)])
    shares = [s.distinct_share for s in every]
    lines.append(["share of distinct rows", *("" if share is None else f"{share:.2%}" for share in shares)])
    lines.append(["accesses to the hottest row", *(f"{s.hottest_row_accesses:,}" for s in every)])
    lines.append(["repeats inside a bag", *(f"{s.bag_repeats:.2%}" for s in every)])
    medians = [s.median_stack_distance for s in every]
    lines.append(["median stack distance", *("" if m is None else f"{m:,.0f}" for m in medians)])
    for title, curves in (
        ("share of the hottest {:,} rows", [dict(s.coverage) for s in every]),
        ("LRU hit rate at {:,} rows", [dict(s.hit_rate) for s in every]),
    ):
        for size in sorted(set().union(*curves)):
            if size >= 100:
                lines.append([title.format(size), *(_at(curve, size) for curve in curves)])
    if any(s.sampling_rate < 1 for s in every):
        lines.append(["hit rates: rows sampled", *(f"{s.sampling_rate:.2%}" for s in every)])
        lines.append(["hit rates: error of sampling", *(f"± {s.hit_rate_error:.3f}" for s in every)])
    return lines


def _at(curve: Mapping[int, float], size: int) -> str:
    """A curve's value: its last one beyond its end, where more rows change nothing; none before it begins."""
    return f"{curve[min(size, max(curve))]:.3f}" if size >= min(curve) else ""


def bag_repeats(indices: Indices, bag_of: npt.NDArray[np.int64]) -> int:
    """How many accesses go to a row that the same bag accessed before. [n], [n]"""
    order = np.lexsort((indices, bag_of))
    row, bag = indices[order], bag_of[order]
    return int(((row[1:] == row[:-1]) & (bag[1:] == bag[:-1])).sum())


def is_sampled(indices: Indices, rate: float) -> npt.NDArray[np.bool_]:
    """Whether each access goes to a row of the random subset that holds `rate` of all rows. [n] -> [n]"""
    return _hash(np.asarray(indices, dtype=np.int64)) < np.uint64(rate * 2**32)


def _scan(
    indices: Indices, offsets: Indices, rate: float
) -> tuple[npt.NDArray[np.int64], int, npt.NDArray[np.int64]]:
    """One pass: how often each row that occurs does, repeats inside bags, and the accesses to the sampled
    rows, in order."""
    rows: Indices = np.zeros(0, dtype=np.int64)
    counts = np.zeros(0, dtype=np.int64)
    repeats, sample = 0, []
    for first, last in _bag_blocks(offsets):
        block = np.asarray(indices[offsets[first] : offsets[last]], dtype=np.int64)
        if len(block) == 0:
            continue
        if block.min() < 0:
            raise BadInputError(f"Row {block.min()} is negative; a trace numbers rows from 0.")
        rows, counts = _added(rows, counts, *occurrences(block))
        bag_of = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1]))
        repeats += bag_repeats(block, bag_of)
        sample.append(block if rate == 1 else block[is_sampled(block, rate)])
    return counts, repeats, np.concatenate(sample)


def _added(
    rows: Indices, counts: npt.NDArray[np.int64], more_rows: Indices, more_counts: npt.NDArray[np.int64]
) -> tuple[Indices, npt.NDArray[np.int64]]:
    """Two lists of rows, in order, and how often each is accessed, as one. Twice [n], [n] -> [m], [m]"""
    every = np.concatenate([rows, more_rows])
    order = np.argsort(every, kind="stable")
    ordered = every[order]
    first_of_row = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return ordered[first_of_row], np.add.reduceat(np.concatenate([counts, more_counts])[order], first_of_row)


def _bag_blocks(offsets: Indices) -> Iterator[tuple[int, int]]:
    """Ranges of bags, together about `_BLOCK` accesses, at least one bag each."""
    first, bags = 0, len(offsets) - 1
    while first < bags:
        last = int(np.searchsorted(offsets, offsets[first] + _BLOCK, side="right")) - 1
        last = min(max(last, first + 1), bags)
        yield first, last
        first = last


def _hash(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """A well mixed number below 2^32 for each row: the upper half of the finalizer of SplitMix64."""
    mixed = rows.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ mixed >> np.uint64(31)) >> np.uint64(32)


def _sizes(least: float, distinct: int) -> list[int]:
    """The sizes of a curve: from `least` to the first that takes every row."""
    enough = next(size for size in _SIZES if size >= distinct)
    return [size for size in _SIZES if least <= size <= enough]


class _Curve:
    """Stack distances of the sampled rows' accesses, scaled up to those of the whole trace.

    Between two accesses to a sampled row lie `rate` times as many sampled rows as rows, so a distance in the
    sample counts 1 / rate times. Misses are what is counted and scaled: a hot row that is in the sample by
    chance, or not, brings many hits but only its one share of misses.
    """

    def __init__(self, sample: npt.NDArray[np.int64], rate: float, accesses: int, distinct: int) -> None:
        distances = stack_distances(sample)
        again = distances >= 0
        order = np.argsort(distances[again], kind="stable")
        self._sorted = distances[again][order] / rate
        self._group = (_hash(sample[again][order]) % np.uint64(_GROUPS)).astype(np.int64)
        self._rate, self._accesses, self._distinct = rate, accesses, distinct
        self._least = 1 if rate == 1 else _SAMPLED_ROWS_PER_SIZE / rate

    def _beyond(self, size: float) -> float:
        """Accesses to known rows whose distance is `size` or more."""
        return (len(self._sorted) - int(np.searchsorted(self._sorted, size))) / self._rate

    def hit_rates(self) -> list[tuple[int, float]]:
        known = self._accesses - self._distinct
        return [
            (size, max(0.0, (known - self._beyond(size)) / self._accesses))
            for size in _sizes(self._least, self._distinct)
        ]

    def histogram(self) -> list[tuple[int, int]]:
        """By powers of two; what the sample cannot tell apart is in the first entry."""
        known = self._accesses - self._distinct
        powers = (1 << bit for bit in range(self._distinct.bit_length()))
        edges = [0, *(power for power in powers if power >= self._least)]
        beyond = [known, *(round(self._beyond(edge)) for edge in edges[1:]), 0]
        return [(edge, max(0, beyond[i] - beyond[i + 1])) for i, edge in enumerate(edges)]

    def median(self) -> float | None:
        known = self._accesses - self._distinct
        if known == 0:
            return None
        # As many accesses lie beyond the median as before it; counted from the far end, as misses are.
        from_end = len(self._sorted) - known / 2 * self._rate
        low, high = int(np.ceil(from_end - 1)), int(np.floor(from_end))
        if low < 0 or self._sorted[low] < self._least - 1:
            return None
        return float((self._sorted[low] + self._sorted[high]) / 2)

    def error(self) -> float:
        if self._rate == 1:
            return 0.0
        worst = 0.0
        for size in _sizes(self._least, self._distinct):
            beyond = self._group[np.searchsorted(self._sorted, size) :]
            misses = np.bincount(beyond, minlength=_GROUPS) / self._rate
            worst = max(worst, 2 * float(np.sqrt(_GROUPS * misses.var(ddof=1))) / self._accesses)
        return worst
