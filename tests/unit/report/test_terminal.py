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
    assert "of the limit" in text
    assert "✓ cells, outputs, replicates" in text
    assert "Fastest here: rpf_optmt@12.1" in text
    assert "Use " not in text, "PyTorch's kernel was not measured"
    assert "12 tables of 500,000 rows × 128 float32" in text
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) <= 40


def test_many_runs_take_a_line_each_and_one_verdict(tmp_path: Path) -> None:
    folders = [
        synthetic.write_run(tmp_path / name, synthetic.experiment(toolchain, stock=name == "modern"))
        for name, toolchain in (("first", "12.1"), ("second", "12.1"), ("modern", "13.0"))
    ]
    console = Console(file=io.StringIO(), width=80, highlight=False)
    terminal.show(analyse(folders), console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.count("Use ") + text.count("Fastest here") == 1
    assert [name for name in ("first", "second", "modern") if f"✓ {name} " in text or f"! {name} " in text]
    assert "The fastest of each run, ×" in " ".join(text.split()), "a table that is too wide loses its end"
    assert "× the run's reference, marked *" in " ".join(text.split()), "what is marked is told of the mark"
    assert all(len(line) <= 80 for line in text.splitlines())
    assert len(text.splitlines()) <= 40


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


def test_paths_of_a_library_leave_room_for_every_dataset(tmp_path: Path) -> None:
    """Their labels would take so much that the last dataset is cut off."""
    paths = [Variant("fbgemm", tunables={"index_bits": 32, "path": path}) for path in (0, 1, 2)]
    arms = (Variant("baseline", "12.1"), *paths)
    text = shown(synthetic.write_run(tmp_path / "run", synthetic.experiment(arms=arms)))
    heads = [line.split() for line in text.splitlines() if line.strip().startswith("design ")]
    assert heads == [["design", "one_item", "high", "medium", "low", "random"]]
    rows = [line for line in text.splitlines() if line.startswith(" FBGEMM path=2 ")]
    assert [row.count("±") for row in rows] == [5]
    assert all(len(line) <= 80 for line in text.splitlines())
