"""What failed, and why; and what was never run."""

from __future__ import annotations

from markupsafe import Markup

from harness.analysis.provenance import CellRow
from harness.analysis.report import Report
from harness.report import units
from harness.report.blocks import Block, Fold, Item, Items, Log, Paragraph, Section

PLACE = 150
_UNFOLDED = 5


def page(report: Report) -> Section:
    several = len(report.runs) > 1
    every = [(run, cell) for run in report.runs for cell in run.cells]
    broken = [(n, run, cell) for n, (run, cell) in enumerate(every) if cell.record and cell.status != "ok"]
    pending = [(run, cell) for run, cell in every if not cell.record]
    found: list[Block] = []
    for count, (number, run, cell) in enumerate(broken):
        summary = Markup('<span class="status">{}</span> <a href="#cell-{}">{}</a>{} {}').format(
            *(cell.status, number, cell.id),
            Markup(" <small>{}</small>").format(run.name) if several else "",
            _why(cell),
        )
        log: Block = Log(cell.log) if cell.log else Paragraph("The record holds no log.", "empty")
        found.append(Fold(summary, [log], count < _UNFOLDED, "failure", cell.variant, cell.dataset))
    if not every or not (broken or pending):
        found.append(Paragraph("Nothing: every cell was measured."))
    if pending:
        named = [
            Item(
                Markup("{} <small>{}</small>").format(cell.id, run.name) if several else cell.id,
                cell.variant,
                cell.dataset,
            )
            for run, cell in pending
        ]
        summary_ = f"{units.count(len(pending), 'cell')} planned, without a record"
        found.append(Fold(summary_, [Items(named)]))
    return Section("failures", "What failed, and why", found, f"Failures ({len(broken)})")


def _why(cell: CellRow) -> str:
    if cell.message:
        return cell.message
    if cell.check and not cell.check.passed:
        return cell.check.worst
    if cell.throttled_passes:
        passes = units.count(cell.throttled_passes, "pass", "passes")
        return f"{passes} sampled while the clocks were held back"
    return "The record gives no reason."
