"""Bandwidth by hand-made figures, and what the page makes of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.analysis.analyse import analyse
from harness.analysis.report import Report
from harness.records import Cell, CellRecord, Variant
from harness.report import roofline, sections, shares
from harness.report.blocks import Charts, Group, Table
from tests import synthetic_run as synthetic

OPTMT = Variant("optmt", "12.1")
COMBINED = Variant("combined", "12.1")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return analyse([synthetic.write_run(folder, synthetic.experiment())])


def test_bytes_a_second_follow_from_bytes_and_time(report: Report) -> None:
    (run,) = report.runs
    # 2,048 bags of 150 rows: each row of 128 float32, each row number of 8 bytes, each output of 128 float32.
    asked = 2048 * 150 * (512 + 8) + 2048 * 512
    for variant in (OPTMT, COMBINED):
        for dataset in run.datasets:
            time, rate, achieved, share = (
                run.figure(variant, dataset, name)
                for name in ("total_us", "lookup_gbps", "achieved_gbps", "limit_share")
            )
            limit = run.limit(dataset)
            assert limit is not None
            assert time is not None
            assert rate is not None
            assert achieved is not None
            assert share is not None
            assert rate.value == pytest.approx(asked / time.value / 1e3)
            assert (rate.low, rate.high) == pytest.approx(
                (asked / time.estimate.high / 1e3, asked / time.estimate.low / 1e3)
            )
            assert achieved.value == pytest.approx(limit.binding.bytes / time.value / 1e3)
            assert achieved.title.endswith(limit.binding.part)
            # The share of the limit is the share of the peak where that limit binds.
            peak = limit.binding.bytes / limit.binding.us / 1e3
            assert share.value == pytest.approx(achieved.value / peak)
            assert rate.records == achieved.records == time.records
            assert (rate.unit, achieved.unit) == ("GB/s", "GB/s")


def test_without_a_limit_the_lookups_rate_is_still_known(tmp_path: Path) -> None:
    def bare(cell: Cell) -> CellRecord:
        return dataclasses.replace(synthetic.record(cell), ceilings={"event_floor_us": 1.0})

    (run,) = analyse([synthetic.write_run(tmp_path / "run", synthetic.experiment(), bare)]).runs
    assert run.figure(OPTMT, "random", "lookup_gbps")
    assert run.figure(OPTMT, "random", "achieved_gbps") is None
    assert roofline.chart(run) is None


def test_on_the_cpu_there_is_no_bandwidth(tmp_path: Path) -> None:
    what = synthetic.experiment(workload=synthetic.CPU, timing=synthetic.QUICK, replicates=1)
    (run,) = analyse([synthetic.write_run(tmp_path / "run", what, synthetic.cpu_record)]).runs
    assert not any(place.figure("lookup_gbps") for place in run.places)


def test_no_design_is_drawn_above_its_roof(report: Report) -> None:
    (run,) = report.runs
    chart = roofline.chart(run)
    assert chart is not None
    assert "Roofline of SYNTHETIC GPU" in chart.title
    assert "Nearest to its roof: " in chart.description
    rows = chart.spec["data"]["values"]
    for dataset in run.datasets:
        roofs = [r["rate"] for r in rows if (r["dataset"], r["kind"]) == (dataset, "roof")]
        drawn = [r["rate"] for r in rows if (r["dataset"], r["kind"]) == (dataset, "design")]
        assert len(drawn) == len(run.variants)
        assert max(drawn) < min(roofs)
    parts = {row["part"] for row in rows if row["kind"] == "roof"}
    assert {part.split(",")[0] for part in parts} == {"memory", "L2", "L1", roofline.LRU}
    assert all(part == roofline.LRU or part.endswith(" TB/s") for part in parts)


def test_the_page_says_each_share_once(report: Report) -> None:
    (run,) = report.runs
    section = next(section for section in sections.page(report) if section.id == "limits")
    (group,) = (block for block in section.blocks if isinstance(block, Group))
    (table,) = (block for block in group.blocks if isinstance(block, Table))
    drawn = [chart for block in group.blocks if isinstance(block, Charts) for chart in block.charts]
    assert [chart.id for chart in drawn] == ["roofline-run"]
    assert table.rows[0][0].text == "peak"
    row = next(row for row in table.rows if row[0].text == OPTMT.label)
    for cell, dataset in zip(row[1:], run.datasets, strict=True):
        assert cell.text.endswith(" TB/s")
        assert cell.detail == f"{shares.text(run, OPTMT, dataset)} of peak"
        assert cell.source
