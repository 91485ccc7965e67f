"""Whole inferences: how long they take at worst, and how many fit a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from harness.analysis.figures import Figure
from harness.analysis.frame import passes
from harness.analysis.results import Located, Measured
from harness.records import MEASURED, CellRecord

PLACE = 50

WAYS = {"e2e_us": "eager", "e2e_graph_us": "CUDA graph"}
"""Metrics of whole inferences, and how they run."""
PARTS = {
    "bottom_us": "bottom MLP",
    "stage_us": "embedding stage",
    "interaction_us": "interaction",
    "top_us": "top MLP",
}
"""Metrics of what an inference consists of, in order. The stage is timed by itself, the others inside one."""
PERCENTILES = (50, 95, 99)


def percentile(way: str, percent: int) -> str:
    """The name of the figure that so many percent of inferences stay below."""
    return f"{way}_p{percent}"


def figures_of(found: Measured) -> Iterator[Located]:
    """Of every variant, dataset and way of running that was measured, over its processes, each of which
    counts for as much as another, however many inferences it timed."""
    for variant in found.run.variants:
        for dataset in found.run.datasets:
            records = [r for r in found.run.at(variant, dataset) if r.status in MEASURED]
            for way in WAYS:
                if having := [r for r in records if r.samples.get(way)]:
                    for figure in _of(having, way):
                        yield variant, dataset, figure


def _of(having: Sequence[CellRecord], way: str) -> Iterator[Figure]:
    ids = [record.cell.id for record in having]
    each = [passes(record)[way] for record in having]
    times = np.concatenate(each)
    for percent in PERCENTILES:
        if len(times) * (100 - percent) >= 100:  # otherwise too few were timed to see so rare a one
            value = _percentile(each, percent)
            title = f"{percent} % of inferences take at most, {WAYS[way]}"
            yield Figure(percentile(way, percent), title, value, "µs", "time", records=ids)
    rate = 1e6 / float(np.mean([of_one.mean() for of_one in each]))
    for name, title, value in (
        ("per_second", "inferences of a batch a second, one after another", rate),
        ("samples_per_second", "samples a second", rate * having[0].cell.workload.batch),
        ("inferences", "inferences timed", float(len(times))),
    ):
        yield Figure(f"{way}_{name}", f"{title}, {WAYS[way]}", value, "", "count", records=ids)


def _percentile(processes: Sequence[npt.NDArray[np.float64]], percent: int) -> float:
    """Of the times of several processes, as if each had timed as many; where they have, np.percentile's."""
    times = np.concatenate(processes)
    weights = np.concatenate([np.full(len(of_one), 1 / len(of_one)) for of_one in processes])
    order = np.argsort(times)
    below = np.cumsum(weights[order]) - weights[order]
    return float(np.interp(percent / 100 * below[-1], below, times[order]))
