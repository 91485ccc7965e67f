"""What a further figure costs: a function that tells it, and a section that shows it wherever reports go."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from harness.analysis import analyse
from harness.analysis.figures import Figure
from harness.analysis.report import Report
from harness.analysis.results import Located, Measured
from harness.records import Variant
from harness.report import markdown, page, sections, terminal
from tests import synthetic_run as synthetic

OPTMT = Variant("optmt", "12.1")
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


def looked_up(found: Measured) -> Iterator[Located]:
    """Rows that a kernel looks up in a second."""
    for (variant, dataset, metric), measured in found.measurements.items():
        if metric == "kernel_us":
            rows = found.run.records[0].cell.workload.lookups / measured.time.value * 1e6
            yield (
                variant,
                dataset,
                Figure("looked_up", "rows a second", rows, "1/s", "millions", records=measured.records),
            )


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Report]:
    """A report with a figure more and a section for it, both of which are gone afterwards."""
    (tmp_path / "sections").mkdir()
    (tmp_path / "sections" / "looked_up.py").write_text(SECTION, encoding="utf-8")
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(tmp_path / "sections")])
    monkeypatch.setattr(analyse, "FIGURES", (*analyse.FIGURES, looked_up))
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=2))
    yield analyse.analyse([run])
    sys.modules.pop(f"{sections.__name__}.looked_up", None)


def test_a_figure_more_is_in_every_output(told: Report) -> None:
    figure = told.runs[0].figure(OPTMT, "random", "looked_up")
    assert figure is not None
    said = f"{figure.value / 1e6:.2f} M"
    data = dataclasses.asdict(told)
    assert any(
        one["value"] == figure.value for place in data["runs"][0]["places"] for one in place["figures"]
    )
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


def test_without_its_section_it_is_gone(tmp_path: Path) -> None:
    html = page.html(
        analyse.analyse([synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))])
    )
    assert "looked-up" not in html
