"""Every sample: a strip of quantiles per process."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.analysis.figures import Spread
from harness.analysis.report import Report, Run
from harness.report import charts, names, units
from harness.report.blocks import Block, Charts, Fold, Paragraph, Section
from harness.report.charts import Chart
from harness.report.sections import times

PLACE = 50
QUANTILES = ("least", "p5", "p25", "median", "p75", "p95", "most")
FAR = 1.25
"""Samples beyond this × the largest of the 95 % marks are named at the edge: one alone would flatten all."""
_WHAT = """The kernel, one table at a time, a strip per fresh process: the thin line reaches from the least to
the largest sample, the pale bar holds 90 % of them, the dark bar the middle half, the tick is the median. No
sample was left out; the largest is named at the edge where it lies far beyond the others."""


def page(report: Report) -> Section | None:
    drawn = times.per_dataset(report, chart)
    if not drawn:
        return None
    shown: list[Block] = [Charts(drawn, numbers=True)]
    if len(report.runs) > 1:
        shown = [Fold(units.count(len(drawn), "chart"), shown)]
    return Section("samples", "Every sample", [Paragraph(_WHAT), *shown], "Samples")


def chart(report: Report, runs: Sequence[Run], dataset: str) -> Chart | None:
    """A strip of quantiles per process, of every sample of the kernel; of runs on one GPU."""
    rows: list[dict[str, Any]] = []
    widest = 0
    for run in runs:
        for variant in run.variants:
            place = run.place(variant, dataset)
            spreads = place.spreads if place else []
            widest = max(widest, len(spreads))
            name = names.contestant(report, run, variant)
            shown = {"arm": variant.label, "name": name, "dataset": dataset}
            rows += [{**shown, **_row(number, spread)} for number, spread in enumerate(spreads)]
    if not rows:
        return None
    fastest: dict[str, float] = {}
    for row in rows:
        fastest[row["name"]] = min(fastest.get(row["name"], math.inf), float(row["median"]))
    rows.sort(key=lambda row: fastest[row["name"]])
    samples = sum(int(row["samples"]) for row in rows)
    edge = FAR * max(float(row["p95"]) for row in rows)
    for row in rows:
        most = float(row["most"])
        row |= {"end": min(most, edge), "beyond": f"→ {units.us(most)}" if most > edge else ""}
    return Chart(
        f"samples-{runs[0].name}-{dataset}",
        f"Every sample on {dataset}",
        f"Quantiles of {samples:,} samples of the kernel on {dataset}, a strip per process. {_told(rows)}",
        charts.with_rows(_strips(), rows, max(charts.BAR, 10 * widest + 8)),
        dataset,
        names.done(runs[0]),
    )


def _told(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which process scatters most, for those who do not see the chart."""
    widest = max(rows, key=lambda row: float(row["p95"]) / max(float(row["p5"]), 1e-9))
    span = f"{units.us(float(widest['p5']))} to {units.us(float(widest['p95']))} µs"
    return f"Widest: {widest['name']}, {widest['process']}, 90 % of its samples within {span}."


def _row(number: int, of: Spread) -> dict[str, Any]:
    process = f"{of.processes} processes" if of.processes > 1 else f"process {number + 1}"
    quantiles = {name: round(float(getattr(of, name)), 4) for name in QUANTILES}
    return {"process": process, "samples": of.samples, **quantiles}


@functools.cache
def _strips() -> dict[str, Any]:
    import altair as alt

    names = {"samples": "samples", "least": "least µs", "p5": "5 %", "p25": "25 %", "median": "median"}
    names |= {"p75": "75 %", "p95": "95 %", "most": "most µs"}
    base = charts.blank().encode(
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
        title="kernel, µs per table",
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
