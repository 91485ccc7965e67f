"""What it costs a pinning design not to know beforehand which rows will be hot.

Held-out rows are the hottest of the accesses that are not timed, the oracle's are the hottest of those that
are. Two arms that differ in nothing else are held against each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis import stats
from harness.analysis.frame import Run
from harness.analysis.results import Results
from harness.analysis.stats import Estimate
from harness.records import MEASURED, CellRecord

METRICS = ("total_us", "kernel_us")


@dataclass(frozen=True)
class Pinned:
    """One arm's pins on one dataset, on average over its processes."""

    arm: str
    rows: float
    """Pinned of each table."""
    share: float
    """Timed accesses that meet one of them ÷ all."""
    speedups: dict[str, Estimate]
    """Over the run's reference, by metric."""
    records: list[str]


@dataclass(frozen=True)
class Pair:
    """The same design with rows chosen beforehand and by an oracle."""

    run: str
    dataset: str
    held_out: Pinned | None
    """None where there is no such arm, or it was not measured."""
    oracle: Pinned | None
    slower: Estimate | None
    """Prepare + kernel of held-out ÷ that of the oracle: what not knowing costs."""


def find(results: Results) -> list[Pair]:
    """Every pinning design of every run, on every dataset."""
    found = []
    for run in results.loaded.runs:
        for held_out, oracle in _arms(run):
            for dataset in run.datasets:
                pair = Pair(
                    run.name,
                    dataset,
                    _pinned(results, run, held_out, dataset),
                    _pinned(results, run, oracle, dataset),
                    _slower(results, run, held_out, oracle, dataset),
                )
                if pair.held_out or pair.oracle:
                    found.append(pair)
    return found


def _arms(run: Run) -> list[tuple[str, str]]:
    """Labels of arms that differ in how their hot rows are chosen alone; empty where one is missing."""
    pairs: dict[tuple[object, ...], dict[str, str]] = {}
    for record in run.records:
        if "pinned_share" in record.facts:
            cell = record.cell
            same = cell.design, cell.toolchain, tuple(sorted(cell.tunables.items()))
            pairs.setdefault(same, {})[cell.hot_rows] = cell.arm
    found = [(pair.get("held_out", ""), pair.get("oracle", "")) for pair in pairs.values()]
    return sorted(found, key=lambda pair: run.arms.index(pair[0] or pair[1]))


def _pinned(results: Results, run: Run, arm: str, dataset: str) -> Pinned | None:
    records: list[CellRecord] = [
        record
        for record in run.records
        if (record.cell.arm, record.cell.dataset.name) == (arm, dataset)
        and record.status in MEASURED
        and "pinned_share" in record.facts
    ]
    if not records:
        return None
    return Pinned(
        arm=arm,
        rows=sum(record.facts["pinned_rows"] for record in records) / len(records),
        share=sum(record.facts["pinned_share"] for record in records) / len(records),
        speedups={
            metric: found.ratio for metric in METRICS if (found := results.speedup(run, arm, dataset, metric))
        },
        records=[record.cell.id for record in records],
    )


def _slower(results: Results, run: Run, held_out: str, oracle: str, dataset: str) -> Estimate | None:
    timed = [results.measurement(run, arm, dataset, "total_us") for arm in (held_out, oracle)]
    if timed[0] is None or timed[1] is None:
        return None
    return stats.speedup(timed[0].sampled, timed[1].sampled)
