"""Synthetic traces with the popularity and the temporal locality of the published ones.

The model, in two steps:

1. **Popularity.** `distinct` rows are accessed. Each is accessed once; the other accesses go to the row of
   popularity rank r (1 is the hottest) in proportion to r^-exponent · exp(-(r / (cutoff · distinct))^2).
   Counts are dealt out in whole accesses, so distinct rows and the length of a period are exact.
2. **Order.** The accesses to one row come in bursts. Each access goes on with the row's current burst with
   probability `continuation`; otherwise it begins a new burst at a place drawn uniformly from the period.
   Inside a burst, the gaps between accesses (counted in accesses to any row) follow a Weibull distribution with
   scale `gap` and shape `gap_shape`. The period is a circle: what runs past its end goes on at its beginning, so
   a trace that is replayed wraps round without a seam.

Six numbers describe a dataset (`Model`). Those of medium and low are fitted to what is known of the published
traces (tests/data/published_locality.toml). Of the published high trace only its hotness, 4.05 %, is known: its
length is taken to be medium's, and its other parameters are **our choice**, see `MODELS`.

**Other sizes.** The period of a table of R rows is the published length · R / 500,000, so hotness and accesses per
distinct row stay as published. A shorter trace is a beginning of a period. A longer one goes on with another period
of the same rows with the same counts in a new order: more traffic of the same popularity, no new rows.
`random` is independent uniform draws of any length: 63.21 % of a table's rows once as many were drawn as it has.

**The same on every machine.** Only raw 64-bit words of PCG64 are drawn (NumPy promises their stream; it does not
promise that of its distributions), and the rest is integer arithmetic. The few logarithms and powers behind the
tables are rounded far above the last bits in which mathematical libraries differ.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError

PUBLISHED_ROWS = 500_000
"""Rows of the tables behind the published traces."""


@dataclass(frozen=True)
class Model:
    """One dataset's popularity and locality."""

    hotness: float
    """Distinct rows of a period ÷ rows of the table."""
    length: int
    """Accesses of a period, for a table of `PUBLISHED_ROWS`."""
    exponent: float
    """How steeply popularity falls with rank."""
    cutoff: float
    """Where popularity ends, as a share of the distinct rows."""
    continuation: float
    """Probability that an access belongs to the same burst as the row's access before it."""
    gap: float
    """Scale of the gaps inside a burst, in accesses."""
    gap_shape: float
    """Shape of their distribution: 1 is exponential, less has more short and more long gaps."""


MODELS = {
    # Our choice but for the hotness: medium's length, popularity and bursts.
    "high": Model(20_250 / 500_000, 429_951, 0.42, 0.6, 0.86, 740, 0.72),
    "medium": Model(102_524 / 500_000, 429_951, 0.42, 0.6, 0.86, 740, 0.72),
    "low": Model(231_073 / 500_000, 379_910, 0.56, 0.4, 0.4, 3000, 0.72),
}
NAMES = ("one_item", *MODELS, "random")

_STEPS = 4096
"""Entries of the table of gaps; the longest gap is exceeded with probability 1 / (2 · _STEPS)."""
_TICKS = 16
"""Places between two neighbouring accesses at which a third may fall."""
_INDEX_BITS = 31
"""Low bits of a sort key, which number the accesses of a period."""


def synthesize(name: str, rows: int, accesses: int, seed: int) -> npt.NDArray[np.int64]:
    """Row numbers [accesses] in 0..rows-1 for the named dataset; the same for equal arguments, on every machine.

    A shorter trace is the beginning of a longer one. Raises BadInputError for a name that is not in `NAMES` and
    for sizes that make no trace.
    """
    if name not in NAMES:
        raise BadInputError(f"There is no synthetic trace {name!r}; known: {', '.join(NAMES)}.")
    if rows < 1 or accesses < 1 or seed < 0:
        raise BadInputError(
            f"A trace needs at least one row and one access and no negative seed"
            f" (given: rows {rows}, accesses {accesses}, seed {seed})."
        )
    if name == "one_item":
        return np.full(accesses, _uniform(_words(name, seed, 0, 1), rows)[0], dtype=np.int64)
    if name == "random":
        return _uniform(_words(name, seed, 0, accesses), rows)
    model = MODELS[name]
    period = period_length(name, rows)
    if period >= 2**_INDEX_BITS:
        raise BadInputError(f"Trace {name!r} cannot be made for {rows} rows; the most is {2**30}.")
    counts = access_counts(model, min(distinct_rows(name, rows), period), period)
    row_of_rank = _row_of_rank(name, rows, seed)
    trace = np.empty(accesses, dtype=np.int64)
    for number, begin in enumerate(range(0, accesses, period)):
        ranks = _ordered_period(model, counts, _words(name, seed, 1 + number, 2 * period))
        end = min(begin + period, accesses)
        trace[begin:end] = row_of_rank[ranks[: end - begin]]
    return trace


def period_length(name: str, rows: int) -> int:
    """Accesses after which the named dataset begins a new period: the published number for a table of 500,000 rows.

    one_item and random have no period; a table's number of rows stands in for it, as for the published random.
    """
    return max(1, round(MODELS[name].length * rows / PUBLISHED_ROWS)) if name in MODELS else rows


def distinct_rows(name: str, rows: int) -> int:
    """Rows that one period of a dataset in `MODELS` accesses at least once."""
    return max(1, round(MODELS[name].hotness * rows))


def access_counts(model: Model, distinct: int, period: int) -> npt.NDArray[np.int64]:
    """How often each rank is accessed in a period: [distinct], at least 1 each, `period` in all."""
    ranks = np.arange(1, distinct + 1, dtype=np.float64)
    share = ranks**-model.exponent * np.exp(-((ranks / (model.cutoff * distinct)) ** 2))
    cumulated = np.cumsum(np.rint(share * 2**20).astype(np.int64))
    # Exact in integers: Python's own where the product might pass 64 bits.
    extra, total = period - distinct, int(cumulated[-1])
    if total.bit_length() + extra.bit_length() < 63:
        dealt = cumulated * extra // total
    else:
        dealt = np.array([int(c) * extra // total for c in cumulated], dtype=np.int64)
    return 1 + np.diff(dealt, prepend=0)


def _ordered_period(
    model: Model, counts: npt.NDArray[np.int64], words: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """One period: the ranks in the order in which they are accessed. `words`: two random words per access."""
    period = int(counts.sum())
    circle = period * _TICKS
    place, draw = words[:period], words[period:]
    rank_of = np.repeat(np.arange(len(counts)), counts)
    # Accesses lie row by row here. A burst begins with a row's first access and wherever one does not go on.
    begins = (draw >> np.uint64(32)).astype(np.int64) >= round(model.continuation * 2**32)
    begins[0] = True
    begins[1:] |= rank_of[1:] != rank_of[:-1]
    gaps = _gap_table(model.gap, model.gap_shape)[(draw & np.uint64(_STEPS - 1)).astype(np.int64)]
    gaps[begins] = 0
    since_start = np.cumsum(gaps)
    burst = np.cumsum(begins) - 1
    starts = np.flatnonzero(begins)
    origin = _uniform(place[starts], circle) - since_start[starts]
    when = (since_start + origin[burst]) % circle
    # The access number in the low bits makes keys unique: every sorting algorithm gives the same order.
    keys = np.sort(when.astype(np.uint64) << np.uint64(_INDEX_BITS) | np.arange(period, dtype=np.uint64))
    return rank_of[(keys & np.uint64(2**_INDEX_BITS - 1)).astype(np.int64)]


@functools.cache
def _gap_table(scale: float, shape: float) -> npt.NDArray[np.int64]:
    """Equally likely gaps in ticks [_STEPS], from the quantile function of a Weibull distribution."""
    middle = (np.arange(_STEPS) + 0.5) / _STEPS
    return np.rint(_TICKS * scale * (-np.log1p(-middle)) ** (1 / shape)).astype(np.int64)


def _row_of_rank(name: str, rows: int, seed: int) -> npt.NDArray[np.int64]:
    """A random order of all rows: which row has which popularity. [rows]"""
    words = _words(name, seed, 0, rows)
    number = np.arange(rows, dtype=np.uint64)
    keys = np.sort(words >> np.uint64(_INDEX_BITS) << np.uint64(_INDEX_BITS) | number)
    return (keys & np.uint64(2**_INDEX_BITS - 1)).astype(np.int64)


def _words(name: str, seed: int, stream: int, number: int) -> npt.NDArray[np.uint64]:
    """The first `number` words of the random stream that belongs to these three."""
    return np.random.PCG64([zlib.crc32(name.encode()), seed, stream]).random_raw(number)


def _uniform(words: npt.NDArray[np.uint64], bound: int) -> npt.NDArray[np.int64]:
    """Whole numbers in 0..bound-1, `bound` up to 2^36; a number's probability is off by less than 2^-28."""
    if bound <= 2**32:
        return ((words >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)
    return (words % np.uint64(bound)).astype(np.int64)
