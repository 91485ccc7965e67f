"""What a sweep shows: lines along its axes, the best value of each tunable, which variant wins where.

Lines are found in the cells themselves: those of a variant that differ in one swept key alone are a line
along that key. So the experiment's own cells are on every line that passes through them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.analysis import limits, peers, results, stats
from harness.analysis.figure_sources import bandwidth
from harness.analysis.figures import HEADLINE, Place, Value
from harness.analysis.frame import LoadedRun
from harness.analysis.results import Measured, Measurement
from harness.analysis.stats import Estimate
from harness.records import TUNABLES, WORKLOAD, Cell, CellRecord, Variant, Workload


@dataclass(frozen=True)
class Curve:
    """A variant along a line."""

    variant: Variant
    points: list[str]
    """Labels of the points on it, by ascending value."""


@dataclass(frozen=True)
class Line:
    """One axis on one dataset; the rest stays as it is."""

    dataset: str
    key: str
    held: dict[str, Value]
    """Of what else is swept: that which is not as in the experiment itself."""
    curves: list[Curve]


@dataclass(frozen=True)
class Best:
    """The value of a tunable with which a variant is fastest."""

    variant: Variant
    dataset: str
    metric: str
    key: str
    held: dict[str, Value]
    """What the rest of the sweep was held at."""
    point: str
    value: Value
    ties: list[Value]
    """Other values whose interval does not separate them from it."""
    default: Value
    gain: Estimate
    """Time with the default ÷ time with the best."""


@dataclass(frozen=True)
class Win:
    """The fastest variant for one workload of a sweep, every tunable as the experiment has it."""

    dataset: str
    point: str
    variant: Variant
    ties: list[Variant]
    """Others whose interval does not separate them from it."""
    rivals: int
    """How many others were measured."""


@dataclass(frozen=True)
class BesidePeer:
    """A design of ours beside another library, by the path that is its fastest for the same workload."""

    variant: Variant
    dataset: str
    point: str
    library: str
    """The design that stands for it; "stock" is PyTorch."""
    peer: Variant
    """The path."""
    peer_point: str
    ties: list[Variant]
    """Its other paths whose interval does not separate them from it."""
    ratio: Estimate
    """Library ÷ design: with an interval below 1 the design is slower beyond doubt."""


@dataclass(frozen=True)
class Sweep:
    """What a run sweeps."""

    metric: str
    """What wins go by: the metric that the run's variants are compared by."""
    points: dict[str, dict[str, Value]]
    """By label what each point sets; the experiment's own, without a label, sets nothing."""
    places: list[Place]
    """At the points other than the experiment's own; those are among the run's."""
    lines: list[Line]
    best: list[Best]
    wins: list[Win]
    """On the CPU none: there every variant is PyTorch's own operator."""
    beside_peers: list[BesidePeer]
    """Every place of a design of ours that another library was measured at too; on the CPU none."""
    in_l2: list[str]
    """Points where all that a pass touches fits L2, which has it from the pass before; least bytes first."""
    events_decide: list[str]
    """Points where for some variant a pair of events costs more than a third of what it surrounds: how fast
    one is there, and by how much, is known roughly."""


_Key = tuple[Variant, str, str]
"""Variant, dataset and point."""
_Timed = dict[_Key, dict[str, Measurement]]
"""By metric what was measured there."""


def find(found: Measured) -> Sweep | None:
    """None where the run sweeps nothing."""
    run, main = found.run, found.compared[0]
    if not run.swept:
        return None
    timed = _measured(found)
    first = {(c.variant, c.dataset.name, c.point): c for c in (r.cell for r in reversed(run.whole.records))}
    cells = {key: first[key] for key in timed}
    base = {cell.variant: cell for cell in run.cells}
    lines = list(_lines(cells, base))
    as_own = [
        (cell, timed[key][main])
        for key, cell in cells.items()
        if main in timed[key] and cell.variant in base and cell.tunables == base[cell.variant].tunables
    ]
    return Sweep(
        metric=main,
        points={cell.point: _set_at(cell) for cell in cells.values()},
        places=list(_places(found, cells, timed)),
        lines=lines,
        best=[
            best
            for _, group in itertools.groupby(lines, key=lambda line: (line.key, line.dataset))
            for metric, line in itertools.product(found.compared, group)
            for best in _best(line, metric, timed, cells, base)
        ],
        wins=[] if run.on_cpu else list(_wins(as_own)),
        beside_peers=[] if run.on_cpu else list(_beside_peers(as_own)),
        in_l2=_in_l2(run, cells.values()),
        events_decide=_events_decide(run, main),
    )


def value_of(cell: Cell, key: str) -> Value:
    """What a cell has for a swept key."""
    name = key.partition(".")[2]
    value: Value = getattr(cell.workload, name) if key.startswith(WORKLOAD) else cell.tunables[name]
    return value


def settings(cell: Cell) -> dict[str, Value]:
    """What a cell has for each key that its sweep varies."""
    return {key: value_of(cell, key) for key in cell.swept}


def _set_at(cell: Cell) -> dict[str, Value]:
    """What a cell's point sets: of all that the sweep varies, that which its label names, in its order."""
    found = {}
    for key, value in settings(cell).items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        at = f",{cell.point},".find(f",{key.partition('.')[2]}={text},")
        if at >= 0:
            found[at] = key, value
    return dict(found[at] for at in sorted(found))


def _measured(found: Measured) -> _Timed:
    """By the metrics that the run compares by, and prepare + kernel, which limits are about; variants, then
    datasets, in the run's order."""
    run, timed = found.run, _Timed()
    by_point = defaultdict(list)
    for record in run.whole.records:
        by_point[record.cell.point].append(record)
    for point, records in sorted(by_point.items()):
        here = results.measurements_of(run.name, records, point=point, levels=found.levels, known=found.pools)
        for one in here:
            if one.metric in (*found.compared, HEADLINE):
                timed.setdefault((one.variant, one.dataset, point), {})[one.metric] = one
    order = {name: n for n, name in enumerate([*run.variants, *run.datasets])}
    return dict(sorted(timed.items(), key=lambda item: (order[item[0][0]], order[item[0][1]])))


def _places(found: Measured, cells: Mapping[_Key, Cell], timed: _Timed) -> Iterator[Place]:
    """Those of a sweep, with speedups over the reference at the same point, and shares of the limit.

    For a tunable that the reference lacks, over it at the same workload.
    """
    run, reference = found.run, found.run.reference
    records: dict[_Key, list[CellRecord]] = defaultdict(list)
    for record in run.whole.records:
        records[record.cell.variant, record.cell.dataset.name, record.cell.point].append(record)
    own = next((c.tunables for c in cells.values() if c.variant == reference and not c.point), {})
    at_point: dict[tuple[str, Workload, str], dict[str, Measurement]] = {}
    at_work: dict[tuple[str, Workload], dict[str, Measurement]] = {}
    for key, cell in cells.items():
        if cell.variant == reference:
            at_point[cell.dataset.name, cell.workload, cell.point] = timed[key]
            if cell.tunables == own:
                at_work[cell.dataset.name, cell.workload] = timed[key]
    for (variant, dataset, point), cell in cells.items():
        if point:
            measured = timed[variant, dataset, point]
            theirs = at_work.get((dataset, cell.workload), {}) | at_point.get(
                (dataset, cell.workload, point), {}
            )
            compared = {metric: one for metric, one in measured.items() if metric in found.compared}
            shown = [results.time_figure(one) for one in compared.values()]
            shown += [
                results.speedup_over(theirs[metric], one)
                for metric, one in compared.items()
                if metric in theirs
            ]
            limit = found.every_limit.get((dataset, cell.workload))
            roughly = limits.events_decide(records[variant, dataset, point])
            if limit and HEADLINE in measured and not roughly:
                shown += bandwidth.of_limit(limit, measured[HEADLINE], measured["kernel_us"])
            yield Place(variant, dataset, point, settings(cell), shown, [])


def _keys(cells: Iterable[Cell]) -> list[str]:
    """What is swept: fields of the workload in their order, then tunables."""
    found = {key for cell in cells for key in cell.swept}
    fields = [WORKLOAD + f.name for f in dataclasses.fields(Workload)]
    return [key for key in fields if key in found] + sorted(key for key in found if key.startswith(TUNABLES))


def _lines(cells: Mapping[_Key, Cell], base: Mapping[Variant, Cell]) -> Iterator[Line]:
    """`base`: every variant's cell at the experiment's own point."""
    for key in _keys(cells.values()):
        found: dict[tuple[str, tuple[tuple[str, Value], ...]], dict[Variant, list[Cell]]] = {}
        for (variant, dataset, _), cell in cells.items():
            if key in cell.swept and variant in base:
                own, here = settings(base[variant]), settings(cell)
                held = tuple((k, here[k]) for k in here if k != key and own[k] != here[k])
                found.setdefault((dataset, held), {}).setdefault(variant, []).append(cell)
        for (dataset, held), by_variant in found.items():
            curves = [
                Curve(variant, [one.point for one in sorted(along, key=lambda one: value_of(one, key))])
                for variant, along in by_variant.items()
                if len(along) > 1
            ]
            if curves:
                yield Line(dataset, key, dict(held), curves)


def _best(
    line: Line, metric: str, timed: _Timed, cells: Mapping[_Key, Cell], base: Mapping[Variant, Cell]
) -> Iterator[Best]:
    if not line.key.startswith(TUNABLES):
        return
    for curve in line.curves:
        places = [(curve.variant, line.dataset, point) for point in curve.points]
        found = {id(one): (place, one) for place in places if (one := timed[place].get(metric))}
        value = {number: value_of(cells[place], line.key) for number, (place, _) in found.items()}
        own = value_of(base[curve.variant], line.key)
        default = next((one for number, (_, one) in found.items() if value[number] == own), None)
        if default is None:  # failed, or no part of the grid
            continue
        best, ties = results.fastest(one for _, one in found.values())
        yield Best(
            variant=curve.variant,
            dataset=line.dataset,
            metric=metric,
            key=line.key,
            held=line.held,
            point=found[id(best)][0][2],
            value=value[id(best)],
            ties=[value[id(tie)] for tie in ties],
            default=own,
            gain=results.speedup_over(default, best).estimate,
        )


def _wins(measured: Sequence[tuple[Cell, Measurement]]) -> Iterator[Win]:
    by_work: dict[tuple[str, Workload], list[tuple[Cell, Measurement]]] = defaultdict(list)
    for cell, one in measured:
        by_work[cell.dataset.name, cell.workload].append((cell, one))
    for (dataset, _), rivals in by_work.items():
        if len(rivals) > 1:
            best, ties = results.fastest(one for _, one in rivals)
            point = next(cell.point for cell, one in rivals if one is best)
            yield Win(dataset, point, best.variant, [tie.variant for tie in ties], len(rivals) - 1)


def _beside_peers(measured: Sequence[tuple[Cell, Measurement]]) -> Iterator[BesidePeer]:
    """Every place of a design of ours beside each library's fastest path for the same workload."""
    paths: dict[tuple[str, str, Workload], list[tuple[Cell, Measurement]]] = defaultdict(list)
    for cell, one in measured:
        if peers.is_peer(cell.variant):
            paths[cell.design, cell.dataset.name, cell.workload].append((cell, one))
    for (library, dataset, work), every in paths.items():
        best, ties = results.fastest(one for _, one in every)
        point = next(cell.point for cell, one in every if one is best)
        others = [tie.variant for tie in ties]
        for cell, one in measured:
            if (cell.dataset.name, cell.workload) == (dataset, work) and not peers.is_peer(cell.variant):
                ratio = stats.speedup(best.sampled, one.sampled)
                yield BesidePeer(
                    cell.variant, dataset, cell.point, library, best.variant, point, others, ratio
                )


def _in_l2(run: LoadedRun, cells: Iterable[Cell]) -> list[str]:
    l2_bytes = next((r.environment.l2_bytes for r in run.whole.records if r.environment), 0)
    steady = sorted((cell for cell in cells if cell.timing.cache == "steady"), key=_touched)
    return list(dict.fromkeys(cell.point for cell in steady if _touched(cell) <= l2_bytes))


def _events_decide(run: LoadedRun, metric: str) -> list[str]:
    places: dict[tuple[str, Variant], list[CellRecord]] = defaultdict(list)
    for record in run.whole.records:
        places[record.cell.point, record.cell.variant].append(record)
    return list(dict.fromkeys(p for (p, _), of in places.items() if limits.events_decide(of, metric)))


def _touched(cell: Cell) -> int:
    """Bytes of the rows of one pass if all are different, and of all that streams by."""
    work = cell.workload
    rows = sum(
        kind.all_features * min(kind.lookups(work.batch), kind.rows) * work.row_bytes_of(kind.dim)
        for kind in work.kinds
    )
    return rows + work.all_lookups * work.asked_bytes_each + work.all_output_bytes
