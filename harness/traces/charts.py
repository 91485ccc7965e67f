"""The curves of traces side by side. On the host only: needs Altair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.traces.stats import TraceStatistics

if TYPE_CHECKING:
    import altair as alt


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
