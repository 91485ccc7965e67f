"""Headings, landmarks, names and contrast, as axe-core judges them."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from harness.analysis.analyse import analyse
from harness.report import page
from tests import synthetic_run as synthetic
from tests.unit.report import test_sweeps_on_the_page as swept
from tests.unit.report.tabs import Scheme, opened

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def faults(browser: Browser, path: Path, scheme: Scheme = "light") -> list[str]:
    found = opened(browser, path, scheme=scheme)
    judged = Axe().run(found.tab, options={"resultTypes": ["violations"]})
    return [
        f"{fault['id']}: {fault['help']}: {fault['nodes'][0]['html'][:200]}"
        for fault in judged.response["violations"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_runs(browser: Browser, report: Path, scheme: Scheme) -> None:
    assert faults(browser, report, scheme) == []


@pytest.mark.parametrize("runs", [1, 3])
def test_one_run_and_many(browser: Browser, runs: int, tmp_path: Path) -> None:
    folders = [
        synthetic.write_run(tmp_path / str(n), synthetic.experiment(stock=n == 0, replicates=2))
        for n in range(runs)
    ]
    assert faults(browser, page.write(analyse(folders), tmp_path / "report.html")) == []


def test_a_sweep(browser: Browser, tmp_path: Path) -> None:
    made = swept.what(tmp_path, swept.BATCH)
    run = synthetic.write_run(tmp_path / "run", made, swept.record)
    assert faults(browser, page.write(analyse([run]), tmp_path / "report.html")) == []
