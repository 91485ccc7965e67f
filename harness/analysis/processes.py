"""How much fresh processes of the same kernel differ, by all that a run says of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PRIOR = 4
"""Degrees of freedom that the pooled spread of a run's processes counts for: in the reference runs the
spreads of variants and datasets differ as much as those of a common one do that is worth 3 to 5."""


def level(passes: NDArray[np.float64]) -> float:
    """A process's own time: the logarithm of what its passes, µs each, take in the middle."""
    return float(np.median(np.log(passes)))


@dataclass(frozen=True)
class Pool:
    """Over all variants and datasets of a run: variances of log times."""

    spread: float
    """Of one process."""
    beside: float
    """Of one process, beside what all variants of its block have in common."""
    spread_freedom: float = math.inf
    """Degrees of freedom that `spread` has; where it is of few processes, it has no say beyond them."""
    beside_freedom: float = math.inf
    """The same of `beside`."""


Pools = Mapping[str, Pool]
"""By metric."""
ONE = Pool(0.004**2, 0.004**2)
"""Where a run has one process of each: a standard deviation of 0.4 % of the time, which none of the
self-test's datasets reaches. Of two such processes less than 1.6 % apart nothing is claimed; no two of the
self-test are farther apart."""


def pool(groups: Iterable[Sequence[Sequence[float]]]) -> Pool:
    """What all processes of a run say together; `ONE` where there is nowhere a second replicate.

    `groups`: per dataset and point the log medians of every variant, replicate after replicate. Those with as
    many replicates as the most are taken to be of the same blocks.
    """
    spread, spread_freedom, beside, beside_freedom = 0.0, 0, 0.0, 0
    for group in groups:
        own = [np.asarray(levels) - np.mean(levels) for levels in group if len(levels) > 1]
        spread += sum(float((levels**2).sum()) for levels in own)
        spread_freedom += sum(len(levels) - 1 for levels in own)
        most = max((len(levels) for levels in own), default=0)
        blocked = np.array([levels for levels in own if len(levels) == most])
        if len(blocked) > 1:
            beside += float(((blocked - blocked.mean(axis=0)) ** 2).sum())
            beside_freedom += (len(blocked) - 1) * (most - 1)
    if not spread_freedom:
        return ONE
    each = spread / spread_freedom
    if not beside_freedom:
        return Pool(each, each, spread_freedom, spread_freedom)
    return Pool(each, beside / beside_freedom, spread_freedom, beside_freedom)


def autocorrelation(levels: Sequence[float]) -> float:
    """Of processes in their order, at lag 1: how much each resembles the one before it; 0: not at all."""
    deviations = np.asarray(levels) - np.mean(levels)
    power = float((deviations**2).sum())
    return float((deviations[1:] * deviations[:-1]).sum()) / power if power else 0.0


def shared(levels: Mapping[str, Sequence[Sequence[float]]]) -> float:
    """How many times the variance of a mean over datasets is that of independent ones: 1 where a process that
    is slow on one is not on another, the number of datasets where it is on all alike; 0: not known.

    `levels`: by dataset the log medians of every variant, of the same processes in the same order.
    """
    every = [[np.asarray(own) - np.mean(own) for own in of] for of in levels.values()]
    alike = [np.array(own) for own in zip(*every, strict=False) if len({len(one) for one in own}) == 1]
    alone = sum(float((own**2).sum()) for own in alike)
    together = sum(float((own.sum(axis=0) ** 2).sum()) for own in alike)
    return together / alone if alone else 0.0
