"""Runs of one experiment over time: how long every design took in each, and what changed between them.

Only runs that measured the same thing are joined: on one model of GPU, of the same work and rows, by the same
protocol. They make a `Setting`; a run that cannot be joined to any begins another. Boards and drivers may
differ within one, and a change says where they do.

A change is a verdict of `harness.analysis.compare` between a run and the one before it that measured the same
design on the same dataset, with the interval that is corrected for all that is looked at when a run is added:
if nothing changed, a false one appears in at most 5 of 100 runs. Where a line has no such step, its last run
is held against its first, for what creeps.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from harness.analysis import comparable, compare, figures, frame, history, results, stats
from harness.analysis.comparable import Difference, Source, Traits
from harness.analysis.compare import Side
from harness.analysis.figures import METRICS
from harness.analysis.frame import LoadedRun
from harness.analysis.processes import Pools
from harness.analysis.stats import Estimate, Sampled
from harness.analysis.timeline import Change, History, LeftOut, Moment, Point, Setting
from harness.errors import BadInputError
from harness.progress import Progress, Silent
from harness.records import MEASURED, Environment, Variant
from harness.text import meant

T = TypeVar("T")
BOARD, DRIVER = "GPU's UUID", "driver"
"""What may differ between runs that are joined, though `compare` refuses it."""


@dataclass(frozen=True)
class _Stop:
    """A run on the line of a variant and a dataset."""

    side: Side
    dataset: str
    sampled: Sampled

    @property
    def sources(self) -> list[Source]:
        """The records behind it."""
        records = [record for record in self.side.records(self.dataset) if record.status in MEASURED]
        return [Source(record, self.side.run.folder) for record in records]

    @property
    def doubt(self) -> str:
        """See `Point.doubt`."""
        return compare.lack(self.side, self.dataset, "this run")


@dataclass
class _Joined:
    """Runs of a setting while they are gathered."""

    traits: dict[str, Mapping[str, None]]
    apart: list[Difference]
    runs: list[LoadedRun] = field(default_factory=list)

    def add(self, run: LoadedRun, traits: Traits) -> None:
        self.runs.append(run)
        for name, values in traits.items():
            self.traits.setdefault(name, values)


def find(
    folders: Mapping[str, Path],
    experiment: str,
    *,
    metric: str = "",
    threshold: float = compare.THRESHOLD,
    progress: Progress | None = None,
) -> History:
    """The history of an experiment among the runs in these folders, by their short names.

    `metric`: one of those that `harness compare` knows; without, that by which the report compares.
    BadInputError where none of them is of it and was measured.
    """
    progress = progress or Silent()
    own, known, left_out = _of_experiment(folders, experiment)
    progress.expect(len(own))
    runs: list[LoadedRun] = []
    for name, folder in own.items():
        progress.now(name)
        run, why = _read(folder, name)
        if run is not None:
            runs.append(run)
        else:
            left_out.append(LeftOut(name, why))
        progress.advance()
    if not runs:
        whys = "".join(f" {one.run}: {one.why}" for one in left_out[:1])
        others = f"; of others: {', '.join(sorted(known))}" if known else ""
        raise BadInputError(
            f"{experiment}: of this experiment nothing was measured here{others}."
            f"{meant(experiment, known)}{whys}"
        )
    runs.sort(key=lambda run: run.began)
    settings = [_setting(joined, metric, threshold) for joined in _joined(runs)]
    if not any(setting.points for setting in settings):
        raise BadInputError(f"{experiment}: none of its runs measured {metric}; name another metric.")
    settings.sort(key=lambda setting: setting.moments[-1].began, reverse=True)
    return History(experiment, runs[-1].title, threshold, settings, left_out)


def _of_experiment(
    folders: Mapping[str, Path], experiment: str
) -> tuple[dict[str, Path], set[str], list[LeftOut]]:
    """Its runs, the experiments that others are of, and those that do not say."""
    own: dict[str, Path] = {}
    others: set[str] = set()
    left_out = []
    for name, folder in folders.items():
        try:
            found = history.experiment_of(folder)
        except BadInputError as error:
            left_out.append(LeftOut(name, str(error)))
            continue
        if found == experiment:
            own[name] = folder
        else:
            others.add(found)
    return own, others, left_out


def _read(folder: Path, name: str) -> tuple[LoadedRun | None, str]:
    """A run, or why it has no place in time."""
    try:
        run = frame.load_run(folder, name)
    except BadInputError as error:
        return None, str(error)
    if not any(record.status in MEASURED for record in run.records):
        return None, "Nothing of it was measured."
    return (run, "") if run.began else (None, "Its records do not say when it began.")


def _joined(runs: Iterable[LoadedRun]) -> list[_Joined]:
    """Runs in the order of time, each with the latest that it can be held against."""
    found: list[_Joined] = []
    for run in runs:
        measured = (Source(r, run.folder) for r in run.records if r.status in MEASURED)
        traits = {
            name: values
            for name, values in comparable.decisive(measured).items()
            if name not in (BOARD, DRIVER)
        }
        apart = [comparable.differing(joined.traits, traits) for joined in found]
        fitting = [joined for joined, differences in zip(found, apart, strict=True) if not differences]
        if not fitting:
            found.append(_Joined({}, apart[-1] if apart else []))
        (fitting or found)[-1].add(run, traits)
    return found


def _setting(joined: _Joined, metric: str, threshold: float) -> Setting:
    headlines = {results.headline(run) for run in joined.runs}
    by = metric or (headlines.pop() if len(headlines) == 1 else "stage_us")
    pools = {run.name: results.pools(run.whole.records) for run in joined.runs}
    variants = _every(variant for run in joined.runs for variant in run.variants)
    datasets = _every(name for run in joined.runs for name in run.datasets)
    lines = [
        line
        for variant in variants
        for dataset in datasets
        if (line := list(_line(joined.runs, variant, dataset, by, pools)))
    ]
    there = {stop.side.variant for line in lines for stop in line}
    order = {run.name: place for place, run in enumerate(joined.runs)}
    changes = _changes(lines, threshold)
    changes.sort(key=lambda change: (-order[change.after], -abs(math.log(change.speed.value))))
    return Setting(
        workload=joined.runs[-1].cells[0].workload,
        metric=by,
        moments=[_moment(run) for run in joined.runs],
        variants=[variant for variant in variants if variant in there],
        datasets=datasets,
        points=[point for line in lines for point in _points(line, by)],
        changes=changes,
        apart=joined.apart,
    )


def _line(
    runs: Iterable[LoadedRun], variant: Variant, dataset: str, metric: str, pools: Mapping[str, Pools]
) -> Iterator[_Stop]:
    for run in runs:
        side = Side(run, variant)
        if sampled := compare.sampled(side, dataset, metric, pools[run.name]):
            yield _Stop(side, dataset, sampled)


def _points(line: Sequence[_Stop], metric: str) -> Iterator[Point]:
    for stop in line:
        records = [source.record.cell.id for source in stop.sources]
        sampled = stop.sampled
        time = figures.estimated(
            metric, METRICS[metric], stats.time(sampled), "µs", "time", records, sampled.medians
        )
        itself = Estimate(1.0, 1.0, 1.0, sampled.replicates)
        since = itself if stop is line[0] else stats.speedup(line[0].sampled, sampled)
        yield Point(stop.side.run.name, stop.side.variant, stop.dataset, time, since, stop.doubt)


def _changes(lines: Sequence[Sequence[_Stop]], threshold: float) -> list[Change]:
    """Of every line its steps; where it has none, what crept."""
    steps = [pair for line in lines for pair in itertools.pairwise(line)]
    # When a run is added it is held against the one before and, if that is another, against the first.
    against_first = (stop for line in lines for stop in line[2:])
    looked_at = Counter(stop.side.run.name for stop in (*(after for _, after in steps), *against_first))
    found = [
        change
        for before, after in steps
        if (change := _change(before, after, looked_at[after.side.run.name], threshold))
    ]
    told = {(change.variant, change.dataset) for change in found}
    calm = [line for line in lines if len(line) > 2 and (line[0].side.variant, line[0].dataset) not in told]
    crept = (
        _change(line[0], line[-1], looked_at[line[-1].side.run.name], threshold, creeping=True)
        for line in calm
    )
    return [*found, *filter(None, crept)]


def _change(
    before: _Stop, after: _Stop, comparisons: int, threshold: float, *, creeping: bool = False
) -> Change | None:
    """None where no difference that matters was shown."""
    ratio, _, verdict = compare.contest(before.sampled, after.sampled, comparisons, threshold)
    if before.doubt or after.doubt or verdict not in ("faster", "slower"):
        return None
    sources = before.sources, after.sources
    differences = [one for one in comparable.forbidding(*sources) if one.what in (BOARD, DRIVER)]
    return Change(
        variant=after.side.variant,
        dataset=after.dataset,
        before=before.side.run.name,
        after=after.side.run.name,
        verdict=verdict,
        speed=Estimate(1 / ratio.value, 1 / ratio.high, 1 / ratio.low, ratio.replicates),
        creeping=creeping,
        differences=differences + comparable.worth_saying(*sources),
    )


def _moment(run: LoadedRun) -> Moment:
    seen = [record.environment for record in run.records if record.environment]

    def of(told: Callable[[Environment], str]) -> str:
        return history.either(map(told, seen))

    return Moment(
        run=run.name,
        began=run.began,
        commit=of(comparable.commit),
        gpu=of(lambda one: one.gpu or one.cpu),
        board=of(lambda one: one.gpu_uuid),
        driver=of(lambda one: one.driver),
        torch=of(lambda one: one.torch),
    )


def _every(found: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(found))
