"""What all charts of the page share: how they are made, themed and filtered.

A chart is Vega-Lite made with Altair. Three rules let one script serve them all:

* Rows that belong to a design carry it as `arm`, those of a dataset as `dataset`: the page leaves out those
  whose design or dataset the reader has not picked.
* A chart names roles ("kernel", "better"), never colours; `theme` gives the roles their colours. On the page
  those are CSS variables, so that dark, light and print need no second drawing.
* Charts of one kind differ in their rows alone: the page then holds their specification once.

Altair is imported where a chart is made and not before: a report in plain text does not need it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt


ROLES = {
    "paper": "var(--paper)",
    "ink": "var(--ink)",
    "muted": "var(--muted)",
    "line": "var(--line)",
    "kernel": "var(--kernel)",
    "prepare": "var(--prepare)",
    "third": "var(--third)",
    "worse": "var(--prepare)",
    "better": "var(--kernel)",
}
"""Colours of the page, by role; the style sheet holds their values."""
PAPER = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#5b6470",
    "line": "#dde1e6",
    "kernel": "#2470b3",
    "prepare": "#c8641b",
    "third": "#7a5195",
    "worse": "#c8641b",
    "better": "#2470b3",
}
"""The same for figures on paper."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Chart:
    """A chart and what a reader needs beside it."""

    id: str
    title: str
    description: str
    """Read aloud in the chart's place."""
    spec: dict[str, Any]
    dataset: str = ""
    """The one that all of it is about; empty where it is about several."""
    work: str = ""
    """What was asked of which GPU, for a figure that leaves the page."""


def theme(colours: Mapping[str, str]) -> dict[str, Any]:
    """Vega-Lite configuration shared by all charts."""
    text = {"labelColor": colours["muted"], "titleColor": colours["muted"], "labelFontSize": 12}
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            **text,
            "titleFontWeight": "normal",
            "titleFontSize": 12,
            "domain": False,
            "ticks": False,
            "gridColor": colours["line"],
            "labelPadding": 6,
            "labelSeparation": 8,
            "labelLimit": 190,
        },
        "axisY": {"labelColor": colours["ink"]},
        "legend": {**text, "orient": "top", "title": None, "symbolType": "square", "symbolOpacity": 1},
        "text": {"color": colours["ink"], "fontSize": 12},
        "rule": {"color": colours["ink"]},
        "tick": {"color": colours["ink"]},
        "point": {"filled": True, "size": 90},
        "line": {"color": colours["muted"]},
        "style": {
            "ink": {"color": colours["ink"], "fill": colours["ink"]},
            # Laid under words that lie on lines and points.
            "halo": {"stroke": colours["paper"], "strokeWidth": 4, "strokeJoin": "round"},
        },
        "range": {
            "category": [colours[name] for name in ("kernel", "prepare", "third", "muted")],
            "ordinal": [colours["worse"], colours["better"]],
        },
    }


@functools.cache
def _rows() -> alt.NamedData:
    """Layers have their rows in common only where all of them name this very object."""
    import altair as alt

    return alt.NamedData("rows")


def blank() -> alt.Chart:
    """A chart whose rows come later."""
    import altair as alt

    return alt.Chart(_rows())


def spec(
    chart: alt.Chart | alt.LayerChart | alt.FacetChart,
    height: int,
    *,
    rows: Sequence[Mapping[str, Any]] | None = None,
    logarithmic: str = "",
) -> dict[str, Any]:
    """As Vega-Lite, as wide as its place on the page.

    `height`: px. `rows`: the data, where the chart itself has none. `logarithmic`: the axis ("x" or "y") that
    readers may switch to a logarithm; a chart can ask for their choice by the parameter `log`.
    """
    made: dict[str, Any] = chart.properties(width="container").to_dict(validate=False)
    made["height"] = height
    made["autosize"] = {"type": "fit-x", "contains": "padding"}
    made.pop("config", None)  # the page gives one to all charts
    if logarithmic:
        made["usermeta"] = {"logarithmic": logarithmic}
    made["params"] = [*made.get("params", []), {"name": "log", "value": False}]
    return made if rows is None else with_rows(made, rows)


def with_rows(
    template: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], step: int = 0, field: str = "name"
) -> dict[str, Any]:
    """A chart of the kind of `template` with rows of its own; `step` px high for each value of `field`."""
    made = {**template, "data": {"values": list(rows)}}
    if step:
        made["height"] = step * len({row[field] for row in rows})
        made["usermeta"] = {**template.get("usermeta", {}), "step": step, "field": field}
    return made


def words(base: alt.Chart, text: str, **mark: Any) -> list[alt.Chart]:
    """Words that stay readable where they lie on lines and points: a halo of paper, and they above it."""
    halo: dict[str, Any] = {**mark, "style": "halo"}
    return [base.mark_text(**style).encode(text=text) for style in (halo, mark)]


def legend(labels: Sequence[str], aside: int = 60, **more: Any) -> alt.Legend:
    """With every name whole: as many beside one another as there is room for.

    `aside`: px that the names of an axis take from the chart's width. Asked for is the width of the chart's
    place, which is known before the first drawing; that of its inside grows and shrinks with the legend.
    """
    import altair as alt

    count = len(labels)
    columns = "1"
    for beside in range(2, count + 1):
        widest = (max(map(len, labels[first::beside])) for first in range(beside))
        need = aside + sum(_SYMBOL + _LETTER * letters for letters in widest)
        columns = f"{PLACE} >= {need} ? {beside} : {columns}"
    return alt.Legend(labelLimit=0, columns=alt.ExprRef(columns), **more)


def design_colour(field: str, designs: Sequence[str], present: Sequence[str]) -> alt.Color:
    """Of lines: a design has the same colour in every chart, and the legend names those that are in this."""
    import altair as alt

    scale = alt.Scale(domain=list(designs), scheme="tableau10")
    return alt.Color(f"{field}:N", scale=scale, legend=legend(present, values=list(present)))


def designs_axis(field: str = "name") -> alt.Y:
    """The rows of a chart, in the order of its data. Those of `arm` are shown as `CALLED` names them."""
    import altair as alt

    # A name that is too long loses its middle: its end, a tunable, tells it from the next.
    name = f"({CALLED}[datum.label] || datum.label)" if field == "arm" else "datum.label"
    short = f"slice({name}, 0, 6) + '…' + slice({name}, -14)"
    label = f"length({name}) > (width < 200 ? 21 : 34) ? {short} : {name}"
    axis = alt.Axis(grid=False, labelLimit=alt.ExprRef("width < 200 ? 160 : 230"), labelExpr=label)
    return alt.Y(f"{field}:N", sort=None, title=None, axis=axis)


def dataset_axis(datasets: Sequence[str]) -> alt.X:
    """The columns of a heatmap, named above it; upright where they are many or do not fit beside one
    another."""
    import altair as alt

    room = NAMES + len(datasets) * _LETTER * max(map(len, datasets), default=0)
    upright = "true" if len(datasets) > MANY else f"{PLACE} < {room}"
    axis = alt.Axis(
        orient="top",
        labelAngle=alt.ExprRef(f"{upright} ? -90 : 0"),
        labelAlign=alt.ExprRef(f"{upright} ? 'left' : 'center'"),
        labelBaseline=alt.ExprRef(f"{upright} ? 'middle' : 'bottom'"),
        labelFontSize=11 if len(datasets) > MANY else 12,
        labelLimit=alt.ExprRef(f"{upright} ? 90 : bandwidth('x') + {_BESIDE}"),
        labelOverlap=len(datasets) > 2 * MANY,
        grid=False,
    )
    return alt.X("dataset:N", sort=None, title=None, axis=axis)


def tooltip(**titles: str) -> list[alt.Tooltip]:
    """Words shown on hover: by field its title; without one the field's own name."""
    import altair as alt

    return [alt.Tooltip(f"{name}:N", title=title or alt.Undefined) for name, title in titles.items()]


def heatmap(
    base: alt.Chart, datasets: Sequence[str], tooltip: Sequence[alt.Tooltip], colour: alt.Color
) -> dict[str, Any]:
    """A row per design (`arm`), a column per dataset: fields `depth`, 0 to 1, of the colour, and `label`."""
    import altair as alt

    base = base.encode(x=dataset_axis(datasets), y=designs_axis("arm"), tooltip=list(tooltip))
    depth = alt.Opacity("depth:Q", scale=alt.Scale(domain=[0, 1], range=[0.05, 0.75]), legend=None)
    cells = base.mark_rect(cornerRadius=3).encode(color=colour, opacity=depth)
    size = alt.ExprRef("bandwidth('x') < 46 ? 10 : 12")
    figures = base.mark_text(opacity=alt.ExprRef(WIDE_ENOUGH), fontSize=size).encode(text="label:N")
    return spec(alt.layer(cells, figures), 0, rows=[])


CALLED = "called"
"""Of a heatmap: the parameter that holds by design what readers know it by, where that is not its label."""
ROW, BAR = 32, 26
"""Height of a row of a heatmap and of a design's bar, px."""
NAMES = 170
"""What names of designs along an axis take of a chart's width, px."""
PLACE = "(containerSize()[0] || width)"
"""Of a chart: as wide as its place on the page, px; on paper, which has none, as wide as it is."""
_SYMBOL, _LETTER = 30, 7
"""Of a legend's entry: symbol and gaps, and a letter, px."""
_BESIDE = 8
"""Of a column's name: what it may take of both neighbours' columns, px."""
MANY = 12
"""More columns than this have upright names."""
WIDE_ENOUGH = "bandwidth('x') < 34 ? 0 : 1"
"""Opacity of the figures in a heatmap: none where they would run into each other."""
