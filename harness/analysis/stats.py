"""Typical times and speedups, each with a 95 % interval from a hierarchical bootstrap.

The model: a process (replicate) has its own median, for it has its own memory layout and its own moment;
within it, passes wander. A variant's time on a dataset is the geometric mean of its replicates' medians, and
a speedup is the ratio of two such times.

One bootstrap draw picks replicates with replacement and, for each that was picked, the median of a resample
of its passes. Three things keep the interval honest where the textbook's would be too narrow:

* Passes follow each other and resemble each other. They count as fewer independent ones, by how much more the
  means of neighbouring passes vary than those of independent passes would.
* A replicate's median differs by chance within its process already. That part is taken out of the
  differences between replicates, so that it is not counted twice.
* With few replicates their spread comes out too small, and it is known only roughly: the draws are
  rescaled by the usual R/(R-1), and the interval is widened from the normal to Student's t, with Welch's
  degrees of freedom.

With one replicate nothing is known about how processes differ; such an interval says so (`covers_processes`).
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

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
    """The logarithm of one variant's time on one dataset: its estimate and draws round it."""

    log_time: float
    draws: Series
    """[DRAWS], deviations from `log_time`."""
    variance: float
    """Of `log_time`."""
    between: float
    """The same where it is known from differences between replicates only; 0: from within them."""
    replicates: int
    medians: list[float]
    """Of every replicate, in the unit of the samples."""


def sample(replicates: Sequence[Series], key: str, seed: int = 0) -> Sampled:
    """Draws for one variant, dataset and metric.

    `replicates`: per replicate its passes in order, positive; at least one replicate with at least one pass.
    `key` names what is drawn for, so that a figure does not depend on what else is on the page.
    """
    if not replicates or any(len(passes) == 0 or not (passes > 0).all() for passes in replicates):
        raise ValueError(f"{key}: every replicate needs passes, each longer than 0")
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    count = len(replicates)
    logs = [np.sort(np.log(passes)) for passes in replicates]
    medians = np.array([float(np.median(values)) for values in logs])
    within = np.stack(
        [
            _median_draws(rng, values, _independent(passes)) - median
            for values, passes, median in zip(logs, replicates, medians, strict=True)
        ]
    )
    # By the calmer tail: one odd pass among few would blow up the plain variance, and with it take away the
    # differences between replicates.
    low, high = _tails(within).T
    within_variance = float(((np.minimum(-low, high) / _NORMAL) ** 2).mean())
    observed = float(medians.var(ddof=1)) if count > 1 else 0.0
    deviations = medians - medians.mean()
    if observed > 0:
        deviations *= np.sqrt(max(0.0, 1 - within_variance / observed) * count / (count - 1))
    picked = rng.integers(0, count, (count, DRAWS))
    draws = (deviations[picked] + within[picked, np.arange(DRAWS)]).mean(axis=0)
    return Sampled(
        log_time=float(medians.mean()),
        draws=draws,
        variance=max(observed, within_variance) / count,
        between=observed / count if observed > within_variance else 0.0,
        replicates=count,
        medians=np.exp(medians).tolist(),
    )


def time(of: Sampled) -> Estimate:
    """The typical time with its interval, in the unit of the samples."""
    return _estimate(of.log_time, of.draws, [of])


def speedup(reference: Sampled, design: Sampled, level: float = LEVEL) -> Estimate:
    """Reference ÷ design: above 1 the design is faster."""
    draws = reference.draws - design.draws
    return _estimate(reference.log_time - design.log_time, draws, [reference, design], level)


def pairwise(sampled: Sequence[Sampled]) -> Series:
    """`speedup` of every pair: [reference, design, (value, low, high)].

    The same figures as one by one. A ratio the other way round is the inverse, with its bounds exchanged, for
    percentiles of the negative draws are the negative percentiles; so half of the pairs are computed.
    """
    count = len(sampled)
    found = np.ones((count, count, 3))
    draws = np.array([one.draws for one in sampled])
    for first, reference in enumerate(sampled[:-1]):
        rest = range(first + 1, count)
        tails = _tails(draws[first] - draws[first + 1 :])
        tails *= np.array([[_widening([reference, sampled[other]], LEVEL)] for other in rest])
        logs = reference.log_time - np.array([[sampled[other].log_time] for other in rest])
        value, bounds = np.exp(logs), np.exp(logs + tails)
        low, high = np.minimum(value, bounds[:, :1]), np.maximum(value, bounds[:, 1:])
        found[first, first + 1 :] = np.hstack([value, low, high])
        found[first + 1 :, first] = 1 / np.hstack([value, high, low])
    return found


def _estimate(log_value: float, draws: Series, parts: list[Sampled], level: float = LEVEL) -> Estimate:
    # For other levels too the tails are read where DRAWS draws of few replicates know them, and stretched.
    low, high = (_tails(draws) * _widening(parts, level)).tolist()
    value = float(np.exp(log_value))
    # An interval holds its value even where draws of very few passes all fall to one side.
    return Estimate(
        value=value,
        low=min(value, float(np.exp(log_value + low))),
        high=max(value, float(np.exp(log_value + high))),
        replicates=min(part.replicates for part in parts),
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


def _widening(parts: list[Sampled], level: float) -> float:
    """Student's t at `level` ÷ normal quantile at LEVEL; degrees of freedom by Welch and Satterthwaite."""
    total = sum(part.variance for part in parts)
    rough = sum(part.between**2 / (part.replicates - 1) for part in parts if part.between > 0)
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
