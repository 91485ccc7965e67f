"""Boards of a run: speedups within one, the spread between them, and the odd one named. All from made-up
times whose answer is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import plan
from harness.analysis import boards, frame, results, stats, trust
from harness.analysis.analyse import analyse
from harness.analysis.results import Measured
from harness.experiment import Experiment
from harness.records import Cell, CellRecord, Variant
from harness.sweep import Axis
from tests import synthetic_run as synthetic

TRUE = {"baseline": 100.0, "optmt": 80.0, "rpf_optmt": 60.0}
ARMS = tuple(Variant(name, "12.1") for name in TRUE)


def what(arms: int = 3, replicates: int = 4, **changes: object) -> Experiment:
    made = synthetic.experiment(replicates=replicates)
    return dataclasses.replace(
        made,
        arms=ARMS[:arms],
        datasets=("medium", "random"),
        **changes,  # type: ignore[arg-type]
    )


def timed(cell: Cell, us: float, uuid: str, host: str, rng: np.random.Generator) -> CellRecord:
    """A record of passes round a time."""
    made = synthetic.record(cell, passes=1)
    passes = us * np.exp(rng.normal(0, 0.002, (20, cell.workload.tables)))
    assert made.environment is not None
    return dataclasses.replace(
        made,
        samples={"kernel_us": passes.ravel().tolist(), "stage_us": passes.sum(axis=1).tolist()},
        environment=dataclasses.replace(made.environment, gpu_uuid=uuid, hostname=host),
    )


def made(
    given: Experiment,
    add: Sequence[float],
    *,
    process: float = 0.003,
    seed: int = 1,
    hosts: Sequence[str] = ("nowhere",),
) -> Callable[[Cell], CellRecord]:
    """Records of replicates that went to the boards in turn; `add`: what each adds to the logarithm of
    times."""
    rng = np.random.default_rng(seed)

    def make(cell: Cell) -> CellRecord:
        board = cell.replicate % len(add)
        us = TRUE[cell.design] * float(np.exp(add[board] + rng.normal(0, process)))
        return timed(cell, us, f"GPU-{board}", hosts[board % len(hosts)], rng)

    return make


def written(
    folder: Path,
    given: Experiment,
    add: Sequence[float],
    *,
    lost: Callable[[Cell], bool] = lambda cell: False,
    **options: Any,
) -> Measured:
    """A run of such records, without those that were lost."""
    make = made(given, add, **options)
    synthetic.write_run(folder, given, lambda cell: None if lost(cell) else make(cell))
    return results.measure(frame.load_run(folder))


def speedup(measured: Measured, number: int) -> tuple[float, float, float]:
    figure = measured.speedups[ARMS[number], "medium", "total_us"]
    assert figure.low is not None
    assert figure.high is not None
    return figure.value, figure.low, figure.high


def test_speedups_lose_what_boards_add_and_times_keep_it(tmp_path: Path) -> None:
    same = written(tmp_path / "same", what(), [0.0])
    apart = written(tmp_path / "apart", what(), [0.0, 0.05, -0.05, 0.02])
    alone = speedup(same, 2)
    value, low, high = speedup(apart, 2)
    assert low < 100 / 60 < high
    assert high - low < 3 * (alone[2] - alone[1])
    times = [m.time for m in apart.measurements.values() if m.metric == "total_us"]
    assert all(time.relative_half_width > 0.04 for time in times)
    # Complete replicates: the value is that of the times as they are.
    left, right = (apart.at(arm, "medium", "total_us") for arm in (ARMS[0], ARMS[2]))
    assert left is not None
    assert right is not None
    assert value == pytest.approx(left.time.value / right.time.value, rel=1e-9)


def test_a_board_without_some_cells_does_not_bend_a_speedup(tmp_path: Path) -> None:
    def lost(cell: Cell) -> bool:
        return cell.design == "rpf_optmt" and cell.replicate == 1  # on the slow board

    found = written(tmp_path / "run", what(), [0.0, 0.2, 0.0, 0.0], lost=lost)
    value, low, high = speedup(found, 2)
    assert value == pytest.approx(100 / 60, rel=0.01)
    assert low < 100 / 60 < high
    left, right = (found.at(arm, "medium", "total_us") for arm in (ARMS[0], ARMS[2]))
    assert left is not None
    assert right is not None
    assert left.time.value / right.time.value > 1.02 * 100 / 60, "the times alone would say so"


@pytest.mark.parametrize(("arms", "count", "replicates"), [(2, 3, 3), (3, 4, 4), (3, 2, 6)])
def test_the_interval_holds_the_truth_as_often_as_it_says(arms: int, count: int, replicates: int) -> None:
    given = dataclasses.replace(what(arms, replicates), datasets=("medium",))
    cells = plan.make(given).cells
    rng = np.random.default_rng(4)
    held = 0
    for n in range(150):
        make = made(given, rng.normal(0, 0.03, count).tolist(), process=0.01, seed=n)
        records = [make(cell) for cell in cells]
        levels, known = boards.levels(records), results.pools(records)
        found = results.measurements_of("run", records, levels=levels, known=known)
        time = {one.variant: one.sampled for one in found if one.metric == "total_us"}
        speedup = stats.speedup(time[ARMS[0]], time[ARMS[1]])
        held += speedup.low <= 1.25 <= speedup.high
    # 150 repetitions know a coverage of 95 % to about ±3.5 points.
    assert 0.905 <= held / 150 <= 0.995


def test_boards_that_share_no_variant_are_not_compared(tmp_path: Path) -> None:
    def lost(cell: Cell) -> bool:
        return (cell.design == "baseline") != (cell.replicate % 2 == 0)

    found = written(tmp_path / "run", what(2), [0.0, 0.05], lost=lost)
    assert found.levels.fits == {}
    assert boards.spread(found.run, found.levels, "total_us") is None


def test_one_board_changes_nothing(tmp_path: Path) -> None:
    found = written(tmp_path / "run", what(), [0.0])
    assert found.levels == boards.Levels()
    assert all(one.sampled is one.across for one in found.measurements.values())
    assert [f.what for f in trust.examine(found, {})].count("boards") == 0


def told(measured: Measured) -> tuple[str, str]:
    (finding,) = [f for f in trust.examine(measured, {}) if f.what == "boards"]
    return finding.level, finding.detail


def test_the_spread_is_estimated_and_told(tmp_path: Path) -> None:
    found = written(tmp_path / "run", what(replicates=8), [0.0, 0.02, -0.02, 0.01], process=0.001)
    spread = boards.spread(found.run, found.levels, "total_us")
    assert spread is not None
    assert [board.uuid for board in spread.boards] == ["GPU-2", "GPU-0", "GPU-3", "GPU-1"]
    assert spread.between == pytest.approx(np.std([0.0, 0.02, -0.02, 0.01], ddof=1), rel=0.1)
    assert spread.within is not None
    assert spread.within < 0.002
    assert spread.outlying == []
    level, text = told(found)
    assert level == "good"
    assert "4 boards; speedups are formed within a board" in text
    assert "between replicates of one board" in text
    environment = [f for f in trust.examine(found, {}) if f.what == "environment"]
    assert [(f.level, f.detail) for f in environment] == [("good", "the same in every launch, boards apart")]


@pytest.mark.parametrize(("add", "named"), [(0.05, True), (0.004, False)])
def test_an_outlying_board_is_named(add: float, named: bool, tmp_path: Path) -> None:
    given = what(replicates=6)
    found = written(tmp_path / "run", given, [0.0, 0.001, -0.001, add, 0.0, 0.0005], process=0.0005)
    level, text = told(found)
    assert (level, "GPU-3 is outlying: +5" in text) == (("note", True) if named else ("good", False))
    assert "each has measured one replicate" in text


def test_of_two_boards_none_is_called_the_odd_one(tmp_path: Path) -> None:
    found = written(tmp_path / "run", what(), [0.0, 0.3], hosts=("here", "there"))
    level, text = told(found)
    assert level == "good"
    assert "+16.11 % on GPU-1 of there" in text


def test_tunables_of_a_sweep_are_held_beside_the_reference_of_their_board(tmp_path: Path) -> None:
    """A point that sets a tunable has one variant alone, and is compared with another point's reference."""
    sweep = (Axis("tunables.distance", (1, 8), arms={"rpf_optmt@12.1": (2, 1, 8)}),)
    given = what(sweep=sweep)
    by_point: Mapping[str, float] = {"": 60.0, "distance=1": 60.0, "distance=8": 50.0}
    rng = np.random.default_rng(8)

    def make(cell: Cell) -> CellRecord:
        us = TRUE[cell.design] if cell.design != "rpf_optmt" else by_point[cell.point]
        add = [0.0, 0.05, -0.05, 0.02][cell.replicate] + rng.normal(0, 0.002)
        return timed(cell, us * float(np.exp(add)), f"GPU-{cell.replicate}", "nowhere", rng)

    synthetic.write_run(tmp_path / "run", given, make)
    (run,) = analyse([tmp_path / "run"]).runs
    figure = run.figure(ARMS[2], "medium", "speedup_kernel_us", "distance=8")
    assert figure is not None
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low < 2 < figure.high
    assert figure.high - figure.low < 0.05
