"""Times, and how many times as fast as the run's reference a variant is."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis import results
from harness.analysis.results import Located, Measured

PLACE = 10


def figures_of(found: Measured) -> Iterator[Located]:
    """Every time that was measured, then speedups by each metric that variants are compared by."""
    for (variant, dataset, _), measured in found.measurements.items():
        yield variant, dataset, results.time_figure(measured)
    for (variant, dataset, _), figure in found.speedups.items():
        yield variant, dataset, figure
