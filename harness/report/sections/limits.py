"""How near each design comes to the least time that its GPU allows, and where that time comes from."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from harness.analysis.limits import Limit, Machine, Need
from harness.analysis.report import Report, Run
from harness.records import Variant
from harness.report import blocks, charts, roofline, shares, units
from harness.report.blocks import Block, Cell, Columns, Fold, Paragraph, Section, Table
from harness.report.charts import Chart
from harness.report.roofline import PARTS

PLACE = 60
_WHAT = """The least time that a lookup could take on the GPU that measured it ÷ the time it took. Three
things have to happen at once, and the slowest of them is the limit: each row passes once from memory to L2
and once from L2 to the multiprocessors, and every row looked up passes from L1 into registers. Times and
rates are net of what events cost; a dash where that cost decides."""
_GRANTED = """Memory to L2: each distinct row once, at the faster of the rates of random rows and of a stream;
indices, sample weights and outputs once. Where all that a pass touches fits L2 and the next looks up the
same, none. L2 to the multiprocessors: the same bytes. L1 to registers: 128 bytes per multiprocessor and
clock. The three overlap without a gap. What is faster than that takes rows that L2 still has from an earlier
pass, or a row loaded once for several bags, and this page says so. What prepares counts with its prepare,
which fetches part of the rows."""
_LRU = """¹ A model, no limit: if L2 and an L1 of 256 KiB were LRU caches, empty at first, and met the rows
bag after bag, this is what the slowest part would take. A kernel that takes rows in another order can be
faster than that, so that bags which share a row meet it at the same time; real caches do worse."""
_ROOFLINE = """Diamonds are designs; beside the fastest stands its share. The limit of a dataset is the
highest of the three lines of memory, L2 and L1 there; the distance to it is what a better kernel could still
gain."""


def page(report: Report) -> Section:
    found = blocks.per_run(report, lambda run: _of_run(run, len(report.runs) > 1))
    if not found:
        none = "No limit is known: it needs ceilings measured on a GPU, and the trace."
        return Section("limits", "Share of the limit", [Paragraph(none, "empty")], "Limits")
    granted = Fold("What the limit takes for granted", [Paragraph(_GRANTED)])
    return Section("limits", "Share of the limit", [Paragraph(_WHAT), *found, granted], "Limits")


def _of_run(run: Run, several: bool) -> list[Block]:
    drawn, line = heatmap(run), roofline.chart(run)
    if not drawn:
        return []
    found: list[Block] = [Paragraph(sentence, "aside") for sentence in beaten(run)]
    found.append(Columns([[drawn], [table(run)]]))
    if line:
        told: list[Block] = [blocks.Charts([line], numbers=True, alone=True), Paragraph(_ROOFLINE, "caption")]
        found += [Fold(line.title, told)] if several else told
    if run.machine:
        told = [Paragraph(rates(run.machine)), model(run), Paragraph(_LRU, "caption")]
        found.append(Fold("Where the limit comes from", told))
    return found


def table(run: Run) -> Table:
    """The limit per dataset in the first rows, then variants: share of the limit."""

    def cell(variant: Variant, dataset: str) -> Cell | None:
        found = shares.of(run, variant, dataset)
        if found is None:
            return None
        if found.beats:
            return blocks.number(run, found.share, "slower", "beats the limit")
        prepares = run.figure(variant, dataset, "prepare_us") is not None
        details = [f"alone {units.text(found.alone)}"] if prepares else []
        return blocks.number(run, found.share, detail=", ".join(details))

    caption = "Limit ÷ prepare + kernel; below it, for designs that prepare, limit ÷ kernel alone."
    made = blocks.matrix(run, cell, caption=caption)
    limits = [run.limit(dataset) for dataset in run.datasets]
    least = [Cell("limit", "each row once"), *(_limit(limit.binding if limit else None) for limit in limits)]
    return replace(made, rows=[least, *made.rows])


def _limit(need: Need | None) -> Cell:
    if need is None:
        return blocks.ABSENT
    return Cell(f"{units.us(need.us)} µs", need.part, PARTS[need.part], kind="number")


def model(run: Run) -> Table:
    """What must move per table and batch, and how long that takes."""
    rows = [
        [
            Cell(limit.dataset),
            Cell(f"{limit.batch_distinct_rows:,.0f}", kind="number"),
            Cell(units.megabytes(limit.compulsory_bytes), kind="number"),
            *(_need(limit, part) for part in PARTS),
            _moved(limit.every_lookup, "number"),
            _limit(limit.lru),
        ]
        for limit in run.limits
    ]
    columns = ["dataset", "distinct rows", "each byte once", *PARTS.values()]
    columns += ["from L2 without help of L1", "LRU, bags in order ¹"]
    caption = "What moves per table and batch (1 MB: 10⁶ bytes), and the least time that it takes."
    return Table(columns, rows, caption)


def _need(limit: Limit, part: str) -> Cell:
    need = next((need for need in limit.needs if need.part == part), None)
    if need is None:
        return blocks.ABSENT
    return _moved(need, "number best" if need == limit.binding else "number")


def _moved(need: Need, kind: str) -> Cell:
    detail = f"{units.us(need.us)} µs" if need.bytes else "all stays in L2"
    return Cell(units.megabytes(need.bytes), detail, kind=kind)


def beaten(run: Run) -> Iterator[str]:
    """A sentence for every figure that is faster than its limit."""
    for place in run.places:
        found = shares.of(run, place.variant, place.dataset)
        if found is not None and found.beats:
            yield (
                f"{place.variant.label} on {place.dataset} is faster than each row once allows, where "
                f"{PARTS[found.limit.binding.part]} binds ({units.text(found.share)}): L2 had rows from the "
                "pass before, or a row was loaded once for several bags."
            )


def rates(gpu: Machine) -> str:
    """What the limits were computed with."""
    l1 = "L1's rate is not known" if not gpu.l1_gbps else f"{units.gbps(gpu.l1_gbps)} from L1 by computation"
    return (
        f"Measured in the same processes: {units.gbps(gpu.random_rows_gbps)} for random rows, "
        f"{units.gbps(gpu.stream_gbps)} for a stream, {units.gbps(gpu.l2_rows_gbps)} for rows out of L2; "
        f"{l1}. L2 holds {units.bytes_(gpu.l2_bytes)}."
    )


def heatmap(run: Run) -> Chart | None:
    """Share of the limit by prepare + kernel; None where no limit is known."""
    rows: list[dict[str, Any]] = []
    for place in run.places:
        if found := shares.of(run, place.variant, place.dataset):
            limit = found.limit
            rows.append(
                {
                    "arm": place.variant.label,
                    "dataset": place.dataset,
                    "share": found.share.value,
                    "label": units.text(found.share),
                    "time": f"{units.text(found.time)} µs",
                    "limit": f"{units.us(limit.binding.us)} µs",
                    "part": PARTS[limit.binding.part],
                }
            )
    if not rows:
        return None
    title = "Share of the limit, by prepare + kernel"
    description = f"{title}. A row per design, a column per dataset; the table has every figure."
    made = charts.with_rows(_heatmap(tuple(run.datasets)), rows, charts.ROW, "arm")
    return Chart(f"limits-{run.name}", title, description, made)


@functools.cache
def _heatmap(datasets: tuple[str, ...]) -> dict[str, Any]:
    import altair as alt

    tooltip = charts.tooltip(
        arm="design",
        dataset="",
        label="share of the limit",
        time="prepare + kernel",
        limit="limit",
        part="bound by",
    )
    base = charts.blank().transform_calculate(depth="min(1, datum.share)")
    # One constant category rather than a colour: the theme gives roles their colours.
    one = alt.Color(datum="share", scale=alt.Scale(domain=["share"], range="category"), legend=None)
    return charts.heatmap(base, datasets, tooltip, one)


def brief(report: Report, run: Run) -> Iterator[Block]:
    """The least time per dataset, what binds, and each variant's share of it; nothing where none is known."""
    known = [run.limit(dataset) for dataset in run.datasets]
    if not any(known):
        return
    least = [f"{units.us(one.binding.us)} µs" if one else units.NONE for one in known]
    parts = [one.binding.part if one else units.NONE for one in known]
    labels = Cell("limit", kind="aside"), Cell("bound by", kind="under")
    rows = [
        [label, *(Cell(text, kind="number aside") for text in row)]
        for label, row in zip(labels, (least, parts), strict=True)
    ]
    for variant in run.variants:
        told = (shares.text(run, variant, dataset) for dataset in run.datasets)
        rows.append([Cell(variant.label), *(Cell(text, kind="number") for text in told)])
    explained = shares.EXPLAINED
    label = f"{explained[0].upper()}{explained[1:]}."
    yield Table(["share of the limit", *run.datasets], rows, label=label, only="markdown")
