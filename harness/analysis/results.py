"""What follows from the records of runs: typical times, speedups, winners. Derived anew, never stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.analysis import frame, stats
from harness.analysis.frame import Loaded, Run, Series, passes
from harness.analysis.stats import Estimate, Sampled
from harness.records import MEASURED, CellRecord

HEADLINE = "total_us"
"""What arms are compared by that all launch alike; see `Results.headline`."""
METRICS = {
    "total_us": "prepare + kernel",
    "kernel_us": "kernel alone",
    "stage_us": "embedding stage",
    "prepare_us": "prepare",
    "e2e_us": "whole inference, eager",
    "e2e_graph_us": "whole inference, CUDA graph",
    "bottom_us": "bottom MLP",
    "interaction_us": "interaction",
    "top_us": "top MLP",
}
"""In the order in which they are shown."""
COMPARED = ("total_us", "kernel_us", "stage_us", "e2e_us", "e2e_graph_us")
"""Those that designs are compared by."""

Key = tuple[str, str, str, str]
"""Run, arm, dataset, metric."""


@dataclass(frozen=True)
class Measurement:
    """One arm on one dataset by one metric, all replicates together."""

    run: str
    arm: str
    dataset: str
    metric: str
    time: Estimate
    """µs: per table and batch, or for the stage, whole inferences and their parts per batch."""
    replicates: list[float]
    """Median over passes of every replicate, µs."""
    records: list[str]
    """Ids of the cells behind it."""
    sampled: Sampled


@dataclass(frozen=True)
class Speedup:
    """One arm against its run's reference."""

    run: str
    arm: str
    reference: str
    dataset: str
    metric: str
    ratio: Estimate
    records: list[str]
    """Ids of the cells behind it, those of the reference too."""

    @property
    def verdict(self) -> str:
        """ "faster" or "slower" where the interval leaves out 1, otherwise "inconclusive"."""
        return "faster" if self.ratio.low > 1 else "slower" if self.ratio.high < 1 else "inconclusive"


@dataclass(frozen=True)
class Winner:
    """The fastest arm of a run on a dataset."""

    run: str
    dataset: str
    metric: str
    best: Measurement
    speedup: Speedup | None
    """None where the reference was not measured."""
    ties: list[str]
    """Other arms whose interval does not separate them from it."""
    rivals: int
    """How many other arms were measured."""


@dataclass(frozen=True)
class Results:
    """Everything that is shown, computed from the records alone."""

    loaded: Loaded
    measurements: dict[Key, Measurement]
    speedups: dict[Key, Speedup]
    headlines: dict[str, str]
    """By run; see `headline`."""
    _winners: dict[tuple[str, str, str], Winner | None] = field(default_factory=dict)
    """Those that were asked for; who ties takes time to find."""

    def measurement(self, run: Run, arm: str, dataset: str, metric: str) -> Measurement | None:
        """None where nothing was measured."""
        return self.measurements.get((run.name, arm, dataset, metric))

    def speedup(self, run: Run, arm: str, dataset: str, metric: str) -> Speedup | None:
        """None where the arm or the reference was not measured."""
        return self.speedups.get((run.name, arm, dataset, metric))

    def prepares(self, run: Run) -> bool:
        """Whether any arm of the run prepares, so that prepare + kernel is not the kernel alone."""
        return any(key[0] == run.name and key[3] == "prepare_us" for key in self.measurements)

    def headline(self, run: Run) -> str:
        """The metric that the run's arms are compared by.

        Where some take all tables in one launch and others a launch per table, that is the stage: it holds
        the gaps between launches, which the former save. Otherwise prepare + kernel.
        """
        return self.headlines[run.name]

    def compared(self, run: Run) -> list[str]:
        """The metrics that say something of their own about the run's arms, the headline first."""
        rest = ["total_us", "kernel_us"] if self.prepares(run) else ["kernel_us"]
        return ["stage_us", *rest] if self.headline(run) == "stage_us" else rest

    def whole(self, run: Run) -> list[str]:
        """The metrics of whole inferences that the run measured."""
        measured = {key[3] for key in self.measurements if key[0] == run.name}
        return [metric for metric in ("e2e_us", "e2e_graph_us") if metric in measured]

    def winner(self, run: Run, dataset: str, metric: str = "") -> Winner | None:
        """The fastest arm that can be had, by a metric (default: the run's headline); None where nothing was
        measured, and on the CPU (one operator for all)."""
        key = run.name, dataset, metric or self.headline(run)
        if key not in self._winners:
            self._winners[key] = self._winner(run, dataset, key[2])
        return self._winners[key]

    def _winner(self, run: Run, dataset: str, metric: str) -> Winner | None:
        found = [m for arm in run.contenders if (m := self.measurement(run, arm, dataset, metric))]
        if not found or run.on_cpu:
            return None
        best, *rest = sorted(found, key=lambda m: m.time.value)
        ties = [m.arm for m in rest if stats.speedup(m.sampled, best.sampled).low <= 1]
        return Winner(
            run.name, dataset, metric, best, self.speedup(run, best.arm, dataset, metric), ties, len(rest)
        )


def derive(loaded: Loaded, seed: int = 0) -> Results:
    """Times and speedups of all runs; equal records and bootstrap seed give equal figures."""
    found = (m for run in loaded.runs for m in measurements_of(run.name, run.records, seed))
    measurements = {(m.run, m.arm, m.dataset, m.metric): m for m in found}
    speedups = {}
    for run in loaded.runs:
        for key, measured in measurements.items():
            reference = measurements.get((run.name, run.reference, measured.dataset, measured.metric))
            if key[0] == run.name and reference is not None and measured.metric in COMPARED:
                speedups[key] = speedup_over(reference, measured)
    return Results(loaded, measurements, speedups, {run.name: _headline(run) for run in loaded.runs})


def _headline(run: Run) -> str:
    single = {frame.single_launch(record) for record in run.records if record.status in MEASURED}
    return "stage_us" if len(single) > 1 else HEADLINE


def speedup_over(reference: Measurement, measured: Measurement) -> Speedup:
    """The one against the other, 1 for the very same."""
    same = measured.records == reference.records
    ratio = (
        Estimate(1.0, 1.0, 1.0, measured.time.replicates)
        if same
        else stats.speedup(reference.sampled, measured.sampled)
    )
    ids = measured.records if same else measured.records + reference.records
    return Speedup(measured.run, measured.arm, reference.arm, measured.dataset, measured.metric, ratio, ids)


def measurements_of(
    run: str, records: Iterable[CellRecord], seed: int = 0, point: str = ""
) -> Iterator[Measurement]:
    """What these records of a run say; all of one `point` of its sweep."""
    cells: dict[tuple[str, str], list[tuple[str, dict[str, Series]]]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r.cell.replicate):
        if record.status in MEASURED and (series := passes(record)):
            cells[record.cell.arm, record.cell.dataset.name].append((record.cell.id, series))
    at = f"/{point}" if point else ""
    for (arm, dataset), found in cells.items():
        drawn: dict[str, Sampled] = {}
        for metric in METRICS:
            having = [(cell, series[metric]) for cell, series in found if metric in series]
            if not having:
                continue
            if metric == "kernel_us" and not any("prepare_us" in series for _, series in found):
                drawn[metric] = drawn["total_us"]  # nothing is prepared: the same samples
            else:
                key = f"{run}/{arm}/{dataset}{at}/{metric}"
                drawn[metric] = stats.sample([values for _, values in having], key, seed)
            yield Measurement(
                run=run,
                arm=arm,
                dataset=dataset,
                metric=metric,
                time=stats.time(drawn[metric]),
                replicates=drawn[metric].medians,
                records=[cell for cell, _ in having],
                sampled=drawn[metric],
            )
