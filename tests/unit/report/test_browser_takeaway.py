"""What leaves the page: paper, and text that was not ours to begin with."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from harness.analysis.analyse import analyse
from harness.records import Cell, CellRecord, Variant
from harness.report import page
from tests import synthetic_run as synthetic
from tests.unit.report.tabs import opened

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

EVIL = "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'>{{7*7}}${1}\u2028"
TRACE = "trace<img src=x onerror='broken=1'>{{7*7}}"
"""A file's name cannot hold a slash."""


def everywhere(value: object, named: str = "") -> object:
    """The value with hostile text in every field that holds any, but for what decides how it is read."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = ("device", "status", "dtype", "index_dtype", "mode", "cache", "bags", "id", "path", "hot_rows")
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(
            value, **{k: v if k in kept else everywhere(v, k) for k, v in fields.items()}
        )
    if isinstance(value, list):
        return [everywhere(item, named) for item in value]
    return f"{value}{EVIL}" if isinstance(value, str) and named else value


def hostile(cell: Cell) -> CellRecord:
    if cell.design == "optmt":
        return synthetic.failed(cell, "failed", f"It broke: {EVIL}", f"line 1\n{EVIL}\x1b[31m")
    made = everywhere(synthetic.record(cell))
    assert isinstance(made, CellRecord)
    return dataclasses.replace(made, cell=cell)


def test_hostile_text_in_every_field_neither_runs_nor_breaks_the_page(
    browser: Browser, tmp_path: Path
) -> None:
    what = synthetic.experiment(
        datasets=("medium", TRACE, "__proto__", "a" * 120),
        arms=(Variant("baseline", "12.1"), Variant("optmt", "12.1"), Variant("combined", "12.1")),
    )
    run = synthetic.write_run(tmp_path / "run", what, hostile)
    title = (run / "experiment.toml").read_text(encoding="utf-8")
    (run / "experiment.toml").write_text(
        title.replace("SYNTHETIC:", "<img src=x onerror=window.broken=1>"), encoding="utf-8"
    )
    found = opened(browser, page.write(analyse([run]), tmp_path / "report.html"), width=390)
    tab = found.tab
    tab.locator("button", has_text="trace<img").click()
    tab.wait_for_selector("html[data-drawn=yes]", state="attached")
    tab.locator("[data-chart^=speedup] svg .mark-rect path").first.hover(force=True)
    tab.wait_for_timeout(300)
    tab.get_by_role("button", name="Show all").click()
    for switch in ("reference", "scale"):
        tab.locator(f"[data-switch={switch}]").select_option(index=1)
    tab.wait_for_selector("html[data-drawn=yes]", state="attached")
    assert found.troubles == []
    assert tab.evaluate("window.broken") is None
    assert tab.locator("img").count() == 0
    assert "window.broken=1" in tab.locator("#failures").inner_text()
    assert "{{7*7}}" in tab.locator("#provenance").inner_text()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    with tab.expect_download() as download:
        tab.click("#save-json")
    (told,) = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["runs"]
    cells = told["cells"]
    assert {cell["dataset"] for cell in cells} == set(what.datasets)


def test_paper_holds_everything(browser: Browser, report: Path, tmp_path: Path) -> None:
    found = opened(browser, report)
    tab = found.tab
    folded = tab.locator("details:not([open], [data-numbers])").count()
    assert folded > 0
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.emulate_media(media="print")
    assert tab.locator("details:not([open], [data-numbers])").count() == 0
    assert tab.get_by_text("cells/optmt-12.1-random-r2/record.json").is_visible()
    assert not tab.locator(".tools").is_visible()
    session = tab.context.new_cdp_session(tab)
    paper = base64.b64decode(session.send("Page.printToPDF", {"printBackground": True})["data"])
    (tmp_path / "report.pdf").write_bytes(paper)
    assert paper.startswith(b"%PDF")
    assert paper.count(b"/Type /Page\n") >= 8
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details:not([open], [data-numbers])").count() == folded
    assert found.troubles == []


def test_a_charts_numbers_stand_behind_it(browser: Browser, report: Path) -> None:
    tab = opened(browser, report).tab
    tab.locator("#samples > details > summary").click()  # of several runs, folded
    behind = tab.locator("[data-numbers='samples-paper-medium']")
    behind.locator("summary").click()
    lines = behind.locator("tbody tr")
    lines.first.wait_for()  # a details' toggle comes after the click
    assert lines.count() == 11 * 3
    heads = behind.locator("thead th").all_inner_texts()
    table = [dict(zip(heads, line.split("\t"), strict=True)) for line in lines.all_inner_texts()]
    fastest = [min(float(row["median"]) for row in table if row["name"] == of["name"]) for of in table]
    assert fastest == sorted(fastest)


def test_paths_of_a_library_are_told_apart_in_the_small_chart(browser: Browser, tmp_path: Path) -> None:
    paths = [Variant("fbgemm", tunables={"index_bits": 32, "path": path}) for path in (0, 1, 2)]
    what = synthetic.experiment(arms=(*synthetic.experiment().arms, *paths))
    report = page.write(analyse([synthetic.write_run(tmp_path / "run", what)]), tmp_path / "report.html")
    found = opened(browser, report, width=1280)
    labels = found.tab.locator(".front svg .role-axis-label text").all_text_contents()
    shown = [label for label in labels if label.startswith("FBGEMM")]
    assert shown == ["FBGEMM path=0", "FBGEMM path=1", "FBGEMM path=2"]
    assert found.troubles == []
