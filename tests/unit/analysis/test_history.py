"""Runs in a line each, the nearest of several, and two beside one another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from harness.analysis import history
from harness.analysis.analyse import analyse
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.records import Cell, CellRecord, Timing, Variant, Workload
from harness.report.sections import side_by_side
from tests import synthetic_run as synthetic


def on(gpu: str) -> Callable[[Cell], CellRecord]:
    def make(cell: Cell) -> CellRecord:
        record = synthetic.record(cell, passes=12)
        assert record.environment is not None
        return dataclasses.replace(record, environment=dataclasses.replace(record.environment, gpu=gpu))

    return make


def small(**changes: object) -> Experiment:
    arms = (Variant("baseline", "12.1"), Variant("combined", "12.1"))
    return synthetic.experiment(**({"arms": arms, "datasets": ("medium",), "replicates": 2} | changes))  # type: ignore[arg-type]


def test_a_run_in_a_line(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord | None:
        if cell.replicate == 1:
            return synthetic.failed(cell) if cell.design == "combined" else None
        return synthetic.record(cell)

    line = history.line(synthetic.write_run(tmp_path / "run", small(), make))
    assert (line.measured, line.failed, line.pending) == (2, 1, 1)
    assert line.gpu.startswith("SYNTHETIC GPU")
    assert line.toolchains == ["12.1"]
    assert line.began == "2001-01-01T00:00:00Z"
    assert line.best is not None
    assert (line.best.arm, line.best.dataset) == ("combined@12.1", "medium")
    # 190 µs against 0.48 of them and a pin of 19.
    assert line.best.ratio == pytest.approx(190 / (190 * 0.48 + 19), rel=0.05)


def test_a_folder_that_cannot_be_read_is_a_line_too(tmp_path: Path) -> None:
    root = synthetic.write_run(tmp_path / "run", small())
    (root / "plan.json").write_text("{", encoding="utf-8")
    assert "is not JSON" in history.line(root).broken


def test_one_bad_record_is_one_failed_cell_of_the_line(tmp_path: Path) -> None:
    root = synthetic.write_run(tmp_path / "run", small())
    whole = history.line(root)
    next(root.glob("cells/*/record.json")).write_text("{", encoding="utf-8")
    line = history.line(root)
    assert (line.broken, line.failed, line.measured) == ("", 1, whole.measured - 1)


def test_no_best_on_the_cpu(tmp_path: Path) -> None:
    what = small(workload=synthetic.CPU)
    line = history.line(synthetic.write_run(tmp_path / "run", what, synthetic.cpu_record))
    assert line.best is None


def test_the_nearest_is_of_the_same_experiment_and_then_of_the_same_work(tmp_path: Path) -> None:
    def write(folder: str, **changes: object) -> Path:
        return synthetic.write_run(tmp_path / folder, small(**changes))

    own = write("own", name="mine")
    same = write("mine", workload=Workload(tables=1))
    alike = write("alike")
    less = write("less", arms=(Variant("baseline", "12.1"), Variant("optmt", "12.1")))
    other = write("other", workload=Workload(tables=2))
    assert history.nearest(own, [alike, same, less]) == same
    assert history.nearest(own, [less, other, alike]) == alike
    with pytest.raises(BadInputError, match=r"none of our runs is .*'mine'.*less"):
        history.nearest(own, [less, other])


def test_of_several_gpus_its_own_decides(tmp_path: Path) -> None:
    def write(name: str, gpu: str) -> Path:
        return synthetic.write_run(tmp_path / name / "paper", small(name="paper"), on(gpu))

    own, a, b = write("own", "A"), write("a", "A"), write("b", "B")
    assert history.nearest(own, [b, a]) == a
    third = write("c", "C")
    with pytest.raises(BadInputError, match="several of our runs are as near"):
        history.nearest(third, [b, a])


def test_two_runs_beside_one_another(tmp_path: Path) -> None:
    def slower(cell: Cell) -> CellRecord:
        record = on("B")(cell)
        samples = {name: [2 * value for value in values] for name, values in record.samples.items()}
        return dataclasses.replace(record, samples=samples)

    a = synthetic.write_run(tmp_path / "a", small(), on("A"))
    b = synthetic.write_run(
        tmp_path / "b", small(arms=(Variant("baseline", "12.1"), Variant("optmt", "12.1"))), slower
    )
    (beside,) = analyse([a, b]).beside
    (pair,) = beside.pairs
    assert (pair.variant, pair.dataset) == (Variant("baseline", "12.1"), "medium")
    assert pair.ratio.value == pytest.approx(0.5, rel=1e-9)
    assert (pair.speedup_a, pair.speedup_b) == (1, 1)
    assert [str(one) for one in beside.differences] == ["GPU: A against B"]


def test_runs_of_different_cache_protocols_are_not_compared(tmp_path: Path) -> None:
    def write(folder: str, cache: Literal["rotating", "steady", "cold"], name: str) -> Path:
        return synthetic.write_run(tmp_path / folder, small(name=name, timing=Timing(cache=cache)))

    own, steady, rotating = (
        write("own", "rotating", "a"),
        write("a", "steady", "a"),
        write("b", "rotating", "b"),
    )
    assert history.nearest(own, [steady, rotating]) == rotating
    assert history.nearest(own, [steady]) == steady, "the comparison says why it cannot be"
    report = analyse([own, steady])
    (beside,) = report.beside
    assert beside.pairs == []
    assert [str(one) for one in beside.differences] == ["timing.cache: rotating against steady"]
    page = side_by_side.page(report)
    assert page is not None
    assert side_by_side.NOT_COMPARED in str(page)
    assert side_by_side.NOT_COMPARED in str(list(side_by_side.closing(report)))


def test_runs_that_share_nothing_are_not_beside_one_another(tmp_path: Path) -> None:
    a = synthetic.write_run(tmp_path / "a", small(arms=(Variant("baseline", "12.1"),)))
    what = small(arms=(Variant("baseline", "13.0"),), reference="baseline@13.0")
    b = synthetic.write_run(tmp_path / "b", what)
    assert analyse([a, b]).beside == []


def test_runs_of_one_title_are_told_apart_by_their_names(tmp_path: Path) -> None:
    folders = [
        synthetic.write_run(tmp_path / name, small(), synthetic.record) for name in ("float32", "float16")
    ]
    other = synthetic.write_run(tmp_path / "other", small(title="Something else"), synthetic.record)
    first, second, third = analyse([*folders, other]).runs
    assert (first.title, second.title) == (f"{small().title} (float32)", f"{small().title} (float16)")
    assert third.title == "Something else"
    report = analyse(folders)
    assert report.beside
    told = side_by_side.page(report)
    assert f"{small().title} (float32)" in str(told)
    assert "(float32) (float32)" not in str(told)
