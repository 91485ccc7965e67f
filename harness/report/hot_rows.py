"""Hot rows chosen beforehand beside those that an oracle names, as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis import hot_rows
from harness.analysis.hot_rows import Pair, Pinned
from harness.analysis.results import METRICS, Results
from harness.report import tables, units
from harness.report.tables import Anchors, Cell, Table


@dataclass(frozen=True)
class View:
    """The pinning designs of one run."""

    title: str
    table: Table


def views(results: Results, at: Anchors) -> list[View]:
    """Of the runs with a design that pins."""
    pairs = hot_rows.find(results)
    made = []
    for run in results.loaded.runs:
        own = [pair for pair in pairs if pair.run == run.name]
        if own:
            made.append(View(run.title, _table(own, run.name, at)))
    return made


def _table(pairs: list[Pair], run: str, at: Anchors) -> Table:
    columns = ["dataset"]
    oracle = any(pair.oracle for pair in pairs)
    for how in ("held out", "oracle") if oracle else ("held out",):
        columns += [f"{how}: accesses met", *(METRICS[metric] for metric in hot_rows.METRICS)]
    rows: list[list[Cell]] = []
    design = ""
    for pair in pairs:
        named = pair.held_out or pair.oracle
        if named is not None and named.arm.removesuffix(",oracle") != design:
            design = named.arm.removesuffix(",oracle")
            rows.append([Cell(design)])
        cost = Cell(units.NONE, kind="number absent")
        if pair.slower is not None:
            cost = Cell(units.ratio(pair.slower.value), units.span(pair.slower), kind="number")
        known = (*_cells(pair.oracle, run, at), cost) if oracle else ()
        rows.append([Cell(pair.dataset), *_cells(pair.held_out, run, at), *known])
    caption = (
        "Share of the timed accesses that meet a pinned row, with the rows pinned per table below it, and"
        " speedups over the run's reference"
    )
    if not oracle:
        return Table(columns, rows, f"{caption}. No oracle was measured.")
    last = "; last, what it costs to choose beforehand: time held out ÷ time with the oracle."
    return Table([*columns, "held out ÷ oracle"], rows, caption + last)


def _cells(pinned: Pinned | None, run: str, at: Anchors) -> list[Cell]:
    if pinned is None:
        return [Cell(units.NONE, kind="number absent")] * (1 + len(hot_rows.METRICS))
    source = tables.source_of(pinned.records, run, at)
    cells = [Cell(units.share(pinned.share), units.count(round(pinned.rows), "row"), kind="number", **source)]
    for metric in hot_rows.METRICS:
        found = pinned.speedups.get(metric)
        if found is None:
            cells.append(Cell(units.NONE, kind="number absent"))
        else:
            cells.append(Cell(units.ratio(found.value), units.span(found), kind="number", **source))
    return cells
