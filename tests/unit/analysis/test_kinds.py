"""A model whose tables differ: demand and limits of the whole, the time of each kind, what outputs say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness import experiment
from harness.analysis.analyse import analyse
from harness.analysis.report import Report
from harness.groups import TableGroup
from harness.records import Cell, CellRecord, Dataset, Timing, Workload
from harness.report import markdown, page, terminal
from harness.traces import demand
from harness.workload import summary
from tests import synthetic_run

MODEL = """
title = "Mine"
source = "me"
batch = 64
tables = [
    { rows = 5000, dim = 8, pooling = 30, count = 2, places = "0,2" },
    { rows = 90000, dim = 32, pooling = 2, places = "1" },
]
"""


@pytest.fixture
def report(tmp_path: Path) -> Report:
    (tmp_path / "mine.toml").write_text(MODEL, encoding="utf-8")
    made = experiment.of_designs(
        ["fused"], "12.1", ["model.max_rows=70000", 'datasets=["random"]'], str(tmp_path / "mine.toml")
    )

    def record(cell: Cell) -> CellRecord:
        found = synthetic_run.record(cell, passes=4)
        samples: dict[str, Any] = {"kernel_us": [1.0, 10.0, 3.0] * 4, "stage_us": [15.0] * 4}
        if cell.design == "fused":
            samples = {"kernel_us": [2.0] * 4, "stage_us": [6.0] * 4}
        return dataclasses.replace(found, samples=samples)

    return analyse([synthetic_run.write_run(tmp_path / "run", made, record)])


def test_the_time_of_a_pass_is_shared_out_by_kind(report: Report) -> None:
    (run,) = report.runs
    assert [(kind.rows, kind.dim, kind.tables, kind.lookups) for kind in run.kinds] == [
        (5000, 8, 2, 2 * 30 * 64),
        (70000, 32, 1, 2 * 64),
    ]
    assert [kind.table_bytes for kind in run.kinds] == [2 * 5000 * 32, 70000 * 128]
    assert [kind.asked_bytes for kind in run.kinds] == [2 * 30 * 64 * 32, 2 * 64 * 128]
    times = [{time.variant.design: time.us for time in kind.times} for kind in run.kinds]
    assert times == [{design: pytest.approx(us) for design in ("baseline", "stock")} for us in (4, 10)], (
        "those that launch once for all tables cannot be shared out"
    )


def test_designs_are_compared_by_whole_passes(report: Report) -> None:
    (run,) = report.runs
    assert run.headline == "stage_us"
    fused = next(variant for variant in run.variants if variant.design == "fused")
    time, ratio = run.timed(fused, "random", "stage_us")
    assert time is not None
    assert ratio is not None
    assert time.value == pytest.approx(6)
    assert ratio.value == pytest.approx(2.5)


def test_every_output_names_the_model_and_what_was_cut(report: Report) -> None:
    console = Console(record=True, width=200)
    terminal.show(report, console)
    said = "mine: 3 tables of 5,000 to 70,000 rows (larger ones cut down to 70,000) × 8–32 float32; batch 64"
    html = page.html(report)
    for printed in (console.export_text(), markdown.of(report), html):
        output = " ".join(printed.split())  # titles are folded on a terminal
        assert said in output
        assert "tables cut down to 70,000 rows" in output
    assert "5,000 × 8" in html
    assert "4.00 (29 %)" in html


def test_a_model_of_equal_tables_asks_what_such_a_workload_does(tmp_path: Path) -> None:
    alike = (TableGroup(2000, 16, count=4, pooling=10),)
    plain = Workload(tables=4, rows=2000, dim=16, batch=32, pooling=10)
    works = [plain, dataclasses.replace(plain, groups=alike)]
    of_plain, of_model = (
        demand.of(Cell("x", "stock", "pytorch", Dataset("one_item"), work, Timing(), 0, 5), tmp_path)
        for work in works
    )
    for name in ("lookups", "row_bytes", "batch_distinct_rows", "misses"):
        assert getattr(of_plain, name) == getattr(of_model, name)


def test_rows_of_narrow_tables_count_by_their_bytes(tmp_path: Path) -> None:
    tables = TableGroup(100, 16, pooling=50), TableGroup(100, 4, pooling=50)
    work = Workload(**{**summary(tables), "groups": tables, "batch": 64})  # type: ignore[arg-type]
    cell = Cell("x", "stock", "pytorch", Dataset("random"), work, Timing(), 0, 5)
    asked = demand.of(cell, tmp_path)
    assert asked.row_bytes == 64
    # All 100 rows of either, of 64 and 16 bytes.
    assert asked.batch_distinct_rows == pytest.approx((100 + 25) / 2, rel=0.01)
    assert work.loaded_bytes == 64 * 50 * (64 + 16) // 2
