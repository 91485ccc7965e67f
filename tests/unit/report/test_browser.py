"""The page in a real browser, from disk, without network."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import synthetic_run as synthetic
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Page as Tab
from test_page import hostile

from harness.report import page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield chromium
        chromium.close()


@dataclass
class Opened:
    """A page on the screen, with what went wrong on the way there."""

    tab: Tab
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def opened(browser: Browser, path: Path, *, width: int = 1280, scheme: str = "light") -> Opened:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, accept_downloads=True
    )
    found = Opened(context.new_page())
    found.tab.on(
        "console", lambda m: found.troubles.append(m.text) if m.type in ("error", "warning") else None
    )
    found.tab.on("pageerror", lambda error: found.troubles.append(str(error)))
    found.tab.on("requestfailed", lambda request: found.troubles.append(f"failed: {request.url[:80]}"))
    found.tab.on("request", lambda request: found.requests.append(request.url[:80]))
    found.tab.goto(path.as_uri())
    found.tab.wait_for_selector("html[data-ready=yes]", timeout=30_000, state="attached")
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs side by side."""
    folder = tmp_path_factory.mktemp("report")
    paper = synthetic.write_run(folder / "paper", synthetic.experiment())
    modern = synthetic.write_run(folder / "modern", synthetic.experiment("13.0", stock=True))
    return page.render([paper, modern], folder / "report.html")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_opens_from_disk_and_draws_every_chart(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    found = opened(browser, report, width=width, scheme=scheme)
    assert found.troubles == []
    assert [url for url in found.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    charts = found.tab.locator("[data-chart]")
    # Two runs, each with speedups by two metrics and shares of the limit; times per dataset; occupancy.
    assert charts.count() == 2 * 3 + 5 + 1
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
    tooltip.wait_for(timeout=5000)
    assert "95 % interval" in tooltip.inner_text()


def test_a_figure_leads_to_its_record(browser: Browser, report: Path) -> None:
    found = opened(browser, report)
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
    assert len(rows) == len(data["cells"]) == 165
    assert float(rows[3]["kernel_us"]) == data["cells"][3]["kernel_us"]
    assert rows[3]["record"] == data["cells"][3]["record"]
    assert found.troubles == []


def test_hostile_text_neither_runs_nor_breaks_the_page(browser: Browser, tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(), hostile)
    found = opened(browser, page.render([run], tmp_path / "report.html"))
    assert found.troubles == []
    assert found.tab.evaluate("window.broken") is None
    assert found.tab.locator("img").count() == 0
    assert "window.broken=1" in found.tab.locator("#failures").inner_text()


def test_scripts_of_others_are_refused(browser: Browser, report: Path, tmp_path: Path) -> None:
    """The second wall: were something not escaped, the policy would still stop it."""
    broken = tmp_path / "broken.html"
    text = report.read_text(encoding="utf-8").replace("<main>", "<main><script>window.broken=1</script>", 1)
    broken.write_text(text, encoding="utf-8")
    found = opened(browser, broken)
    assert found.tab.evaluate("window.broken") is None
    assert any("Content Security Policy" in trouble for trouble in found.troubles)
