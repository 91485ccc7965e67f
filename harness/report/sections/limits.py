"""The bandwidth that each design achieves, how near that is to what its GPU allows, and where that comes
from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.analysis.limits import Limit, Machine, Need
from harness.analysis.report import Report, Run
from harness.records import Variant
from harness.report import blocks, roofline, shares, units
from harness.report.blocks import Block, Cell, Fold, Paragraph, Section, Table
from harness.report.roofline import PARTS

PLACE = 60
_TITLE = "Roofline: bandwidth achieved, and the limit"
_WHAT = """Three things have to happen at once, and the slowest of them is the limit: each row passes once
from memory to L2 and once from L2 to the multiprocessors, and each row of a bag passes from L1 into
registers. What has to pass where the limit binds ÷ time is the bandwidth achieved; its share of the peak
there is the share of the limit. Peaks were measured in the same processes; times and rates are net of what
events cost; a dash where that cost decides."""
_GRANTED = """Memory to L2: each distinct row once, at the faster of the rates of random rows and of a stream;
indices, sample weights and outputs once. Where all that a pass touches fits L2 and the next looks up the
same, none. L2 to the multiprocessors: the same bytes. L1 to registers: 128 bytes per multiprocessor and
clock. The three overlap without a gap. What is faster than that takes rows that L2 still has from an earlier
pass, or a row loaded once for several bags, and this page says so. What prepares counts with its prepare,
which fetches part of the rows."""
_LRU = """¹ A model, no limit: if L2 and an L1 of 256 KiB were LRU caches, empty at first, and met the rows
bag after bag, this is what the slowest part would take. A kernel that takes rows in another order can be
faster than that, so that bags which share a row meet it at the same time; real caches do worse."""
_ROOFLINE = """Diamonds are designs, higher is faster; above the fastest of each dataset stands its share of
the limit. No kernel gets above the lowest of the roofs of memory, L2 and L1 without rows that L2 still has
from an earlier pass; the distance to it is what a better kernel could still gain. The height is what
benchmarks of embedding lookups print as bandwidth: every row as often as it is looked up."""


def page(report: Report) -> Section:
    found = blocks.per_run(report, _of_run)
    if not found:
        none = "No limit is known: it needs ceilings measured on a GPU, and the trace."
        return Section("limits", _TITLE, [Paragraph(none, "empty")], "Roofline")
    granted = Fold("What the limit takes for granted", [Paragraph(_GRANTED)])
    return Section("limits", _TITLE, [Paragraph(_WHAT), *found, granted], "Roofline")


def _of_run(run: Run) -> list[Block]:
    drawn = roofline.chart(run)
    if drawn is None:
        return []
    found: list[Block] = [Paragraph(sentence, "aside") for sentence in beaten(run)]
    found += [blocks.Charts([drawn], numbers=True, alone=True), Paragraph(_ROOFLINE, "caption"), table(run)]
    if run.machine:
        told: list[Block] = [Paragraph(rates(run.machine)), model(run), Paragraph(_LRU, "caption")]
        found.append(Fold("Where the limit comes from", told))
    return found


def table(run: Run) -> Table:
    """What binds per dataset and its peak in the first row, then variants: bandwidth achieved and its share
    of the peak."""

    def cell(variant: Variant, dataset: str) -> Cell | None:
        found = shares.of(run, variant, dataset)
        if found is None:
            return None
        if found.beats:
            return blocks.number(run, found.achieved, "slower", f"{units.text(found.share)}: beats the limit")
        prepares = run.figure(variant, dataset, "prepare_us") is not None
        details = [f"{units.text(found.share)} of peak"]
        details += [f"{units.text(found.alone)} alone"] if prepares else []
        return blocks.number(run, found.achieved, detail=", ".join(details))

    caption = (
        "Bytes that must pass where the limit binds, each once, ÷ prepare + kernel; below it its share of "
        "the peak there, which is the share of the limit; alone: without the prepare."
    )
    made = blocks.matrix(run, cell, caption=caption)
    limits = [run.limit(dataset) for dataset in run.datasets]
    peaks = [_peak(limit.binding if limit else None) for limit in limits]
    return replace(made, rows=[[Cell("peak", "what binds; the limit"), *peaks], *made.rows])


def _peak(need: Need | None) -> Cell:
    if need is None:
        return blocks.ABSENT
    detail = f"{need.part}; {units.us(need.us)} µs"
    return Cell(units.gbps(need.bytes / need.us / 1e3), detail, PARTS[need.part], kind="number")


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


def brief(report: Report, run: Run) -> Iterator[Block]:
    """What binds per dataset and its peak, each variant's bandwidth and share of the peak; nothing where no
    limit is known."""
    known = [run.limit(dataset) for dataset in run.datasets]
    if not any(known):
        return
    rows = [[Cell("peak", kind="aside"), *(_peak(one.binding if one else None) for one in known)]]
    for variant in run.variants:
        told = ((shares.of(run, variant, dataset), dataset) for dataset in run.datasets)
        rows.append(
            [
                Cell(variant.label),
                *(
                    Cell(units.text(one.achieved), shares.text(run, variant, name), kind="number")
                    if one
                    else blocks.ABSENT
                    for one, name in told
                ),
            ]
        )
    label = f"Bandwidth achieved: {shares.ACHIEVED} of the limit, ✕ where it is beaten."
    yield Table(["bandwidth (of peak)", *run.datasets], rows, label=label, only="markdown")
