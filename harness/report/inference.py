"""Whole inferences as the page shows them: speedups, what they consist of, how long they take at worst."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import altair as alt

from harness.analysis import inference
from harness.analysis.frame import Run
from harness.analysis.inference import PARTS, PERCENTILES, WAYS, Latency, Split
from harness.analysis.results import Results
from harness.records import Model
from harness.report import charts, heatmaps, tables, units
from harness.report.charts import Chart
from harness.report.tables import Anchors, Cell, Table
from harness.report.views import Compared

_ROW = 26
"""Height of a design's bar, px."""


@dataclass(frozen=True)
class View:
    """The whole inferences of one run."""

    title: str
    model: str
    """The model in a sentence."""
    speedups: list[Compared]
    splits: list[Chart]
    """What an inference consists of, a chart per dataset."""
    latencies: Table


def views(results: Results, at: Anchors) -> list[View]:
    """Of the runs that measured a model."""
    latencies, splits = inference.latencies(results), inference.splits(results)
    made = []
    for run in results.loaded.runs:
        own = [found for found in latencies if found.run == run.name]
        if not own:
            continue
        made.append(
            View(
                title=run.title,
                model=_model(run),
                speedups=[
                    Compared(
                        heatmaps.speedups(results, run, metric), tables.speedups(results, run, metric, at)
                    )
                    for metric in (results.whole(run) if len(run.arms) > 1 else [])
                ],
                splits=_charts(results, run, [found for found in splits if found.run == run.name]),
                latencies=_table(results, run, own, at),
            )
        )
    return made


def _model(run: Run) -> str:
    record = next(record for record in run.records if record.cell.model is not None)
    model, work = record.cell.model or Model(), record.cell.workload
    tf32 = record.facts.get("allow_tf32")
    rounding = {
        1.0: " Matrix products round their factors to TF32.",
        0.0: " TF32 is off, as PyTorch leaves it.",
    }
    return (
        f"{model.dense_features} dense features, bottom MLP {'-'.join(map(str, model.bottom))}, "
        f"{units.count(work.tables, 'table')}, dot interaction, top MLP {'-'.join(map(str, model.top))}; "
        f"batches of {work.batch:,}, {work.output_dtype}."
        + (rounding[tf32] if tf32 in rounding and work.output_dtype == "float32" else "")
    )


def _charts(results: Results, run: Run, splits: list[Split]) -> list[Chart]:
    found = []
    for dataset in run.datasets:
        rows: list[dict[str, Any]] = []
        for split in splits:
            if split.dataset != dataset:
                continue
            shown = {
                "arm": split.arm,
                "name": results.loaded.contestant(run.name, split.arm),
                "dataset": dataset,
            }
            begin = 0.0
            for metric, time in split.parts.items():
                part = {"part": PARTS[metric], "start": begin, "end": begin + time, "label": units.us(time)}
                rows.append({**shown, "kind": "part", **part})
                begin += time
            for metric, time in split.whole.items():
                rows.append({**shown, "kind": WAYS[metric], "value": time, "label": units.us(time)})
        if rows:
            found.append(
                Chart(
                    f"inference-{run.name}-{dataset}",
                    f"An inference on {dataset}",
                    f"What an inference on {dataset} consists of, a bar per design.",
                    charts.with_rows(_split(), rows, _ROW),
                    dataset,
                )
            )
    return found


@functools.cache
def _split() -> dict[str, Any]:
    base = alt.Chart(charts.ROWS).encode(y=charts.designs_axis())
    order = ["embedding stage", "interaction", "bottom MLP", "top MLP"]  # the stage has the kernel's colour
    name = alt.Tooltip("name:N", title="design")
    legend = alt.Legend(columns=alt.ExprRef("width < 420 ? 2 : 4"))
    bar = (
        base.transform_filter("datum.kind === 'part'")
        .mark_bar(opacity=0.7, height=15)
        .encode(
            x=alt.X("start:Q", title="µs per batch", axis=alt.Axis(tickCount=5, format=",~r")),
            x2="end:Q",
            color=alt.Color("part:N", scale=alt.Scale(domain=order, range="category"), legend=legend),
            tooltip=[name, alt.Tooltip("part:N"), alt.Tooltip("label:N", title="µs")],
        )
    )
    whole = base.transform_filter("datum.kind !== 'part'").encode(
        x="value:Q",
        tooltip=[name, alt.Tooltip("kind:N", title="whole"), alt.Tooltip("label:N", title="µs")],
    )
    graph = whole.transform_filter("datum.kind === 'CUDA graph'").mark_tick(thickness=2, height=17)
    eager = whole.transform_filter("datum.kind === 'eager'").mark_point(shape="diamond", size=40, style="ink")
    return charts.spec(alt.layer(bar, graph, eager), 0, rows=[])


def _table(results: Results, run: Run, latencies: list[Latency], at: Anchors) -> Table:
    """Datasets head their arms; per way of running the percentiles and how many fit a second."""
    ways = results.whole(run)
    by_place = {(found.dataset, found.arm, found.metric): found for found in latencies}
    columns = ["design"]
    for way in ways:
        columns += [f"{WAYS[way]}, p50 µs", *(f"p{p}" for p in PERCENTILES[1:]), "inferences/s"]
    rows: list[list[Cell]] = []
    for dataset in run.datasets:
        arms = [arm for arm in run.arms if any((dataset, arm, way) in by_place for way in ways)]
        if arms:
            rows.append([Cell(dataset)])
        for arm in arms:
            row = [Cell(arm)]
            for way in ways:
                row += _latency(by_place.get((dataset, arm, way)), run, at)
            rows.append(row)
    return Table(
        columns,
        rows,
        "Percentiles over every inference of every process; a dash where too few were timed. Inferences per "
        "second are one after another; below, the samples of a batch per second.",
    )


def _latency(found: Latency | None, run: Run, at: Anchors) -> list[Cell]:
    if found is None:
        return [Cell(units.NONE, kind="number absent")] * (len(PERCENTILES) + 1)
    source = tables.source_of(found.records, run.name, at)
    times = [
        Cell(units.us(time), kind="number" if time is not None else "number absent", **source)
        for time in found.percentiles.values()
    ]
    return [
        *times,
        Cell(f"{found.per_second:,.0f}", f"{found.samples_per_second:,.0f}", kind="number", **source),
    ]
