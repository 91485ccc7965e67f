"""Speedups: who is faster than the reference, by how much, and who is fastest."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from harness.analysis.figures import METRICS, speedup
from harness.analysis.report import Report, Run
from harness.records import Variant
from harness.report import blocks, charts, libraries, names, shares, units, verdict
from harness.report.blocks import (
    Block,
    Cell,
    Charts,
    Fold,
    Group,
    Over,
    Paragraph,
    Section,
    Source,
    Strong,
    Table,
)
from harness.report.charts import Chart

PLACE = 10
_WHAT = """Time of the reference ÷ time of the design: above 1 the design is faster. Below each figure stands
its {level} interval, from a hierarchical bootstrap over fresh processes and then over the passes of each."""
_KEY = Markup(
    '<span class="key better">faster</span> <span class="key worse">slower</span> No colour in a table: the '
    "interval holds 1. Bold: the fastest{}."
)


def page(report: Report) -> Section:
    oracle = any(variant.hot_rows == "oracle" for run in report.runs for variant in run.variants)
    return Section(
        "speedups",
        "Speedups",
        [
            Paragraph(_WHAT.format(level=f"{report.method.level * 100:.0f} %")),
            Paragraph(_KEY.format(", arms with an oracle aside" if oracle else "")),
            *(Group([_heading(report, run), *_first(report, run)]) for run in report.runs),
        ],
    )


def _heading(report: Report, run: Run) -> blocks.Heading:
    over = f"{run.title}: over " if len(report.runs) > 1 else "Over "
    metric = METRICS[run.compared[0]]
    return blocks.Heading(
        Markup('{}<span data-reference="{}">{}</span>, by {}').format(
            over, run.name, run.reference.label, metric
        )
    )


def _first(report: Report, run: Run) -> list[Block]:
    """The chart, which of one run alone stands on the first screen; its figures with their intervals are
    folded away, for no number stands in the open twice."""
    if len(run.variants) < 2:
        return [Paragraph("One design alone: nothing to compare it with.", "empty")]
    shown, drawn = table(run, run.compared[0]), picture(run)
    if drawn is None:
        return [shown]
    folded = Fold("Every speedup with its interval", [shown])
    return [folded] if len(report.runs) == 1 else [Charts([drawn], alone=True), folded]


def picture(run: Run) -> Chart | None:
    """Speedup by the metric that the run's variants are compared by."""
    return heatmap(run, run.compared[0]) if len(run.variants) > 1 else None


def table(run: Run, metric: str) -> Table:
    """Reference ÷ variant with its interval."""

    def cell(variant: Variant, dataset: str) -> Cell:
        figure = run.figure(variant, dataset, speedup(metric))
        if figure is None:
            return absent(run, variant, dataset)
        own, won = variant == run.reference, run.winner(dataset, metric)
        kinds: list[str] = [] if own else [figure.verdict]
        kinds += ["best"] if won and variant in (won.variant, *won.ties) else []
        made = blocks.number(run, figure, " ".join(kinds))
        made = replace(made, over=Over(run.name, metric, variant, dataset))
        return replace(made, text="1", detail="reference") if own else made

    return blocks.matrix(run, cell, label=f"Speedup over {run.reference.label} by {METRICS[metric]}")


def absent(run: Run, variant: Variant, dataset: str) -> Cell:
    """Why there is no figure."""
    cells = run.cells_at(variant, dataset)
    if without := [cell for cell in cells if cell.record and not cell.measured]:
        first = without[0]
        return Cell(first.status, kind="number absent", source=Source(run.name, [first.id]))
    if any(not cell.record for cell in cells):
        return Cell("not run yet", kind="number absent")
    return blocks.ABSENT


def heatmap(run: Run, metric: str) -> Chart | None:
    """Speedup by a metric; None where no variant could be compared.

    Its rows hold numbers alone, and the chart makes their texts: the page puts others in their place when the
    reader takes another reference.
    """
    rows = []
    for variant in run.variants:
        for dataset in run.datasets:
            if found := run.figure(variant, dataset, speedup(metric)):
                figures = {"value": found.value, "low": found.low, "high": found.high}
                rows.append({"arm": variant.label, "dataset": dataset, **figures})
    if not rows:
        return None
    made = charts.with_rows(_heatmap(tuple(run.datasets)), rows, charts.ROW, "arm")
    called = {variant.label: libraries.called(run, variant) for variant in run.variants}
    made["params"] = [*made.get("params", []), {"name": charts.CALLED, "value": called}]
    made["usermeta"]["ratios"] = {"run": run.name, "metric": metric}
    title = f"Speedup by {METRICS[metric]} over {run.reference.label}, on {names.where(run)}"
    description = f"{title}. A row per design, a column per dataset. {_told(run, metric)}"
    return Chart(f"speedup-{metric}-{run.name}", title, description, made, work=names.done(run))


def _told(run: Run, metric: str) -> str:
    """Who is fastest where, for those who do not see the chart."""
    won = [(d, w) for d in run.datasets if (w := run.winner(d, metric))]
    ratios = ((d, w.variant, run.figure(w.variant, d, speedup(metric))) for d, w in won)
    told = "; ".join(
        f"on {d} {libraries.called(run, variant)}, {units.text(ratio)}" for d, variant, ratio in ratios
    )
    return f"Fastest: {told}." if told else ""


@functools.cache
def _heatmap(datasets: tuple[str, ...]) -> dict[str, Any]:
    # As units.span: a third decimal where two would hide the interval.
    import altair as alt

    digits = "format(datum.low, '.2f') === format(datum.high, '.2f') ? '.3f' : '.2f'"
    base = (
        charts.blank()
        .transform_calculate(
            strength="abs(log(datum.value) / log(2))",
            side="datum.value >= 1 ? 'faster' : 'slower'",
            label="format(datum.value, '.2f') + '×'",
            interval=f"format(datum.low, {digits}) + '–' + format(datum.high, {digits})",
        )
        .transform_joinaggregate(most="max(strength)")
        .transform_calculate(depth="datum.strength / max(1, datum.most)")
    )
    tooltip = charts.tooltip(arm="design", dataset="", label="speedup", interval="95 % interval")
    side = alt.Scale(domain=["slower", "faster"], range="ordinal")
    return charts.heatmap(base, datasets, tooltip, alt.Color("side:N", scale=side, legend=None))


def brief(report: Report, run: Run) -> Iterator[Block]:
    """The winners, and every speedup; where a variant prepares, the kernel alone stands below prepare +
    kernel."""
    headline, reference = METRICS[run.headline], libraries.called(run, run.reference)
    won = [w for dataset in run.datasets if (w := run.winner(dataset, run.headline)) and w.rivals]
    if won:
        yield _winners(run)
    rows: list[list[Cell]] = []
    for variant in run.variants:
        name = libraries.called(run, variant)
        rows.append([Cell(name), *(_brief(run, variant, d, run.headline) for d in run.datasets)])
        if any(run.figure(variant, dataset, "prepare_us") for dataset in run.datasets):
            under = Cell("kernel alone", title=name, kind="under")
            rows.append([under, *(_brief(run, variant, dataset, "kernel_us") for dataset in run.datasets)])
    yield Table(
        ["design", *run.datasets],
        rows,
        title=f"Speedup over {reference}",
        caption="time of the reference (µs per table) ÷ time of the design ± half its 95 % interval, in %"
        + ("; pin time counted" if run.prepares else ""),
        label=f"Speedup over {reference} by {headline}, with its 95 % interval, on {names.where(run)}.",
        kind="dense",
    )
    if won:
        called = [(w, Strong(libraries.called(run, w.variant))) for w in won]
        told = [[", ", f"{w.dataset} ", name, " (tied)" * bool(w.ties)] for w, name in called]
        words = [word for each in told for word in each][1:]
        yield Paragraph([f"Fastest, by {headline}: ", *words, "."], only="markdown")


def _brief(run: Run, variant: Variant, dataset: str, metric: str) -> Cell:
    time, figure = run.timed(variant, dataset, metric)
    if figure is None:
        return Cell(names.status(run, variant, dataset), kind="number aside")
    if variant == run.reference:
        return Cell(f"{units.text(names.per_table(run, metric, time))} µs", kind="number aside")
    return blocks.number(run, figure, figure.verdict)


def _winners(run: Run) -> Table:
    """The fastest variant per dataset, its speedup, and how near it comes to the limit."""
    rows = []
    beside = [libraries.name(design) for design in libraries.designs(run)]
    for dataset in run.datasets:
        won = run.winner(dataset, run.headline)
        if won is None or not won.rivals:
            continue
        time, ratio = run.timed(won.variant, dataset, run.headline)
        over = verdict.over_libraries(run, won.variant, dataset, run.headline)
        rows.append(
            [
                Cell(dataset),
                Cell("\nor ".join(libraries.called(run, one) for one in (won.variant, *won.ties))),
                *([] if beside else [Cell(units.text(ratio), kind="number faster")]),
                *(
                    Cell(units.ratio(over[one][0]) if one in over else units.NONE, kind="number")
                    for one in beside
                ),
                Cell(units.text(names.per_table(run, run.headline, time)), kind="number"),
                *(Cell(text, kind="number") for text in shares.short(run, won.variant, dataset)),
            ]
        )
    over_them = [f"× {library}" for library in beside]
    return Table(
        [
            *("dataset", "fastest", *(over_them or [f"× {libraries.called(run, run.reference)}"])),
            *("µs/table", "TB/s", "of peak"),
        ],
        rows,
        title=f"{run.title}: the fastest, by {METRICS[run.headline]}, on {names.where(run)}",
        caption=f"TB/s: {shares.ACHIEVED} of the limit, ✕ where it is beaten",
        only="terminal",
    )
