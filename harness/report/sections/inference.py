"""Whole inferences: speedups, what they consist of, how long they take at worst."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from harness.analysis.figure_sources.inference import PARTS, PERCENTILES, WAYS, percentile
from harness.analysis.figures import METRICS
from harness.analysis.report import Report, Run
from harness.records import Model, Variant
from harness.report import blocks, charts, libraries, names, units
from harness.report.blocks import (
    Block,
    Cell,
    Charts,
    Columns,
    Fold,
    Heading,
    Paragraph,
    Section,
    Source,
    Table,
)
from harness.report.charts import Chart
from harness.report.sections import speedups

PLACE = 70
_WHAT = """One inference of a batch: the embedding stage inside a model in the shape of DLRM. Eager, as a user
runs it: the time of a host that launches and waits for the end. As a CUDA graph: time on the GPU, launching
hidden. Pins are renewed in every inference."""
_SPLIT = """Bars are the parts of an inference, the embedding stage timed by itself and the others inside the
inference; the line is the whole as a CUDA graph, the diamond the whole eager."""
_LATENCIES = """Of a batch: percentiles over every inference of every process; a dash where too few were
timed. Samples per second with inferences one after another, and below how many inferences that is."""


def page(report: Report) -> Section | None:
    found = blocks.per_run(report, lambda run: _of_run(report, run) if ways(run) else [])
    return Section("inference", "The whole model", [Paragraph(_WHAT), *found]) if found else None


def ways(run: Run) -> list[str]:
    """The metrics of whole inferences that the run measured."""
    return [way for way in WAYS if any(place.figure(way) for place in run.places)]


def _of_run(report: Report, run: Run) -> list[Block]:
    found: list[Block] = [Paragraph(_told(run)), *_serving(run)]
    if len(run.variants) > 1:
        tables: list[list[Block]] = [
            [Heading(f"Speedup by {METRICS[way]}", 4), speedups.table(run, way)] for way in ways(run)
        ]
        found.append(Columns(tables))
    if splits := [made for dataset in run.datasets if (made := _split(report, run, dataset))]:
        told: list[Block] = [Paragraph(_SPLIT), Charts(splits)]
        found += [Fold("What an inference consists of", told)] if len(report.runs) > 1 else told
    return found


def _serving(run: Run) -> Iterator[Block]:
    """How long inferences take at worst and how many samples fit a second: in the open on the dataset where
    they take longest."""
    taken = {
        dataset: max(
            time.value for way in ways(run) for v in run.variants if (time := run.figure(v, dataset, way))
        )
        for dataset in run.datasets
        if any(run.figure(v, dataset, way) for way in ways(run) for v in run.variants)
    }
    slowest = max(taken, key=lambda dataset: taken[dataset])
    yield Heading(f"Serving on {slowest}: latency and samples per second", 4)
    yield latencies(run, [slowest])
    if others := [dataset for dataset in taken if dataset != slowest]:
        yield Fold(f"The same on {', '.join(others)}", [latencies(run, others)])


def _told(run: Run) -> str:
    """The model in a sentence."""
    model, work, tf32 = run.protocol.model or Model(), run.protocol.workload, run.protocol.tf32
    rounding = {
        True: " Matrix products round their factors to TF32.",
        False: " TF32 is off, as PyTorch leaves it.",
    }
    interaction = "dot interaction"
    if model.cross_layers:
        interaction = f"{units.count(model.cross_layers, 'cross layer')} of rank {model.cross_rank}"
    return (
        f"{model.dense_features} dense features, bottom MLP {'-'.join(map(str, model.bottom))}, "
        f"{units.count(work.tables, 'table')}, {interaction}, top MLP {'-'.join(map(str, model.top))}; "
        f"batches of {work.batch:,}, {work.output_dtype}."
        + (rounding[tf32] if tf32 is not None and work.output_dtype == "float32" else "")
    )


def _split(report: Report, run: Run, dataset: str) -> Chart | None:
    """What an inference consists of, a bar per variant whose inferences were timed part by part."""
    rows: list[dict[str, Any]] = []
    for variant in run.variants:
        times = {name: figure for name in (*PARTS, *WAYS) if (figure := run.figure(variant, dataset, name))}
        if not set(PARTS) <= set(times):
            continue
        name = names.contestant(report, run, variant)
        shown = {"arm": variant.label, "name": name, "dataset": dataset}
        begin = 0.0
        for metric, part in PARTS.items():
            end = begin + times[metric].value
            bar = {"part": part, "start": begin, "end": end, "label": units.text(times[metric])}
            rows.append({**shown, "kind": "part", **bar})
            begin = end
        for metric, way in WAYS.items():
            if whole := times.get(metric):
                rows.append({**shown, "kind": way, "value": whole.value, "label": units.text(whole)})
    if not rows:
        return None
    # Its parts together, the fastest first.
    ends = {row["name"]: row["end"] for row in rows if row["kind"] == "part"}
    rows.sort(key=lambda row: ends[row["name"]])
    first, stage = (
        rows[0]["name"],
        next(row["label"] for row in rows if row.get("part") == PARTS["stage_us"]),
    )
    named = f"{first} is fastest with {units.us(ends[first])} µs per batch, {stage} of them its stage"
    return Chart(
        f"inference-{run.name}-{dataset}",
        f"An inference on {dataset}",
        f"What an inference on {dataset} consists of, a bar per design: {named}.",
        charts.with_rows(_bars(), rows, charts.BAR),
        dataset,
        names.done(run),
    )


@functools.cache
def _bars() -> dict[str, Any]:
    import altair as alt

    base = charts.blank().encode(y=charts.designs_axis())
    order = ["embedding stage", "interaction", "bottom MLP", "top MLP"]  # the stage has the kernel's colour
    name = alt.Tooltip("name:N", title="design")
    legend = charts.legend(order, charts.NAMES)
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


def latencies(run: Run, datasets: Sequence[str]) -> Table:
    """Datasets, where they are several, head their variants; per way of running the percentiles and how many
    samples fit a second."""
    columns = ["design"]
    for way in ways(run):
        columns += [f"{WAYS[way]}: p50, µs", *(f"p{p}, µs" for p in PERCENTILES[1:]), "samples/s"]
    rows: list[list[Cell]] = []
    for dataset in datasets:
        timed = [v for v in run.variants if any(run.figure(v, dataset, way) for way in ways(run))]
        rows += [[Cell(dataset)]] if timed and len(datasets) > 1 else []
        for variant in timed:
            told = [_latency(run, variant, dataset, way) for way in ways(run)]
            rows.append([Cell(libraries.called(run, variant)), *(cell for cells in told for cell in cells)])
    return Table(columns, rows, _LATENCIES)


def _latency(run: Run, variant: Variant, dataset: str, way: str) -> list[Cell]:
    rate, samples = (
        run.figure(variant, dataset, f"{way}_{what}") for what in ("per_second", "samples_per_second")
    )
    if rate is None or samples is None:
        return [blocks.ABSENT] * (len(PERCENTILES) + 1)
    times = [run.figure(variant, dataset, percentile(way, p)) for p in PERCENTILES]
    source = Source(run.name, rate.records)  # of a percentile that is not told, too
    return [
        *(
            blocks.number(run, time) if time else Cell(units.NONE, kind="number absent", source=source)
            for time in times
        ),
        blocks.number(run, samples, detail=f"{units.text(rate)} inferences/s"),
    ]
