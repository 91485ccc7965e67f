"""Bytes moved against time: where each design stands between the limits of the memory system."""

from __future__ import annotations

import functools
from typing import Any

from harness.analysis.report import Run
from harness.report import charts, shares, units
from harness.report.charts import Chart

PARTS = {"memory": "memory to L2", "L2": "L2 to the multiprocessors", "L1": "L1 to registers"}
"""What binds, in words."""
LRU = "LRU caches, bags in order (a model)"


def chart(run: Run) -> Chart | None:
    """Prepare + kernel of every variant on every dataset above the least times of memory, L2 and L1."""
    rows: list[dict[str, Any]] = []
    for number, dataset in enumerate(run.datasets):
        limit = run.limit(dataset)
        if limit is None:
            continue
        moved = units.megabytes(limit.compulsory_bytes)
        shown = {"dataset": dataset, "mb": limit.compulsory_bytes / 1e6, "moved": moved}
        needs = [*((PARTS[need.part], need) for need in limit.needs), (LRU, limit.lru)]
        for part, need in needs:
            if need.us > 0:
                took = {"us": need.us, "time": f"{units.us(need.us)} µs"}
                rows.append(
                    {**shown, "kind": "limit", "part": part, "by": units.megabytes(need.bytes), **took}
                )
        for variant in run.variants:
            if found := shares.of(run, variant, dataset):
                rows.append(
                    {
                        **shown,
                        "kind": "design",
                        "arm": variant.label,
                        "us": found.time.value,
                        "time": f"{units.text(found.time)} µs",
                        "share": units.text(found.share),
                        "part": PARTS[limit.binding.part],
                        "raised": number % 2,
                    }
                )
    if not any(row["kind"] == "design" for row in rows):
        return None
    return Chart(
        f"roofline-{run.name}",
        "Bytes that must move, and the time it took",
        "Time of every design on every dataset against the bytes that a batch has to touch, above lines for "
        "the least time that memory, L2 and L1 need if each row passes once, and that of a model of LRU "
        "caches.",
        charts.with_rows(_template(), rows),
    )


@functools.cache
def _template() -> dict[str, Any]:
    import altair as alt

    parts = [*PARTS.values(), LRU]
    x = alt.X(
        "mb:Q",
        title="MB touched: each row, index, output once",
        scale=alt.Scale(type="log", padding=40, nice=False),
        axis=alt.Axis(format=",~r", tickCount=5, gridOpacity=0.5),
    )
    y = alt.Y(
        "us:Q",
        title="µs per table and batch",
        scale=alt.Scale(type="log", padding=24, nice=False),
        axis=alt.Axis(format=",~r", tickCount=5, gridOpacity=0.5),
    )
    base = charts.blank().encode(x=x, y=y)
    limit = base.transform_filter("datum.kind === 'limit'").encode(
        color=alt.Color(
            "part:N",
            scale=alt.Scale(domain=parts, range="category"),
            legend=alt.Legend(columns=alt.ExprRef("width < 420 ? 1 : 2")),
        ),
        strokeDash=alt.StrokeDash(
            "part:N", scale=alt.Scale(domain=parts, range=[[1, 0], [7, 3], [2, 3], [1, 5]])
        ),
        tooltip=charts.tooltip(dataset="", part="limit of", by="must move", time="takes at least"),
    )
    line = limit.mark_line(strokeWidth=2).encode(order=alt.Order("mb:Q"))
    corner = limit.mark_point(size=25, opacity=1)
    designs = (
        base.transform_filter("datum.kind === 'design'")
        .transform_joinaggregate(least="min(us)", most="max(us)", groupby=["dataset"])
        .transform_calculate(
            name="datum.us === datum.most ? datum.dataset : ''",
            best="datum.us === datum.least ? datum.share : ''",
        )
        .encode(
            tooltip=charts.tooltip(
                arm="design",
                dataset="",
                time="prepare + kernel",
                share="share of the limit",
                part="bound by",
                moved="touches",
            )
        )
    )
    # Words about datasets that lie near each other take turns: names in height, shares in the side.
    above, aside, align = (
        alt.ExprRef(f"datum.raised ? {odd} : {even}")
        for odd, even in ((-24, -11), (-9, 9), ("'right'", "'left'"))
    )
    layers = (
        line,
        corner,
        *charts.words(designs, "name:N", dy=above, fontSize=11, limit=100),
        *charts.words(designs, "best:N", dx=aside, align=align, fontSize=11),
        designs.mark_point(shape="diamond", size=60, opacity=0.75, style="ink"),
    )
    return charts.spec(alt.layer(*layers), 380, rows=[])
