"""Runs beside one another: the arms that two of them share, and in what else the two differ.

Two GPUs, two drivers, before and after: whatever differs is said, and nothing is refused. For a verdict, and
for what must not differ, see `harness.analysis.compare`.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis import comparable, stats
from harness.analysis.comparable import Difference, Source
from harness.analysis.frame import Run
from harness.analysis.results import METRICS, Results
from harness.analysis.stats import Estimate


@dataclass(frozen=True)
class Pair:
    """An arm on a dataset in both runs."""

    arm: str
    dataset: str
    a: Estimate
    b: Estimate
    """µs."""
    ratio: Estimate
    """Time in A ÷ time in B: above 1, B is faster."""
    speedup_a: float | None
    speedup_b: float | None
    """Over the reference of its own run; None where that is another arm in the other run, or unmeasured."""


@dataclass(frozen=True)
class Beside:
    """Run B beside run A."""

    a: Run
    b: Run
    metric: str
    pairs: list[Pair]
    """In the order of A."""
    differences: list[Difference]
    """Machine, work and protocol first, then software and sources; those of the arms in common."""

    @property
    def what(self) -> str:
        """The metric in words."""
        return METRICS[self.metric]


def find(results: Results) -> list[Beside]:
    """The first run beside each of the others with which it shares an arm on a dataset.

    Of more than two runs, only those that ask what the first asks, by their title, are put beside it:
    a collection of different experiments, as the reference results are, is no comparison of machines.
    """
    first, *others = results.loaded.runs
    if len(others) > 1:
        others = [run for run in others if run.title == first.title]
    found = (_beside(results, first, other) for other in others)
    return [beside for beside in found if beside.pairs]


def _beside(results: Results, a: Run, b: Run) -> Beside:
    headlines = {results.headline(a), results.headline(b)}
    metric = headlines.pop() if len(headlines) == 1 else "stage_us"
    pairs = []
    for arm in a.arms:
        for dataset in a.datasets:
            left, right = (results.measurement(run, arm, dataset, metric) for run in (a, b))
            if left is None or right is None:
                continue
            ratio = stats.speedup(left.sampled, right.sampled)
            speedups = (results.speedup(run, arm, dataset, metric) for run in (a, b))
            of_a, of_b = (s.ratio.value if s and a.reference == b.reference else None for s in speedups)
            pairs.append(Pair(arm, dataset, left.time, right.time, ratio, of_a, of_b))
    shared = {(pair.arm, pair.dataset) for pair in pairs}
    sides = [[Source(r, run.folder) for place in shared for r in run.at(*place)] for run in (a, b)]
    differences = comparable.forbidding(*sides) + comparable.worth_saying(*sides)
    return Beside(a, b, metric, pairs, differences)
