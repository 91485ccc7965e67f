"""Profiles beside the speed: the table on the terminal, the page's table and its charts."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from harness import wall
from harness.analysis import frame
from harness.analysis.analyse import analyse
from harness.analysis.report import Report
from harness.profiles import KernelLaunch, Profile
from harness.records import Variant, to_json
from harness.report import reads, terminal
from harness.report.blocks import Charts, Fold, Group, Items, Paragraph, Table
from harness.report.sections import profile
from harness.run import ncu, profiling
from tests import synthetic_run as synthetic

RAW = Path(__file__).resolve().parents[2] / "data" / "ncu" / "raw.csv"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def derived(tmp_path: Path) -> Report:
    """A run of which two arms were profiled on medium, the second with half the registers."""
    root = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    run = frame.load_run(root)
    table = RAW.read_text(encoding="utf-8").splitlines()
    launches = profiling.by_cell(list(ncu.read_csv(table, ncu.METRICS)))[1]
    fewer = [
        KernelLaunch(x.name, x.grid, x.block, x.metrics | {"launch__registers_per_thread": 42.0})
        for x in launches
    ]
    for record in run.records:
        if record.cell.dataset.name == "medium":
            seen = {"baseline": launches, "optmt": fewer}.get(record.cell.design, [])
            status = "ok" if seen else "failed"
            made = Profile(record.cell, status, f"{HOSTILE} stopped", seen, profiler="Nsight Compute 1")  # type: ignore[arg-type]
            (root / wall.CELLS / record.cell.id / wall.PROFILE).write_text(to_json(made), encoding="utf-8")
    return analyse([root])


def test_on_the_terminal(derived: Report) -> None:
    console = Console(file=io.StringIO(), width=80, highlight=False)
    terminal.put(profile.shown(derived), console)
    assert isinstance(console.file, io.StringIO)
    assert "…" not in console.file.getvalue()
    text = " ".join(console.file.getvalue().split())
    assert "inside the kernels on medium" in text
    assert "optmt@12.1: registers 88 → 42" in text
    assert "80 %" in text  # of the warps' time goes into waiting for data


def test_on_the_page(derived: Report) -> None:
    section = profile.page(derived)
    assert section is not None
    (group,) = [block for block in section.blocks if isinstance(block, Group)]
    (table,) = [block for block in group.blocks if isinstance(block, Table)]
    (charts,) = [block.charts for block in group.blocks if isinstance(block, Charts)]
    assert [row[0].text for row in table.rows] == ["medium", "baseline@12.1", "optmt@12.1"]
    assert all(len(row) in (1, len(table.columns)) for row in table.rows)
    assert table.rows[2][-1].text == "registers 88 → 42"
    assert [chart.dataset for chart in charts] == ["medium"]
    rows = charts[0].spec["data"]["values"]
    assert sum(row["share"] for row in rows if row["arm"] == "optmt@12.1") == pytest.approx(1)
    (failed,) = [block.blocks[0] for block in group.blocks if isinstance(block, Fold)]
    assert isinstance(failed, Items)
    assert len(failed.items) == 3


def test_what_nobody_counted_has_no_column(tmp_path: Path) -> None:
    """Memory's counters alone, and of a design other than the reference."""
    root = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    launch = KernelLaunch("lookup", "(1, 1, 1)", "(32, 1, 1)", {"dram__bytes_read.sum": 120e6})
    for record in frame.load_run(root).records:
        if (record.cell.design, record.cell.dataset.name) == ("optmt", "medium"):
            made = Profile(record.cell, "ok", "", [launch], profiler="Nsight Compute 1")
            (root / wall.CELLS / record.cell.id / wall.PROFILE).write_text(to_json(made), encoding="utf-8")
    report = analyse([root])
    section = profile.page(report)
    assert section is not None
    (group,) = [block for block in section.blocks if isinstance(block, Group)]
    (table,) = [block for block in group.blocks if isinstance(block, Table)]
    assert table.columns == ["design", "kernel, µs per table", "from memory"]
    (shown,) = [block for block in profile.shown(report) if isinstance(block, Table)]
    assert shown.columns == ["design", "µs", "mem MB"]
    assert not any("waiting" in str(block).lower() for block in (*section.blocks, shown))


def test_who_reads_how_much_from_memory_is_said(tmp_path: Path) -> None:
    """Of the fastest design of ours beside each library's fastest path, where both were counted."""
    paths = [Variant("fbgemm", tunables={"path": path}) for path in (0, 1)]
    ours = [Variant("baseline", "12.1"), Variant("optmt", "12.1")]
    what = synthetic.experiment(arms=(*ours, *paths, Variant("stock")), replicates=1)
    read = {
        ("medium", "optmt@12.1"): 43e6,
        ("medium", "baseline@12.1"): 99e6,  # slower than optmt
        ("medium", "fbgemm,path=1"): 95e6,
        ("random", "optmt@12.1"): 120e6,
        ("random", "fbgemm,path=1"): 120e6,
        ("random", "stock"): 80e6,
        ("low", "optmt@12.1"): 100e6,  # no library
        ("high", "stock"): 10e6,  # none of ours
        ("one_item", "optmt@12.1"): 0,
        ("one_item", "stock"): 0,
    }
    root = synthetic.write_run(tmp_path / "run", what)
    for record in frame.load_run(root).records:
        cell = record.cell
        if (bytes_ := read.get((cell.dataset.name, cell.variant.label))) is not None:
            launch = KernelLaunch("lookup", "(1, 1, 1)", "(32, 1, 1)", {"dram__bytes_read.sum": 12 * bytes_})
            made = Profile(cell, "ok", "", [launch], profiler="Nsight Compute 1")
            (root / wall.CELLS / cell.id / wall.PROFILE).write_text(to_json(made), encoding="utf-8")
    report = analyse([root])
    (run,) = report.runs
    assert run.profile is not None
    told = {line.partition(", ")[0]: line for line in reads.sentences(run, run.profile)}
    assert list(told) == [f"On {dataset}" for dataset in run.datasets if dataset not in ("low", "high")]
    assert "optmt@12.1 reads 43 MB from memory, 55 % less than FBGEMM path=1 (95 MB)" in told["On medium"]
    assert "as much as FBGEMM path=1 (120 MB) and 50 % more than stock (80 MB)" in told["On random"]
    assert "reads 0 MB from memory, beside stock (0 MB)" in told["On one_item"]
    limit = run.limit("random")
    assert limit is not None
    memory = next(need for need in limit.needs if need.part == "memory")
    once = (memory.bytes - run.protocol.workload.output_bytes) / 1e6
    assert told["On random"].endswith(f"; each row and row number once is {once:.0f} MB.")
    section = profile.page(report)
    assert section is not None
    (group,) = [block for block in section.blocks if isinstance(block, Group)]
    (items,) = [block for block in group.blocks if isinstance(block, Items)]
    assert [item.text for item in items.items] == list(told.values())
    shown = [block.text for block in profile.shown(report) if isinstance(block, Paragraph)]
    assert set(told.values()) <= set(shown)


def test_a_run_without_profiles_shows_nothing(tmp_path: Path) -> None:
    root = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    assert profile.page(analyse([root])) is None
