"""Typical times with their intervals: a chart per dataset, and tables."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from harness.analysis.figures import METRICS
from harness.analysis.report import Report, Run
from harness.analysis.work import wherever_traces_lie
from harness.records import Variant, Workload
from harness.report import blocks, charts, names, units
from harness.report.blocks import Block, Cell, Charts, Fold, Group, Paragraph, Section, Table
from harness.report.charts import Chart
from harness.report.sections import speedups

PLACE = 30
OPEN = True
_SHOWN = 12
"""Charts that are not folded away."""
_KEYS = Markup('<span class="key kernel">kernel</span> <span class="key prepare">prepare</span> ')
_WHAT = Markup(
    "Thin ticks are fresh processes; the line is the {} interval. In the tables, folded away, each time has "
    "its interval below it, then how far the slowest process lies from the fastest."
)


def page(report: Report) -> Section:
    drawn = per_dataset(report, chart)
    found: list[Block] = [Paragraph("Nothing was measured.", "empty")]
    if drawn:
        level = f"{report.method.level * 100:.0f} %"
        keys = _KEYS if any(run.prepares for run in report.runs) else Markup()
        found = [Paragraph(keys + _WHAT.format(level)), Charts(drawn[:_SHOWN])]
        if more := drawn[_SHOWN:]:
            found.append(Fold(units.count(len(more), "more chart"), [Charts(more)]))
    return Section("times", "Times", [*found, *(_of_run(report, run) for run in report.runs)])


def _of_run(report: Report, run: Run) -> Group:
    metrics = dict.fromkeys([run.compared[0], "total_us" if run.prepares else "kernel_us", "stage_us"])
    tables = [made for metric in metrics if (made := table(run, metric)).rows]
    of = f"{run.title}: " if len(report.runs) > 1 else ""
    return Group([Fold(f"{of}{made.label}", [made]) for made in tables])


def table(run: Run, metric: str) -> Table:
    """µs with interval and how far replicates lie apart."""
    prepare = metric == "prepare_us"

    def cell(variant: Variant, dataset: str) -> Cell | None:
        time = names.per_table(run, metric, run.figure(variant, dataset, metric))
        if time is None:
            return None if prepare else speedups.absent(run, variant, dataset)
        detail = units.interval(time)
        if len(time.processes) > 1:
            detail += f"; {units.spread(time.processes)}"
        won = run.winner(dataset, metric)
        fastest = not prepare and won is not None and variant in (won.variant, *won.ties)
        return blocks.number(run, time, "best" if fastest else "", detail)

    shown = [
        variant
        for variant in run.variants
        if not prepare or any(run.figure(variant, dataset, metric) for dataset in run.datasets)
    ]
    of = " (all tables, prepare included, ÷ their number)" if metric == "stage_us" else ""
    label = f"{METRICS[metric].capitalize()}{of}, µs per table"
    return blocks.matrix(run, cell, variants=shown, label=label)


def per_dataset(report: Report, draw: Callable[[Report, Sequence[Run], str], Chart | None]) -> list[Chart]:
    """A chart per dataset; runs share it where machine and workload are the same, to be compared."""
    settings: dict[tuple[str, str, Workload], list[Run]] = {}
    for run in report.runs:
        alike = (names.where(run), names.software(run), wherever_traces_lie(run.protocol.workload))
        settings.setdefault(alike, []).append(run)
    return [
        chart
        for runs in settings.values()
        for dataset in dict.fromkeys(name for run in runs for name in run.datasets)
        if (chart := draw(report, [run for run in runs if dataset in run.datasets], dataset))
    ]


def chart(report: Report, runs: Sequence[Run], dataset: str) -> Chart | None:
    """Bars of prepare and kernel time per variant, with the interval and every replicate; of runs on one GPU.

    Where some variants take all tables in one launch, bars of the embedding stage.
    """
    metric = "stage_us" if any(run.headline == "stage_us" for run in runs) else "total_us"
    rows: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    rivals: list[dict[str, Any]] = []
    for run in runs:
        to_be_had = [variant for variant in run.variants if variant.hot_rows != "oracle"] or run.variants
        for variant in run.variants:
            whole, kernel = (
                names.per_table(run, name, run.figure(variant, dataset, name))
                for name in (metric, "kernel_us")
            )
            if whole is None or kernel is None:
                continue
            name = names.contestant(report, run, variant)
            shown = {"arm": variant.label, "name": name, "dataset": dataset}
            end = kernel.value if metric == "total_us" else whole.value
            # On a logarithmic axis a bar has no zero to begin at; it begins at the power of ten below.
            bar = {**shown, "kind": "bar", "floor": 10.0 ** math.floor(math.log10(end))}
            rows.append({**bar, "part": "kernel", "start": 0.0, "end": end})
            if whole.value > end:
                rows.append({**bar, "part": "prepare", "start": end, "end": whole.value})
            mark = {
                **shown,
                "kind": "interval",
                "value": whole.value,
                "low": whole.low,
                "high": whole.high,
                "label": units.text(whole),
                "interval": f"{units.interval(whole)} µs",
            }
            marks.append(mark)
            rivals += [mark] if variant in to_be_had else []
            rows += [{**shown, "kind": "process", "value": value} for value in whole.processes]
    if not marks:
        return None
    # The fastest first, and the bars and ticks of each with it.
    place = {mark["name"]: number for number, mark in enumerate(sorted(marks, key=_time))}
    rows.sort(key=lambda row: place[row["name"]])
    fastest = min(rivals or marks, key=_time)
    named = f"{fastest['name']} is fastest with {fastest['label']} µs per table, of {len(marks)}"
    if len(marks) > 1 and not runs[0].on_cpu:
        fastest["label"] += "  fastest"
    return Chart(
        f"times-{runs[0].name}-{dataset}",
        f"Time on {dataset}, {METRICS[metric]}",
        f"Time on {dataset}, {METRICS[metric]}, a bar per design: {named}.",
        charts.with_rows(_times(metric), [*rows, *marks], charts.BAR),
        dataset,
        names.done(runs[0]),
    )


def _time(mark: Mapping[str, Any]) -> float:
    return float(mark["value"])


@functools.cache
def _times(metric: str) -> dict[str, Any]:
    import altair as alt

    title = "µs per table"
    base = charts.blank().encode(y=charts.designs_axis())
    tooltip = charts.tooltip(name="design", label=f"{METRICS[metric]}, µs", interval="95 % interval")
    parts = alt.Scale(domain=["kernel", "prepare"], range="category")
    bar = (
        base.transform_filter("datum.kind === 'bar'")
        .transform_joinaggregate(lowest="min(floor)")
        .transform_calculate(begin="log ? max(datum.start, datum.lowest) : datum.start")
        .mark_bar(cornerRadius=2, opacity=0.6, height=15)
        .encode(
            x=alt.X("begin:Q", title=title, axis=alt.Axis(tickCount=5, format=",~r")),
            x2="end:Q",
            color=alt.Color("part:N", scale=parts, legend=None),
        )
    )
    marks = base.transform_filter("datum.kind === 'interval'").transform_calculate(room="datum.high * 1.3")
    interval = marks.mark_rule(strokeWidth=1.5).encode(x="low:Q", x2="high:Q", tooltip=tooltip)
    label = marks.mark_text(align="left", dx=7).encode(x="high:Q", text="label:N", tooltip=tooltip)
    room = marks.mark_point(opacity=0, size=1).encode(x="room:Q")  # for the label at the end
    process = (
        base.transform_filter("datum.kind === 'process'")
        .mark_tick(thickness=1, height=9, opacity=0.8)
        .encode(x="value:Q")
    )
    layers = alt.layer(bar, interval, process, label, room)
    return charts.spec(layers, 0, rows=[], logarithmic="x")
