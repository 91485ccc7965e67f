"""No drawing is lost, however the browser deals out its time and whatever fails on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser
from playwright.sync_api import Page as Tab

from tests.unit.report.tabs import Opened, opened

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

CHARTS = 16
# Between the page and Vega: while `held`, drawings wait for release(); `failing` is refused; all are counted.
BETWEEN = """
window.drawings = 0;
window.held = false;
window.failing = "";
window.waiting = [];
window.release = () => { held = false; waiting.splice(0).forEach((go) => go()); };
let vega;
Object.defineProperty(window, "vegaEmbed", {
  get: () => vega && (async (place, ...rest) => {
    drawings++;
    if (held) await new Promise((go) => waiting.push(go));
    if (place.dataset.chart === failing) throw new Error("refused");
    return vega(place, ...rest);
  }),
  set: (value) => { vega = value; },
  configurable: true,
});
"""
# Whenever the page says that it is drawn: charts that show a design which is not picked.
WITNESS = """
window.lies = [];
new MutationObserver(() => {
  if (document.documentElement.dataset.drawn !== "yes") return;
  const picked = [...document.querySelectorAll("[data-pick=arm][aria-pressed=true]")];
  for (const chart of document.querySelectorAll("[data-chart]")) {
    const names = [...chart.querySelectorAll(".role-axis-label text")].map((text) => text.textContent);
    const lie = chart.offsetParent && picked.length && names.includes("l2p_optmt@12.1");
    if (lie) lies.push(chart.dataset.chart);
  }
}).observe(document.documentElement, { attributes: true, attributeFilter: ["data-drawn"] });
"""


def drawn(tab: Tab) -> None:
    tab.wait_for_selector("html[data-drawn=yes]", state="attached")


def pick(tab: Tab, *names: str) -> None:
    """Clicks without a pause between them."""
    tab.evaluate(
        "names => names.forEach((name) => document.querySelector(`[data-pick][value='${name}']`).click())",
        list(names),
    )


def show_all(tab: Tab) -> None:
    tab.evaluate("document.querySelector('[data-pick=all]').click()")


def empty(tab: Tab) -> list[str]:
    """Charts that can be seen and hold nothing."""
    return list(
        tab.evaluate(
            "[...document.querySelectorAll('[data-chart]')]"
            ".filter((place) => place.offsetParent && !place.querySelector('svg'))"
            ".map((place) => place.dataset.chart)"
        )
    )


@pytest.fixture
def page(browser: Browser, report: Path) -> Opened:
    found = opened(browser, report, scripts=(BETWEEN,))
    found.tab.evaluate(WITNESS)
    return found


def test_a_browser_that_is_never_idle_draws_everything(browser: Browser, report: Path) -> None:
    never = "window.requestIdleCallback = (done, { timeout } = {}) => timeout && setTimeout(done, timeout);"
    found = opened(browser, report, scripts=(never,))
    pick(found.tab, "optmt@12.1", "stock", "low")
    show_all(found.tab)
    drawn(found.tab)
    assert empty(found.tab) == []
    assert found.troubles == []


def test_picks_in_the_midst_of_a_drawing_are_drawn_too(page: Opened) -> None:
    tab = page.tab
    tab.evaluate("held = true")
    pick(tab, "optmt@12.1")
    tab.wait_for_function("waiting.length > 0")
    pick(tab, "stock", "low")
    pick(tab, "optmt@12.1", "stock", "low")  # nothing is picked again
    pick(tab, "combined@13.0")
    assert tab.evaluate("document.documentElement.dataset.drawn") == "no"
    tab.evaluate("release()")
    drawn(tab)
    assert empty(tab) == []
    assert tab.evaluate("lies") == []
    names = tab.locator("[data-chart='times-paper-low'] svg .role-axis-label text").all_text_contents()
    assert "combined@13.0" in names
    assert "optmt@12.1" not in names
    assert page.troubles == []


def test_the_page_never_says_that_it_is_drawn_before_it_is(page: Opened) -> None:
    tab = page.tab
    for pause in (0, 1, 5, 20, 60, 150):
        pick(tab, "optmt@12.1")
        tab.wait_for_timeout(pause)
        pick(tab, "stock")
        drawn(tab)
        show_all(tab)
        tab.wait_for_timeout(pause)
    drawn(tab)
    assert tab.evaluate("lies") == []
    assert empty(tab) == []
    assert page.troubles == []


def test_quick_picks_cost_no_more_than_the_last(page: Opened) -> None:
    tab = page.tab
    assert tab.evaluate("drawings") == CHARTS
    # In one go: between two of ours the page would begin with what is in view.
    tab.evaluate(
        "names => { for (const name of names) document.querySelector(`[data-pick][value='${name}']`).click();"
        " document.querySelector('[data-pick=all]').click(); }",
        ["optmt@12.1", "stock", "low", "high", "medium", "low", "stock"],
    )
    drawn(tab)
    assert tab.evaluate("drawings") == 2 * CHARTS


def test_one_that_cannot_be_drawn_stops_no_other(page: Opened) -> None:
    tab = page.tab
    tab.evaluate("failing = 'times-paper-low'")
    pick(tab, "optmt@12.1", "stock")
    drawn(tab)
    assert len(page.troubles) == 1
    assert "times-paper-low cannot be drawn:" in page.troubles[0]
    assert empty(tab) in ([], ["times-paper-low"])
    tab.evaluate("failing = ''")
    show_all(tab)
    drawn(tab)
    assert empty(tab) == []
    assert "l2p_optmt@12.1" in (tab.locator("[data-chart='times-paper-low'] svg").text_content() or "")
    assert len(page.troubles) == 1
