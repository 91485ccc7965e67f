"""What follows from the records of one run: typical times, speedups, winners. Derived anew, never stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from harness.analysis import boards, figures, frame, limits, processes, stats
from harness.analysis.boards import Levels
from harness.analysis.figures import COMPARED, HEADLINE, METRICS, Figure, Spread
from harness.analysis.frame import LoadedRun, Series, passes
from harness.analysis.limits import Limit
from harness.analysis.processes import Pools
from harness.analysis.stats import Estimate, Sampled
from harness.records import MEASURED, CellRecord, Variant, Workload

Located = tuple[Variant, str, Figure]
"""A figure, and the variant and dataset that it is about."""
QUANTILES = {"least": 0, "p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95, "most": 100}
"""What is told of a process's samples, in percent."""
MOST_PROCESSES = 8
"""More processes than this are told as one: their strips would be too thin to see."""


@dataclass(frozen=True)
class Measurement:
    """One variant on one dataset by one metric, all replicates together."""

    variant: Variant
    dataset: str
    metric: str
    time: Estimate
    """µs; see `METRICS`."""
    records: list[str]
    """Ids of the cells behind it."""
    sampled: Sampled
    """Without what boards add, where the run is of several: for speedups within it."""
    across: Sampled
    """With it: what `time` is of, and what is held beside another run."""


@dataclass(frozen=True)
class Winner:
    """The fastest variant of a run on a dataset."""

    dataset: str
    metric: str
    variant: Variant
    ties: list[Variant]
    """Others whose interval does not separate them from it."""
    rivals: int
    """How many others were measured."""


@dataclass(frozen=True)
class Measured:
    """A run and its times, at the experiment's own workload and tunables."""

    run: LoadedRun
    measurements: dict[tuple[Variant, str, str], Measurement]
    """By variant, dataset, metric."""
    speedups: dict[tuple[Variant, str, str], Figure]
    """The same, of `COMPARED` metrics; nothing where the variant or the reference was not measured."""
    headline: str
    """The metric that the run's variants are compared by.

    Where some take all tables in one launch and others a launch per table, that is the stage: it holds the
    gaps between launches, which the former save. So it is for a model whose tables differ. Otherwise prepare
    + kernel.
    """
    every_limit: dict[tuple[str, Workload], Limit]
    """By dataset and workload, those of a sweep's points among them."""
    limits: list[Limit]
    """Those at the experiment's own workload."""
    levels: Levels = field(default_factory=Levels)
    """What boards add to times."""
    pools: Pools = field(default_factory=dict)
    """See `pools`."""
    _winners: dict[tuple[str, str], Winner | None] = field(default_factory=dict)
    """Those that were asked for; who ties takes time to find."""

    def at(self, variant: Variant, dataset: str, metric: str) -> Measurement | None:
        """None where nothing was measured."""
        return self.measurements.get((variant, dataset, metric))

    @property
    def prepares(self) -> bool:
        """Whether any variant prepares, so that prepare + kernel is not the kernel alone."""
        return any(metric == "prepare_us" for _, _, metric in self.measurements)

    @property
    def compared(self) -> list[str]:
        """The metrics that say something of their own about the run's variants, the headline first."""
        rest = ["total_us", "kernel_us"] if self.prepares else ["kernel_us"]
        return ["stage_us", *rest] if self.headline == "stage_us" else rest

    def winner(self, dataset: str, metric: str) -> Winner | None:
        """The fastest variant that can be had; None where nothing was measured, and on the CPU (one operator
        for all).

        Without those whose hot rows an oracle names, where there are others.
        """
        if (dataset, metric) not in self._winners:
            self._winners[dataset, metric] = self._winner(dataset, metric)
        return self._winners[dataset, metric]

    def _winner(self, dataset: str, metric: str) -> Winner | None:
        to_be_had = [variant for variant in self.run.variants if variant.hot_rows != "oracle"]
        found = [m for one in to_be_had or self.run.variants if (m := self.at(one, dataset, metric))]
        if not found or self.run.on_cpu:
            return None
        best, ties = fastest(found)
        return Winner(dataset, metric, best.variant, [one.variant for one in ties], len(found) - 1)


def fastest(found: Iterable[Measurement]) -> tuple[Measurement, list[Measurement]]:
    """The fastest of these, and those whose interval does not separate them from it."""
    best, *rest = sorted(found, key=lambda m: m.sampled.log_time)
    return best, [m for m in rest if stats.speedup(m.sampled, best.sampled).low <= 1]


def measure(run: LoadedRun, seed: int = 0) -> Measured:
    """Times of a run; equal records and bootstrap seed give equal figures."""
    levels = boards.levels(run.whole.records)
    known = pools(run.whole.records)
    measurements = measurements_of(run.name, run.records, seed, levels=levels, known=known)
    found = {(m.variant, m.dataset, m.metric): m for m in measurements}
    speedups = {
        key: speedup_over(reference, measured)
        for key, measured in found.items()
        if measured.metric in COMPARED
        and (reference := found.get((run.reference, measured.dataset, measured.metric)))
    }
    every = limits.by_workload(run)
    own = limits.own(run, every)
    return Measured(run, found, speedups, headline(run), every, own, levels, known)


def headline(run: LoadedRun) -> str:
    """See `Measured.headline`."""
    single = {frame.single_launch(record) for record in run.records if record.status in MEASURED}
    differing = any(cell.workload.groups for cell in run.cells)
    return "stage_us" if differing or len(single) > 1 else HEADLINE


def speedup_over(reference: Measurement, measured: Measurement) -> Figure:
    """The one against the other, 1 for the very same."""
    ratio, ids = Estimate(1.0, 1.0, 1.0, measured.time.replicates), measured.records
    if measured.records != reference.records:
        ratio, ids = stats.speedup(reference.sampled, measured.sampled), ids + reference.records
    name, title = figures.speedup(measured.metric), f"speedup by {METRICS[measured.metric]}"
    return figures.estimated(name, title, ratio, "×", "ratio", ids)


def pools(records: Iterable[CellRecord]) -> Pools:
    """By every metric that was measured in these records of a run, all points of its sweep together."""
    groups: dict[str, dict[tuple[str, str], dict[Variant, list[float]]]] = {}
    for record in sorted(records, key=lambda r: r.cell.replicate):
        if record.status in MEASURED:
            at = record.cell.dataset.name, record.cell.point
            for metric, level in frame.levels(record).items():
                levels = groups.setdefault(metric, {}).setdefault(at, {})
                levels.setdefault(record.cell.variant, []).append(level)
    return {
        metric: processes.pool([list(of.values()) for of in places.values()])
        for metric, places in groups.items()
    }


def measurements_of(
    run: str,
    records: Iterable[CellRecord],
    seed: int = 0,
    point: str = "",
    *,
    levels: Levels,
    known: Pools,
) -> Iterator[Measurement]:
    """What these records of a run say; all of one `point` of its sweep. `levels`: of the whole run. `known`:
    see `pools`."""
    cells: dict[tuple[Variant, str], list[tuple[CellRecord, dict[str, Series]]]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r.cell.replicate):
        if record.status in MEASURED and (series := passes(record)):
            cells[record.cell.variant, record.cell.dataset.name].append((record, series))
    at = f"/{point}" if point else ""
    for (variant, dataset), found in cells.items():
        drawn: dict[str, tuple[Sampled, Sampled]] = {}
        for metric in METRICS:
            having = [(record, series[metric]) for record, series in found if metric in series]
            if not having:
                continue
            if metric == "kernel_us" and not any("prepare_us" in series for _, series in found):
                drawn[metric] = drawn["total_us"]  # nothing is prepared: the same samples
            else:
                key = f"{run}/{variant.label}/{dataset}{at}/{metric}"
                times, blocks = [values for _, values in having], [block(run, r) for r, _ in having]
                across = stats.sample(times, key, seed, pool=known[metric], blocks=blocks)
                by_cell = {record.cell.id: values for record, values in having}
                drawn[metric] = across, levels.sample(by_cell, metric, across, key, seed)
            ids = [record.cell.id for record, _ in having]
            across, within = drawn[metric]
            yield Measurement(variant, dataset, metric, stats.time(across), ids, within, across)


def block(run: str, record: CellRecord) -> str:
    """The block that a record of a run belongs to: a replicate of every variant."""
    return f"{run}/{record.cell.replicate}"


def time_figure(of: Measurement) -> Figure:
    """A time as a figure."""
    title, processes = METRICS[of.metric], of.across.medians
    return figures.estimated(of.metric, title, of.time, "µs", "time", of.records, processes)


def spreads(records: Iterable[CellRecord]) -> list[Spread]:
    """Quantiles of every sample of the kernel in these records of one place, process after process."""
    found = {
        record.cell.replicate: np.asarray(record.samples["kernel_us"])
        for record in records
        if record.status in MEASURED and record.samples.get("kernel_us")
    }
    processes = [found[key] for key in sorted(found)]
    together = len(processes) > MOST_PROCESSES
    told = [np.concatenate(processes)] if together else processes
    return [
        Spread(
            len(processes) if together else 1,
            len(samples),
            *np.percentile(samples, list(QUANTILES.values())).tolist(),
        )
        for samples in told
    ]


def every_ratio(found: Measured, metric: str) -> list[list[list[list[float] | None]]]:
    """Speedups over each of the run's variants: [reference][variant][dataset], of value, low and high.

    The figures of `Measured.speedups` where the reference is the run's; None where one of the two was not
    measured.
    """
    variants, datasets = found.run.variants, found.run.datasets
    values: list[list[list[list[float] | None]]] = [
        [[None] * len(datasets) for _ in variants] for _ in variants
    ]
    for place, dataset in enumerate(datasets):
        measured = [(n, m) for n, v in enumerate(variants) if (m := found.at(v, dataset, metric))]
        if measured:
            pairs = stats.pairwise([m.sampled for _, m in measured]).tolist()
            for (a, _), row in zip(measured, pairs, strict=True):
                for (b, _), pair in zip(measured, row, strict=True):
                    values[a][b][place] = pair
    return values
