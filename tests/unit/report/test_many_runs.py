"""A page of as many runs as a campaign leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import experiment
from harness.analysis.analyse import analyse
from harness.analysis.report import Report
from harness.report import page, verdict
from tests import synthetic_run as synthetic
from tests.unit.report.tabs import opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.xdist_group("browser")
EXPERIMENTS = ("dlrm_dcnv2", "float16", "ragged", "int8", "int4", "kernels", "paper", "modern", "peers")
MOST_SCREENS, HEIGHT = 8, 900


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Fifteen runs, the widest comparison in their middle."""
    folder = tmp_path_factory.mktemp("runs")
    made: list[Path] = []
    for name in (*EXPERIMENTS, *EXPERIMENTS[:6]):
        what = dataclasses.replace(experiment.read(experiment.find(name)), replicates=2, name=name)
        if len(made) >= len(EXPERIMENTS):  # the same on other rows
            what = dataclasses.replace(what, workload=dataclasses.replace(what.workload, mode="mean"))
        made.append(synthetic.write_run(folder / f"{name}-{len(made)}", what))
    return analyse(made)


def test_the_one_verdict_rests_on_the_widest_comparison(report: Report) -> None:
    found = verdict.of(report)
    assert found is not None
    assert [run.name for run in found.runs] == ["kernels-5"]


@pytest.mark.browser
def test_it_is_no_longer_than_anybody_scrolls(report: Report, tmp_path: Path, browser: Browser) -> None:
    found = opened(browser, page.write(report, tmp_path / "report.html"), width=1440)
    assert found.troubles == []
    assert found.tab.locator("p.verdict").count() == 1
    height = found.tab.evaluate("document.documentElement.scrollHeight")
    assert height <= MOST_SCREENS * HEIGHT
    # What is folded away is there all the same.
    assert found.tab.locator("section[id^=run-]").count() == len(report.runs)
