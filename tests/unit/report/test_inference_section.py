"""Whole inferences and hot rows on the page: only where they were measured, each figure with its source."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from harness.analysis.analyse import analyse
from harness.analysis.report import Report
from harness.records import Cell, CellRecord, Model, Variant
from harness.report import page
from harness.report.blocks import Block, Charts, Columns, Fold, Group, Heading, Paragraph, Section, Table
from harness.report.sections import claims, hot_rows, inference
from tests import synthetic_run as synthetic
from tests.unit.report.tabs import opened

ARMS = (
    Variant("baseline", "12.1"),
    Variant("combined", "12.1"),
    Variant("combined", "12.1", hot_rows="oracle"),
)
WHOLE = synthetic.experiment(arms=ARMS, datasets=("medium", "random"), model=Model())


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = synthetic.write_run(tmp_path_factory.mktemp("runs") / "whole", WHOLE)
    return analyse([folder])


def only(section: Section | None) -> list[Block]:
    """What a section says of the one run that it is about."""
    assert section is not None
    (group,) = [block for block in section.blocks if isinstance(block, Group)]
    return list(group.blocks)


def test_the_model_is_told_and_compared_eager_and_as_a_graph(derived: Report) -> None:
    found = only(inference.page(derived))
    told, beside = found[0], next(block for block in found if isinstance(block, Columns))
    assert isinstance(told, Paragraph)
    assert str(told.text).startswith(
        "13 dense features, bottom MLP 256-128-128, 12 tables, dot interaction, top"
    )
    assert [part[0].text for part in beside.parts if isinstance(part[0], Heading)] == [
        "Speedup by whole inference, eager",
        "Speedup by whole inference, CUDA graph",
    ]
    (splits,) = [block.charts for block in found if isinstance(block, Charts)]
    assert [chart.dataset for chart in splits] == ["medium", "random"]
    rows = splits[0].spec["data"]["values"]
    baseline = [row for row in rows if row["arm"] == "baseline@12.1"]
    assert [row["part"] for row in baseline if row["kind"] == "part"] == [
        "bottom MLP",
        "embedding stage",
        "interaction",
        "top MLP",
    ]
    assert [row["kind"] for row in baseline if row["kind"] != "part"] == ["eager", "CUDA graph"]


def test_every_latency_names_its_records(derived: Report) -> None:
    """In the open where inferences take longest, for that decides what can be served."""
    _, heading, slowest, others, *_ = only(inference.page(derived))
    assert isinstance(heading, Heading)
    assert heading.text == "Serving on random: latency and samples per second"
    assert isinstance(slowest, Table)
    assert isinstance(others, Fold)
    assert others.summary == "The same on medium"
    (medium,) = others.blocks
    assert isinstance(medium, Table)
    for table in (slowest, medium):
        assert table.columns[1:5] == ["eager: p50, µs", "p95, µs", "p99, µs", "samples/s"]
        assert len(table.columns) == 1 + 8
        figures = [cell for row in table.rows for cell in row[1:]]
        assert len(figures) == 3 * 8
        assert all(cell.source and cell.source.records for cell in figures)
    run, baseline = derived.runs[0], Variant("baseline", "12.1")
    rate = run.figure(baseline, "random", "e2e_us_samples_per_second")
    assert rate is not None
    assert slowest.rows[0][4].text == f"{rate.value:,.0f}"


def test_bars_are_sorted(derived: Report) -> None:
    charts = next(block for block in only(inference.page(derived)) if isinstance(block, Charts)).charts
    for chart in charts:
        ends: dict[str, float] = {}
        for row in chart.spec["data"]["values"]:
            if row["kind"] == "part":
                ends[row["name"]] = row["end"]
        assert list(ends.values()) == sorted(ends.values())
        assert f"{next(iter(ends))} is fastest" in chart.description


def test_rows_chosen_beforehand_stand_beside_the_oracles(derived: Report) -> None:
    (table,) = only(hot_rows.page(derived))
    assert isinstance(table, Table)
    (design, *pairs) = table.rows
    assert [cell.text for cell in design] == ["combined@12.1"]
    assert [row[0].text for row in pairs] == ["medium", "random"]
    for row in pairs:
        assert (row[1].text, row[4].text) == ("30 %", "90 %")
        assert len(row) == len(table.columns)
        assert 1.0 < float(row[-1].text.removesuffix("×")) < 1.25


@pytest.mark.parametrize(("tf32", "said"), [(1.0, "round their factors to TF32"), (0.0, "TF32 is off")])
def test_it_is_said_whether_products_are_rounded(tf32: float, said: str, tmp_path: Path) -> None:
    def made(cell: Cell) -> CellRecord:
        record = synthetic.record(cell, passes=10)
        return dataclasses.replace(record, facts={**record.facts, "allow_tf32": tf32})

    folder = synthetic.write_run(tmp_path / "run", dataclasses.replace(WHOLE, replicates=1), made)
    told = only(inference.page(analyse([folder])))[0]
    assert isinstance(told, Paragraph)
    assert said in str(told.text)


def test_a_run_without_a_model_or_pins_has_neither_section(tmp_path: Path) -> None:
    what = dataclasses.replace(WHOLE, arms=ARMS[:1], model=None, replicates=1)
    found = analyse([synthetic.write_run(tmp_path / "run", what)])
    assert inference.page(found) is None
    assert hot_rows.page(found) is None


def test_without_an_oracle_there_are_no_columns_of_dashes(tmp_path: Path) -> None:
    what = dataclasses.replace(WHOLE, arms=ARMS[:2], replicates=1)
    (table,) = only(hot_rows.page(analyse([synthetic.write_run(tmp_path / "run", what)])))
    assert isinstance(table, Table)
    assert table.columns == ["dataset", "held out: accesses met", "prepare + kernel", "kernel alone"]
    assert all(len(row) in (1, 4) for row in table.rows)


def test_a_claim_stands_under_what_it_was_measured_by(derived: Report) -> None:
    section = claims.page(derived)
    assert section is not None
    assert derived.claims is not None
    table = claims.table(derived, derived.claims)
    assert table is not None
    assert table.columns[2:] == [
        "kernel alone",
        "prepare + kernel",
        "embedding stage",
        "whole inference, eager",
        "whole inference, CUDA graph",
    ]
    heads = [n for n, row in enumerate(table.rows) if len(row) == 1]
    whole = next(n for n in heads if "whole DLRM inference" in table.rows[n][0].text)
    filled = [cell.text != "–" for cell in table.rows[whole + 1]]
    assert filled == [True, True, False, False, False, True, True]
    # What was not measured stands in its row and not once more below; what all may differ by, once above.
    assert not [b for b in section.blocks if isinstance(b, Paragraph) and b.kind == "caption"]
    short = claims.rows(derived, derived.claims)
    (optmt,) = [row for row in short.rows if row[0].text.startswith("OptMT")]
    assert optmt[2].text == "not measured here"
    reasons = [row.differs for row in derived.claims.rows]
    for why in {why for differs in reasons for why in differs}:
        everywhere = all(why in differs for differs in reasons)
        assert (why in short.caption) is everywhere
        in_rows = sum(why in row[-1].text for row in short.rows)
        assert in_rows == (0 if everywhere else sum(why in differs for differs in reasons))
    assert any(all(why in differs for differs in reasons) for why in reasons[0])


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_draws_inferences_and_follows_the_readers_reference(
    browser: Browser, derived: Report, tmp_path: Path, width: int
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
