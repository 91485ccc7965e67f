"""Whether a run looked up what its seed and trace files give, and whether its limits rest on that.

Records tell how long a trace is and how many distinct rows it holds, `manifest.json` which rows the first
batch looked up, `datasets.json` and `kinds.json` what that asks of the memory system, from which a report
works out its limits. All of it is made again here, of the experiment's own workload.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from harness import wall
from harness.analysis import kind_demand
from harness.errors import BadInputError
from harness.plan import Plan
from harness.records import Cell, CellRecord, load
from harness.run import manifest
from harness.run.findings import CLOSE, Finding, listed
from harness.run.manifest import Manifest
from harness.traces import demand
from harness.traces.demand import Curves, Demand
from harness.traces.stretches import Stretches

_MOST_ACCESSES = 2**26
"""Of a dataset's traces and batches, made again: seconds and a gigabyte. A model of 26 tables has a third of
it; a folder's plan may be anybody's, and ask for anything."""
_TRACES = "harness/traces"
"""As manifests call the sources that make traces and work out what they ask for."""


def findings(
    root: Path, plan: Plan, measured: Sequence[CellRecord], told: Manifest | None
) -> Iterator[Finding]:
    """`told`: the run's manifest, if it has one. BadInputError where a file is not what it should be."""
    try:
        demand.check_traces(root)
    except BadInputError as error:
        yield Finding("broken" if (root / wall.TRACES).exists() else "not known", "traces", str(error))
        return
    own = {record.cell.dataset.name: record.cell for record in measured if not record.cell.point}
    made: dict[str, Demand] = {}
    unknown = []
    for name, cell in own.items():
        try:
            made[name] = demand.of(cell, root, _MOST_ACCESSES)
        except BadInputError as error:
            unknown.append(str(error).rstrip("."))
    yield from _traces(root, plan, measured, told, made, unknown)
    yield from _demands(root, own, told, made)


def _traces(
    root: Path,
    plan: Plan,
    measured: Sequence[CellRecord],
    told: Manifest | None,
    made: dict[str, Demand],
    unknown: list[str],
) -> Iterator[Finding]:
    then = told.indices if told else {}
    today = dict(manifest.indices(plan, root))
    broken = [
        f"{name}: other rows are looked up" for name in then if today.get(name, then[name]) != then[name]
    ]
    planned = {cell.dataset.name for cell in plan.cells}
    broken += [f"{name}: is in {manifest.FILE} and in no cell" for name in then if name not in planned]
    untold = [name for name in today if told and name not in then]
    unknown = [*unknown, *(f"{name}: {manifest.FILE} does not tell its rows" for name in untold)]
    for record in measured:
        asked = made.get(record.cell.dataset.name)
        if asked is None or record.cell.point:
            continue
        for fact in ("accesses", "distinct_rows"):
            now, before = getattr(asked, fact), record.facts.get(fact)
            if before is None:
                unknown.append(f"{record.cell.id}: does not say its {fact}")
            elif not math.isclose(now, before, rel_tol=CLOSE):
                broken.append(f"{record.cell.id}: {fact} is {now:,.0f} and not the recorded {before:,.0f}")
    if broken:
        yield Finding("broken", "traces", f"are not what was measured: {listed(broken)}")
    elif unknown:
        yield Finding("not known", "traces", f"were not compared: {listed(unknown)}")
    elif made:
        yield Finding("holds", "traces", f"of {len(made)} datasets, made anew, are those that were measured")


def _demands(
    root: Path, own: dict[str, Cell], told: Manifest | None, made: dict[str, Demand]
) -> Iterator[Finding]:
    """What limits rest on."""
    if not made:
        return
    if not (root / demand.FILE).is_file():
        text = f"there is no {demand.FILE}; a report works out again what takes seconds"
        yield Finding("not known", "limits", text)
        return
    there = load(demand.Datasets, root / demand.FILE).datasets
    own_there = {one.dataset: one for one in there if not one.point}
    compared = [name for name in made if name in own_there]
    differ = [f"{name}: {field}" for name in compared for field in _differing(own_there[name], made[name])]
    if (root / kind_demand.FILE).is_file():
        kinds = load(kind_demand.KindDemands, root / kind_demand.FILE).datasets
        for name in [name for name in made if name in kinds]:
            again = kind_demand.of(own[name], _curves(own[name], root))
            differ += [f"{name}: {why}" for why in _differing_kinds(kinds[name], again)]
    if differ and told and told.sources.get(_TRACES) != manifest.sources(())[_TRACES]:
        text = f"{_TRACES} has changed since, and works them out otherwise: {listed(differ)}"
        yield Finding("not known", "limits", text)
    elif differ:
        text = f"what they rest on is not what seed and trace files give: {listed(differ)}"
        yield Finding("broken", "limits", text)
    elif compared:
        others = sum(1 for one in there if one.point)
        rest = f"; what a sweep's {others} other workloads ask for was not made anew" if others else ""
        yield Finding("holds", "limits", f"rest on what {len(compared)} datasets, made anew, ask for{rest}")


def _curves(cell: Cell, root: Path) -> Curves:
    return Curves(cell, Stretches.read(cell, root))


def _differing_kinds(then: list[Demand], now: list[Demand]) -> list[str]:
    if len(then) != len(now):
        return [f"{len(then)} kinds of table and not {len(now)}"]
    pairs = enumerate(zip(then, now, strict=True), 1)
    return [f"{field} of kind {place}" for place, pair in pairs for field in _differing(*pair)]


def _differing(then: Demand, now: Demand) -> list[str]:
    """Fields in which two demands of the same dataset differ. Curves are compared at the sizes that both
    have."""
    names = [field.name for field in fields(Demand)]
    return [name for name in names if not _same(getattr(then, name), getattr(now, name))]


def _same(one: object, other: object) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=CLOSE)
    if isinstance(one, list) and isinstance(other, list) and any(isinstance(pair, tuple) for pair in one):
        first, second = dict(one), dict(other)
        return all(_same(first[size], second[size]) for size in first.keys() & second.keys())
    return one == other
