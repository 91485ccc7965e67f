"""Registers, resident warps, speed: why a cap on registers gains under one compiler and not under another."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import altair as alt

from harness.analysis.frame import Run
from harness.analysis.results import Results
from harness.report import charts, units
from harness.report.charts import Chart

TWINS = ("baseline", "optmt")
"""The same source, the second with its registers capped: a line leads from one to the other."""


def pair(results: Results, runs: Sequence[Run], dataset: str) -> list[Chart]:
    """Registers against resident warps, and these against the kernel's time; empty where nothing is known."""
    rows = _rows(results, runs, dataset)
    if len({row["name"] for row in rows}) < 2:
        return []
    toolchains = tuple(sorted({str(row["toolchain"]) for row in rows}))
    first = "Registers a thread, and the warps that fit"
    second = f"Warps that fit, and the kernel's time on {dataset}"
    return [
        Chart(
            f"registers-{dataset}",
            first,
            f"{first}; the table has every figure.",
            charts.with_rows(_registers(toolchains), rows),
        ),
        Chart(
            f"occupancy-{dataset}",
            second,
            f"{second}; lines lead from the baseline to optmt. The table has every figure.",
            charts.with_rows(_time(toolchains), rows),
        ),
    ]


def _rows(results: Results, runs: Sequence[Run], dataset: str) -> list[dict[str, Any]]:
    rows = []
    for run in runs:
        kernels = {r.cell.arm: r for r in run.records if r.kernel and r.cell.dataset.name == dataset}
        for arm, record in kernels.items():
            found = results.measurement(run, arm, dataset, "kernel_us")
            if found is None or record.kernel is None or not record.kernel.registers:
                continue
            # No `dataset`: the page's choice of datasets leaves this chart as it is.
            rows.append(
                {
                    "arm": arm,
                    "name": results.loaded.contestant(run.name, arm),
                    "design": record.cell.design,
                    "twin": record.cell.design in TWINS,
                    "toolchain": record.cell.toolchain,
                    "group": f"{run.name} {record.cell.toolchain}",
                    "registers": record.kernel.registers,
                    "warps": round(record.kernel.occupancy * 100, 1),
                    "us": found.time.value,
                    "time": units.us(found.time.value) + " µs",
                }
            )
    return rows


_WARPS: dict[str, Any] = {
    "title": "resident warps, % of the most",
    "scale": alt.Scale(domain=[0, 100], nice=False),
    "axis": alt.Axis(tickCount=5),
}


def _drawn(toolchains: tuple[str, ...], x: alt.X, y: alt.Y, logarithmic: str = "") -> dict[str, Any]:
    same = alt.Scale(domain=list(toolchains))
    base = alt.Chart(charts.ROWS).encode(
        x=x,
        y=y,
        tooltip=[
            alt.Tooltip("name:N", title="design"),
            alt.Tooltip("registers:Q"),
            alt.Tooltip("warps:Q", title="resident warps, %"),
            alt.Tooltip("time:N", title="kernel alone"),
        ],
    )
    # Layers without anything to say say nothing: were they filtered down to no rows, Vega would warn.
    named = base.transform_calculate(
        label="datum.design === 'baseline' ? datum.design + ', ' + datum.registers + ' registers' : ''"
    )
    label = charts.words(named, "label:N", dy=17, fontSize=11)
    coloured = base.encode(color=alt.Color("toolchain:N", scale=same))
    alone = coloured.transform_calculate(line="datum.twin ? datum.group : datum.name")
    line = alone.mark_line(strokeDash=[4, 3], strokeWidth=1.5).encode(detail="line:N")
    dots = coloured.mark_point(opacity=0.85).encode(shape=alt.Shape("toolchain:N", scale=same))
    layers = alt.layer(line, *label, dots)
    return charts.spec(layers, 240, rows=[], logarithmic=logarithmic)


@functools.cache
def _registers(toolchains: tuple[str, ...]) -> dict[str, Any]:
    x = alt.X(
        "registers:Q",
        title="registers a thread",
        scale=alt.Scale(zero=False, padding=45),
        axis=alt.Axis(tickCount=6),
    )
    return _drawn(toolchains, x, alt.Y("warps:Q", **_WARPS))


@functools.cache
def _time(toolchains: tuple[str, ...]) -> dict[str, Any]:
    y = alt.Y("us:Q", title="kernel alone, µs", scale=alt.Scale(zero=True), axis=alt.Axis(format="~r"))
    return _drawn(toolchains, alt.X("warps:Q", **_WARPS), y, logarithmic="y")
