"""Hot rows chosen beforehand beside those that an oracle names."""

from __future__ import annotations

import dataclasses

from harness.analysis.figure_sources import hot_rows
from harness.analysis.figures import METRICS, speedup
from harness.analysis.report import Report, Run
from harness.records import Variant
from harness.report import blocks, units
from harness.report.blocks import Cell, Paragraph, Section, Table

PLACE = 120
_METRICS = ("total_us", "kernel_us")
_WHAT = """A design that pins has to be told which rows. Held out: the hottest of those accesses of a table's
trace that are not timed, as a profile of other traffic would name them. Oracle: the hottest of the very
accesses that are timed, which no one knows beforehand; the paper's way. An arm with an oracle is never called
the fastest on this page."""


def page(report: Report) -> Section | None:
    found = blocks.per_run(report, lambda run: [made] if (made := table(run)) else [])
    title = "Hot rows: chosen beforehand, or known"
    return Section("hot-rows", title, [Paragraph(_WHAT), *found], "Hot rows") if found else None


def table(run: Run) -> Table | None:
    """The pinning designs of a run; None where there are none."""
    pinning = {place.variant for place in run.places if place.figure(hot_rows.ROWS)}
    designs = dict.fromkeys(
        dataclasses.replace(variant, hot_rows="held_out") for variant in run.variants if variant in pinning
    )
    if not designs:
        return None
    oracle = any(variant.hot_rows == "oracle" for variant in pinning)
    columns = ["dataset"]
    for how in ("held out", "oracle") if oracle else ("held out",):
        columns += [f"{how}: accesses met", *(METRICS[metric] for metric in _METRICS)]
    rows: list[list[Cell]] = []
    for variant in designs:
        both = variant, hot_rows.oracle_of(variant)
        rows.append([Cell(variant.label)])
        for dataset in run.datasets:
            if not any(run.figure(one, dataset, hot_rows.ROWS) for one in both):
                continue
            told = [cell for one in (both if oracle else both[:1]) for cell in _cells(run, one, dataset)]
            cost = [blocks.number(run, run.figure(variant, dataset, hot_rows.COST))] if oracle else []
            rows.append([Cell(dataset), *told, *cost])
    caption = (
        "Share of the timed accesses that meet a pinned row, with the rows pinned per table below it, and"
        " speedups over the run's reference"
    )
    if not oracle:
        return Table(columns, rows, f"{caption}. No oracle was measured.")
    last = "; last, what it costs to choose beforehand: time held out ÷ time with the oracle."
    return Table([*columns, "held out ÷ oracle"], rows, caption + last)


def _cells(run: Run, variant: Variant, dataset: str) -> list[Cell]:
    rows, share = (run.figure(variant, dataset, name) for name in (hot_rows.ROWS, hot_rows.SHARE))
    if rows is None or share is None:
        return [blocks.ABSENT] * (1 + len(_METRICS))
    ratios = [run.figure(variant, dataset, speedup(metric)) for metric in _METRICS]
    met = blocks.number(run, share, detail=units.count(round(rows.value), "row"))
    return [met, *(blocks.number(run, ratio) for ratio in ratios)]
