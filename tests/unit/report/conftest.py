"""A report of two runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.analysis.analyse import analyse
from harness.report import page
from tests import synthetic_run as synthetic


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs side by side."""
    folder = tmp_path_factory.mktemp("report")
    paper = synthetic.write_run(folder / "paper", synthetic.experiment())
    modern = synthetic.write_run(folder / "modern", synthetic.experiment("13.0", stock=True))
    return page.write(analyse([paper, modern]), folder / "report.html")
