"""The page in a real browser, from disk, without network."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from pydantic import TypeAdapter

from harness.analysis.analyse import analyse
from harness.analysis.report import Report
from harness.report import page
from tests import synthetic_run as synthetic
from tests.unit.report.tabs import Scheme, opened, unfold
from tests.unit.report.test_page import hostile

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_opens_from_disk_and_draws_every_chart(
    browser: Browser, report: Path, width: int, scheme: Scheme
) -> None:
    found = opened(browser, report, width=width, scheme=scheme)
    assert found.troubles == []
    assert [url for url in found.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    charts = found.tab.locator("[data-chart]")
    # Two runs, each with speedups and a roofline; times and samples per dataset; registers, and occupancy.
    assert charts.count() == 2 * 2 + 2 * 5 + 2
    for number in range(charts.count()):
        marks = charts.nth(number).locator("svg .mark-rect path, svg .mark-symbol path")
        assert marks.count() >= 5, charts.nth(number).get_attribute("data-chart")
    # Nothing sticks out to the side.
    assert found.tab.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_and_light_recolour_text_and_bars(browser: Browser, report: Path) -> None:
    found = opened(browser, report)
    look = """() => {
        const text = document.querySelector("[data-chart^=times] svg .mark-text text");
        const bar = document.querySelector("[data-chart^=times] svg .mark-rect path");
        return [getComputedStyle(document.body).backgroundColor, getComputedStyle(text).fill,
                getComputedStyle(bar).fill];
    }"""
    light = found.tab.evaluate(look)
    found.tab.emulate_media(color_scheme="dark")
    dark = found.tab.evaluate(look)
    assert all(a != b for a, b in zip(light, dark, strict=True))
    assert all(value.startswith("rgb(") for value in light + dark)
    found.tab.emulate_media(media="print")
    assert found.tab.evaluate(look)[:2] == ["rgb(255, 255, 255)", "rgb(68, 68, 68)"]


def test_hover_shows_the_figure(browser: Browser, report: Path) -> None:
    found = opened(browser, report)
    found.tab.locator("[data-chart^=speedup] svg .mark-rect path").nth(7).hover(force=True)
    tooltip = found.tab.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert "95 % interval" in tooltip.inner_text()


def test_a_figure_leads_to_its_record(browser: Browser, report: Path) -> None:
    found = opened(browser, report)
    unfold(found.tab, "speedups")
    found.tab.locator("#speedups td.best a").first.click()
    row = found.tab.locator("tr:target")
    assert row.is_visible()
    assert "cells/rpf_optmt-12.1-one_item-r0/record.json" in row.inner_text()


def test_data_can_be_taken_away(browser: Browser, report: Path) -> None:
    found = opened(browser, report)
    texts = {}
    for button in ("save-csv", "save-json"):
        with found.tab.expect_download() as download:
            found.tab.click(f"#{button}")
        texts[button] = Path(download.value.path()).read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(texts["save-csv"], newline="")))
    data = json.loads(texts["save-json"])
    cells = [cell for run in data["runs"] for cell in run["cells"]]
    assert len(rows) == len(cells) == 165
    assert float(rows[3]["kernel_us"]) == cells[3]["times"]["kernel_us"]
    assert rows[3]["record"] == cells[3]["record"]
    assert (rows[3]["arm"], rows[3]["design"], rows[3]["toolchain"]) == ("baseline@12.1", "baseline", "12.1")
    assert (rows[3]["registers"], rows[3]["kernel"], rows[3]["check_passed"]) == ("88", "baseline", "true")
    # What the page hands out is the report, but for digits that nothing measured has.
    again = TypeAdapter(Report).validate_python(data)
    made = analyse([report.parent / "paper", report.parent / "modern"])
    assert [run.variants for run in again.runs] == [run.variants for run in made.runs]
    for one, other in zip(again.runs[0].places, made.runs[0].places, strict=True):
        assert [figure.value for figure in one.figures] == pytest.approx(
            [figure.value for figure in other.figures], rel=1e-5
        )
    assert found.troubles == []


def test_hostile_text_neither_runs_nor_breaks_the_page(browser: Browser, tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(), hostile)
    found = opened(browser, page.write(analyse([run]), tmp_path / "report.html"))
    assert found.troubles == []
    assert found.tab.evaluate("window.broken") is None
    assert found.tab.locator("img").count() == 0
    assert "window.broken=1" in found.tab.locator("#failures").inner_text()


def test_scripts_of_others_are_refused(browser: Browser, report: Path, tmp_path: Path) -> None:
    """The second wall: were something not escaped, the policy would still stop it."""
    broken = tmp_path / "broken.html"
    text = report.read_text(encoding="utf-8").replace(
        "<footer>", "<footer><script>window.broken=1</script>", 1
    )
    broken.write_text(text, encoding="utf-8")
    found = opened(browser, broken)
    assert found.tab.evaluate("window.broken") is None
    assert any("Content Security Policy" in trouble for trouble in found.troubles)
