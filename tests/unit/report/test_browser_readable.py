"""Words on charts can be read at every width: legends and names whole, none printed over another."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from harness import experiment
from harness.analysis.analyse import analyse
from harness.records import Model, Variant
from harness.report import page
from tests import synthetic_run as synthetic
from tests.unit.report.tabs import opened

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

# Of every chart that is drawn: words of legends and axes that are cut, by the drawing or by dots, and words
# of one axis or beside points that stand on each other. Vega hides what it leaves out by its opacity.
UNREADABLE = """() => {
    const found = [];
    const seen = (text) => text.textContent && getComputedStyle(text).opacity !== "0";
    for (const svg of document.querySelectorAll("[data-chart] svg")) {
        const name = svg.closest("[data-chart]").dataset.chart;
        const whole = svg.getBoundingClientRect();
        for (const text of svg.querySelectorAll(".role-legend text, .role-axis-label text")) {
            const box = text.getBoundingClientRect();
            const inside = box.left >= whole.left - 1 && box.right <= whole.right + 1
                && box.top >= whole.top - 1 && box.bottom <= whole.bottom + 1;
            const cut = !inside || text.textContent.includes("…");
            if (seen(text) && cut) found.push([name, text.textContent]);
        }
        const groups = [...svg.querySelectorAll(".role-axis-label, .role-legend")];
        const points = /^(registers|occupancy)-/.test(name);
        if (points) groups.push(...svg.querySelectorAll(".mark-text.role-mark"));
        for (const group of groups) {
            const boxes = [...group.querySelectorAll("text")].filter(seen)
                .map((text) => [text.textContent, text.getBoundingClientRect()]);
            boxes.forEach(([one, a], n) => boxes.slice(n + 1).forEach(([other, b]) => {
                const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                if (across > 1 && down > 3) found.push([name, one, other]);
            }));
        }
    }
    return found;
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run of whole inferences; a sweep of many values that lie near one another; three runs that have the
    same baseline."""
    root = tmp_path_factory.mktemp("readable")

    def written(name: str, *folders: Path) -> Path:
        return page.write(analyse(folders), root / f"{name}.html")

    whole = synthetic.experiment(model=Model(), datasets=("one_item", "high", "random"), replicates=2)
    (root / "sweep.toml").write_text(
        'title = "SYNTHETIC"\nreference = "baseline@12.1"\ndatasets = ["medium"]\nreplicates = 1\n'
        'arms = [{design = "baseline", toolchain = "12.1"}, {design = "combined", toolchain = "12.1"},'
        ' {design = "rpf_optmt", toolchain = "13.0"}, {design = "l2p_optmt", toolchain = "12.1"}]\n'
        "[workload]\ntables = 2\n"
        '[[sweep]]\nkey = "workload.batch"\nvalues = [16, 64, 1024, 1536, 2048, 3072, 4096, 16384]\n',
        encoding="utf-8",
    )
    swept = experiment.read(root / "sweep.toml")
    arms = tuple(Variant(name, tool) for tool in ("12.1", "13.0") for name in ("baseline", "optmt"))
    alike = [
        synthetic.write_run(root / name, synthetic.experiment(arms=arms, replicates=1)) for name in "abc"
    ]
    return [
        written("whole", synthetic.write_run(root / "whole", whole)),
        written("swept", synthetic.write_run(root / "swept", swept)),
        written("alike", *alike),
    ]


@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_words_are_whole_and_stand_on_no_others(browser: Browser, pages: list[Path], width: int) -> None:
    seen = set()
    for path in pages:
        found = opened(browser, path, width=width)
        tab = found.tab
        tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        tab.wait_for_function(
            "document.documentElement.dataset.drawn === 'yes' && "
            "[...document.querySelectorAll('[data-chart]')].every((one) => one.dataset.drawn)"
        )
        charts = tab.locator("[data-chart]").evaluate_all("all => all.map((one) => one.dataset.chart)")
        seen |= {name.split("-")[0] for name in charts}
        assert tab.evaluate(UNREADABLE) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert found.troubles == []
    assert {"speedup", "times", "samples", "roofline", "inference", "sweep", "registers", "occupancy"} <= seen


# Parts of names, before and from their toolchain on, and speedups, that a card breaks into lines.
BROKEN = """() => [...document.querySelectorAll(".cards .arm, .cards .speedup")].flatMap((one) =>
    [...one.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).filter((text) => {
        const range = document.createRange();
        range.selectNodeContents(text);
        return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1;
    }).map((text) => text.textContent))"""


def test_names_on_cards_are_whole(browser: Browser, tmp_path: Path) -> None:
    """Those of the paper's five datasets, beside the chart."""
    datasets = ("one_item", "high", "medium", "low", "random")
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(datasets=datasets, replicates=1))
    path = page.write(analyse([run]), tmp_path / "report.html")
    for width in (1440, 1024, 390):
        tab = opened(browser, path, width=width).tab
        assert tab.locator(".cards .speedup").count() == len(datasets)
        assert tab.evaluate(BROKEN) == [], width


def test_many_runs_take_few_screens(browser: Browser, tmp_path: Path) -> None:
    """Of five runs at most eight screens of a laptop: the rest is folded away."""
    folders = [
        synthetic.write_run(tmp_path / str(n), synthetic.experiment(stock=n == 3, replicates=1))
        for n in range(5)
    ]
    tab = opened(browser, page.write(analyse(folders), tmp_path / "report.html"), width=1440).tab
    assert tab.evaluate("document.documentElement.scrollHeight") <= 8 * 900
    assert tab.locator("main section").first.locator("[data-chart^=speedup]").first.is_visible()


def test_a_tooltip_is_not_printed(browser: Browser, pages: list[Path]) -> None:
    tab = opened(browser, pages[0]).tab
    tab.locator("[data-chart^=speedup] svg .mark-rect path").nth(4).hover(force=True)
    tooltip = tab.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert tooltip.is_visible()
    tab.emulate_media(media="print")
    assert not tooltip.is_visible()


def test_no_number_stands_in_the_open_twice(browser: Browser, pages: list[Path]) -> None:
    """Where a chart prints its figures, the table of the same is folded away."""
    tab = opened(browser, pages[0]).tab
    assert tab.locator(".front [data-chart^=speedup]").is_visible()
    assert not tab.locator("#speedups table").first.is_visible()
    assert tab.locator("#times [data-chart]").first.is_visible()
    assert not tab.locator("#times table").first.is_visible()
    assert tab.locator("#limits [data-chart]").count() == 1
    assert tab.locator("#limits table").first.is_visible()
