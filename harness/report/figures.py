"""Every chart of the page as SVG and PNG for papers, with the figures behind it as CSV."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vl_convert

from harness.analysis.report import Report
from harness.errors import unwritable
from harness.records import write_whole
from harness.report import charts, embed, first_screen, sections

WIDTH = 640
"""Of a chart without its labels, px: a column of a paper at twice its size."""
SCALE = 3
"""Pixels of the PNG per unit of the drawing."""
_SUBTITLE = 100
"""Characters in a line of what stands under the title."""


def write(report: Report, folder: Path) -> list[Path]:
    """Writes NAME.svg, NAME.png and NAME.csv for every chart of these runs, and returns their paths.

    BadInputError where the folder cannot be written, MachineError where the disk is full.
    """
    written: list[Path] = []
    names: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for chart in embed.charts_in([first_screen.picture(report), *sections.page(report)]):
            name = _name(chart.id, names)
            # A figure leaves the page: it says itself of which work and GPU it is.
            drawing = on_paper(chart.spec, chart.title, chart.work)
            svg, png, table = (folder / f"{name}.{ending}" for ending in ("svg", "png", "csv"))
            write_whole(svg, vl_convert.vegalite_to_svg(drawing))
            write_whole(png, vl_convert.vegalite_to_png(drawing, scale=SCALE))
            write_whole(table, _csv(chart.spec))
            written += [svg, png, table]
    except OSError as error:
        raise unwritable(error.filename or folder, error) from error
    return written


def on_paper(spec: Mapping[str, Any], title: str, under: str = "") -> dict[str, Any]:
    """A chart of the page as it stands on paper: of a fixed width, with its title and what stands under that,
    in ink."""
    made = {name: value for name, value in spec.items() if name not in ("usermeta", "autosize")}
    ink = charts.PAPER["ink"]
    titled: dict[str, Any] = {"text": title, "anchor": "start", "fontSize": 13, "color": ink}
    if under:
        titled |= {"subtitle": textwrap.wrap(under, _SUBTITLE), "subtitleFontSize": 10, "subtitleColor": ink}
    config = charts.theme(charts.PAPER) | {"background": "white"}
    return {**made, "width": WIDTH, "title": titled, "config": config}


def _name(identity: str, taken: set[str]) -> str:
    """A file's name from a chart's id, in which datasets and folders put what they like."""
    plain = re.sub(r"[^\w.@+-]+", "_", identity).strip("._")[:100] or "chart"
    name, number = plain, 2
    while name.lower() in taken:
        name, number = f"{plain}-{number}", number + 1
    taken.add(name.lower())
    return name


def _csv(spec: Mapping[str, Any]) -> str:
    """The rows of a chart; those of its layers where they have data of their own."""
    rows = [row for part in (spec, *spec.get("layer", [])) for row in part.get("data", {}).get("values", [])]
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO(newline="")
    table = csv.DictWriter(out, names, restval="")
    table.writeheader()
    table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    """A spreadsheet takes a leading = + - @ for a formula; text from a trace's name must not become one."""
    return f"'{value}" if isinstance(value, str) and re.match(r"[=+\-@\t\r]", value) else value
