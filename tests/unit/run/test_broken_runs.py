"""Runs that are killed, moved, damaged or somebody else's: nothing is lost, doubled or written elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import plan, wall
from harness.errors import BadInputError, MachineError
from harness.experiment import Experiment
from harness.files import Folder
from harness.records import Cell
from harness.run import attempt, campaign
from harness.run.attempt import Attempt
from harness.run.runner import Terms
from tests.pretended_runner import leave_record
from tests.unit.run.test_attempt import TOLD, records


class KilledError(BaseException):
    """Stands for what no process can catch: nothing is cleaned up behind it."""


def kill_at(number: int, runner: Any) -> Callable[[Attempt, Terms], None]:
    """Has the harness killed when a launch comes to its cell of this number, the earlier ones measured."""

    def run(made: Attempt, terms: Terms) -> None:
        made.sign(TOLD)
        for cell in made.launch.cells[:number]:
            leave_record(cell, made.output)
        made.over = False  # for nobody knows what still runs
        raise KilledError

    return run


@pytest.mark.parametrize("measured", [0, 1, 2])
def test_what_a_killed_harness_had_measured_is_not_measured_again(
    measured: int, experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root, run = tmp_path / "run", runner.run
    runner.run = kill_at(measured, runner)
    with pytest.raises(KilledError):
        campaign.start(experiment, runner, root)
    assert records(root) == {}
    (left,) = (root / wall.LAUNCHES).iterdir()
    assert len(list((left / "out").iterdir())) == measured
    runner.run = run
    campaign.resume(root, runner)
    planned = [cell.id for cell in plan.make(experiment).cells]
    assert [name for _, names in runner.launched for name in names] == planned[measured:]
    assert {record.status for record in records(root).values()} == {"ok"}
    assert set(records(root)) == set(planned)
    assert not (root / wall.LAUNCHES).exists()


def test_a_harness_killed_while_it_takes_records_in_loses_and_doubles_nothing(
    experiment: Experiment, runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, run = tmp_path / "run", runner.run
    runner.run = kill_at(2, runner)
    with pytest.raises(KilledError):
        campaign.start(experiment, runner, root)
    runner.run = run
    write = Folder.write_whole
    for number in range(2):  # killed behind the first record, then behind the second

        def write_one(self: Folder, name: str, text: str, number: int = number) -> None:
            write(self, name, text)
            if name == wall.RECORD and len(records(root)) > number:
                raise KilledError

        monkeypatch.setattr(Folder, "write_whole", write_one)
        with pytest.raises(KilledError):
            campaign.resume(root, runner)
        assert len(records(root)) == number + 1
    before = {path: path.stat().st_mtime_ns for path in root.glob("cells/*/record.json")}
    monkeypatch.setattr(Folder, "write_whole", write)
    campaign.resume(root, runner)
    after = {path: path.stat().st_mtime_ns for path in root.glob("cells/*/record.json")}
    assert before.items() <= after.items()
    assert len(after) == 8
    assert len([name for _, names in runner.launched for name in names]) == 6


def test_what_is_left_of_a_hostile_launch_is_read_as_carefully(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root, run = tmp_path / "run", runner.run
    first, second = plan.make(experiment).launches[0].cells

    def hostile(made: Attempt, terms: Terms) -> None:
        made.sign(TOLD)
        (made.output / wall.file_of(first.id)).symlink_to("/etc/passwd")
        leave_record(replace(second, seed=77), made.output)
        made.over = False
        raise KilledError

    runner.run = hostile
    with pytest.raises(KilledError):
        campaign.start(experiment, runner, root)
    runner.run = run
    campaign.resume(root, runner)
    found = records(root)
    assert (found[first.id].status, found[second.id].status) == ("failed", "failed")
    assert "is a link" in found[first.id].message
    assert "other seed" in found[second.id].message


def test_the_runner_is_asked_to_clear_up_before_anything_is_taken_in(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run")
    assert runner.cleared == [root]
    campaign.resume(root, runner)  # complete as it is
    assert runner.cleared == [root, root]


def test_a_complete_run_needs_no_machine_that_could_run_it(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run")

    def unreachable(*_: Any) -> None:
        raise MachineError("No Docker daemon answers.")

    runner.clear = unreachable
    assert campaign.resume(root, runner) == root
    next(root.glob("cells/*/record.json")).unlink()
    with pytest.raises(MachineError, match="No Docker daemon answers; 7 cells"):
        campaign.resume(root, runner)


def test_what_nobody_can_be_sure_has_ended_is_not_read(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root = tmp_path / "run"

    def lost(made: Attempt, terms: Terms) -> None:
        made.sign(TOLD)
        leave_record(made.launch.cells[0], made.output)
        made.over = False
        raise MachineError("The connection to the Docker daemon was lost.")

    run, runner.run = runner.run, lost
    with pytest.raises(MachineError, match=f"was lost; 0 cells have their records.*--resume {root}"):
        campaign.start(experiment, runner, root)
    runner.run = run
    campaign.resume(root, runner)
    assert len(records(root)) == 8


@pytest.mark.parametrize(
    "name", ["cells", "plan.json", "experiment.toml", "launches", "CELL", "RECORD", "LOG"]
)
def test_somebody_elses_run_is_not_written_through_links(
    name: str, experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run")
    cell = plan.make(experiment).cells[0].id
    for path in root.glob("cells/*/record.json"):
        path.unlink()
    outside = tmp_path / "outside"
    target = root / {
        "CELL": f"cells/{cell}",
        "RECORD": f"cells/{cell}/record.json",
        "LOG": f"cells/{cell}/log.txt",
    }.get(name, name)
    if target.exists():
        target.rename(outside)
    elif name == "launches":
        outside.mkdir()
    else:
        outside.write_text("precious", encoding="utf-8")
    target.symlink_to(outside)
    before = {path: path.read_bytes() for path in (outside, *outside.rglob("*")) if path.is_file()}
    names = sorted(outside.rglob("*"))
    refused = name not in ("RECORD", "LOG")
    if refused:
        with pytest.raises(BadInputError, match=f"{target}: is a link"):
            campaign.resume(root, runner)
    else:
        campaign.resume(root, runner)
        assert not target.is_symlink()
    assert {path: path.read_bytes() for path in (outside, *outside.rglob("*")) if path.is_file()} == before
    assert sorted(outside.rglob("*")) == names


def test_a_late_starter_does_not_touch_a_run_that_was_made_while_it_waited(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root = tmp_path / "run"

    class Late(type(runner)):  # type: ignore[misc]
        def hold(self, *_: Any) -> Any:
            campaign.start(experiment, runner, root)  # another process, quicker than this one
            return super().hold(*_)

    with pytest.raises(BadInputError, match="holds a run already; go on with"):
        campaign.start(experiment, Late(), root)
    assert {record.status for record in records(root).values()} == {"ok"}
    assert len(records(root)) == 8


def test_records_whose_plan_is_gone_are_not_started_over(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run")
    (root / "plan.json").unlink()
    with pytest.raises(BadInputError, match=r"holds records of a run whose plan\.json is gone"):
        campaign.start(experiment, runner, root)
    assert len(records(root)) == 8


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_run_whose_folder_goes_away_ends_in_a_sentence(
    how: str, experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root, moved = tmp_path / "run", tmp_path / "moved"
    planned = [cell.id for cell in plan.make(experiment).cells]

    def measure(cell: Cell, output: Path) -> None:
        leave_record(cell, output)
        if cell.id == planned[3]:
            root.rename(moved)
            if how == "replaced":
                root.mkdir()

    runner.measure = measure
    with pytest.raises(MachineError, match=f"{root}: was moved, removed or replaced"):
        campaign.start(experiment, runner, root)
    if how == "replaced":
        assert list(root.iterdir()) == []
    if how == "removed":
        return
    runner.measure, runner.launched = leave_record, []
    campaign.resume(moved, runner)
    assert len(records(moved)) == 8
    assert len([name for _, names in runner.launched for name in names]) == 4, "what was measured counts"


def test_neighbours_on_the_gpu_are_named_and_their_cells_marked(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    first, second = plan.make(experiment).launches[0].cells
    run = runner.run

    def beside(made: Attempt, terms: Terms) -> Any:
        def measure(cell: Cell, output: Path) -> None:
            leave_record(cell, output)
            terms.listener.neighbours(["process 7 (python3, user eve)"] if cell.id == first.id else [])

        runner.measure = measure
        return run(made, terms)

    runner.run = beside
    root = campaign.start(experiment, runner, tmp_path / "run")
    found = records(root)
    assert found[second.id].neighbours == []
    assert found[first.id].neighbours == ["process 7 (python3, user eve)"]
    environment = found[first.id].environment
    assert environment is not None
    assert environment.other_processes == 1


def test_a_killed_profile_leaves_nothing_that_counts(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run", measure=False)
    launch = plan.make(experiment).launches[0]
    with Folder.open(root) as folder, attempt.begun(launch, folder, profiled=True) as made:
        made.sign(TOLD)
        leave_record(launch.cells[0], made.output, samples={})
    campaign.resume(root, runner)
    assert {record.status for record in records(root).values()} == {"ok"}
    assert not (root / wall.LAUNCHES).exists()


def test_a_launch_that_never_began_leaves_nothing(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    def missing(made: Attempt, terms: Terms) -> None:
        raise MachineError("The image is missing.")

    runner.run = missing
    with pytest.raises(MachineError, match="The image is missing; 0 cells"):
        campaign.start(experiment, runner, tmp_path / "run")
    assert not (tmp_path / "run" / wall.LAUNCHES).exists()


def test_a_note_that_is_damaged_is_named(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run", measure=False)
    (root / wall.LAUNCHES / "x").mkdir(parents=True)
    (root / wall.LAUNCHES / "x" / "attempt.json").write_text(json.dumps({"launch": 3}), encoding="utf-8")
    with pytest.raises(BadInputError, match=r"attempt\.json: .*Remove .*launches/x to go on without"):
        campaign.resume(root, runner)
