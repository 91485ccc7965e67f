"""The traces as they ran: size, distinct rows and origin."""

from __future__ import annotations

from harness.analysis.provenance import Trace
from harness.analysis.report import Report
from harness.report import units
from harness.report.blocks import Cell, Paragraph, Section, Table

PLACE = 130
TOGETHER = True
PINNED = 60_000
"""What the paper pins; how much of a trace falls to so many rows tells what pinning could catch."""
_CAPTION = """Share of distinct rows: of the table's rows. Per batch: of one table. In the hottest rows: share
of the trace's accesses that go to them."""


def page(report: Report) -> Section:
    made = table(report) or Paragraph("No record carries facts of its trace.", "empty")
    return Section("traces", "Traces and their locality", [made], "Traces")


def table(report: Report) -> Table | None:
    """Runs with the same share a line."""
    runs: dict[tuple[str, ...], list[str]] = {}
    for run in report.runs:
        for trace in run.traces:
            runs.setdefault(_texts(trace), []).append(run.name)
    rows = [
        [Cell(name, origin), *(Cell(text, kind="number") for text in figures), Cell(", ".join(where))]
        for (name, origin, *figures), where in runs.items()
    ]
    columns = ["dataset", "accesses", "distinct rows", "share of distinct rows", "distinct per batch"]
    columns += [f"in the hottest {PINNED:,}", "run"]
    return Table(columns, rows, _CAPTION) if rows else None


def _texts(trace: Trace) -> tuple[str, ...]:
    """Name, origin and figures."""
    covered = dict(trace.coverage).get(PINNED)
    return (
        trace.dataset,
        trace.origin,
        _count(trace.accesses),
        _count(trace.distinct_rows),
        f"{trace.distinct_share * 100:.3g} %" if trace.distinct_share is not None else units.NONE,
        _count(trace.batch_distinct_rows),
        units.share(covered) if covered is not None else units.NONE,
    )


def _count(value: float | None) -> str:
    return units.NONE if value is None else f"{value:,.0f}"
