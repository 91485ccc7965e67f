"""The roofline: how many bytes each design looks up in a second, under what memory, L2 and L1 can give."""

from __future__ import annotations

import functools
from typing import Any

from harness.analysis.limits import Limit, Machine
from harness.analysis.report import Run
from harness.report import charts, names, shares, units
from harness.report.charts import Chart

PARTS = {"memory": "memory to L2", "L2": "L2 to the multiprocessors", "L1": "L1 to registers"}
"""What binds, in words."""
LRU = "LRU caches (a model)"


def chart(run: Run) -> Chart | None:
    """Bandwidth of lookups of every variant on every dataset, against how often a byte is used again; above
    them the roofs. None where no share of a limit is known."""
    if run.machine is None:
        return None
    roofs, rows = _roofs(run.machine), []
    # Datasets with neighbouring places take turns in how far off their names stand.
    by_reuse = sorted(run.limits, key=_reuse)
    for number, limit in enumerate(by_reuse):
        shown = {"dataset": limit.dataset, "reuse": _reuse(limit), "raised": number % 2}
        needs = [*((roofs[need.part], need) for need in limit.needs), (LRU, limit.lru)]
        rows += [
            {
                **shown,
                "kind": "roof",
                "part": part,
                "rate": limit.every_lookup.bytes / need.us / 1e6,
                "moved": units.megabytes(need.bytes),
                "time": f"{units.us(need.us)} µs",
            }
            for part, need in needs
            if need.us > 0
        ]
        rows += _designs(run, limit, shown)
    if not any(row["kind"] == "design" for row in rows):
        return None
    return Chart(
        f"roofline-{run.name}",
        f"Roofline of {names.where(run)}",
        f"Roofline: bytes looked up a second against how often a byte of memory is used. {told(run)}",
        charts.with_rows(_template((*roofs.values(), LRU)), rows),
        work=names.done(run),
    )


def _reuse(limit: Limit) -> float:
    """Bytes looked up ÷ bytes that must come from memory."""
    return limit.every_lookup.bytes / limit.compulsory_bytes


def _roofs(gpu: Machine) -> dict[str, str]:
    """By part of the memory system its name and peak."""
    rates = {
        "memory": max(gpu.random_rows_gbps, gpu.stream_gbps),
        "L2": gpu.l2_rows_gbps,
        "L1": gpu.l1_gbps,
    }
    return {part: f"{part}, {units.gbps(rate)}" for part, rate in rates.items()}


def _designs(run: Run, limit: Limit, shown: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for variant in run.variants:
        found = shares.of(run, variant, limit.dataset)
        rate = run.figure(variant, limit.dataset, "lookup_gbps")
        if found and rate:
            rows.append(
                {
                    **shown,
                    "kind": "design",
                    "arm": variant.label,
                    "rate": rate.value / 1e3,
                    "lookups": units.text(rate),
                    "time": f"{units.text(found.time)} µs",
                    "achieved": f"{units.text(found.achieved)} {limit.binding.part}",
                    "share": units.text(found.share),
                    "near": f"{variant.design} {units.text(found.share)}",
                }
            )
    return rows


def told(run: Run) -> str:
    """Who comes nearest to the roof on each dataset, in words."""
    nearest = []
    for dataset in run.datasets:
        found = [(s, variant) for variant in run.variants if (s := shares.of(run, variant, dataset))]
        if found:
            best, variant = max(found, key=lambda one: one[0].share.value)
            share = f"{units.text(best.share)} of the peak of {best.limit.binding.part}"
            nearest.append(f"on {dataset} {variant.label}, {share}")
    return f"Nearest to its roof: {'; '.join(nearest)}."


@functools.cache
def _template(roofs: tuple[str, ...]) -> dict[str, Any]:
    import altair as alt

    x = alt.X(
        "reuse:Q",
        title="bytes looked up per byte that memory must give",
        scale=alt.Scale(type="log", padding=40, nice=False),
        axis=alt.Axis(format=",~r", tickCount=5, gridOpacity=0.5),
    )
    y = alt.Y(
        "rate:Q",
        title="bytes looked up, TB/s",
        scale=alt.Scale(type="log", padding=32, nice=False),
        axis=alt.Axis(format=",~r", tickCount=5, gridOpacity=0.5),
    )
    base = charts.blank().encode(x=x, y=y)
    roof = base.transform_filter("datum.kind === 'roof'").encode(
        color=alt.Color(
            "part:N", scale=alt.Scale(domain=list(roofs), range="category"), legend=charts.legend(roofs)
        ),
        strokeDash=alt.StrokeDash(
            "part:N", scale=alt.Scale(domain=list(roofs), range=[[1, 0], [7, 3], [2, 3], [1, 5]])
        ),
        tooltip=charts.tooltip(dataset="", part="roof of", moved="must move", time="takes at least"),
    )
    line = roof.mark_line(strokeWidth=2).encode(order=alt.Order("reuse:Q"))
    corner = roof.mark_point(size=25, opacity=1)
    designs = (
        base.transform_filter("datum.kind === 'design'")
        .transform_joinaggregate(least="min(rate)", most="max(rate)", groupby=["dataset"])
        .transform_calculate(
            name="datum.rate === datum.least ? datum.dataset : ''",
            best=f"datum.rate === datum.most ? ({charts.PLACE} < 560 ? datum.share : datum.near) : ''",
        )
        .encode(
            tooltip=charts.tooltip(
                arm="design",
                dataset="",
                time="prepare + kernel",
                lookups="looked up",
                achieved="achieved",
                share="share of peak",
            )
        )
    )
    above, below = (alt.ExprRef(f"datum.raised ? {odd} : {even}") for odd, even in ((-25, -11), (29, 15)))
    layers = (
        line,
        corner,
        designs.mark_point(shape="diamond", size=60, opacity=0.75, style="ink"),
        *charts.words(designs, "name:N", dy=below, fontSize=11, limit=100),
        *charts.words(designs, "best:N", dy=above, fontSize=11, limit=120),
    )
    return charts.spec(alt.layer(*layers), 380, rows=[])
