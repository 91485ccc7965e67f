"""Synthetic traces with the popularity and the temporal locality of the published ones.

The model, in two steps:

1. **Popularity.** `distinct` rows are accessed. Each is accessed once; the other accesses go to the row of
   popularity rank r (1 is the hottest) in proportion to r^-exponent · exp(-(r / (cutoff · distinct))^2).
   Counts are dealt out in whole accesses, so distinct rows and the length of a period are exact.
2. **Order.** The accesses to one row come in bursts. Each access goes on with the row's current burst with
   probability `continuation`; otherwise it begins a new burst at a place drawn uniformly from the period.
   Inside a burst, the gaps between accesses (counted in accesses to any row) follow a Weibull
   distribution with scale `gap` and shape `gap_shape`. The period is a circle: what runs past its end
   goes on at its beginning, so a trace that is replayed wraps round without a seam.

A dataset is its size and five numbers more (`Model`). Those of medium and low are fitted to what is known of
the published traces (tests/data/published_locality.toml, which the tests compare with). Of the published high
trace only the share of distinct rows, 4.05 % of the table's, is known (the paper calls it hotness): its
other parameters, medium's, are **our choice**. So is `MIXED`.

**Other sizes.** The period of a table of R rows is the published length · R / 500,000, so the share of
distinct rows and the accesses to each stay as published. A shorter trace is the beginning of a period. A
longer one goes on with another period of the same rows with the same counts in a new order: more traffic of
the same popularity, no new rows. `random` is independent uniform draws of any length: 63.21 % of a table's
rows are drawn at least once after as many draws as it has rows. `one_item` is a single row. `skewed` is
independent draws too, of row floor(rows · u^8) for u uniform in 0..1: of 3 million rows the first gets 15 %
of the accesses, the first thousand 37 %. It is of no published trace, and for tables of any size.

**The same on every machine.** Only raw 64-bit words of PCG64 are drawn (NumPy promises their stream; it does
not promise that of its distributions), and the rest is integer arithmetic. The few logarithms and powers
behind the tables are rounded far above the last bits, in which mathematical libraries differ.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError

PUBLISHED_ROWS = 500_000
"""Rows of the tables behind the published traces."""


@dataclass(frozen=True)
class Model:
    """One dataset's popularity and locality."""

    distinct: int
    """Rows that a period accesses at least once, of a table of `PUBLISHED_ROWS`."""
    length: int
    """Accesses of a period, for such a table."""
    cutoff: float
    """Where popularity ends, as a share of the distinct rows."""
    exponent: float
    """How steeply popularity falls with rank before that."""
    continuation: float
    """Probability that an access belongs to the same burst as the row's access before it."""
    gap: float
    """Scale of the gaps inside a burst, in accesses."""
    gap_shape: float
    """Shape of their distribution: 1 is exponential, less has more short and more long gaps."""


MODELS = {
    "high": Model(20_250, 429_951, 0.46, 0.44, 0.87, 750, 0.72),
    "medium": Model(102_524, 429_951, 0.46, 0.44, 0.87, 750, 0.72),
    "low": Model(231_073, 379_910, 0.39, 0.50, 0.32, 1800, 0.78),
}
NAMES = ("one_item", *MODELS, "random", "skewed")
MIXED = ("high", "medium", "low", "random")
"""What the tables of the dataset "mixed" replay, in turn: our choice, each equally often."""

MOST_ROWS = 2**28
"""Larger tables would overflow the 64-bit arithmetic below."""
_SHARE_SCALE = 2**18
"""Popularity as a whole number: the hottest row's is this."""
_STEPS = 4096
"""Entries of the table of gaps."""
_TICKS = 16
"""Places between two neighbouring accesses at which a third may fall."""
_HALF = np.uint64(32)
_EXACT = 2**20
"""Rows whose share in Zipf's law is summed one by one."""
_INDEX_BITS = np.uint64(28)
"""Low bits of a sort key: they number what is sorted, at most `MOST_ROWS` things."""
_INDEX_MASK = np.uint64(2**28 - 1)


def synthesize(name: str, rows: int, accesses: int, seed: int) -> npt.NDArray[np.int64]:
    """Row numbers [accesses] in 0..rows-1 for the named dataset; equal for equal arguments, on every machine.

    A shorter trace is the beginning of a longer one. Raises BadInputError for a name that is not in `NAMES`
    and for sizes that make no trace.
    """
    if name not in NAMES:
        raise BadInputError(f"There is no synthetic trace {name!r}; known: {', '.join(NAMES)}.")
    if not 1 <= rows <= MOST_ROWS or accesses < 1 or seed < 0:
        raise BadInputError(
            f"A synthetic trace needs 1 to {MOST_ROWS} rows, at least one access and no negative seed"
            f" (given: rows {rows}, accesses {accesses}, seed {seed})."
        )
    if name == "one_item":
        return np.full(accesses, _uniform(_words(name, seed, 0, 1), rows)[0], dtype=np.int64)
    if name == "random":
        return _uniform(_words(name, seed, 0, accesses), rows)
    if name == "skewed":
        return _skewed(_words(name, seed, 0, accesses), rows)
    model, period = MODELS[name], period_length(name, rows)
    counts = access_counts(model, min(distinct_rows(name, rows), period), period)
    row_of_rank = _row_of_rank(_words(name, seed, 0, rows))
    trace = np.empty(accesses, dtype=np.int64)
    for number, begin in enumerate(range(0, accesses, period)):
        ranks = _ordered_period(model, counts, _words(name, seed, 1 + number, 2 * period))
        end = min(begin + period, accesses)
        trace[begin:end] = row_of_rank[ranks[: end - begin]]
    return trace


def dataset_of_table(name: str, table: int) -> str:
    """Which of `NAMES` a model's table replays: the dataset itself, or for "mixed" the tables' in turn."""
    return MIXED[table % len(MIXED)] if name == "mixed" else name


def period_length(name: str, rows: int) -> int:
    """Accesses after which a dataset begins its next period: as published, for a table of 500,000 rows.

    one_item, random and skewed have none; the number of the table's rows stands in for it, as with the
    published random trace.
    """
    if name not in MODELS:
        return rows
    return max(1, round(MODELS[name].length * rows / PUBLISHED_ROWS))


def distinct_rows(name: str, rows: int) -> int:
    """Rows that one period of a dataset in `MODELS` accesses at least once."""
    return max(1, round(MODELS[name].distinct * rows / PUBLISHED_ROWS))


def access_counts(model: Model, distinct: int, period: int) -> npt.NDArray[np.int64]:
    """How often each rank is accessed in a period: [distinct], at least 1 each, `period` in all."""
    cumulated = np.cumsum(np.rint(_shares(model, distinct)).astype(np.int64))
    dealt: npt.NDArray[np.int64] = cumulated * (period - distinct) // cumulated[-1]
    return 1 + np.diff(dealt, prepend=0)


def _shares(model: Model, distinct: int) -> npt.NDArray[np.float64]:
    """The popularity of every rank, before rounding. [distinct]"""
    ranks = np.arange(1, distinct + 1, dtype=np.float64)
    # The end of a tiny table may lie before its first rank; that rank still gets what there is to share.
    cutoff = max(1.0, model.cutoff * distinct)
    return _SHARE_SCALE * ranks**-model.exponent * np.exp(-((ranks / cutoff) ** 2))


def _ordered_period(
    model: Model, counts: npt.NDArray[np.int64], words: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """One period: the ranks in the order in which they are accessed.

    `words`: two random words per access, overwritten."""
    period = int(counts.sum())
    circle = period * _TICKS
    place, draw = words[:period], words[period:]
    rank_of = np.repeat(np.arange(len(counts)), counts)
    # Accesses lie rank by rank here. A burst begins at a rank's first access and wherever one does not go on.
    begins = draw >= np.uint64(round(model.continuation * 2**32) << 32)
    begins[0] = True
    begins[1:] |= rank_of[1:] != rank_of[:-1]
    gaps = _gap_table(model)[_uniform(draw, _STEPS)]
    gaps[begins] = 0
    when = np.cumsum(gaps, out=gaps)
    starts = np.flatnonzero(begins)
    origin = _uniform(place[starts], circle) - when[starts]
    when += origin[np.cumsum(begins) - 1]
    when %= circle
    return rank_of[_order(when.view(np.uint64))]


@functools.cache
def _gap_table(model: Model) -> npt.NDArray[np.int64]:
    """Gaps in ticks, one as likely as the other. [_STEPS]"""
    return np.rint(_gap_quantiles(model)).astype(np.int64)


def _gap_quantiles(model: Model) -> npt.NDArray[np.float64]:
    """The quantiles of the gaps inside a burst, in ticks, before rounding. [_STEPS]"""
    middles = (np.arange(_STEPS) + 0.5) / _STEPS
    return _TICKS * model.gap * (-np.log1p(-middles)) ** (1 / model.gap_shape)


def _row_of_rank(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """A random order of the rows: which row has which popularity. One word per row. [rows]"""
    return _order(words >> _INDEX_BITS)


def _order(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The stable sorting order of values below 2^36. [n] -> [n]

    With the position in the low bits no two keys are equal, so every sorting algorithm gives the same order.
    """
    keys = values << _INDEX_BITS
    keys |= np.arange(len(values), dtype=np.uint64)
    keys.sort()
    keys &= _INDEX_MASK
    return keys.view(np.int64)


def _words(name: str, seed: int, stream: int, number: int) -> npt.NDArray[np.uint64]:
    """The first `number` words of the random stream that belongs to these three."""
    return np.random.PCG64([zlib.crc32(name.encode()), seed, stream]).random_raw(number)


def _uniform(words: npt.NDArray[np.uint64], bound: int) -> npt.NDArray[np.int64]:
    """Whole numbers in 0..bound-1 with equal probabilities (to bound / 2^64).

    They take the words' place: memory of their own would take longer to get than they to work out."""
    words %= np.uint64(bound)
    return words.view(np.int64)


def _skewed(words: npt.NDArray[np.uint64], rows: int) -> npt.NDArray[np.int64]:
    """floor(rows · u^8), with u and its powers in 32 bits. They take the words' place, as above."""
    words >>= _HALF
    for _ in range(3):
        words *= words
        words >>= _HALF
    words *= np.uint64(rows)
    words >>= _HALF
    return words.view(np.int64)


def zipf(
    rows: int, accesses: int, seed: int, *, s: float, q: float, hottest: Sequence[float] = ()
) -> npt.NDArray[np.int64]:
    """Independent draws [accesses] of rows 0..rows-1. Each of the first rows gets its share in `hottest`; the
    rest goes to row x - 1 in proportion to (x + q)^-s, by the integral of that beyond `_EXACT` rows.

    A draw may differ between machines where it lies within the last bits of a row's bounds.
    """
    unit = (_words("zipf", seed, 0, accesses) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    first, exact = len(hottest), min(rows, _EXACT)
    weights = (np.arange(first + 1, exact + 1) + q) ** -s
    tail = _integral(exact + 0.5 + q, rows + 0.5 + q, s)
    taken = float(np.sum(hottest))
    scale = max(0.0, 1 - taken) / (float(weights.sum()) + tail)
    bounds = np.cumsum(np.concatenate([np.asarray(hottest, dtype=float), weights * scale]))
    found = np.searchsorted(bounds, unit, side="right")
    beyond = found >= exact
    if tail > 0:
        share = (unit[beyond] - bounds[-1]) / (tail * scale)
        found[beyond] = np.floor(_upper_bound(exact + 0.5 + q, share * tail, s) - q - 0.5)
    drawn: npt.NDArray[np.int64] = np.clip(found, 0, rows - 1).astype(np.int64)
    return drawn


def _integral(low: float, high: float, s: float) -> float:
    """Of x^-s from low to high."""
    return float(np.log(high / low)) if s == 1 else (high ** (1 - s) - low ** (1 - s)) / (1 - s)


def _upper_bound(low: float, area: npt.NDArray[np.float64], s: float) -> npt.NDArray[np.float64]:
    """Up to where the integral of x^-s from low on is `area`."""
    if s == 1:
        return low * np.exp(area)
    bound: npt.NDArray[np.float64] = np.maximum(low ** (1 - s) + (1 - s) * area, 0) ** (1 / (1 - s))
    return bound
