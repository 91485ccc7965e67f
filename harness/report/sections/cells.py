"""The appendix: every cell of every run, measured or not, with the path of its record."""

from __future__ import annotations

from harness.analysis.provenance import CellRow
from harness.analysis.report import Report
from harness.report import units
from harness.report.blocks import Cell, Fold, Paragraph, Section, Table

PLACE = 160
TOGETHER = True
_FEW = 30
"""No more are not folded away."""
_WHAT = """Paths are within the run's folder. Every figure above links to the first of its records here;
hovering names them all."""
_COLUMNS = (
    *("record", "status", "prepare + kernel, µs per table", "kernel, µs per table", "stage, µs per batch"),
    *("samples", "throttled"),
    *("output check", "SM clock, MHz"),
)


def page(report: Report) -> Section:
    several = len(report.runs) > 1
    rows = [_row(cell, run.name if several else "") for run in report.runs for cell in run.cells]
    every = Fold(units.count(len(rows), "cell"), [Table(_COLUMNS, rows, kind="cells")], len(rows) <= _FEW)
    return Section("cells", "All cells", [Paragraph(_WHAT), every])


def _row(cell: CellRow, run: str) -> list[Cell]:
    return [
        Cell(cell.record or cell.id, run, kind="path"),
        Cell(cell.status, kind="good" if cell.status == "ok" else "absent"),
        *(
            Cell(units.us(cell.times.get(name)), kind="number")
            for name in ("total_us", "kernel_us", "stage_us")
        ),
        Cell(f"{cell.samples:,}", f"{cell.passes} passes", kind="number"),
        Cell(f"{cell.throttled_passes} passes" if cell.throttled_passes else "0", kind="number"),
        _check(cell),
        Cell(_clocks(cell), kind="number"),
    ]


def _check(cell: CellRow) -> Cell:
    check = cell.check
    if check is None:
        return Cell(units.NONE, kind="absent")
    title = f"{check.elements:,} elements; worst: {check.worst}"
    if not check.passed:
        return Cell("wrong", f"error {check.max_error:.3g} of the bound", title, kind="slower")
    return Cell("right", f"error {check.max_error:.2g} of the bound", title)


def _clocks(cell: CellRow) -> str:
    least, most = cell.sm_clock_mhz_min, cell.sm_clock_mhz_max
    if least is None:
        return units.NONE
    return f"{least}" if least == most else f"{least} to {most}"
