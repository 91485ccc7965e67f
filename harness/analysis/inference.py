"""Whole inferences: how long they take at worst, how many fit a second, and what they consist of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from harness.analysis.frame import Run, passes
from harness.analysis.results import Results
from harness.records import MEASURED, CellRecord

WAYS = {"e2e_us": "eager", "e2e_graph_us": "CUDA graph"}
"""Metrics of whole inferences, and how they run."""
PARTS = {
    "bottom_us": "bottom MLP",
    "stage_us": "embedding stage",
    "interaction_us": "interaction",
    "top_us": "top MLP",
}
"""Metrics of what an inference consists of, in order."""
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Latency:
    """How long one arm's inferences of a batch take on one dataset, all processes together."""

    run: str
    arm: str
    dataset: str
    metric: str
    percentiles: dict[str, float | None]
    """`p50`, `p95` and `p99`, µs; None where too few inferences were timed to see so rare a one."""
    per_second: float
    """Inferences of a batch, one after another."""
    samples_per_second: float
    """Bags of each table that these work off: `per_second` times the batch."""
    inferences: int
    """How many were timed."""
    records: list[str]


@dataclass(frozen=True)
class Split:
    """What one arm's inference on one dataset consists of, µs, typical times."""

    run: str
    arm: str
    dataset: str
    parts: dict[str, float]
    """By metric, in order. The stage is timed by itself, the others inside an inference."""
    whole: dict[str, float]
    """By metric: the whole, eager and as a CUDA graph as far as measured."""


def latencies(results: Results) -> list[Latency]:
    """Every arm, dataset and way of running that was measured."""
    found = []
    for run in results.loaded.runs:
        cells: dict[tuple[str, str], list[CellRecord]] = defaultdict(list)
        for record in run.records:
            if record.status in MEASURED:
                cells[record.cell.arm, record.cell.dataset.name].append(record)
        for arm in run.arms:
            for dataset in run.datasets:
                for metric in WAYS:
                    having = [r for r in cells[arm, dataset] if r.samples.get(metric)]
                    if having:
                        found.append(_latency(run, having, metric))
    return found


def _latency(run: Run, having: list[CellRecord], metric: str) -> Latency:
    cell = having[0].cell
    times = np.concatenate([passes(record)[metric] for record in having])
    per_second = 1e6 / float(times.mean())
    return Latency(
        run=run.name,
        arm=cell.arm,
        dataset=cell.dataset.name,
        metric=metric,
        percentiles={
            f"p{p}": float(np.percentile(times, p)) if len(times) * (100 - p) >= 100 else None
            for p in PERCENTILES
        },
        per_second=per_second,
        samples_per_second=per_second * cell.workload.batch,
        inferences=len(times),
        records=[record.cell.id for record in having],
    )


def splits(results: Results) -> list[Split]:
    """Every arm and dataset whose inferences were timed part by part."""
    found = []
    for run in results.loaded.runs:
        for arm in run.arms:
            for dataset in run.datasets:
                times = {
                    metric: measured.time.value
                    for metric in (*PARTS, *WAYS)
                    if (measured := results.measurement(run, arm, dataset, metric))
                }
                if set(PARTS) <= set(times):
                    parts = {metric: times[metric] for metric in PARTS}
                    whole = {metric: times[metric] for metric in WAYS if metric in times}
                    found.append(Split(run.name, arm, dataset, parts, whole))
    return found
