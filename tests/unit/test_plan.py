"""A plan that somebody else wrote is held to what an experiment of ours may ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import plan
from harness.errors import BadInputError
from harness.plan import Plan
from harness.records import Cell, Variant, to_json
from tests import synthetic_run as synthetic


@pytest.fixture
def made() -> Plan:
    return plan.make(synthetic.experiment(replicates=1))


def written(path: Path, found: Plan) -> Path:
    path.write_text(to_json(found), encoding="utf-8")
    return path


def with_cells(found: Plan, change: Callable[[Cell], Cell]) -> Plan:
    launch = found.launches[0]
    cells = tuple(change(cell) for cell in launch.cells)
    return Plan((dataclasses.replace(launch, cells=cells),))


def test_our_own_is_read(made: Plan, tmp_path: Path) -> None:
    assert plan.read(written(tmp_path / "plan.json", made)) == made


@pytest.mark.parametrize(
    "name",
    ["../../../tmp/x", "/etc/x", "..", ".", "", "a/b", "a\nb", "-rf", ".hidden", "a\0", "é", "x" * 201],
)
def test_ids_stay_names_of_folders(name: str, made: Plan, tmp_path: Path) -> None:
    cells = with_cells(made, lambda cell: dataclasses.replace(cell, id=name))
    with pytest.raises(BadInputError, match=r"plan\.json: id .*cannot name a folder"):
        plan.read(written(tmp_path / "plan.json", cells))
    launch = dataclasses.replace(made.launches[0], id=name)
    with pytest.raises(BadInputError, match=r"plan\.json: id .*cannot name a folder"):
        plan.read(written(tmp_path / "plan.json", Plan((launch,))))


def test_ids_stand_once(made: Plan, tmp_path: Path) -> None:
    doubled = with_cells(made, lambda cell: dataclasses.replace(cell, id="same"))
    with pytest.raises(BadInputError, match="'same' stands twice"):
        plan.read(written(tmp_path / "plan.json", doubled))


@pytest.mark.parametrize(
    ("field", "value"), [("tables", 10**9), ("rows", 2**60), ("batch", 2**40), ("dim", 0)]
)
def test_workloads_are_within_an_experiments_limits(
    field: str, value: int, made: Plan, tmp_path: Path
) -> None:
    change: dict[str, Any] = {field: value}

    def changed(cell: Cell) -> Cell:
        return dataclasses.replace(cell, workload=dataclasses.replace(cell.workload, **change))

    with pytest.raises(BadInputError, match=rf"plan\.json: .*workload\.{field}"):
        plan.read(written(tmp_path / "plan.json", with_cells(made, changed)))


def test_cells_are_no_more_than_a_run_takes(
    made: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MOST_CELLS", 3)
    with pytest.raises(BadInputError, match="and a run takes 3 at most"):
        plan.read(written(tmp_path / "plan.json", made))


def test_an_experiment_whose_cells_cannot_name_folders_is_refused() -> None:
    tunables = {f"tunable_of_a_very_long_name_{number}": 1 for number in range(8)}
    arm = Variant("rpf", "12.1", tunables)
    with pytest.raises(BadInputError, match="cannot name a folder"):
        plan.make(synthetic.experiment(arms=(arm,), reference=arm.label))
