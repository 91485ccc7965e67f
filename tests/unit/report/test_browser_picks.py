"""What a reader picks on the page: designs, datasets, another reference, logarithms; by click and by key."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from playwright.sync_api import Page as Tab

from harness.analysis.analyse import analyse
from harness.records import Cell, CellRecord
from harness.report import page
from tests import synthetic_run as synthetic
from tests.unit.report.tabs import opened, unfold

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def rows(tab: Tab, section: str) -> list[str]:
    """The designs in a section's tables that can be seen, in order."""
    names = tab.locator(f"#{section} tbody th[scope=row]").all()
    return [name.inner_text().split("\n")[0] for name in names if name.is_visible()]


def labels(tab: Tab, chart: str) -> list[str]:
    """The names along a chart's axes."""
    return tab.locator(f"[data-chart='{chart}'] svg .role-axis-label text").all_text_contents()


def test_picked_designs_and_datasets_are_all_that_is_shown(browser: Browser, report: Path) -> None:
    found = opened(browser, report)
    tab = found.tab
    unfold(tab, "speedups")
    bars = labels(tab, "times-paper-low")
    assert {"baseline@12.1", "combined@13.0", "stock"} <= set(bars)
    tab.get_by_role("button", name="optmt@12.1", exact=True).click()
    tab.get_by_role("button", name="stock", exact=True).click()
    tab.get_by_role("button", name="low", exact=True).click()
    tab.wait_for_function("!document.querySelector('#times').innerText.includes('medium')")
    assert set(rows(tab, "speedups")) == {"optmt@12.1", "stock"}
    assert set(rows(tab, "compilers")) == {"optmt@12.1", "stock"}
    heads = tab.locator("#speedups thead th").all()
    assert {th.inner_text() for th in heads if th.is_visible()} == {"design", "low"}
    assert not tab.locator("[data-chart='times-paper-high']").is_visible()
    tab.wait_for_selector("html[data-drawn=yes]", state="attached")
    assert tab.locator("[data-chart='times-paper-low'] svg .role-mark.mark-text text").count() == 2
    now = labels(tab, "times-paper-low")
    assert "stock" in now
    assert "combined@13.0" not in now
    assert "optmt@12.1, stock, low" in tab.get_by_role("status").inner_text()
    assert tab.locator("#cells tr:not([hidden])[id^=cell-]").count() == 2 * 3
    tab.get_by_role("button", name="Show all").click()
    tab.wait_for_selector("html[data-drawn=yes]", state="attached")
    assert "medium" in tab.locator("#times").inner_text()
    assert labels(tab, "times-paper-low") == bars
    assert not tab.get_by_role("status").is_visible()
    assert found.troubles == []


def test_a_click_on_a_chart_picks(browser: Browser, report: Path) -> None:
    tab = opened(browser, report).tab
    unfold(tab, "speedups")
    chart = tab.locator("[data-chart='speedup-total_us-paper']")
    chart.locator(".role-axis-label text", has_text="l2p_optmt@12.1").click()
    tab.wait_for_function("!document.querySelector('#speedups').innerText.includes('rpf_optmt@12.1')")
    assert set(rows(tab, "speedups")) == {"l2p_optmt@12.1"}
    pressed = tab.locator("button[aria-pressed=true]").all_inner_texts()
    assert pressed == ["l2p_optmt@12.1"]


def test_the_keyboard_reaches_everything(browser: Browser, report: Path) -> None:
    tab = opened(browser, report).tab
    seen = []
    for _ in range(120):
        tab.keyboard.press("Tab")
        seen.append(tab.evaluate("document.activeElement.id || document.activeElement.value || ''"))
        if seen[-1] == "medium":
            outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            tab.keyboard.press("Space")
        if seen[-1] == "save-json":
            break
    assert {"combined@13.0", "medium", "linear", "save-csv", "save-json"} <= set(seen)
    assert outline == "solid"
    assert tab.locator("button[aria-pressed=true]").all_inner_texts() == ["medium"]


def test_another_reference_changes_every_speedup_and_its_interval(browser: Browser, report: Path) -> None:
    found = opened(browser, report)
    tab = found.tab
    unfold(tab, "speedups")
    derived = analyse([report.parent / "paper", report.parent / "modern"])
    paper, over = derived.runs[0], "rpf_optmt@12.1"
    places = {variant.label: number for number, variant in enumerate(paper.variants)}
    tab.get_by_label("Reference SYNTHETIC: the paper's designs under NVRTC 12.1").select_option(over)
    table = tab.locator("#speedups table").first
    for arm in ("baseline@12.1", "combined@12.1"):
        expected = paper.ratios["total_us"][places[over]][places[arm]][-1]
        assert expected is not None
        cell = table.locator("tr", has=tab.locator(f"th:text-is('{arm}')")).locator("td").last
        value, interval = cell.inner_text().split("\n")
        assert value == f"{expected[0]:.2f}×"
        low, high = (float(part) for part in interval.split("–"))
        assert low == pytest.approx(expected[1], abs=0.006)
        assert high == pytest.approx(expected[2], abs=0.006)
    own = table.locator("tr", has=tab.locator(f"th:text-is('{over}')")).locator("td").last
    assert own.inner_text() == "1\nreference"
    slower = table.locator("tr", has=tab.locator("th:text-is('baseline@12.1')")).locator("td").last
    assert "slower" in (slower.get_attribute("class") or "")
    chart = tab.locator("[data-chart='speedup-total_us-paper'] svg .role-mark.mark-text text")
    tab.wait_for_function(
        "document.querySelector(\"[data-chart='speedup-total_us-paper'] svg .role-mark.mark-text text\")"
        "?.textContent.startsWith('0.')"
    )
    assert chart.first.text_content() == table.locator("td .v").first.inner_text()
    # The other run keeps its own reference.
    assert tab.locator("#speedups [data-reference]").all_inner_texts() == [over, "baseline@13.0"]
    assert found.troubles == []


def test_a_card_says_over_what_and_nothing_twice(browser: Browser, tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord:
        made = synthetic.record(cell)
        times = 2.0 if cell.design == "stock" else 1.0
        slower = {name: [value * times for value in values] for name, values in made.samples.items()}
        return dataclasses.replace(made, samples=slower)

    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(stock=True, replicates=2), make)
    tab = opened(browser, page.write(analyse([run]), tmp_path / "report.html")).tab
    card = tab.locator(".cards li").first

    def over() -> list[str]:
        return [one.inner_text() for one in card.locator(".over").all() if one.is_visible()]

    own, library = over()
    assert own == "paper's baseline@12.1"
    assert library.endswith("× PyTorch")
    tab.locator("[data-switch=reference]").select_option("stock")
    own, baseline = over()
    assert own == "PyTorch"
    assert card.locator(".speedup").inner_text() == library.partition(" ")[0]
    assert baseline.endswith("× paper's baseline@12.1")
    tab.locator("[data-switch=reference]").select_option("optmt@12.1")
    assert [one.rpartition("× ")[2] for one in over()] == ["optmt@12.1", "PyTorch", "paper's baseline@12.1"]


def test_logarithmic_axes_begin_above_zero(browser: Browser, report: Path) -> None:
    found = opened(browser, report)
    tab = found.tab
    assert "0" in labels(tab, "times-paper-low")
    tab.get_by_label("Time axes").select_option("log")
    tab.wait_for_function(
        "![...document.querySelectorAll(\"[data-chart='times-paper-low'] svg .role-axis-label text\")]"
        ".some((text) => text.textContent === '0') && "
        "document.querySelectorAll(\"[data-chart='times-paper-low'] svg .mark-rect path\").length > 5"
    )
    paths = tab.locator("[data-chart='times-paper-low'] svg .mark-rect path").all()
    assert all("NaN" not in (path.get_attribute("d") or "NaN") for path in paths)
    assert found.troubles == []


def test_colours_can_be_chosen(browser: Browser, report: Path) -> None:
    tab = opened(browser, report).tab
    look = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(look)
    tab.get_by_label("Colours").select_option("dark")
    assert tab.evaluate(look) != light
    tab.emulate_media(color_scheme="dark")
    tab.get_by_label("Colours").select_option("light")
    assert tab.evaluate(look) == light


def test_what_is_picked_stands_in_the_address(browser: Browser, report: Path) -> None:
    first = opened(browser, report)
    first.tab.get_by_role("button", name="optmt@12.1", exact=True).click()
    first.tab.get_by_role("button", name="low", exact=True).click()
    first.tab.locator("[data-switch=reference]").first.select_option("rpf_optmt@12.1")
    first.tab.get_by_label("Time axes").select_option("log")
    address = first.tab.url
    assert "#?arm=optmt%4012.1&dataset=low&reference=0%3Arpf_optmt%4012.1&scale=log" in address
    again = opened(browser, report)
    again.tab.goto("about:blank")
    again.tab.goto(address)
    again.tab.wait_for_selector("html[data-drawn=yes]", state="attached")
    unfold(again.tab, "speedups")
    assert set(rows(again.tab, "speedups")) == {"optmt@12.1"}
    assert again.tab.locator("[data-switch=reference]").first.input_value() == "rpf_optmt@12.1"
    assert again.tab.locator("[data-switch=scale]").input_value() == "log"
    again.tab.get_by_role("button", name="Show all").click()
    assert "arm=" not in again.tab.url
    again.tab.goto("about:blank")
    again.tab.goto(address.replace("arm=optmt%4012.1", "arm=%3Cimg%3E&reference=9%3Ax&reference=x"))
    again.tab.wait_for_selector("html[data-drawn=yes]", state="attached")
    assert again.troubles == []
