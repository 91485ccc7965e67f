"""Speedups of a run against each of its arms, for readers who want another reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.analysis import stats
from harness.analysis.frame import Run
from harness.analysis.results import Results
from harness.analysis.stats import Series


@dataclass(frozen=True)
class Ratios:
    """Every arm of a run over every other, by one metric."""

    run: str
    metric: str
    arms: list[str]
    datasets: list[str]
    values: Series
    """[reference, arm, dataset, (value, low, high)]; NaN where one of the two was not measured."""


def ratios(results: Results, run: Run, metric: str) -> Ratios:
    """All pairs of a run's arms; the figures of `Results.speedup` where the reference is the run's."""
    values = np.full((len(run.arms), len(run.arms), len(run.datasets), 3), np.nan)
    for place, dataset in enumerate(run.datasets):
        found = [results.measurement(run, arm, dataset, metric) for arm in run.arms]
        measured = [(n, m.sampled) for n, m in enumerate(found) if m is not None]
        if measured:
            numbers = [n for n, _ in measured]
            pairs = stats.pairwise([sampled for _, sampled in measured])
            values[np.ix_(numbers, numbers, [place])] = pairs[:, :, None, :]
    return Ratios(run.name, metric, run.arms, run.datasets, values)
