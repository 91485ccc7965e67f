"""Which of the synthetic datasets a trace is nearest to, by what a cache would hit."""

from __future__ import annotations

from collections.abc import Mapping

from harness.traces.stats import TraceStatistics

_LEAST, _MOST = 500, 100_000
"""Rows of a cache, between which the curves are compared: from an L1's to a large L2's."""


def distance(one: TraceStatistics, other: TraceStatistics) -> float:
    """How far the LRU hit rates of two traces lie apart, on average over sizes of a cache: 0 to 1."""
    curves = [dict(found.hit_rate) for found in (one, other)]
    begin = max(_LEAST, *(min(curve) for curve in curves))
    sizes = [size for size in sorted({*curves[0], *curves[1]}) if begin <= size <= _MOST] or [begin]
    gaps = [abs(_at(curves[0], size) - _at(curves[1], size)) for size in sizes]
    return sum(gaps) / len(gaps)


def nearest(one: TraceStatistics, others: Mapping[str, TraceStatistics]) -> tuple[str, float]:
    """The nearest of the others, and how far it is."""
    name = min(others, key=lambda other: distance(one, others[other]))
    return name, distance(one, others[name])


def _at(curve: Mapping[int, float], size: int) -> float:
    """Between two sizes of a curve what the smaller one hits; beyond its end its last, where more rows change
    nothing."""
    return curve[max((known for known in curve if known <= size), default=min(curve))]
