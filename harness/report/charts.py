"""The page's charts, as Vega-Lite specifications made with Altair.

A chart names roles ("kernel", "better"), never colours; `theme` gives the roles their colours. On the page
those are CSS variables, so that dark, light and print need no second drawing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from harness.analysis.frame import Run
from harness.analysis.results import Results
from harness.report import units

ROLES = {
    "ink": "var(--ink)",
    "muted": "var(--muted)",
    "line": "var(--line)",
    "kernel": "var(--kernel)",
    "prepare": "var(--prepare)",
    "worse": "var(--prepare)",
    "better": "var(--kernel)",
}
"""Colours of the page, by role; the style sheet holds their values."""
_ROW = 26
"""Height of one arm's bar or row, px."""


@dataclass(frozen=True)
class Chart:
    """A chart and what a reader needs beside it."""

    id: str
    title: str
    description: str
    """Read aloud in the chart's place."""
    spec: dict[str, Any]


def theme(colours: Mapping[str, str]) -> dict[str, Any]:
    """Vega-Lite configuration shared by all charts."""
    text = {"labelColor": colours["muted"], "titleColor": colours["muted"], "labelFontSize": 12}
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
    return {
        "background": "transparent",
        "font": font,
        "view": {"stroke": None},
        "axis": {
            **text,
            "titleFontWeight": "normal",
            "titleFontSize": 12,
            "domain": False,
            "ticks": False,
            "gridColor": colours["line"],
            "labelPadding": 6,
            "labelLimit": 190,
        },
        "axisY": {"labelColor": colours["ink"]},
        "legend": {**text, "orient": "top", "title": None, "symbolType": "square"},
        "text": {"color": colours["ink"], "fontSize": 12},
        "rule": {"color": colours["ink"]},
        "tick": {"color": colours["ink"]},
        "point": {"filled": True, "size": 90},
        "line": {"color": colours["muted"]},
        "range": {
            "category": [colours["kernel"], colours["prepare"], colours["muted"]],
            "ordinal": [colours["worse"], colours["better"]],
        },
    }


def speedups(results: Results, run: Run, metric: str, title: str) -> Chart | None:
    """Heatmap of arms × datasets; None where no arm could be compared."""
    rows: list[dict[str, Any]] = []
    for arm in run.arms:
        for dataset in run.datasets:
            found = results.speedup(run, arm, dataset, metric)
            rows.append(
                {
                    "arm": arm,
                    "dataset": dataset,
                    "strength": abs(math.log2(found.ratio.value)) if found else 0.0,
                    "side": "faster" if found and found.ratio.value >= 1 else "slower",
                    "label": units.ratio(found.ratio.value) if found else units.NONE,
                    "interval": units.span(found.ratio) if found else units.NONE,
                }
            )
    if not any(row["interval"] != units.NONE for row in rows):
        return None
    strongest = max(1.0, *(row["strength"] for row in rows))
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=dataset_axis(run.datasets),
        y=alt.Y("arm:N", sort=run.arms, title=None, axis=alt.Axis(grid=False)),
        tooltip=[
            alt.Tooltip("arm:N"),
            alt.Tooltip("dataset:N"),
            alt.Tooltip("label:N", title="speedup"),
            alt.Tooltip("interval:N", title="95 % interval"),
        ],
    )
    cells = (
        base.transform_filter(f"datum.label !== '{units.NONE}'")
        .mark_rect(cornerRadius=4)
        .encode(
            color=alt.Color(
                "side:N",
                scale=alt.Scale(domain=["slower", "faster"], range="ordinal"),
                legend=None,
            ),
            opacity=alt.Opacity(
                "strength:Q", scale=alt.Scale(domain=[0, strongest], range=[0.04, 0.72]), legend=None
            ),
        )
    )
    labels = base.mark_text().encode(text="label:N")
    description = (
        f"Speedups {title.lower()}, a row per design, a column per dataset; the table has every figure."
    )
    return Chart(
        f"speedup-{metric}-{run.name}",
        title,
        description,
        spec(alt.layer(cells, labels), height=36 * len(run.arms)),
    )


def dataset_axis(datasets: Sequence[str]) -> alt.X:
    """The columns of a heatmap, named above it."""
    return alt.X(
        "dataset:N",
        sort=list(datasets),
        title=None,
        axis=alt.Axis(
            orient="top",
            labelAngle=0,
            labelFontSize=alt.ExprRef("width < 330 ? 10 : 12"),
            labelLimit=alt.ExprRef(f"width / {len(datasets)}"),
            labelOverlap=False,
            grid=False,
        ),
    )


def times(results: Results, runs: Sequence[Run], dataset: str) -> Chart | None:
    """Bars of prepare and kernel time per arm, with the interval and every replicate; of runs on one GPU."""
    bars: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    ticks: list[dict[str, Any]] = []
    names: list[str] = []
    for run in runs:
        for arm in run.arms:
            total = results.measurement(run, arm, dataset, "total_us")
            kernel = results.measurement(run, arm, dataset, "kernel_us")
            if total is None or kernel is None:
                continue
            name = results.loaded.contestant(run.name, arm)
            names.append(name)
            ends = (kernel.time.value, total.time.value)
            shown = {"arm": name, "time": f"{units.us(total.time.value)} µs"}
            bars.append({**shown, "part": "kernel", "start": 0.0, "end": ends[0]})
            if ends[1] > ends[0]:
                bars.append({**shown, "part": "prepare", "start": ends[0], "end": ends[1]})
            marks.append(
                {
                    **shown,
                    "value": ends[1],
                    "low": total.time.low,
                    "high": total.time.high,
                    "label": units.us(total.time.value),
                    "interval": units.us_span(total.time) + " µs",
                }
            )
            ticks += [{"arm": name, "value": value} for value in total.replicates]
    if not names:
        return None
    y = alt.Y("arm:N", sort=names, title=None, axis=alt.Axis(grid=False))
    fastest = min(marks, key=lambda mark: float(mark["value"]))
    if len(names) > 1 and not runs[0].on_cpu:
        fastest["label"] += "  fastest"
    longest = max(mark["high"] for mark in marks)
    scale = alt.Scale(domain=[0, longest * 1.25], nice=False)
    tooltip = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("time:N", title="prepare + kernel"),
        alt.Tooltip("interval:N", title="95 % interval"),
    ]
    bar = (
        alt.Chart(pd.DataFrame(bars))
        .mark_bar(cornerRadius=2, opacity=0.55, height=15)
        .encode(
            x=alt.X("start:Q", scale=scale, title="µs per table and batch", axis=alt.Axis(tickCount=5)),
            x2="end:Q",
            y=y,
            color=alt.Color("part:N", scale=alt.Scale(domain=["kernel", "prepare"]), legend=None),
        )
    )
    at = alt.Chart(pd.DataFrame(marks)).encode(y=y, tooltip=tooltip)
    interval = at.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
    label = at.mark_text(align="left", dx=7).encode(x=alt.X("high:Q", scale=scale), text="label:N")
    replicate = (
        alt.Chart(pd.DataFrame(ticks))
        .mark_tick(thickness=1, height=9, opacity=0.8)
        .encode(x=alt.X("value:Q", scale=scale), y=y)
    )
    title = f"Time on {dataset}"
    return Chart(
        f"times-{runs[0].name}-{dataset}",
        title,
        f"{title}, prepare plus kernel: {fastest['arm']} is fastest with {fastest['time']}.",
        spec(alt.layer(bar, interval, replicate, label), height=_ROW * len(names)),
    )


def occupancy(results: Results, runs: Sequence[Run], dataset: str) -> Chart | None:
    """Kernel time against resident warps; a line from each baseline to its register-capped twin."""
    points = []
    for run in runs:
        for record in run.records:
            cell = record.cell
            found = results.measurement(run, cell.arm, dataset, "kernel_us")
            if (
                record.kernel is None
                or not record.kernel.registers
                or found is None
                or cell.dataset.name != dataset
            ):
                continue
            if cell.replicate != min(r.cell.replicate for r in run.records if r.cell.arm == cell.arm):
                continue
            points.append(
                {
                    "arm": results.loaded.contestant(run.name, cell.arm),
                    "design": cell.design,
                    "toolchain": cell.toolchain,
                    "occupancy": record.kernel.occupancy * 100,
                    "registers": record.kernel.registers,
                    "label": f"{record.kernel.registers} registers",
                    "time": found.time.value,
                }
            )
    if len({point["arm"] for point in points}) < 2:
        return None
    toolchains = sorted({str(point["toolchain"]) for point in points})
    base = alt.Chart(pd.DataFrame(points)).encode(
        x=alt.X(
            "occupancy:Q",
            title="resident warps, % of the most",
            scale=alt.Scale(domain=[0, 100], nice=False),
            axis=alt.Axis(tickCount=5),
        ),
        y=alt.Y("time:Q", title=f"kernel alone on {dataset}, µs", scale=alt.Scale(zero=True)),
        tooltip=[
            alt.Tooltip("arm:N"),
            alt.Tooltip("registers:Q"),
            alt.Tooltip("occupancy:Q", title="occupancy %", format=".0f"),
            alt.Tooltip("time:Q", title="kernel µs", format=".1f"),
        ],
    )
    same = alt.Scale(domain=toolchains)
    colour = alt.Color("toolchain:N", scale=same)
    twins = alt.FieldOneOfPredicate(field="design", oneOf=["baseline", "optmt"])
    line = base.mark_line(strokeDash=[4, 3]).encode(color=colour).transform_filter(twins)
    dots = base.mark_point(opacity=0.9).encode(color=colour, shape=alt.Shape("toolchain:N", scale=same))
    # Only of points that are there: Vega warns of layers without any.
    named = base.encode(text="label:N")
    labels = []
    for number, toolchain in enumerate(toolchains):
        here = {str(point["design"]) for point in points if point["toolchain"] == toolchain}
        own = named.transform_filter(alt.FieldEqualPredicate(field="toolchain", equal=toolchain))
        if "baseline" in here:
            plain = own.transform_filter(alt.FieldEqualPredicate(field="design", equal="baseline"))
            labels.append(plain.mark_text(align="right", dx=-8))
        if "optmt" in here:
            # Capped twins of two toolchains often meet in one place: one label above it, the next below.
            capped = own.transform_filter(alt.FieldEqualPredicate(field="design", equal="optmt"))
            labels.append(capped.mark_text(align="left", dx=8, dy=14 if number % 2 else -11))
    title = f"Resident warps and time on {dataset}; lines lead from the baseline to optmt"
    return Chart(
        f"occupancy-{dataset}",
        title,
        f"{title}. The table has every figure.",
        spec(alt.layer(line, dots, *labels), height=320),
    )


def spec(chart: alt.LayerChart | alt.FacetChart, height: int) -> dict[str, Any]:
    """As Vega-Lite, as wide as its place on the page."""
    made: dict[str, Any] = chart.properties(width="container", height=height).to_dict(validate=False)
    made["autosize"] = {"type": "fit-x", "contains": "padding"}
    made.pop("config", None)  # the page gives one to all charts
    return made
