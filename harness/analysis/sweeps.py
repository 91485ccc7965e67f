"""What a sweep shows: times along its axes, the best value of each tunable, which arm wins where.

Lines are found in the cells themselves: those of an arm that differ in one swept key alone are a line along
that key. So the experiment's own cells are on every line that passes through them.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.analysis import stats
from harness.analysis.frame import Run
from harness.analysis.results import Measurement, Results, Speedup, measurements_of, speedup_over
from harness.analysis.stats import Estimate
from harness.records import PYTORCH, TUNABLES, WORKLOAD, Cell, Workload

Value = bool | int | str
STOCK = "stock"
"""The arm that no design should lose to: PyTorch as it is."""


@dataclass(frozen=True)
class Place:
    """One arm at one point of a sweep, on one dataset, by one metric."""

    cell: Cell
    """The first of those behind it."""
    measurement: Measurement
    speedup: Speedup | None
    """Over the reference at the same point; None where that was not measured."""

    def value(self, key: str) -> Value:
        """What the cell has for a swept key."""
        return _value(self.cell, key)


@dataclass(frozen=True)
class Line:
    """One axis on one dataset by one metric; the rest stays as it is."""

    run: str
    dataset: str
    metric: str
    key: str
    held: dict[str, Value]
    """Of what else is swept: that which is not as in the experiment itself."""
    places: dict[str, list[Place]]
    """By arm, values ascending."""


@dataclass(frozen=True)
class Best:
    """The value of a tunable with which an arm is fastest."""

    run: str
    gpu: str
    arm: str
    dataset: str
    metric: str
    key: str
    held: dict[str, Value]
    best: Place
    ties: list[Value]
    """Other values whose interval does not separate them from it."""
    default: Value
    gain: Estimate
    """Time with the default ÷ time with the best."""


@dataclass(frozen=True)
class Win:
    """The fastest arm for one workload of a sweep, every tunable as the experiment has it."""

    run: str
    dataset: str
    metric: str
    point: str
    best: Place
    ties: list[str]
    """Other arms whose interval does not separate them from it."""
    rivals: int
    """How many other arms were measured."""


@dataclass(frozen=True)
class Beside:
    """A design beside PyTorch as it is, for the same workload."""

    run: str
    dataset: str
    metric: str
    place: Place
    stock: Measurement
    ratio: Estimate
    """PyTorch ÷ design."""


@dataclass(frozen=True)
class Swept:
    """A run with a sweep."""

    run: Run
    gpu: str
    metric: str
    """What wins and losses go by: the metric that the run's arms are compared by."""
    places: list[Place]
    lines: list[Line]
    best: list[Best]
    wins: list[Win]
    """On the CPU none: there every arm is PyTorch's own operator."""
    beside_stock: list[Beside]
    """Every place of a design that PyTorch was measured at too; on the CPU none."""

    @property
    def losses(self) -> list[Beside]:
        """Those where the design is slower beyond doubt."""
        return [beside for beside in self.beside_stock if beside.ratio.high < 1]


def find(results: Results) -> list[Swept]:
    """Every run that sweeps anything."""
    return [_of(results, run) for run in results.loaded.runs if run.swept]


def _of(results: Results, run: Run) -> Swept:
    places = _places(results, run)
    lines = list(_lines(run, places))
    gpu = next((r.environment.gpu for r in run.whole.records if r.environment and r.environment.gpu), "")
    at_own = [place for place in places if _as_own(place, run)]
    main = results.compared(run)[0]
    return Swept(
        run=run,
        gpu=gpu,
        metric=main,
        places=places,
        lines=lines,
        best=[found for line in lines for found in _best(line, gpu, _base(run))],
        wins=[] if run.on_cpu else list(_wins(at_own, main)),
        beside_stock=[] if run.on_cpu else list(_beside_stock(at_own, main)),
    )


def _value(cell: Cell, key: str) -> Value:
    name = key.partition(".")[2]
    value: Value = getattr(cell.workload, name) if key.startswith(WORKLOAD) else cell.tunables[name]
    return value


def _places(results: Results, run: Run) -> list[Place]:
    """By every metric that the run's arms are compared by: arms, then datasets, in the run's order."""
    by_point = defaultdict(list)
    for record in run.whole.records:
        by_point[record.cell.point].append(record)
    cells = {record.cell.id: record.cell for record in run.whole.records}
    metrics = results.compared(run)
    measured = [
        found
        for point, records in sorted(by_point.items())
        for found in measurements_of(run.name, records, point=point)
        if found.metric in metrics
    ]
    references = _References([(cells[m.records[0]], m) for m in measured if m.arm == run.reference])
    places = []
    for found in measured:
        cell = cells[found.records[0]]
        reference = references.at(cell, found)
        places.append(Place(cell, found, speedup_over(reference, found) if reference else None))
    order = {name: n for n, name in enumerate([*run.arms, *run.datasets, *metrics])}
    return sorted(
        places,
        key=lambda p: (order[p.cell.arm], order[p.cell.dataset.name], order[p.measurement.metric]),
    )


class _References:
    """The reference arm's measurements, by where another arm would look for them."""

    def __init__(self, found: Sequence[tuple[Cell, Measurement]]) -> None:
        self._at_point: dict[tuple[str, str, Workload, str], Measurement] = {}
        self._own: dict[tuple[str, str, Workload], Measurement] = {}
        own = next((cell.tunables for cell, _ in found if not cell.point), {})
        for cell, measured in found:
            place = (measured.dataset, measured.metric, cell.workload)
            self._at_point[*place, cell.point] = measured
            if cell.tunables == own:
                self._own[place] = measured

    def at(self, cell: Cell, measured: Measurement) -> Measurement | None:
        """At the same point; for a tunable that the reference lacks, at the same workload."""
        place = (measured.dataset, measured.metric, cell.workload)
        return self._at_point.get((*place, cell.point)) or self._own.get(place)


def _base(run: Run) -> dict[str, Cell]:
    """Every arm's cell at the experiment's own point."""
    return {cell.arm: cell for cell in [*run.pending, *(record.cell for record in run.records)]}


def _as_own(place: Place, run: Run) -> bool:
    """Whether every tunable is as the experiment itself has it."""
    own = _base(run).get(place.cell.arm)
    return own is not None and place.cell.tunables == own.tunables


def _keys(places: Sequence[Place]) -> list[str]:
    """What is swept: fields of the workload in their order, then tunables."""
    found = {key for place in places for key in place.cell.swept}
    fields = [WORKLOAD + f.name for f in dataclasses.fields(Workload)]
    return [key for key in fields if key in found] + sorted(key for key in found if key.startswith(TUNABLES))


def _lines(run: Run, places: Sequence[Place]) -> Iterator[Line]:
    base = _base(run)
    for key in _keys(places):
        found: dict[tuple[str, str, tuple[tuple[str, Value], ...]], dict[str, list[Place]]] = {}
        for place in places:
            own = base.get(place.cell.arm)
            if own is None or key not in place.cell.swept:
                continue
            others = (k for k in place.cell.swept if k != key and _value(own, k) != place.value(k))
            held = tuple((k, place.value(k)) for k in others)
            line = (place.measurement.metric, place.measurement.dataset, held)
            found.setdefault(line, {}).setdefault(place.cell.arm, []).append(place)
        for (metric, dataset, held), by_arm in found.items():
            along = {arm: sorted(along, key=lambda p: p.value(key)) for arm, along in by_arm.items()}
            longer = {arm: along for arm, along in along.items() if len(along) > 1}
            if longer:
                yield Line(run.name, dataset, metric, key, dict(held), longer)


def _best(line: Line, gpu: str, base: Mapping[str, Cell]) -> Iterator[Best]:
    if not line.key.startswith(TUNABLES):
        return
    for arm, places in line.places.items():
        own = _value(base[arm], line.key)
        default = next((place for place in places if place.value(line.key) == own), None)
        if default is None:  # failed, or no part of the grid
            continue
        best, *rest = sorted(places, key=lambda place: place.measurement.time.value)
        sampled = best.measurement.sampled
        ties = [p.value(line.key) for p in rest if stats.speedup(p.measurement.sampled, sampled).low <= 1]
        yield Best(
            run=line.run,
            gpu=gpu,
            arm=arm,
            dataset=line.dataset,
            metric=line.metric,
            key=line.key,
            held=line.held,
            best=best,
            ties=ties,
            default=own,
            gain=Estimate(1.0, 1.0, 1.0, best.measurement.time.replicates)
            if default is best
            else stats.speedup(default.measurement.sampled, sampled),
        )


def _wins(places: Sequence[Place], metric: str) -> Iterator[Win]:
    by_work: dict[tuple[str, Workload], list[Place]] = defaultdict(list)
    for place in places:
        if place.measurement.metric == metric:
            by_work[place.cell.dataset.name, place.cell.workload].append(place)
    for (dataset, _), rivals in by_work.items():
        best, *rest = sorted(rivals, key=lambda place: place.measurement.time.value)
        if rest:
            sampled = best.measurement.sampled
            ties = [p.cell.arm for p in rest if stats.speedup(p.measurement.sampled, sampled).low <= 1]
            yield Win(best.measurement.run, dataset, metric, best.cell.point, best, ties, len(rest))


def _beside_stock(places: Sequence[Place], metric: str) -> Iterator[Beside]:
    """Every place of a design beside PyTorch's own for the same workload."""
    here = [place for place in places if place.measurement.metric == metric]
    own = [p for p in here if (p.cell.design, p.cell.toolchain) == (STOCK, PYTORCH)]
    stock = {(p.cell.dataset, p.cell.workload): p.measurement for p in own}
    for place in here:
        theirs = stock.get((place.cell.dataset, place.cell.workload))
        if theirs is not None and place.cell.toolchain != PYTORCH:
            ratio = stats.speedup(theirs.sampled, place.measurement.sampled)
            yield Beside(place.measurement.run, place.measurement.dataset, metric, place, theirs, ratio)
