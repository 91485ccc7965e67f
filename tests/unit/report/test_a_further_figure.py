"""What a further figure costs: a file that computes it, and one that shows it wherever reports go."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from harness.analysis import analyse, figure_sources
from harness.analysis.report import Report
from harness.records import Variant
from harness.report import markdown, page, sections, terminal, tidy
from tests import synthetic_run as synthetic

OPTMT = Variant("optmt", "12.1")
FIGURE = '''"""A figure that only this test knows."""

from harness.analysis.figures import Figure

PLACE = 25


def figures_of(found):
    for (variant, dataset, metric), measured in found.measurements.items():
        if metric == "kernel_us":
            rows = found.run.records[0].cell.workload.lookups / measured.time.value * 1e6
            told = "looked_up", "rows a second", rows, "1/s", "millions"
            yield variant, dataset, Figure(*told, records=measured.records)
'''
SECTION = '''"""A section that only this test knows."""

from harness.report import blocks

PLACE = 65


def table(run):
    def cell(variant, dataset):
        return blocks.number(run, run.figure(variant, dataset, "looked_up"))

    return blocks.matrix(run, cell, title="Rows a second", label="Rows looked up a second.")


def page(report):
    return blocks.Section("looked-up", "Rows looked up a second", [table(run) for run in report.runs])


def brief(report, run):
    yield table(run)
'''


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Report]:
    """A report with a file more in both folders, which are gone afterwards."""
    for package, text in ((figure_sources, FIGURE), (sections, SECTION)):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / "looked_up.py").write_text(text, encoding="utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=2))
    yield analyse.analyse([run])
    for package in (figure_sources, sections):
        sys.modules.pop(f"{package.__name__}.looked_up", None)


def test_a_figure_more_is_in_every_output(told: Report) -> None:
    figure = told.runs[0].figure(OPTMT, "random", "looked_up")
    assert figure is not None
    said = f"{figure.value / 1e6:.2f} M"
    data = dataclasses.asdict(told)
    assert any(
        one["value"] == figure.value for place in data["runs"][0]["places"] for one in place["figures"]
    )
    rows = tidy.frame(told)
    assert figure.value in rows.loc[rows["figure"] == "looked_up", "value"].to_list()
    html = page.html(told)
    assert '<section id="looked-up">' in html
    assert '<a href="#looked-up">Rows looked up a second</a>' in html
    assert f">{said}</a>" in html
    console = Console(file=io.StringIO(), width=120)
    terminal.show(told, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "Rows a second" in text
    assert said in text
    written = markdown.of(told)
    assert f" {said} " in written
    assert "Rows looked up a second." in written


def test_without_its_files_it_is_gone(tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    report = analyse.analyse([run])
    assert report.runs[0].figure(OPTMT, "random", "looked_up") is None
    assert "looked-up" not in page.html(report)
