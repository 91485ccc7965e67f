"""Charts of times, one per dataset: typical times with their intervals, and the samples they come from."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from harness.analysis.frame import Run
from harness.analysis.results import METRICS, Results
from harness.records import MEASURED
from harness.report import charts, units
from harness.report.charts import Chart

_ROW = 26
"""Height of a design's bar, px."""
QUANTILES = {"least": 0, "p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95, "most": 100}
"""What is shown of a process's samples, in percent."""
MOST_PROCESSES = 8
"""More processes than this are told as one: their strips would be too thin to see."""


FAR = 1.25
"""Samples beyond this × the largest of the 95 % marks are named at the edge: one alone would flatten all."""


def times(results: Results, runs: Sequence[Run], dataset: str) -> Chart | None:
    """Bars of prepare and kernel time per arm, with the interval and every replicate; of runs on one GPU.

    Where some arms take all tables in one launch, bars of the embedding stage.
    """
    metric = "stage_us" if any(results.headline(run) == "stage_us" for run in runs) else "total_us"
    rows: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    for run in runs:
        for arm in run.arms:
            total = results.measurement(run, arm, dataset, metric)
            kernel = results.measurement(run, arm, dataset, "kernel_us")
            if total is None or kernel is None:
                continue
            whole = total.time.value
            shown = {"arm": arm, "name": results.loaded.contestant(run.name, arm), "dataset": dataset}
            end = kernel.time.value if metric == "total_us" else whole
            # On a logarithmic axis a bar has no zero to begin at; it begins at the power of ten below.
            bar = {**shown, "kind": "bar", "floor": 10.0 ** np.floor(np.log10(end))}
            rows.append({**bar, "part": "kernel", "start": 0.0, "end": end})
            if whole > end:
                rows.append({**bar, "part": "prepare", "start": end, "end": whole})
            marks.append(
                {
                    **shown,
                    "kind": "interval",
                    "value": whole,
                    "low": total.time.low,
                    "high": total.time.high,
                    "label": units.us(whole),
                    "interval": units.us_span(total.time) + " µs",
                }
            )
            rows += [{**shown, "kind": "process", "value": value} for value in total.replicates]
    if not marks:
        return None
    contenders = {results.loaded.contestant(run.name, arm) for run in runs for arm in run.contenders}
    rivals = [mark for mark in marks if mark["name"] in contenders] or marks
    fastest = min(rivals, key=lambda mark: float(mark["value"]))
    named = f"{fastest['name']} is fastest with {fastest['label']} µs"
    if len(marks) > 1 and not runs[0].on_cpu:
        fastest["label"] += "  fastest"
    return Chart(
        f"times-{runs[0].name}-{dataset}",
        f"Time on {dataset}",
        f"Time on {dataset}, {METRICS[metric]}: {named}.",
        charts.with_rows(_times(metric), [*rows, *marks], _ROW),
        dataset,
    )


@functools.cache
def _times(metric: str) -> dict[str, Any]:
    title = "µs per batch, all tables" if metric == "stage_us" else "µs per table and batch"
    base = alt.Chart(charts.ROWS).encode(y=charts.designs_axis())
    tooltip = [
        alt.Tooltip("name:N", title="design"),
        alt.Tooltip("label:N", title=f"{METRICS[metric]}, µs"),
        alt.Tooltip("interval:N", title="95 % interval"),
    ]
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


def distributions(results: Results, runs: Sequence[Run], dataset: str) -> Chart | None:
    """A strip of quantiles per process, of every sample of the kernel; of runs on one GPU."""
    rows: list[dict[str, Any]] = []
    widest = 0
    for run in runs:
        for arm in run.arms:
            found = {
                record.cell.replicate: np.asarray(record.samples["kernel_us"])
                for record in run.at(arm, dataset)
                if record.status in MEASURED and record.samples.get("kernel_us")
            }
            processes = {f"process {n + 1}": found[key] for n, key in enumerate(sorted(found))}
            if len(processes) > MOST_PROCESSES:
                every = np.concatenate(list(processes.values()))
                processes = {f"{len(processes)} processes": every}
            widest = max(widest, len(processes))
            name = results.loaded.contestant(run.name, arm)
            shown = {"arm": arm, "name": name, "dataset": dataset}
            rows += [{**shown, "process": key, **_quantiles(values)} for key, values in processes.items()]
    if not rows:
        return None
    samples = sum(int(row["samples"]) for row in rows)
    edge = FAR * max(float(row["p95"]) for row in rows)
    for row in rows:
        most = float(row["most"])
        row |= {"end": min(most, edge), "beyond": f"→ {units.us(most)}" if most > edge else ""}
    return Chart(
        f"samples-{runs[0].name}-{dataset}",
        f"Every sample on {dataset}",
        f"Quantiles of {samples:,} samples of the kernel on {dataset}, a strip per process.",
        charts.with_rows(_distributions(), rows, max(_ROW, 10 * widest + 8)),
        dataset,
    )


def _quantiles(samples: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    values = np.percentile(samples, list(QUANTILES.values()))
    rounded = (round(float(value), 4) for value in values)
    return {"samples": len(samples), **dict(zip(QUANTILES, rounded, strict=True))}


@functools.cache
def _distributions() -> dict[str, Any]:
    names = {"samples": "samples", "least": "least µs", "p5": "5 %", "p25": "25 %", "median": "median"}
    names |= {"p75": "75 %", "p95": "95 %", "most": "most µs"}
    base = alt.Chart(charts.ROWS).encode(
        y=charts.designs_axis(),
        yOffset=alt.YOffset("process:N", sort=None),
        tooltip=[
            alt.Tooltip("name:N", title="design"),
            alt.Tooltip("process:N"),
            *(alt.Tooltip(f"{key}:Q", title=title, format=",.4~r") for key, title in names.items()),
        ],
    )
    x = alt.X(
        "least:Q",
        title="kernel of one table, µs",
        scale=alt.Scale(zero=False, padding=4),
        axis=alt.Axis(tickCount=6, format=",~r"),
    )
    whole = base.mark_rule(strokeWidth=1, opacity=0.55).encode(x=x, x2="end:Q")
    layers = [whole]
    for low, high, opacity in (("p5", "p95", 0.3), ("p25", "p75", 0.8)):
        bar = base.mark_bar(opacity=opacity, minBandSize=3)
        layers.append(bar.encode(x=alt.X(f"{low}:Q"), x2=f"{high}:Q"))
    layers.append(base.mark_tick(thickness=2, opacity=1).encode(x="median:Q"))
    layers += charts.words(base.encode(x="end:Q"), "beyond:N", align="right", fontSize=10)
    return charts.spec(alt.layer(*layers), 0, rows=[], logarithmic="x")
