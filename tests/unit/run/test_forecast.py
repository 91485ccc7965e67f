"""What a run would take, from records whose times are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness import plan
from harness.experiment import Experiment
from harness.records import Cell, CellRecord, Variant, Workload
from harness.run.forecast import forecast
from tests import synthetic_run as synthetic

ARMS = (Variant("baseline", "12.1"), Variant("optmt", "12.1"))


def asked(**changes: object) -> Experiment:
    settings = {"arms": ARMS, "datasets": ("medium", "random"), "replicates": 2} | changes
    return synthetic.experiment(**settings)  # type: ignore[arg-type]


def measured(folder: Path) -> Path:
    """The baseline's cells took 3 s, OptMT's 5 s, and the next process began 2 s after the one before."""
    what = asked()
    second = 0

    def make(cell: Cell) -> CellRecord:
        nonlocal second
        took = 3 if cell.design == "baseline" else 5
        second += 2 if cell.dataset.name == plan_of_cell[cell.id] else 0
        began, second = second, second + took
        return dataclasses.replace(
            synthetic.record(cell),
            facts={"cell_s": float(took)},
            started_at=f"2026-01-01T00:{began // 60:02}:{began % 60:02}+00:00",
            finished_at=f"2026-01-01T00:{second // 60:02}:{second % 60:02}+00:00",
        )

    launches = plan.make(what).launches
    plan_of_cell = {cell.id: launch.cells[0].dataset.name for launch in launches for cell in launch.cells}
    return synthetic.write_run(folder, what, make)


def test_time_is_that_of_like_cells_and_of_the_gaps_between_processes(tmp_path: Path) -> None:
    found = forecast(plan.make(asked(replicates=3)), [measured(tmp_path / "run")])
    assert (found.cells, found.processes, found.told) == (12, 6, 12)
    assert found.seconds == pytest.approx(6 * 3 + 6 * 5 + 6 * 2)
    assert found.measured_on == ["SYNTHETIC GPU 80GB (no such thing)"]
    assert found.gpu_bytes > Workload().table_bytes


def test_another_arm_takes_as_long_as_they_did_on_average(tmp_path: Path) -> None:
    what = asked(arms=(*ARMS, Variant("smpf", "12.1")), datasets=("low",), replicates=1)
    found = forecast(plan.make(what), [measured(tmp_path / "run")])
    assert found.seconds == pytest.approx(3 * 4 + 3 * 2)


def test_of_other_work_nothing_is_known(tmp_path: Path) -> None:
    found = forecast(plan.make(asked(workload=Workload(batch=77))), [measured(tmp_path / "run"), tmp_path])
    assert (found.seconds, found.told, found.measured_on) == (None, 0, [])
