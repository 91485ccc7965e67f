"""How near each design comes to the limit, and how long a pin would have to last, as the page shows them."""

from __future__ import annotations

from harness.analysis import limits, pins
from harness.analysis.frame import Run
from harness.analysis.limits import Limit, Limits, Need, Share
from harness.analysis.results import Results
from harness.report import tables, units
from harness.report.heatmaps import PARTS
from harness.report.tables import Anchors, Cell, Table

_WHY = {
    "memory": "takes rows in an order that lets L2 have more of them, or L2 does better than LRU",
    "L2": "takes rows in an order that lets L1 have more of them",
    "L1": "does not load rows anew for every bag that holds them",
}
"""The likeliest way past the limit of bags in order, by the part that was to bind."""


def shares(results: Results, run: Run, found: Limits, at: Anchors) -> Table:
    """The limit per dataset in the first row, then arms: share of the limit with its interval."""
    known = [found.limits.get((run.name, dataset)) for dataset in run.datasets]
    rows = [
        [Cell("limit", "bags in order"), *(_limit(limit.binding if limit else None) for limit in known)],
        [
            Cell("limit", "rows in any order"),
            *(_limit(limit.binding_in_any_order if limit else None) for limit in known),
        ],
    ]
    for arm in run.arms:
        row = [Cell(arm)]
        for dataset in run.datasets:
            share = found.share(run, arm, dataset)
            if share is None:
                row.append(Cell(units.NONE, kind="number absent"))
                continue
            prepares = results.measurement(run, arm, dataset, "prepare_us") is not None
            details = [f"alone {units.share(share.kernel_share)}"] if prepares else []
            if share.beats:
                details.append(f"any order {units.share(share.any_order.value)}")
            row.append(
                Cell(
                    units.share(share.share.value),
                    "beats the limit" if share.beats_any_order else ", ".join(details),
                    kind="number slower" if share.beats_any_order else "number",
                    **tables.source_of(share.records, run.name, at),
                )
            )
        rows.append(row)
    caption = (
        "Limit of bags in order ÷ prepare + kernel. Below it, for designs that prepare, limit ÷ kernel "
        "alone, and where the limit is beaten, the share of that for rows in any order."
    )
    return Table(["design", *run.datasets], rows, caption)


def _limit(need: Need | None) -> Cell:
    if need is None:
        return Cell(units.NONE, kind="number absent")
    return Cell(f"{units.us(need.us)} µs", need.part, PARTS[need.part], kind="number")


def model(run: Run, found: Limits) -> Table | None:
    """What must move per table and batch, and how long that takes; None where no limit is known."""
    known = [limit for name in run.datasets if (limit := found.limits.get((run.name, name)))]
    if not known:
        return None
    rows = [
        [
            Cell(limit.dataset),
            Cell(f"{limit.demand.batch_distinct_rows:,.0f}", kind="number"),
            Cell(units.megabytes(limit.compulsory_bytes), kind="number"),
            *(_need(limit, part) for part in PARTS),
            _moved(limit.every_lookup, "number"),
        ]
        for limit in known
    ]
    columns = ["dataset", "distinct rows", "each byte once", *PARTS.values(), "from L2 without help of L1"]
    return Table(
        columns, rows, "What moves per table and batch (1 MB: 10⁶ bytes), and the least time that it takes."
    )


def _need(limit: Limit, part: str) -> Cell:
    need = next((need for need in limit.needs if need.part == part), None)
    if need is None:
        return Cell(units.NONE, kind="number absent")
    return _moved(need, "number best" if need is limit.binding else "number")


def _moved(need: Need, kind: str) -> Cell:
    detail = f"{units.us(need.us)} µs" if need.bytes else "all stays in L2"
    return Cell(units.megabytes(need.bytes), detail, kind=kind)


def beaten(found: Limits, run: Run) -> list[str]:
    """A sentence for every figure that is faster than its limit."""
    return [_way_past(share) for share in found.shares.values() if share.run == run.name and share.beats]


def _way_past(share: Share) -> str:
    faster = (
        f"{share.arm} on {share.dataset} is faster than bags in order allow, where {PARTS[share.part]} binds "
        f"({units.share(share.share.value)}): most likely it {_WHY[share.part]}."
    )
    least = units.share(share.any_order.value)
    if share.beats_any_order:
        return (
            f"{faster} It is faster even than fetching each row once allows ({least}): L2 had rows from the "
            "pass before, or a row was loaded once for several bags."
        )
    return f"{faster} It reaches {least} of what fetching each row once, in whatever order, would take."


def rates(run: Run) -> str:
    """What the run's limits were computed with; empty where there are none."""
    gpu = limits.machine(run)
    if gpu is None:
        return ""
    l1 = "L1's rate is not known" if not gpu.l1_gbps else f"{units.gbps(gpu.l1_gbps)} from L1 by computation"
    return (
        f"Measured in the same processes: {units.gbps(gpu.random_rows_gbps)} for random rows, "
        f"{units.gbps(gpu.stream_gbps)} for a stream, {units.gbps(gpu.l2_rows_gbps)} for rows out of L2; "
        f"{l1}. L2 holds {units.bytes_(gpu.l2_bytes)}."
    )


def pin_table(results: Results, run: Run, at: Anchors) -> Table | None:
    """Pinning arms in rows: lookups per pin from which on pinning pays; None where nothing can be said."""
    found = {(pin.arm, pin.dataset): pin for pin in pins.find(results) if pin.run == run.name}
    rows = []
    for arm in dict.fromkeys(name for name, _ in found):
        without = next(pin.without for pin in found.values() if pin.arm == arm)
        row = [Cell(arm, f"against {without}")]
        for dataset in run.datasets:
            pin = found.get((arm, dataset))
            if pin is None:
                row.append(Cell(units.NONE, kind="number absent"))
                continue
            source = tables.source_of(pin.records, run.name, at)
            cost = units.us(pin.prepare_us)
            if pin.lookups is None:
                row.append(Cell("never", f"{cost} µs, no gain", kind="number", **source))
                continue
            span = f"{pin.lookups.low:.1f}–{pin.lookups.high:.1f}"
            detail = f"{span}; {cost} ÷ {units.us(pin.saved_us)} µs"
            row.append(Cell(f"{pin.lookups.value:.1f}", detail, kind="number", **source))
        rows.append(row)
    label = f"Lookups per pin from which on pinning pays, {run.title}"
    return Table(["design", *run.datasets], rows, label=label) if rows else None
