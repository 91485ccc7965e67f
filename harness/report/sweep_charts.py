"""Charts along the axes of a sweep: times, and speedups over the reference at the same point."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from harness.analysis.figures import METRICS, Figure, speedup
from harness.analysis.report import Run
from harness.analysis.sweeps import Line, Sweep
from harness.records import PYTORCH, is_torch_version
from harness.report import charts, names, units
from harness.report.charts import Chart

_HEIGHT = 220
_SHORT = "datum.value % 1000 ? format(datum.value, ',') : format(datum.value, '~s')"
"""Whole thousands as 100k and 10M, other values in full."""


def of(run: Run, sweep: Sweep, lines: Sequence[Line]) -> list[Chart]:
    """Of each line the times and, where there are any, the speedups over the reference."""
    # Colours are shared out among all of the run's designs, so that a design keeps its own in every chart.
    measured = {place.variant for place in (*run.places, *sweep.places)}
    designs = tuple(names.without_toolchain(variant) for variant in run.variants if variant in measured)
    designs = tuple(dict.fromkeys(designs))
    found = []
    for line in lines:
        rows = list(_rows(run, sweep, line))
        at = "-".join([run.name, line.key, line.dataset, *map(str, line.held.values())])
        on = f"on {line.dataset}" + (f", {names.settings(line.held)}" if line.held else "")
        by, metric = names.key(line.key), METRICS[sweep.metric]
        title = f"{metric.capitalize()} by {by} {on}"
        made = _chart(f"sweep-time-{at}", title, line, sweep.metric, rows, "time", designs)
        found.append(replace(made, work=names.done(run)))
        over = [row for row in rows if "speedup" in row]
        if any(row["arm"] != run.reference.label for row in over):
            title = f"Speedup over {run.reference.label} by {by} {on}"
            made = _chart(f"sweep-speedup-{at}", title, line, sweep.metric, over, "speedup", designs)
            found.append(replace(made, work=names.done(run)))
    return found


def _rows(run: Run, sweep: Sweep, line: Line) -> Iterator[dict[str, Any]]:
    for curve in line.curves:
        for label in curve.points:
            place = run.place(curve.variant, line.dataset, label)
            time = place.figure(sweep.metric) if place else None
            if place is None or time is None:
                continue
            value, ratio = place.settings[line.key], place.figure(speedup(sweep.metric))
            row = {
                "arm": curve.variant.label,
                "design": names.without_toolchain(curve.variant),
                "compiler": _compiler(curve.variant.toolchain),
                "dataset": line.dataset,
                "value": value if type(value) is int else str(value).lower(),
                **_bounds("time", time),
                "time µs": f"{units.text(time)} ({units.interval(time)})",
            }
            told = {"speedup ×": f"{ratio.value:.2f} ({units.interval(ratio)})"} if ratio else {}
            yield row | (_bounds("speedup", ratio) if ratio else {}) | told


def _compiler(toolchain: str) -> str:
    if toolchain == PYTORCH:
        return "its own"
    return f"{'PyTorch' if is_torch_version(toolchain) else 'NVRTC'} {toolchain}"


def _bounds(name: str, figure: Figure) -> dict[str, Any]:
    return {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}


def _chart(
    id_: str,
    title: str,
    line: Line,
    metric: str,
    rows: Sequence[dict[str, Any]],
    what: str,
    designs: tuple[str, ...],
) -> Chart:
    ticks = tuple(sorted({row["value"] for row in rows}))
    present = tuple(dict.fromkeys(row["design"] for row in rows))
    compilers = tuple(dict.fromkeys(row["compiler"] for row in rows))
    made = _template(names.key(line.key), ticks, metric, what, designs, present, compilers)
    fastest = min(rows, key=lambda row: float(row["time"]) if what == "time" else -float(row["speedup"]))
    at = f"{fastest['arm']} at {names.key(line.key)} {fastest['value']}"
    told = f"{units.us(fastest['time'])} µs" if what == "time" else units.ratio(fastest["speedup"])
    description = f"{title}, a line per design with its interval. Best: {at}, {told}."
    return Chart(id_, title, description, charts.with_rows(made, rows), line.dataset)


@functools.cache
def _template(
    name: str,
    ticks: tuple[Any, ...],
    metric: str,
    what: str,
    designs: tuple[str, ...],
    present: tuple[str, ...],
    compilers: tuple[str, ...],
) -> dict[str, Any]:
    """Both axes by factors, for times and sizes alike span several powers of ten."""
    import altair as alt

    title = names.unit_as_measured(metric) if what == "time" else "times as fast"
    if all(type(tick) is int for tick in ticks):
        # Where nought is among the values there is no logarithm of it.
        scale = alt.Scale(type="symlog" if ticks[0] <= 0 else "log", nice=False)
        axis = alt.Axis(values=list(ticks), labelExpr=_SHORT, grid=False, labelOverlap="greedy")
        x: alt.X = alt.X("value:Q", title=name, scale=scale, axis=axis)
    else:
        x = alt.X("value:N", title=name, sort=list(ticks), axis=alt.Axis(labelAngle=0))
    y = alt.Scale(type="log", nice=False, padding=8)
    told = charts.legend(compilers, orient="bottom", symbolType="stroke") if len(compilers) > 1 else None
    base = charts.blank().encode(
        x=x,
        detail="arm:N",
        color=charts.design_colour("design", designs, present),
        tooltip=[alt.Tooltip("arm:N"), alt.Tooltip("value:N", title=name), "time µs:N", "speedup ×:N"],
    )
    line = base.mark_line(strokeWidth=1.5).encode(
        y=alt.Y(f"{what}:Q", title=title, scale=y, axis=alt.Axis(format=",~r", tickCount=6)),
        strokeDash=alt.StrokeDash("compiler:N", sort=None, legend=told),
    )
    interval = base.mark_rule(strokeWidth=1).encode(y=f"{what}_low:Q", y2=f"{what}_high:Q")
    point = base.mark_point(size=36, opacity=1).encode(y=f"{what}:Q")
    layers: list[Any] = [line, interval, point]
    if what == "speedup":
        layers.insert(0, charts.blank().mark_rule(strokeDash=[2, 3], aria=False).encode(y=alt.datum(1)))
    return charts.spec(alt.layer(*layers), _HEIGHT, rows=[])
