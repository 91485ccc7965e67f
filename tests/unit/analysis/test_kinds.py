"""A model whose tables differ: demand and limits of the whole, the time of each kind, what outputs say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness import experiment, plan
from harness.analysis import kind_demand, kinds, limits
from harness.analysis.analyse import analyse
from harness.analysis.report import Report
from harness.groups import TableGroup
from harness.records import Cell, CellRecord, Dataset, Timing, Workload
from harness.report import markdown, page, terminal
from harness.traces import demand
from harness.traces.stretches import Stretches
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

    root = synthetic_run.write_run(tmp_path / "run", made, record)
    kinds = kind_demand.Collected()
    demand.write(plan.make(made).cells, root, also=kinds.add)
    kinds.write(root)
    return analyse([root])


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


def test_each_kind_tells_its_demand_and_its_least_time(report: Report) -> None:
    (run,) = report.runs
    narrow, wide = (one for kind in run.kinds for one in kind.demands)
    # 1,920 draws of 5,000 rows; 128 draws of 70,000 hardly ever meet a row twice.
    assert narrow.distinct_rows == pytest.approx(5000 * (1 - (1 - 1 / 5000) ** 1920), rel=0.02)
    assert wide.distinct_rows == pytest.approx(128, abs=2)
    assert wide.hits < 0.02
    # All distinct rows of the narrow table, of 32 bytes, fit 256 KiB.
    assert narrow.hits == pytest.approx(1 - narrow.distinct_rows / 1920)
    assert narrow.compulsory_bytes == 2 * (narrow.distinct_rows * 32 + 1920 * 8 + 64 * 32)
    assert wide.compulsory_bytes == wide.distinct_rows * 128 + 128 * 8 + 64 * 128
    assert narrow.limit_us is not None
    assert wide.limit_us is not None
    assert (narrow.part, wide.part) == ("L2", "L2")
    rate = run.machine.l2_rows_gbps if run.machine else 0.0
    assert narrow.limit_us == pytest.approx(narrow.compulsory_bytes / rate / 1e3)


def test_the_page_tells_what_each_kind_asks_for(report: Report) -> None:
    html = page.html(report)
    assert "What each kind asks for: random" in html
    assert "least µs per pass" in html


def test_a_run_without_the_file_goes_without_it(tmp_path: Path, report: Report) -> None:
    root = tmp_path / "run"
    for damage in ("{", '{"datasets": {"random": []}, "schema_version": 1}'):
        (root / kind_demand.FILE).write_text(damage, encoding="utf-8")
        (run,) = analyse([root]).runs
        assert [kind.demands for kind in run.kinds] == [[], []]
    assert "What each kind asks for" not in page.html(analyse([root]))


def test_kinds_together_are_the_whole(tmp_path: Path) -> None:
    tables = TableGroup(5000, 8, count=3, pooling=30), TableGroup(900, 32, pooling=2)
    work = Workload(**{**summary(tables), "groups": tables, "batch": 64})  # type: ignore[arg-type]
    cell = Cell("x", "stock", "pytorch", Dataset("skewed"), work, Timing(), 0, 5)
    whole = demand.of(cell, tmp_path)
    each = kind_demand.of(cell, demand.Curves(cell, Stretches.read(cell, tmp_path)))
    bytes_of = [
        group.all_features * one.batch_distinct_rows * one.row_bytes
        for group, one in zip(tables, each, strict=True)
    ]
    assert sum(bytes_of) == pytest.approx(work.tables * whole.batch_distinct_rows * whole.row_bytes)
    gpu = limits.Machine(3000.0, 3000.0, 6000.0, 1, 20_000.0)
    needs = [
        limits.of(kinds.alone(work, group), "cold", one, gpu) for group, one in zip(tables, each, strict=True)
    ]
    together = limits.of(work, "cold", whole, gpu)
    for part in ("memory", "L2", "L1"):
        summed = sum(
            group.all_features * need.us
            for group, limit in zip(tables, needs, strict=True)
            for need in limit.needs
            if need.part == part
        )
        (of_whole,) = (need.us for need in together.needs if need.part == part)
        assert summed == pytest.approx(work.tables * of_whole, rel=0.01)


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
