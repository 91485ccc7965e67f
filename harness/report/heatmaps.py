"""Heatmaps, a row per design and a column per dataset: speedups, and shares of the limit."""

from __future__ import annotations

import functools
from typing import Any

import altair as alt

from harness.analysis.frame import Run
from harness.analysis.limits import Limits
from harness.analysis.results import METRICS, Results
from harness.report import charts, units
from harness.report.charts import Chart

PARTS = {"memory": "memory to L2", "L2": "L2 to the multiprocessors", "L1": "L1 to registers"}
"""What binds, in words."""
_ROW = 32
"""Height of a row, px."""


def speedups(results: Results, run: Run, metric: str) -> Chart | None:
    """Speedup by a metric; None where no arm could be compared.

    Its rows hold numbers alone, and the chart makes their texts: the page puts others in their place when the
    reader takes another reference.
    """
    rows = []
    for arm in run.arms:
        for dataset in run.datasets:
            if found := results.speedup(run, arm, dataset, metric):
                ratio = found.ratio
                figures = {"value": ratio.value, "low": ratio.low, "high": ratio.high}
                rows.append({"arm": arm, "dataset": dataset, **figures})
    if not rows:
        return None
    made = charts.with_rows(_speedups(tuple(run.datasets)), rows, _ROW, "arm")
    made["usermeta"]["ratios"] = {"run": run.name, "metric": metric}
    title = f"By {METRICS[metric]}"
    return Chart(
        f"speedup-{metric}-{run.name}",
        title,
        f"Speedups {title.lower()}, a row per design, a column per dataset; the table has every figure.",
        made,
    )


@functools.cache
def _speedups(datasets: tuple[str, ...]) -> dict[str, Any]:
    # As units.span: a third decimal where two would hide the interval.
    digits = "format(datum.low, '.2f') === format(datum.high, '.2f') ? '.3f' : '.2f'"
    base = (
        alt.Chart(charts.ROWS)
        .transform_calculate(
            strength="abs(log(datum.value) / log(2))",
            side="datum.value >= 1 ? 'faster' : 'slower'",
            label="format(datum.value, '.2f') + '×'",
            interval=f"format(datum.low, {digits}) + '–' + format(datum.high, {digits})",
        )
        .transform_joinaggregate(most="max(strength)")
        .transform_calculate(depth="datum.strength / max(1, datum.most)")
        .encode(
            x=charts.dataset_axis(datasets),
            y=charts.designs_axis("arm"),
            tooltip=[
                alt.Tooltip("arm:N", title="design"),
                alt.Tooltip("dataset:N"),
                alt.Tooltip("label:N", title="speedup"),
                alt.Tooltip("interval:N", title="95 % interval"),
            ],
        )
    )
    side = alt.Scale(domain=["slower", "faster"], range="ordinal")
    cells = base.mark_rect(cornerRadius=3).encode(
        color=alt.Color("side:N", scale=side, legend=None), opacity=_opacity("depth")
    )
    figures = base.mark_text(opacity=alt.ExprRef(charts.WIDE_ENOUGH)).encode(text="label:N")
    return charts.spec(alt.layer(cells, figures), 0, rows=[])


def _opacity(field: str) -> alt.Opacity:
    return alt.Opacity(f"{field}:Q", scale=alt.Scale(domain=[0, 1], range=[0.05, 0.75]), legend=None)


def shares(results: Results, run: Run, found: Limits) -> Chart | None:
    """Share of the limit by prepare + kernel; None where no limit is known."""
    rows: list[dict[str, Any]] = []
    for arm in run.arms:
        for dataset in run.datasets:
            share = found.share(run, arm, dataset)
            measured = results.measurement(run, arm, dataset, "total_us")
            if share is not None and measured is not None:
                limit = found.limits[run.name, dataset]
                rows.append(
                    {
                        "arm": arm,
                        "dataset": dataset,
                        "share": share.share.value,
                        "label": units.share(share.share.value),
                        "any": units.share(share.any_order.value),
                        "time": f"{units.us(measured.time.value)} µs",
                        "limit": f"{units.us(limit.binding.us)} µs",
                        "least": f"{units.us(limit.binding_in_any_order.us)} µs",
                        "part": PARTS[share.part],
                    }
                )
    if not rows:
        return None
    title = "Share of the limit, by prepare + kernel"
    return Chart(
        f"limits-{run.name}",
        title,
        f"{title}. A row per design, a column per dataset; the table has every figure.",
        charts.with_rows(_shares(tuple(run.datasets)), rows, _ROW, "arm"),
    )


@functools.cache
def _shares(datasets: tuple[str, ...]) -> dict[str, Any]:
    base = (
        alt.Chart(charts.ROWS)
        .transform_calculate(depth="min(1, datum.share)")
        .encode(
            x=charts.dataset_axis(datasets),
            y=charts.designs_axis("arm"),
            tooltip=[
                alt.Tooltip("arm:N", title="design"),
                alt.Tooltip("dataset:N"),
                alt.Tooltip("label:N", title="share of the limit"),
                alt.Tooltip("any:N", title="of that in any order"),
                alt.Tooltip("time:N", title="prepare + kernel"),
                alt.Tooltip("limit:N", title="limit, bags in order"),
                alt.Tooltip("least:N", title="in any order"),
                alt.Tooltip("part:N", title="bound by"),
            ],
        )
    )
    # One constant category rather than a colour: the theme gives roles their colours.
    one = alt.Color(datum="share", scale=alt.Scale(domain=["share"], range="category"), legend=None)
    cells = base.mark_rect(cornerRadius=3).encode(color=one, opacity=_opacity("depth"))
    figures = base.mark_text(opacity=alt.ExprRef(charts.WIDE_ENOUGH)).encode(text="label:N")
    return charts.spec(alt.layer(cells, figures), 0, rows=[])
