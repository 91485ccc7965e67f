"""Whole inferences and hot rows on the page: only where they were measured, each figure with its source."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from harness.analysis import frame, results
from harness.analysis.results import Results
from harness.experiment import Arm
from harness.records import Cell, CellRecord, Model
from harness.report import hot_rows, inference, page, tables
from tests import synthetic_run as synthetic
from tests.unit.report.tabs import opened

ARMS = (Arm("baseline", "12.1"), Arm("combined", "12.1"), Arm("combined", "12.1", hot_rows="oracle"))
WHOLE = synthetic.experiment(arms=ARMS, datasets=("medium", "random"), model=Model())


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = synthetic.write_run(tmp_path_factory.mktemp("runs") / "whole", WHOLE)
    return results.derive(frame.load([folder]))


def test_the_model_is_told_and_compared_eager_and_as_a_graph(derived: Results) -> None:
    (view,) = inference.views(derived, tables.anchors(derived))
    assert view.model.startswith("13 dense features, bottom MLP 256-128-128, 12 tables, dot interaction, top")
    assert [pair.chart.title for pair in view.speedups if pair.chart] == [
        "By whole inference, eager",
        "By whole inference, CUDA graph",
    ]
    assert [chart.dataset for chart in view.splits] == ["medium", "random"]
    rows = view.splits[0].spec["data"]["values"]
    baseline = [row for row in rows if row["arm"] == "baseline@12.1"]
    assert [row["part"] for row in baseline if row["kind"] == "part"] == [
        "bottom MLP",
        "embedding stage",
        "interaction",
        "top MLP",
    ]
    assert [row["kind"] for row in baseline if row["kind"] != "part"] == ["eager", "CUDA graph"]


def test_every_latency_names_its_records(derived: Results) -> None:
    (view,) = inference.views(derived, tables.anchors(derived))
    rows = view.latencies.rows
    assert [row[0].text for row in rows if len(row) == 1] == ["medium", "random"]
    figures = [cell for row in rows if len(row) > 1 for cell in row[1:]]
    assert len(figures) == 2 * 3 * 8
    assert all(cell.title.startswith("from ") and cell.anchor for cell in figures)
    assert len(view.latencies.columns) == 1 + 8


def test_rows_chosen_beforehand_stand_beside_the_oracles(derived: Results) -> None:
    (view,) = hot_rows.views(derived, tables.anchors(derived))
    (design, *pairs) = view.table.rows
    assert [cell.text for cell in design] == ["combined@12.1"]
    assert [row[0].text for row in pairs] == ["medium", "random"]
    for row in pairs:
        assert (row[1].text, row[4].text) == ("30 %", "90 %")
        assert len(row) == len(view.table.columns)
        assert 1.0 < float(row[-1].text.removesuffix("×")) < 1.25


@pytest.mark.parametrize(("tf32", "said"), [(1.0, "round their factors to TF32"), (0.0, "TF32 is off")])
def test_it_is_said_whether_products_are_rounded(tf32: float, said: str, tmp_path: Path) -> None:
    def made(cell: Cell) -> CellRecord:
        record = synthetic.record(cell, passes=10)
        return dataclasses.replace(record, facts={**record.facts, "allow_tf32": tf32})

    folder = synthetic.write_run(tmp_path / "run", dataclasses.replace(WHOLE, replicates=1), made)
    found = results.derive(frame.load([folder]))
    (view,) = inference.views(found, tables.anchors(found))
    assert said in view.model


def test_a_run_without_a_model_or_pins_has_neither_section(tmp_path: Path) -> None:
    what = dataclasses.replace(WHOLE, arms=ARMS[:1], model=None, replicates=1)
    found = results.derive(frame.load([synthetic.write_run(tmp_path / "run", what)]))
    assert inference.views(found, tables.anchors(found)) == []
    assert hot_rows.views(found, tables.anchors(found)) == []


def test_without_an_oracle_there_are_no_columns_of_dashes(tmp_path: Path) -> None:
    what = dataclasses.replace(WHOLE, arms=ARMS[:2], replicates=1)
    found = results.derive(frame.load([synthetic.write_run(tmp_path / "run", what)]))
    (view,) = hot_rows.views(found, tables.anchors(found))
    assert view.table.columns == ["dataset", "held out: accesses met", "prepare + kernel", "kernel alone"]
    assert all(len(row) in (1, 4) for row in view.table.rows)


def test_a_claim_stands_under_what_it_was_measured_by(derived: Results) -> None:
    found = tables.claims_view(derived, tables.anchors(derived))
    assert found is not None
    assert found.table is not None
    columns = found.table.columns
    assert columns[2:] == [
        "kernel alone",
        "prepare + kernel",
        "embedding stage",
        "whole inference, eager",
        "whole inference, CUDA graph",
    ]
    heads = [n for n, row in enumerate(found.table.rows) if len(row) == 1]
    whole = next(n for n in heads if "whole DLRM inference" in found.table.rows[n][0].text)
    filled = [cell.text != "–" for cell in found.table.rows[whole + 1]]
    assert filled == [True, True, False, False, False, True, True]
    assert any(name.startswith("OptMT") for name in found.missing)


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_draws_inferences_and_follows_the_readers_reference(
    browser: Browser, derived: Results, tmp_path: Path, width: int
) -> None:
    found = opened(browser, page.write(derived, tmp_path / "report.html"), width=width)
    assert found.troubles == []
    for chart in found.tab.locator("#inference [data-chart]").all():
        assert chart.locator("svg .mark-rect path").count() >= 6, chart.get_attribute("data-chart")
    assert found.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert found.tab.locator("#hot-rows td").count() == 2 * 7
    figure = found.tab.locator("#inference .pair td").first
    assert figure.inner_text().split() == ["1", "reference"]
    found.tab.locator("select[data-switch=reference]").select_option("combined@12.1,oracle")
    assert float(figure.inner_text().split()[0].removesuffix("×")) < 0.7
    assert found.troubles == []
