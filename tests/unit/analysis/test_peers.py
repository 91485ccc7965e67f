"""Other libraries stand by their fastest path on each dataset, and every speedup beside that over them."""

from __future__ import annotations

import dataclasses
import functools
import html
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from harness import designs
from harness.analysis import frame, peers, results
from harness.analysis.analyse import analyse
from harness.analysis.report import Run
from harness.experiment import Experiment
from harness.records import Cell, CellRecord, Variant, Workload
from harness.report import first_screen, markdown, page, terminal
from harness.report.sections import peers as section
from tests import synthetic_run

BASELINE, FUSED, STOCK = Variant("baseline", "12.1"), Variant("fused", "13.0"), Variant("stock")
OLD = Variant("stock", "2.1.0+cu121")
PATHS = [Variant("fbgemm", tunables={"path": path}) for path in range(3)]
US: dict[str, dict[Variant, float]] = {
    "one_item": {BASELINE: 70, FUSED: 7, STOCK: 60, OLD: 5, PATHS[0]: 40, PATHS[1]: 8.4, PATHS[2]: 7.7},
    "medium": {BASELINE: 140, FUSED: 17, STOCK: 75, OLD: 5, PATHS[0]: 42.4, PATHS[1]: 36, PATHS[2]: 36},
    "random": {BASELINE: 200, FUSED: 42, STOCK: 30, OLD: 5, PATHS[0]: 55, PATHS[1]: 52, PATHS[2]: 53},
}


def record(cell: Cell) -> CellRecord:
    """Times of `US`, with the noise of a synthetic record."""
    made = synthetic_run.record(cell)
    factor = US[cell.dataset.name][cell.variant] / synthetic_run.BASE_US[cell.dataset.name] / 0.38
    if cell.design == "baseline":
        factor *= 0.38
    samples = {name: [value * factor for value in values] for name, values in made.samples.items()}
    return dataclasses.replace(made, samples=samples)


def asked(device: str = "cuda", *older: Variant) -> Experiment:
    arms = (BASELINE, FUSED, STOCK, *older, *PATHS)
    work = Workload(device="cpu" if device == "cpu" else "cuda")
    return synthetic_run.experiment(arms=arms, datasets=tuple(US), workload=work)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_run.write_run(tmp_path_factory.mktemp("peers") / "run", asked("cuda", OLD), record)


@functools.cache
def derived(folder: Path) -> Run:
    return analyse([folder]).runs[0]


def test_a_library_stands_by_its_fastest_path_on_each_dataset(folder: Path) -> None:
    run = derived(folder)
    found = [run.peer("fbgemm", dataset) for dataset in US]
    assert [one and one.paths for one in found] == [3, 3, 3]
    assert found[0] is not None
    assert (found[0].variant, found[0].ties) == (PATHS[2], [])


def test_paths_that_cannot_be_told_apart_are_said_to_tie(folder: Path) -> None:
    found = derived(folder).peer("fbgemm", "medium")
    assert found is not None
    assert {found.variant, *found.ties} == set(PATHS[1:])


def test_the_fastest_of_all_libraries_may_be_pytorch_of_today_but_no_older_one(folder: Path) -> None:
    run = derived(folder)
    found = [run.fastest_peer(dataset) for dataset in US]
    assert [one and one.design for one in found] == ["fbgemm", "fbgemm", "stock"]
    assert [one and one.paths for one in found] == [4, 4, 4]


def test_the_same_is_told_of_a_measured_run_by_any_metric(folder: Path) -> None:
    measured = results.measure(frame.load_run(folder))
    for metric in ("total_us", "stage_us"):
        found = peers.fastest(measured, "fbgemm", "one_item", metric)
        assert found is not None
        assert (found.variant, found.metric) == (PATHS[2], metric)
    assert peers.fastest(measured, "cuembed", "one_item") is None


def test_every_design_of_ours_has_its_speedup_over_today_s_pytorch_and_the_fastest_library(
    folder: Path,
) -> None:
    run = derived(folder)
    for dataset, times in US.items():
        stock, rival = (
            run.figure(FUSED, dataset, name)
            for name in (peers.over_stock("total_us"), peers.over_peer("total_us"))
        )
        least = min(times[variant] for variant in (STOCK, *PATHS))
        assert stock is not None
        assert rival is not None
        assert stock.value == pytest.approx(times[STOCK] / times[FUSED], rel=0.03)
        assert rival.value == pytest.approx(least / times[FUSED], rel=0.03)
        assert len(rival.records) == 6
    assert run.figure(STOCK, "medium", peers.over_peer("total_us")) is None


def test_on_the_cpu_nothing_is_compared_with_a_library(tmp_path: Path) -> None:
    run = derived(synthetic_run.write_run(tmp_path / "run", asked("cpu"), record))
    assert (run.peers, run.fastest_peers) == ([], [])
    assert run.figure(FUSED, "medium", peers.over_peer("total_us")) is None


def test_page_and_terminal_name_the_path_and_all_three_speedups(folder: Path, tmp_path: Path) -> None:
    report = analyse([folder])
    shown = section.table(report.runs[0], "total_us")
    path = next(row for row in shown.rows if row[0].text == "fastest path of FBGEMM, µs per table")
    assert path[1].detail == "path=2"
    assert " or path=" in path[2].detail
    at = [row[0].text for row in shown.rows].index("fused@13.0")
    titles = [row[0].text for row in shown.rows[at + 1 : at + 4]]
    assert titles == ["over baseline@12.1", "over PyTorch of today", "over the fastest library"]
    assert '<section id="libraries">' in page.write(report, tmp_path / "report.html").read_text("utf-8")
    console = Console(file=io.StringIO(), width=100)
    terminal.show(report, console)
    assert isinstance(console.file, io.StringIO)
    text = " ".join(console.file.getvalue().split())
    assert "Fastest path of FBGEMM: one_item path=2; medium path=" in text
    assert "over fastest" in markdown.of(report)


def test_a_card_names_what_its_winner_beat(tmp_path: Path) -> None:
    run = derived(synthetic_run.write_run(tmp_path / "run", asked(), record))
    first, medium, _ = first_screen.cards(run)
    assert first.variant == "fused@13.0"
    assert [one.text.partition(" ")[2] for one in first.over] == [
        "PyTorch",
        "FBGEMM",
        "paper's baseline@12.1",
    ]
    assert "FBGEMM by path=2" in first.remarks
    assert any(" or path=" in remark for remark in medium.remarks)


def test_paths_are_called_as_their_design_calls_them(folder: Path, tmp_path: Path) -> None:
    report = analyse([folder], tunables=designs.named_tunables())
    (named,) = report.runs[0].named
    assert (named.tunable, named.values, named.names) == ("path", [0, 1, 2], ["n-bit", "v1", "v2"])
    told = markdown.of(report)
    assert re.search(r"Fastest path of FBGEMM: one\\?_item v2; medium v[12] or v[12]; random v1", told)
    assert "path=0, path=1, path=2: FBGEMM's n-bit, v1, v2;" in told
    whole = page.write(report, tmp_path / "report.html").read_text("utf-8")
    assert f"FBGEMM's path: {named.summary}" in html.unescape(whole)


def test_a_winning_library_is_said_to_be_the_fastest_of_its_paths(tmp_path: Path) -> None:
    def made(cell: Cell) -> CellRecord:
        found = record(cell)
        factor = 10 if cell.design == "fused" else 1
        return dataclasses.replace(
            found, samples={name: [v * factor for v in values] for name, values in found.samples.items()}
        )

    run = derived(synthetic_run.write_run(tmp_path / "run", asked(), made))
    first, *_ = first_screen.cards(run)
    assert first.variant == "FBGEMM path=2"
    assert "the fastest of 3 paths of FBGEMM" in first.remarks
