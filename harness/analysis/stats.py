"""Typical times and speedups, each with a 95 % interval from a hierarchical bootstrap.

The model: a process (replicate) has its own median, for it has its own memory layout and its own moment;
within it, passes wander. A variant's time on a dataset is the geometric mean of its replicates' medians, and
a speedup is the ratio of two such times.

One bootstrap draw picks replicates with replacement and, for each that was picked, the median of a resample
of its passes. What keeps the interval honest where the textbook's would be too narrow, or too wide:

* Passes follow each other and resemble each other. They count as fewer independent ones, by how much more the
  means of neighbouring passes vary than those of independent passes would.
* A replicate's median differs by chance within its process already. That part is taken out of the
  differences between replicates, so that it is not counted twice.
* Replicates are blocks: each launches every variant once, one shortly after another. Of two variants of a run
  the replicates are therefore compared one by one; a drift of the machine that both met says nothing.
* With few replicates their spread is known only roughly, and by chance is estimated far too small. So the
  processes of a run's other variants have a say (`processes.Pool`): the spread is no less than theirs, which
  count as `PRIOR` degrees of freedom beside the replicates' own, and draws are stretched to Student's t.

With one replicate nothing is known about how processes differ; such an interval says so (`covers_processes`),
and is that of the run's other processes, or of those of the self-test where there are none (`processes.ONE`).
`scripts/simulate-intervals` shows how often such intervals hold the truth, and with which power.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.analysis.processes import PRIOR, Pool

Series = NDArray[np.float64]
LEVEL = 0.95
DRAWS = 1000
_NORMAL = float(special.ndtri(0.5 + LEVEL / 2))
_TAIL = (1 - LEVEL) / 2


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, 95 % where nothing else is said."""

    value: float
    low: float
    high: float
    replicates: int
    """Fresh processes behind it; of two arms, the smaller number."""

    @property
    def covers_processes(self) -> bool:
        """Whether the interval covers how processes differ, not only the passes of one."""
        return self.replicates > 1

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width ÷ value."""
        return (self.high - self.low) / 2 / self.value


@dataclass(frozen=True)
class Sampled:
    """The logarithm of one variant's time on one dataset: its replicates and draws of their mean."""

    log_time: float
    levels: Series
    """[replicates], logarithms of their medians."""
    blocks: tuple[str, ...]
    """Which block each belongs to; two variants with the same blocks are compared block by block."""
    between: Series
    """[DRAWS], deviations from `log_time` by which replicates were picked; of the same blocks the same."""
    within: Series
    """[DRAWS], by which passes were."""
    within_variance: float
    """Of one replicate's median."""
    pool: Pool | None

    @property
    def replicates(self) -> int:
        """How many."""
        return len(self.levels)

    @property
    def medians(self) -> list[float]:
        """Of every replicate, in the unit of the samples."""
        found: list[float] = np.exp(self.levels).tolist()
        return found


@dataclass(frozen=True)
class _Contrast:
    """A mean of replicates, or of the differences between two variants' in the same blocks."""

    draws: Series
    variance: float
    """Of that mean, of which the draws have part."""
    drawn: float
    """That part."""
    freedom: float
    """Degrees of freedom that the variance has; infinite: known from within the processes."""


def sample(
    replicates: Sequence[Series],
    key: str,
    seed: int = 0,
    *,
    pool: Pool | None = None,
    blocks: Sequence[str] = (),
) -> Sampled:
    """Draws for one variant, dataset and metric.

    `replicates`: per replicate its passes in order, positive; at least one replicate with at least one pass.
    `key` names what is drawn for, so that a figure does not depend on what else is on the page. `blocks`: the
    name of each replicate's block; without, it stands alone.
    """
    if not replicates or any(len(passes) == 0 or not (passes > 0).all() for passes in replicates):
        raise ValueError(f"{key}: every replicate needs passes, each longer than 0")
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    count = len(replicates)
    logs = [np.sort(np.log(passes)) for passes in replicates]
    levels = np.array([float(np.median(values)) for values in logs])
    within = np.stack(
        [
            _median_draws(rng, values, _independent(passes)) - level
            for values, passes, level in zip(logs, replicates, levels, strict=True)
        ]
    )
    # By the calmer tail: one odd pass among few would blow up the plain variance, and with it take away the
    # differences between replicates.
    low, high = _tails(within).T
    own_blocks = tuple(blocks) or tuple(f"{key} {n}" for n in range(count))
    # The same picks for all of the same blocks, so that what they have in common cancels.
    picks = np.random.default_rng([seed, zlib.crc32("\n".join(own_blocks).encode())])
    picked = picks.integers(0, count, (count, DRAWS))
    return Sampled(
        log_time=float(levels.mean()),
        levels=levels,
        blocks=own_blocks,
        between=(levels - levels.mean())[picked].mean(axis=0),
        within=within[picked, np.arange(DRAWS)].mean(axis=0),
        within_variance=float(((np.minimum(-low, high) / _NORMAL) ** 2).mean()),
        pool=pool,
    )


def time(of: Sampled) -> Estimate:
    """The typical time with its interval, in the unit of the samples."""
    return _estimate(of.log_time, [_alone(of)], of.replicates)


def speedup(reference: Sampled, design: Sampled, level: float = LEVEL) -> Estimate:
    """Reference ÷ design: above 1 the design is faster."""
    log_ratio = reference.log_time - design.log_time
    if reference.blocks == design.blocks:
        parts = [_paired(reference, design)]
    else:
        other = _alone(design)
        parts = [_alone(reference), dataclasses.replace(other, draws=-other.draws)]
    return _estimate(log_ratio, parts, min(reference.replicates, design.replicates), level)


def pairwise(sampled: Sequence[Sampled]) -> Series:
    """`speedup` of every pair: [reference, design, (value, low, high)].

    A ratio the other way round is the inverse, with its bounds exchanged; so half of the pairs are computed.
    """
    found = np.ones((len(sampled), len(sampled), 3))
    for first, reference in enumerate(sampled):
        for second, design in enumerate(sampled[:first]):
            ratio = speedup(reference, design)
            found[first, second] = ratio.value, ratio.low, ratio.high
            found[second, first] = 1 / ratio.value, 1 / ratio.high, 1 / ratio.low
    return found


def _alone(of: Sampled) -> _Contrast:
    floor, freedom = (of.pool.spread, of.pool.spread_freedom) if of.pool else (0.0, 0.0)
    return _contrast(of.levels, of.between, of.within, of.within_variance, floor, freedom)


def _paired(reference: Sampled, design: Sampled) -> _Contrast:
    pools = [of.pool for of in (reference, design) if of.pool]
    return _contrast(
        reference.levels - design.levels,
        reference.between - design.between,
        reference.within - design.within,
        reference.within_variance + design.within_variance,
        sum(pool.beside for pool in pools),
        min((pool.beside_freedom for pool in pools), default=0.0),
    )


def _contrast(
    levels: Series, between: Series, within: Series, known: float, floor: float, freedom: float
) -> _Contrast:
    """`known`: variance of a level by what was seen within its process; `floor`: what the run's pool says, by
    so many degrees of `freedom`, these replicates' own among them."""
    count = len(levels)
    observed = float(levels.var(ddof=1)) if count > 1 else 0.0
    if observed > known:
        between = between * np.sqrt((1 - known / observed) * count / (count - 1))
    else:
        between = np.zeros_like(between)
    drawn, own = max(observed, known), float(count - 1)
    if floor == 0:
        freedom = own if observed > known else math.inf
        return _Contrast(between + within, drawn / count, drawn / count, freedom)
    # A weighted mean of the two, and no less than the pool's: chance makes many a spread too small. Others
    # than these replicates count for as much as they are, at most.
    prior = max(0.0, min(float(PRIOR), freedom - own))
    shared = max(floor, (prior * floor + own * observed) / (prior + own)) if prior + own else floor
    known_by = prior + own if shared > known else math.inf
    return _Contrast(between + within, max(shared, known) / count, drawn / count, known_by)


def _estimate(
    log_value: float, parts: Sequence[_Contrast], replicates: int, level: float = LEVEL
) -> Estimate:
    draws = functools.reduce(np.add, (part.draws for part in parts))
    variance, drawn = sum(part.variance for part in parts), sum(part.drawn for part in parts)
    # For other levels too the tails are read where DRAWS draws of few replicates know them, and stretched.
    low, high = (float(tail) for tail in _tails(draws))
    wanting = _NORMAL**2 * (variance - drawn)
    if wanting > 0:
        low, high = -math.hypot(low, math.sqrt(wanting)), math.hypot(high, math.sqrt(wanting))
    elif variance < drawn:
        low, high = low * math.sqrt(variance / drawn), high * math.sqrt(variance / drawn)
    wide = _widening(parts, level)
    value = float(np.exp(log_value))
    # An interval holds its value even where draws of very few passes all fall to one side.
    return Estimate(
        value=value,
        low=min(value, float(np.exp(log_value + wide * low))),
        high=max(value, float(np.exp(log_value + wide * high))),
        replicates=replicates,
    )


def _tails(draws: Series) -> Series:
    """The two percentiles between which LEVEL of the draws lie, [..., (low, high)].

    As np.percentile has them, at a tenth of its price: a page asks for tens of thousands.
    """
    below, part = divmod(_TAIL * (draws.shape[-1] - 1), 1)
    at = int(below)
    ranks = [at, at + 1, -2 - at, -1 - at]
    ordered = np.partition(draws, [rank % draws.shape[-1] for rank in ranks], axis=-1)
    low, above, under, high = (ordered[..., rank] for rank in ranks)
    tails: Series = np.stack([low + part * (above - low), high - part * (high - under)], axis=-1)
    return tails


def _widening(parts: Sequence[_Contrast], level: float) -> float:
    """Student's t at `level` ÷ normal quantile at LEVEL; degrees of freedom by Welch and Satterthwaite."""
    total = sum(part.variance for part in parts)
    rough = sum(part.variance**2 / part.freedom for part in parts)
    if total == 0 or rough == 0:
        return float(special.ndtri(0.5 + level / 2)) / _NORMAL
    return _student(round(total**2 / rough, 1), level) / _NORMAL


@functools.cache
def _student(freedom: float, level: float) -> float:
    return float(special.stdtrit(freedom, 0.5 + level / 2))


def _median_draws(rng: np.random.Generator, values: Series, independent: float) -> Series:
    """Medians of resamples of `values` (sorted), [DRAWS].

    The median of a resample of n is the value at a rank that follows a beta distribution, so no resample has
    to be drawn: with `independent` in place of n the ranks scatter as those of correlated passes do.
    """
    shape = (independent + 1) / 2
    ranks = rng.beta(shape, shape, DRAWS) * len(values)
    drawn: Series = values[np.minimum(ranks.astype(np.intp), len(values) - 1)]
    return drawn


def _independent(passes: Series) -> float:
    """How many independent passes these (in order) are worth for their median; at most their number.

    By batch means of "above the median": their variance, against that of independent passes.
    """
    count = len(passes)
    width = round(count**0.6)
    batches = count // width
    if batches < 2:
        return float(count)
    above = (passes > np.median(passes))[: batches * width]
    share = float(above.mean())
    if share in (0.0, 1.0):
        return float(count)
    observed = float(above.reshape(batches, width).mean(axis=1).var(ddof=1))
    return float(count / max(1.0, observed * width / (share * (1 - share))))
