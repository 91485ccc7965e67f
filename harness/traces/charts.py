"""The curves of traces side by side. On the host only: needs Altair and vl-convert."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness import outputs
from harness.errors import unwritable
from harness.text import readable
from harness.traces.stats import TraceStatistics, table

if TYPE_CHECKING:
    import altair as alt

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
#charts { overflow-x: auto }
table { border-collapse: collapse }
th, td { padding: 0.15rem 1.2rem 0.15rem 0; border-bottom: 1px solid #ddd; text-align: right }
th:first-child { text-align: left; font-weight: normal }
"""


def charts(traces: Mapping[str, TraceStatistics]) -> alt.HConcatChart:
    """How many accesses the hottest rows cover, and how many an LRU cache hits, by number of rows."""
    import altair as alt

    curves = (
        ("share of accesses to the hottest rows", {name: s.coverage for name, s in traces.items()}),
        ("hit rate of an LRU cache", {name: s.hit_rate for name, s in traces.items()}),
    )
    panels = []
    for title, by_trace in curves:
        points = [
            {"trace": name, "rows": rows, "share": share}
            for name, curve in by_trace.items()
            for rows, share in curve
        ]
        data = alt.InlineData(values=points)
        lines = alt.Chart(data, title=title, width=360, height=260).mark_line(point=True)
        panels.append(
            lines.encode(
                alt.X("rows:Q").scale(type="log").title("rows"),
                alt.Y("share:Q").scale(domain=[0, 1]).axis(format="%").title(None),
                alt.Color("trace:N", sort=list(traces)).title(None),
                tooltip=["trace:N", alt.Tooltip("rows:Q", format=","), alt.Tooltip("share:Q", format=".1%")],
            )
        )
    return alt.hconcat(*panels)


def write_page(traces: Mapping[str, TraceStatistics], out: Path) -> None:
    """Charts and figures as one HTML file that opens from disk and loads nothing; BadInputError where it
    cannot be written, MachineError where the disk is full."""
    import vl_convert

    title = html.escape(" and ".join(traces))
    # A "<" in a trace's name must not end the script.
    specification = json.dumps(charts(traces).to_dict()).replace("<", "\\u003c")
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    heading, *lines = [[html.escape(cell) for cell in line] for line in table(traces)]
    rows = [
        f"<tr><th scope=row>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, *cells in lines
    ]
    page = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>",
        '<meta name=viewport content="width=device-width">',
        f"<h1>Locality of {title}</h1><div id=charts></div>",
        f"<table><tr>{''.join(f'<th scope=col>{cell}</th>' for cell in heading)}</tr>",
        *rows,
        f"</table><script>{bundle}</script>",
        f'<script>vegaEmbed("#charts", {specification}, {{actions: false}})</script></html>',
    ]
    try:
        outputs.write(out, "\n".join(page))
    except OSError as error:
        raise unwritable(readable(out), error) from error
