"""Charts of a history: a line per design over runs in the order of time, with intervals."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from harness.analysis.figures import METRICS
from harness.analysis.timeline import History, Moment, Point, Setting
from harness.report import charts, names, units
from harness.report.charts import Chart

_HEIGHT = 240
_TOLD = 8
"""Designs whose last value a chart's description names."""


def speeds(found: History, setting: Setting, number: int) -> list[Chart]:
    """Per dataset, how many times as fast as in the first run; of what two runs measured."""
    made = []
    for dataset in setting.datasets:
        rows = [row for row in _rows(setting, dataset) if row["of"] > 1]
        if not rows:
            continue
        last = {row["arm"]: f"{row['arm']} {row['speed']:.2f}" for row in rows}
        told = f"In the last run, times as fast as in the first: {_listed(list(last.values()))}."
        title = f"Speed on {dataset} against the first run, {METRICS[setting.metric]}"
        made.append(_chart(f"history-speed-{number}", title, told, dataset, rows, setting, "speed"))
    return made


def times(found: History, setting: Setting, number: int) -> list[Chart]:
    """Per dataset, µs per table."""
    made = []
    for dataset in setting.datasets:
        if not (rows := list(_rows(setting, dataset))):
            continue
        last = {row["arm"]: f"{row['arm']} {units.us(row['time'])} µs" for row in rows}
        told = f"In the last run: {_listed(list(last.values()))}."
        title = f"Time on {dataset}, {METRICS[setting.metric]}"
        made.append(_chart(f"history-time-{number}", title, told, dataset, rows, setting, "time"))
    return made


def _listed(parts: list[str]) -> str:
    more = len(parts) - _TOLD
    return ", ".join(parts[:_TOLD]) + (f" and {more} more" if more > 0 else "")


def _rows(setting: Setting, dataset: str) -> Iterator[dict[str, Any]]:
    order = {moment.run: n for n, moment in enumerate(setting.moments)}
    ringed = {(one.variant, one.dataset, one.after) for one in setting.changes}
    lines: dict[str, list[Point]] = {}
    for point in setting.points:
        if point.dataset == dataset:
            lines.setdefault(point.variant.label, []).append(point)
    for label, line in lines.items():
        for point in line:
            place, moment = order[point.run], setting.moments[order[point.run]]
            time = names.of_one_table(setting.workload, setting.metric, point.time)
            yield {
                "arm": label,
                "dataset": dataset,
                "when": _label(place, moment),
                "place": place,
                "of": len(line),
                "run": point.run,
                "commit": moment.commit or "unknown",
                "GPU": " ".join(filter(None, (moment.gpu, moment.board))),
                "time": time.value,
                "time_low": time.low,
                "time_high": time.high,
                "speed": point.since_first.value,
                "speed_low": point.since_first.low,
                "speed_high": point.since_first.high,
                "time µs": f"{units.text(time)} ({units.interval(time)})",
                "times as fast": f"{point.since_first.value:.3f} ({units.span(point.since_first, 3)})",
                "changed": (point.variant, dataset, point.run) in ringed,
                "note": point.doubt or "none",
            }


def _label(place: int, moment: Moment) -> str:
    """Of a run on the axis, line by line: its number, day and commit."""
    parts = (str(place + 1), moment.began[:10], names.short_commit(moment.commit).partition(" ")[0])
    return "|".join(filter(None, parts))


def _chart(
    id_: str, title: str, told: str, dataset: str, rows: list[dict[str, Any]], setting: Setting, what: str
) -> Chart:
    places = dict(sorted({row["place"]: row["when"] for row in rows}.items()))
    designs = tuple(variant.label for variant in setting.variants)
    present = tuple(dict.fromkeys(row["arm"] for row in rows))
    template = _template(what, tuple(places.values()), designs, present)
    description = f"{title}: a line per design over {units.count(len(places), 'run')}, with intervals. {told}"
    return Chart(f"{id_}-{dataset}", title, description, charts.with_rows(template, rows), dataset)


@functools.cache
def _template(
    what: str, moments: tuple[str, ...], designs: tuple[str, ...], present: tuple[str, ...]
) -> dict[str, Any]:
    import altair as alt

    axis = alt.Axis(labelExpr="split(datum.value, '|')", labelAngle=0, labelOverlap=True, grid=False)
    x = alt.X("when:O", sort=list(moments), title=None, axis=axis, scale=alt.Scale(domain=list(moments)))
    title = "µs per table" if what == "time" else "times as fast as at first"
    values = alt.Axis(format=",~r" if what == "time" else ".2f", tickCount=6)
    y = alt.Y(f"{what}:Q", title=title, scale=alt.Scale(zero=False, padding=8), axis=values)
    base = charts.blank().encode(
        x=x,
        detail="arm:N",
        color=charts.design_colour("arm", designs, present),
        tooltip=[
            alt.Tooltip("arm:N", title="design"),
            *(f"{name}:N" for name in ("run", "commit", "GPU", "time µs", "times as fast", "note")),
        ],
    )
    line = base.mark_line(strokeWidth=1.5).encode(y=y, order="place:Q")
    interval = base.mark_rule(strokeWidth=1).encode(y=f"{what}_low:Q", y2=f"{what}_high:Q")
    point = base.mark_point(size=36, opacity=1).encode(y=f"{what}:Q")
    # Seen where something changed; a layer of those rows alone would have no extent where there are none.
    seen = alt.condition("datum.changed", alt.value(1), alt.value(0))
    ring = base.mark_point(size=220, filled=False, strokeWidth=2).encode(y=f"{what}:Q", opacity=seen)
    layers: list[Any] = [line, interval, point, ring]
    if what == "speed":
        layers.insert(0, charts.blank().mark_rule(strokeDash=[2, 3], aria=False).encode(y=alt.datum(1)))
    logarithmic = "y" if what == "time" else ""
    return charts.spec(alt.layer(*layers), _HEIGHT, rows=[], logarithmic=logarithmic)
