"""A browser, and a report of two runs to open in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic_run as synthetic
from playwright.sync_api import Browser, sync_playwright
from tabs import FLAGS

from harness.analysis.analyse import analyse
from harness.report import page


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs side by side."""
    folder = tmp_path_factory.mktemp("report")
    paper = synthetic.write_run(folder / "paper", synthetic.experiment())
    modern = synthetic.write_run(folder / "modern", synthetic.experiment("13.0", stock=True))
    return page.write(analyse([paper, modern]), folder / "report.html")
