"""The page's second half as plain values: limits, failures, environment, protocol, and every cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from harness.analysis import trust
from harness.analysis.frame import Run
from harness.analysis.limits import Limits
from harness.analysis.results import HEADLINE, Results
from harness.records import CellRecord, Environment
from harness.report import units
from harness.report.tables import Anchors, Cell, Table
from harness.text import clean
from harness.traces.demand import Demand


@dataclass(frozen=True)
class Failure:
    """A cell without a measurement, or one to be read with care."""

    run: str
    id: str
    arm: str
    dataset: str
    status: str
    message: str
    log: str
    anchor: str


CEILINGS = {
    "stream_gbps": "streaming read",
    "random_rows_gbps": "random rows, each read once",
    "l2_rows_gbps": "rows out of L2",
    "event_floor_us": "shortest time the events can tell",
    "event_overhead_us": "what two events add to a kernel's time (taken off every sample)",
}


def ceilings(results: Results) -> Table | None:
    """What the GPU could do in the same processes: median and range over the run's cells."""
    rows = []
    for run in results.loaded.runs:
        seen = {name for record in run.records for name in record.ceilings}
        names = [name for name in CEILINGS if name in seen] + sorted(seen - set(CEILINGS))
        for name in names:
            values = [record.ceilings[name] for record in run.records if name in record.ceilings]
            low, middle, high = (
                (f"{v:.2f} µs" if name.endswith("_us") else units.gbps(v))
                for v in (min(values), median(values), max(values))
            )
            cells = units.count(len(values), "cell")
            row = [Cell(CEILINGS.get(name, name), name), Cell(middle, kind="number")]
            rows.append(
                [*row, Cell(f"{low} to {high}", kind="number"), Cell(cells, kind="number"), Cell(run.name)]
            )
    return Table(["ceiling", "median", "range", "measured in", "run"], rows) if rows else None


FEW = 3
"""More different values than these are counted instead of listed."""


def failures(results: Results, at: Anchors) -> list[Failure]:
    """Every record without a measurement, and every inconclusive one, with the end of its log."""
    return [
        Failure(
            run.name,
            record.cell.id,
            record.cell.arm,
            record.cell.dataset.name,
            record.status,
            record.message or _why(record),
            record.log_tail,
            at.get((run.name, record.cell.id), ""),
        )
        for run in results.loaded.runs
        for record in run.whole.records
        if record.status != "ok"
    ]


def _why(record: CellRecord) -> str:
    if record.check is not None and not record.check.passed:
        return record.check.worst
    if record.throttled_passes:
        passes = units.count(len(record.throttled_passes), "pass", "passes")
        return f"{passes} sampled while the clocks were held back"
    return "The record gives no reason."


def environments(results: Results) -> Table:
    """Every field of the environment, a column per run; where it differs within one, what was seen."""
    runs = results.loaded.runs
    rows = []
    for spec in dataclasses.fields(Environment):
        row = [Cell(spec.name)]
        for run in runs:
            values = [getattr(r.environment, spec.name) for r in run.records if r.environment]
            texts = list(dict.fromkeys(_environment_text(spec.name, value) for value in values))
            shown = " or ".join(texts) if len(texts) <= FEW else f"{len(texts)} values"
            row.append(Cell(shown or units.NONE, title="\n".join(texts) if len(texts) > FEW else ""))
        rows.append(row)
    return Table(["field", *(run.name for run in runs)], rows)


def _environment_text(name: str, value: object) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        return units.bytes_(value)
    return trust.as_text(value) or units.NONE


def differences(results: Results) -> Table | None:
    """What was not the same in every launch of a run; None where all was."""
    rows = [
        [
            Cell(difference.field),
            Cell(value or units.NONE),
            Cell(units.count(len(cells), "cell"), title=", ".join(cells), kind="number"),
            Cell(difference.run),
        ]
        for run in results.loaded.runs
        for difference in trust.differences(run)
        for value, cells in difference.values.items()
    ]
    return Table(["field", "value", "seen in", "run"], rows) if rows else None


def builds(results: Results) -> Table:
    """Which image, source and machine code each arm ran."""
    rows = []
    for run in results.loaded.runs:
        for arm in run.arms:
            here = [r for r in run.records if r.cell.arm == arm]
            images = _distinct(r.environment.image for r in here if r.environment)
            kernels = [r.kernel for r in here if r.kernel]
            rows.append(
                [
                    Cell(results.loaded.contestant(run.name, arm)),
                    Cell(images),
                    Cell(_distinct(k.compiler for k in kernels), _distinct(k.arch for k in kernels)),
                    Cell(_distinct(k.source_hash for k in kernels), kind="code"),
                    Cell(_distinct(k.cubin_sha256[:16] for k in kernels), kind="code"),
                ]
            )
    return Table(["design", "image", "compiler", "design source", "machine code (SHA-256)"], rows)


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value)) or units.NONE


def protocol(run: Run) -> list[tuple[str, str]]:
    """How the run's cells were measured, as name and value."""
    cells = [r.cell for r in run.records] + run.pending
    first = cells[0]
    work, timing = first.workload, first.timing
    tables = units.count(work.tables, "table")
    weights = "per-sample weights" if work.weighted else "no per-sample weights"
    replicates = len({cell.replicate for cell in cells})
    width = f"{timing.relative_interval * 100:g} %"
    times = sorted(r.started_at for r in run.records if r.started_at)
    shape = (
        f"{tables} of {work.rows:,} rows × {work.dim} {work.dtype}; batch {work.batch:,}, {work.pooling} "
        f"rows per bag; {work.index_dtype} indices, {work.mode}, {weights}, on {work.device}"
    )
    sampling = (
        f"{timing.warmup_passes} warm-up passes, then {timing.min_passes} to {timing.max_passes} passes "
        f"until the median's interval is within ±{width} or {timing.max_seconds:g} s are over"
    )
    cache = {
        "steady": "steady: tables in turn, L2 as the passes leave it",
        "cold": "cold: L2 flushed and pins reset before every sample",
    }
    return [
        ("workload", shape),
        ("sampling", sampling),
        ("cache", cache[timing.cache]),
        ("replicates", f"{replicates}, each in a fresh process, arms in a random order of its own"),
        ("seed", ", ".join(sorted({str(cell.seed) for cell in cells}))),
        ("reference", run.reference),
        ("measured", f"{_moment(times[0])} to {_moment(times[-1])}" if times else units.NONE),
        ("folder", clean(run.folder.name)),
    ]


def _moment(stamp: str) -> str:
    """A record's time of day as people read it; as it stands where it is no time."""
    try:
        return f"{datetime.fromisoformat(stamp).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError):  # the second at the ends of the calendar
        return stamp


PINNED = 60_000
"""What the paper pins; how much of a trace falls to so many rows tells what pinning could catch."""


def datasets(results: Results, limits: Limits) -> Table | None:
    """The traces as they ran: size, distinct rows and origin; runs with the same share a line."""
    runs: dict[tuple[str, ...], list[str]] = {}
    for run in results.loaded.runs:
        for name in run.datasets:
            record = next((r for r in run.records if r.cell.dataset.name == name and r.facts), None)
            if record is not None:
                limit = limits.limits.get((run.name, name))
                runs.setdefault(_dataset(record, limit.demand if limit else None), []).append(run.name)
    rows = [
        [Cell(name, origin), *(Cell(text, kind="number") for text in figures), Cell(", ".join(where))]
        for (name, origin, *figures), where in runs.items()
    ]
    columns = ["dataset", "accesses", "distinct rows", "hotness", "distinct per batch"]
    columns += [f"in the hottest {PINNED:,}", "run"]
    caption = (
        "Hotness: distinct rows ÷ rows of the table. Per batch: of one table. In the hottest rows: share of "
        "the trace's accesses that go to them."
    )
    return Table(columns, rows, caption) if rows else None


def _dataset(record: CellRecord, asked: Demand | None) -> tuple[str, ...]:
    """Name, origin and figures."""
    facts, dataset = record.facts, record.cell.dataset
    distinct = facts.get("distinct_rows")
    hotness = facts.get("hotness", distinct / record.cell.workload.rows if distinct is not None else None)
    covered = dict(asked.coverage).get(PINNED) if asked else None
    return (
        dataset.name,
        dataset.origin,
        *(f"{facts[name]:,.0f}" if name in facts else units.NONE for name in ("accesses", "distinct_rows")),
        f"{hotness * 100:.3g} %" if hotness is not None else units.NONE,
        f"{facts['batch_distinct_rows']:,.0f}" if "batch_distinct_rows" in facts else units.NONE,
        units.share(covered) if covered is not None else units.NONE,
    )


def all_cells(results: Results) -> Table:
    """The appendix: every cell of every run, measured or not, with the path of its record."""
    rows = []
    by_id = {(run.name, r.cell.id): r for run in results.loaded.runs for r in run.whole.records}
    for row in results.loaded.cells.to_dict("records"):
        record = by_id.get((row["run"], row["id"]))
        rows.append(
            [
                Cell(
                    row["record"] or row["id"],
                    row["run"] if len(results.loaded.runs) > 1 else "",
                    kind="path",
                ),
                Cell(row["status"], kind="good" if row["status"] == "ok" else "absent"),
                *(Cell(_time(row[name]), kind="number") for name in (HEADLINE, "kernel_us", "stage_us")),
                Cell(f"{row['samples']:,}", f"{row['passes']} passes", kind="number"),
                Cell(_throttled(row["throttled_passes"]), kind="number"),
                _check(record),
                Cell(_clocks(record), kind="number"),
            ]
        )
    columns = ["record", "status", "prepare + kernel, µs", "kernel, µs", "stage, µs", "samples", "throttled"]
    return Table([*columns, "output check", "SM clock, MHz"], rows)


def _time(value: float | None) -> str:
    return units.NONE if value is None or value != value else units.us(value)


def _throttled(passes: int) -> str:
    return f"{passes} passes" if passes else "0"


def _check(record: CellRecord | None) -> Cell:
    if record is None or record.check is None:
        return Cell(units.NONE, kind="absent")
    check = record.check
    title = f"{check.elements:,} elements; worst: {check.worst}"
    if not check.passed:
        return Cell("wrong", f"error {check.max_error:.3g} of the bound", title, kind="slower")
    return Cell("right", f"error {check.max_error:.2g} of the bound", title)


def _clocks(record: CellRecord | None) -> str:
    clocks = [state.sm_clock_mhz for state in record.gpu] if record else []
    if not clocks:
        return units.NONE
    return f"{min(clocks)}" if min(clocks) == max(clocks) else f"{min(clocks)} to {max(clocks)}"
