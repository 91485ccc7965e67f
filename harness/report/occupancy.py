"""Registers, resident warps, speed: why a cap on registers gains under one compiler and not under another."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from harness.analysis.report import Report
from harness.report import charts, names, units
from harness.report.charts import Chart

if TYPE_CHECKING:
    import altair as alt

TWINS = ("baseline", "optmt")
"""The same source, the second with its registers capped: a line leads from one to the other."""


def pair(report: Report) -> list[Chart]:
    """Registers against resident warps, and these against the kernel's time; empty where nothing is known.

    On the dataset where a kernel takes longest, so that designs differ most.
    """
    timed = [(p.dataset, t.value) for run in report.runs for p in run.places if (t := p.figure("kernel_us"))]
    dataset = max(timed, key=lambda one: one[1], default=("", 0.0))[0]
    rows = _rows(report, dataset)
    if len({row["name"] for row in rows}) < 2:
        return []
    toolchains = tuple(sorted({str(row["toolchain"]) for row in rows}))
    work = {names.done(run) for run in report.runs}
    on = work.pop() if len(work) == 1 else " and ".join(names.gpus(report.runs))
    fewest, most = (pick(rows, key=lambda row: float(row["registers"])) for pick in (min, max))
    registers = "; ".join(
        f"{row['name']} takes {row['registers']:.0f} registers and fits {row['warps']:g} %"
        for row in (fewest, most)
    )
    quickest = min(rows, key=lambda row: float(row["us"]))
    fastest = f"{quickest['name']} is fastest with {quickest['time']} at {quickest['warps']:g} %"
    first = "Registers a thread, and the warps that fit"
    second = f"Warps that fit, and the kernel's time on {dataset}"
    return [
        Chart(
            f"registers-{dataset}",
            first,
            f"{first}: {registers}. The table has every figure.",
            charts.with_rows(_registers(toolchains), rows),
            work=on,
        ),
        Chart(
            f"occupancy-{dataset}",
            second,
            f"{second}: {fastest}; lines lead from the baseline to optmt. The table has every figure.",
            charts.with_rows(_time(toolchains), rows),
            work=on,
        ),
    ]


def _rows(report: Report, dataset: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    named = set()
    for run in report.runs:
        for variant in run.variants:
            registers, warps, time = (
                run.figure(variant, dataset, name) for name in ("registers", "occupancy", "kernel_us")
            )
            if registers is None or warps is None or time is None:
                continue
            # Runs with the same baseline would print its name on itself.
            label = f"{variant.design}, {units.text(registers)} registers"
            if variant.design != "baseline" or (variant.toolchain, label) in named:
                label = ""
            named.add((variant.toolchain, label))
            # No `dataset`: the page's choice of datasets leaves this chart as it is.
            rows.append(
                {
                    "arm": variant.label,
                    "name": names.contestant(report, run, variant),
                    "design": variant.design,
                    "twin": variant.design in TWINS,
                    "toolchain": variant.toolchain,
                    "group": f"{run.name} {variant.toolchain}",
                    "label": label,
                    "registers": registers.value,
                    "warps": round(warps.value * 100, 1),
                    "us": time.value,
                    "time": f"{units.text(time)} µs",
                }
            )
    return rows


def _warps() -> dict[str, Any]:
    import altair as alt

    return {
        "title": "resident warps, % of the most",
        "scale": alt.Scale(domain=[0, 100], nice=False),
        "axis": alt.Axis(tickCount=5),
    }


def _drawn(toolchains: tuple[str, ...], x: alt.X, y: alt.Y, logarithmic: str = "") -> dict[str, Any]:
    import altair as alt

    same = alt.Scale(domain=list(toolchains))
    base = charts.blank().encode(
        x=x,
        y=y,
        tooltip=[
            alt.Tooltip("name:N", title="design"),
            alt.Tooltip("registers:Q"),
            alt.Tooltip("warps:Q", title="resident warps, %"),
            alt.Tooltip("time:N", title="kernel alone"),
        ],
    )
    # Those of one compiler stand below their points and of the next above, so that they do not meet. Rows
    # without a name have an empty one: were they filtered down to none, Vega would warn.
    aside = alt.ExprRef(f"indexof({list(toolchains)}, datum.toolchain) % 2 ? -16 : 17")
    label = charts.words(base, "label:N", dy=aside, fontSize=11)
    coloured = base.encode(color=alt.Color("toolchain:N", scale=same))
    alone = coloured.transform_calculate(line="datum.twin ? datum.group : datum.name")
    line = alone.mark_line(strokeDash=[4, 3], strokeWidth=1.5).encode(detail="line:N")
    dots = coloured.mark_point(opacity=0.85).encode(shape=alt.Shape("toolchain:N", scale=same))
    layers = alt.layer(line, *label, dots)
    return charts.spec(layers, 240, rows=[], logarithmic=logarithmic)


@functools.cache
def _registers(toolchains: tuple[str, ...]) -> dict[str, Any]:
    import altair as alt

    x = alt.X(
        "registers:Q",
        title="registers a thread",
        scale=alt.Scale(zero=False, padding=45),
        axis=alt.Axis(tickCount=6),
    )
    return _drawn(toolchains, x, alt.Y("warps:Q", **_warps()))


@functools.cache
def _time(toolchains: tuple[str, ...]) -> dict[str, Any]:
    import altair as alt

    y = alt.Y(
        "us:Q", title="kernel alone, µs per table", scale=alt.Scale(zero=True), axis=alt.Axis(format="~r")
    )
    return _drawn(toolchains, alt.X("warps:Q", **_warps()), y, logarithmic="y")
