"""A history in words, as a page in a real browser, and on a terminal."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from rich.console import Console

from harness.analysis import over_time
from harness.analysis.timeline import History
from harness.records import Workload
from harness.report import history, page, terminal
from tests import synthetic_history as days
from tests import synthetic_run as synthetic
from tests.unit.report.tabs import Scheme, opened
from tests.unit.report.test_page import HOSTILE, Page

in_browser = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def at(folder: Path, name: str = "nightly") -> History:
    folders = {path.parent.name: path.parent for path in folder.glob("*/plan.json")}
    return over_time.find(folders, name)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Three runs joined, optmt faster in the last, which was on another board; one of other work."""
    folder = tmp_path_factory.mktemp("history")
    days.write(folder, 1)
    days.write(folder, 2)
    days.write(folder, 4, {"optmt": 1.08}, gpu_uuid="GPU-2", driver="590.00")
    other = days.experiment(workload=Workload(batch=1024), datasets=("medium",))
    synthetic.write_run(folder / "day-3", other, days.on_day(3))
    return at(folder)


@pytest.fixture(scope="module")
def written(found: History, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "history.html"
    out.write_text(page.of_history(found), encoding="utf-8")
    return out


def test_a_change_in_a_sentence(found: History) -> None:
    setting = found.settings[0]
    told = [history.sentence(setting, change) for change in setting.changes]
    expected = (
        r"optmt@12\.1 on (medium|random) became 1\.0\d+ ± 0\.0\d+ times as fast between day-2 \(bbbbbbb\) "
        r"and day-4 \(ddddddd\)\. What differs: driver: 580\.00 against 590\.00\. It was another board of "
        r"that model, which alone may be why\."
    )
    assert len(told) == 2
    assert all(re.fullmatch(expected, sentence) for sentence in told), told


def test_the_first_sentence_says_what_the_latest_run_brought(found: History, tmp_path: Path) -> None:
    assert history.headline(found) == (
        "3 runs on SYNTHETIC GPU 80GB (no such thing) from 2001-01-01 to 2001-01-04. The latest run brought "
        "2 changes: 2 for the better."
    )
    days.write(tmp_path, 1)
    assert history.ALONE in history.headline(at(tmp_path))
    days.write(tmp_path, 2)
    assert history.CALM in history.headline(at(tmp_path))
    days.write(tmp_path, 3, {"baseline": 0.9})
    days.write(tmp_path, 4, {"baseline": 0.9})
    assert history.headline(at(tmp_path)).endswith("2 changes: 2 for the worse; the latest run brought none.")


def test_runs_on_the_cpu_are_no_results_of_a_gpu(tmp_path: Path) -> None:
    what = days.experiment(workload=synthetic.CPU)
    synthetic.write_run(tmp_path / "day-1", what, synthetic.cpu_record)
    (setting,) = at(tmp_path).settings
    assert history.work(setting).endswith(
        "on SYNTHETIC CPU. Measured on the CPU with PyTorch's own operator; not a GPU result."
    )


def test_the_page_names_commit_gpu_and_why_runs_are_apart(written: Path) -> None:
    found = Page(written.read_text(encoding="utf-8"))
    assert found.outside == []
    for words in ("aaaaaaaaaaaa", "dddddddddddd", "GPU-00000000", "GPU-2", "590.00", "day-3"):
        assert words in found.text
    assert "Not joined with the runs before them: workload.batch: 2048 against 1024." in found.text


def test_a_terminal_of_80_columns(found: History) -> None:
    out = io.StringIO()
    terminal.put(history.terminal(found), Console(file=out, width=80, highlight=False))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "optmt@12.1      1.08×" in out.getvalue()
    assert "which alone may be why" in out.getvalue().replace("\n", " ")
    assert len(lines) < 40


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
class TestInBrowser:
    pytestmark = in_browser

    def test_opens_from_disk_and_draws_every_chart(
        self, browser: Browser, written: Path, width: int, scheme: Scheme
    ) -> None:
        found = opened(browser, written, width=width, scheme=scheme)
        assert found.troubles == []
        assert [url for url in found.requests if not url.startswith(("file:", "data:"))] == []
        for details in found.tab.locator("details:not([data-numbers])").all():
            details.evaluate("one => { one.open = true; }")
        found.tab.wait_for_function(
            "document.querySelectorAll('[data-chart]:not([data-drawn])').length === 0"
        )
        charts = found.tab.locator("[data-chart]")
        # Speeds on two datasets, times on them, and of the other work times on one.
        assert charts.count() == 2 + 2 + 1
        for number in range(charts.count()):
            of_three = number < 4
            points = charts.nth(number).locator("svg .role-mark.mark-symbol path")
            # Two designs in three runs or in one, each with a ring round it, which is seen round a change.
            name = charts.nth(number).get_attribute("data-chart")
            assert points.count() == 2 * (6 if of_three else 2), name
            seen = [float(point.get_attribute("opacity") or 1) for point in points.all()]
            assert sum(seen) == (7 if of_three else 2), name
        assert found.tab.evaluate("document.documentElement.scrollWidth") <= width
        assert found.troubles == []

    def test_headings_names_and_contrast(
        self, browser: Browser, written: Path, width: int, scheme: Scheme
    ) -> None:
        found = opened(browser, written, width=width, scheme=scheme)
        judged = Axe().run(found.tab, options={"resultTypes": ["violations"]})
        assert [
            f"{fault['id']}: {fault['nodes'][0]['html'][:200]}" for fault in judged.response["violations"]
        ] == []


class TestUsed:
    pytestmark = in_browser

    def test_hover_names_commit_and_gpu(self, browser: Browser, written: Path) -> None:
        found = opened(browser, written)
        found.tab.locator("[data-chart^=history-speed] svg .mark-symbol path").nth(3).hover(force=True)
        tooltip = found.tab.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        assert re.search(r"commit\s+[a-d]{12}", tooltip.inner_text())
        assert "SYNTHETIC GPU 80GB (no such thing) GPU-" in tooltip.inner_text()

    @pytest.mark.parametrize("width", [1280, 390])
    def test_a_legend_of_many_designs_is_whole(self, browser: Browser, width: int, tmp_path: Path) -> None:
        what = synthetic.experiment(name="nightly", stock=True, replicates=2)
        for day in (1, 2):
            synthetic.write_run(tmp_path / f"day-{day}", what, days.on_day(day))
        out = tmp_path / "page.html"
        out.write_text(page.of_history(at(tmp_path)), encoding="utf-8")
        chart = opened(browser, out, width=width).tab.locator("[data-chart^=history-speed]").first
        room = chart.bounding_box()
        places = [one.bounding_box() for one in chart.locator(".role-legend-label text").all()]
        assert len(places) == 6
        assert room is not None
        for place in places:
            assert place is not None
            assert room["x"] <= place["x"] <= place["x"] + place["width"] <= room["x"] + room["width"]

    def test_a_picked_dataset_hides_the_other_and_its_changes(self, browser: Browser, written: Path) -> None:
        found = opened(browser, written)
        found.tab.locator("button[data-pick=dataset][value=random]").click()
        assert found.tab.locator("figure[data-dataset=medium]:visible").count() == 0
        assert found.tab.locator("li[data-dataset=random]:visible").count() == 1
        assert found.tab.locator("li[data-dataset=medium]:visible").count() == 0
        assert found.troubles == []

    def test_data_can_be_taken_away(self, browser: Browser, written: Path) -> None:
        found = opened(browser, written)
        texts = {}
        for button in ("save-csv", "save-json"):
            with found.tab.expect_download() as download:
                found.tab.click(f"#{button}")
            assert download.value.suggested_filename == f"history.{button[5:]}"
            texts[button] = Path(download.value.path()).read_bytes().decode()
        rows = list(csv.DictReader(io.StringIO(texts["save-csv"], newline="")))
        told = json.loads(texts["save-json"])
        assert len(rows) == 3 * 4 + 2
        fastest = min((row["us"] for row in rows if row["dataset"] == "random"), key=float)
        (last,) = (row for row in rows if (row["run"], row["us"]) == ("day-4", fastest))
        assert float(last["since_first"]) == pytest.approx(1.08, abs=0.01)
        assert (last["commit"], last["driver"], last["setting"]) == ("d" * 12, "590.00", "1")
        assert len(told["settings"]) == 2
        assert found.troubles == []

    def test_hostile_names_neither_run_nor_break_the_page(self, browser: Browser, tmp_path: Path) -> None:
        what = days.experiment(title=HOSTILE.replace('"', "'"))
        for day in (1, 2):
            made = days.on_day(day, {"optmt": day}, git_commit=HOSTILE, gpu=HOSTILE, driver=HOSTILE)
            synthetic.write_run(tmp_path / f"day-{day} <b>", what, made)
        out = tmp_path / "page.html"
        out.write_text(page.of_history(at(tmp_path)), encoding="utf-8")
        found = opened(browser, out)
        assert found.troubles == []
        assert found.tab.evaluate("window.broken") is None
        assert found.tab.locator("img").count() == 0
