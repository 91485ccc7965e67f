"""Runs beside one another: the variants that two of them share, and in what else the two differ.

Two GPUs, two drivers, before and after: whatever differs is said, and nothing is refused but times that were
taken with different cache protocols. For a verdict, and for what must not differ, see
`harness.analysis.compare`.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis import comparable, stats
from harness.analysis.comparable import Difference, Source
from harness.analysis.results import Measured
from harness.analysis.stats import Estimate
from harness.records import Variant


@dataclass(frozen=True)
class Pair:
    """A variant on a dataset in both runs."""

    variant: Variant
    dataset: str
    a: Estimate
    b: Estimate
    """µs."""
    ratio: Estimate
    """Time in A ÷ time in B: above 1, B is faster."""
    speedup_a: float | None
    speedup_b: float | None
    """Over the reference of its own run; null where that is another in the other run, or unmeasured."""


@dataclass(frozen=True)
class Beside:
    """Run B beside run A."""

    a: str
    b: str
    """Names of the runs."""
    metric: str
    pairs: list[Pair]
    """In the order of A; empty where the two differ in their cache protocol."""
    differences: list[Difference]
    """Machine, work and protocol first, then software and sources; those of the variants in common."""


def find(runs: list[Measured]) -> list[Beside]:
    """The first run beside each of the others with which it shares a variant on a dataset.

    Of more than two runs, only those that ask what the first asks, by their title, are put beside it:
    a collection of different experiments, as the reference results are, is no comparison of machines.
    """
    first, *others = runs
    if len(others) > 1:
        others = [other for other in others if other.run.title == first.run.title]
    found = (_beside(first, other) for other in others)
    return [beside for beside in found if beside is not None]


def _beside(a: Measured, b: Measured) -> Beside | None:
    """None where they share nothing."""
    metric = a.headline if a.headline == b.headline else "stage_us"
    pairs = []
    for variant in a.run.variants:
        for dataset in a.run.datasets:
            left, right = (of.at(variant, dataset, metric) for of in (a, b))
            if left is None or right is None:
                continue
            ratio = stats.speedup(left.across, right.across)
            speedups = (of.speedups.get((variant, dataset, metric)) for of in (a, b))
            alike = a.run.reference == b.run.reference
            of_a, of_b = (s.value if s and alike else None for s in speedups)
            pairs.append(Pair(variant, dataset, left.time, right.time, ratio, of_a, of_b))
    if not pairs:
        return None
    shared = dict.fromkeys((pair.variant, pair.dataset) for pair in pairs)
    sides = [[Source(r, of.run.folder) for place in shared for r in of.run.at(*place)] for of in (a, b)]
    forbidding = comparable.forbidding(*sides)
    if comparable.never_compared(forbidding):
        pairs = []
    differences = forbidding + comparable.worth_saying(*sides)
    return Beside(a.run.name, b.run.name, metric, pairs, differences)
