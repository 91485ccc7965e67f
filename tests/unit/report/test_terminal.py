"""The summary on the terminal fits 80 columns and hides nothing."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from harness.analysis.analyse import analyse
from harness.records import Cell, CellRecord, Variant
from harness.report import terminal
from tests import synthetic_run as synthetic


def shown(run: Path, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    terminal.show(analyse([run]), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_speedups_winners_and_trust(tmp_path: Path) -> None:
    text = shown(synthetic.write_run(tmp_path / "run", synthetic.experiment()))
    assert "1.67× ±" in text
    assert "kernel alone" in text
    assert "…" not in text
    assert "random rpf_optmt@12.1" in " ".join(text.split())
    assert "Share of the limit" in text
    assert "bound by" in text
    assert "✓ cells: all 75 measured" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_failed_and_pending_cells(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord | None:
        if cell.dataset.name == "low":
            return None
        # What looks like markup must come out as it is.
        return synthetic.failed(cell, "timeout") if cell.design == "optmt" else synthetic.record(cell)

    what = synthetic.experiment(title="[red]odd[/red] title")
    text = shown(synthetic.write_run(tmp_path / "run", what, make), width=120)
    assert "timeout" in text
    assert "not run" in text
    assert "✕ cells: 12 timeout, 15 not run yet of 75" in text
    assert "[red]odd[/red] title" in text


def test_long_names_of_designs_are_not_broken(tmp_path: Path) -> None:
    arms = (Variant("baseline", "12.1"), Variant("vectorized", "13.0"))
    text = shown(synthetic.write_run(tmp_path / "run", synthetic.experiment(arms=arms)))
    assert text.count(" vectorized@13.0 ") >= 2
    assert all(len(line) <= 80 for line in text.splitlines())
