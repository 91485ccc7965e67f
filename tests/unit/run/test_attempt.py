"""What a launch leaves counts only where it is the planned cell's record; nothing else is touched."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import plan, wall
from harness.errors import BadInputError, MachineError
from harness.experiment import Experiment
from harness.files import Folder
from harness.plan import Launch
from harness.records import Cell, CellRecord, load, to_json
from harness.run import attempt, campaign
from harness.run.attempt import Attempt
from harness.wall import Provenance
from tests.pretended_runner import good_record, leave_record

TOLD = Provenance("docker", "image@sha256:1", "c0ffee", True, "here")


def records(root: Path) -> dict[str, CellRecord]:
    return {path.parent.name: load(CellRecord, path) for path in root.glob("cells/*/record.json")}


def gathered(launch: Launch, folder: Path, leave: Callable[[Attempt], object]) -> dict[str, CellRecord]:
    """What is gathered from an attempt of which `leave` left something."""
    with Folder.open(folder) as root, attempt.begun(launch, root) as made:
        made.sign(TOLD)
        leave(made)
        made.over = True
        try:
            return made.gather()
        finally:
            made.discard(root)


@pytest.fixture
def launch(experiment: Experiment) -> Launch:
    return plan.make(experiment).launches[0]


@pytest.fixture
def cell(launch: Launch) -> Cell:
    return launch.cells[0]


def test_a_good_record_is_kept_with_what_the_host_knows(launch: Launch, cell: Cell, tmp_path: Path) -> None:
    found = gathered(launch, tmp_path, lambda made: leave_record(cell, made.output))
    assert set(found) == {cell.id}
    record, environment = found[cell.id], good_record(cell).environment
    assert environment is not None
    assert record == replace(
        good_record(cell), environment=replace(environment, **dataclasses.asdict(TOLD))
    ), "of its image and commit a launch only tells what it was told"
    assert list(tmp_path.iterdir()) == [], "nothing is left of the attempt"


def _write(content: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(64 * 2**30)


def _shut(path: Path) -> None:
    path.mkdir()
    path.chmod(0)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "garbage": (_write("what?"), "is not JSON"),
    "nothing": (_write(""), "is not JSON"),
    "bytes": (_write(b"\xff\x00"), "is not JSON"),
    "brackets": (_write("[" * 100_000), "is nested too deeply"),
    "another kind of thing": (_write('{"a": 1}'), "a: is not a field of CellRecord"),
    "newer": (_write('{"schema_version": 7}'), "has schema_version 7, this program reads up to 1"),
    "a link": (lambda path: path.symlink_to("/etc/passwd"), "is a link, which is not followed here"),
    "a link to nothing": (lambda path: path.symlink_to("/nowhere"), "is a link, which is not followed here"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is a link"),
    "a folder": (Path.mkdir, "is a folder and not a file"),
    "a shut folder": (_shut, "is a folder and not a file|cannot be read: Permission denied"),
    "a pipe": (os.mkfifo, "is a pipe and not a file"),
    "a sparse file": (_sparse, "holds more than the 9 MiB that it may"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_record_is_a_failed_cell_that_says_so(
    what: str, launch: Launch, cell: Cell, tmp_path: Path
) -> None:
    make, said = BAD[what]
    other = launch.cells[1]

    def leave(made: Attempt) -> None:
        make(made.output / wall.file_of(cell.id))
        leave_record(other, made.output)

    found = gathered(launch, tmp_path, leave)
    assert found[other.id].status == "ok", "the others are as good as ever"
    assert found[cell.id].status == "failed"
    assert found[cell.id].cell == cell
    message = found[cell.id].message
    assert message.startswith(f"What its launch left as its record does not count: {cell.id}.json: ")
    assert re.search(said, message)
    assert str(tmp_path) not in message


FORGED: dict[str, tuple[Callable[[CellRecord], CellRecord], str]] = {
    "of another design": (lambda r: replace(r, cell=replace(r.cell, design="fused")), "other design"),
    "of another name": (lambda r: replace(r, cell=replace(r.cell, id="x")), "other id"),
    "of other rows": (
        lambda r: replace(r, cell=replace(r.cell, workload=replace(r.cell.workload, rows=7))),
        "other workload",
    ),
    "of another seed": (lambda r: replace(r, cell=replace(r.cell, seed=7)), "other seed"),
    "of another replicate": (lambda r: replace(r, cell=replace(r.cell, replicate=9)), "other replicate"),
    "of another timing": (
        lambda r: replace(r, cell=replace(r.cell, timing=replace(r.cell.timing, min_passes=3))),
        "other timing",
    ),
    "without samples": (lambda r: replace(r, samples={}), "holds no samples"),
    "unchecked": (lambda r: replace(r, check=None), "tells of no check that passed"),
    "wrong": (
        lambda r: replace(r, check=replace(r.check, passed=False)),  # type: ignore[type-var]
        "tells of no check that passed",
    ),
    "from nowhere": (lambda r: replace(r, environment=None), "not measured on the device"),
    "from another device": (
        lambda r: replace(r, environment=replace(r.environment, device="cuda")),  # type: ignore[type-var]
        "not measured on the device",
    ),
    "of no kernel": (lambda r: replace(r, kernel=None), "does not tell which kernel ran"),
    "of other sources": (
        lambda r: replace(r, kernel=replace(r.kernel, source_hash="feed")),  # type: ignore[type-var]
        "is of sources 'feed'",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_record_counts_only_where_it_is_the_planned_ones(
    what: str, launch: Launch, cell: Cell, tmp_path: Path
) -> None:
    forge, said = FORGED[what]
    text = to_json(forge(good_record(cell)))
    found = gathered(launch, tmp_path, lambda made: _write(text)(made.output / wall.file_of(cell.id)))
    assert found[cell.id].status == "failed"
    assert found[cell.id].cell == cell
    assert said in found[cell.id].message


def test_a_record_that_was_not_measured_needs_no_samples(launch: Launch, cell: Cell, tmp_path: Path) -> None:
    told = CellRecord(cell, "oom", "Too \x1b[31mlarge.", "a\x07b")
    found = gathered(
        launch, tmp_path, lambda made: _write(to_json(told))(made.output / wall.file_of(cell.id))
    )
    assert found[cell.id] == replace(told, message="Too large.", log_tail="a\\x07b")


def test_records_of_cells_that_are_not_the_launchs_are_not_looked_at(
    experiment: Experiment, tmp_path: Path
) -> None:
    first, second = plan.make(experiment).launches[:2]

    def leave(made: Attempt) -> None:
        for cell in second.cells:
            leave_record(cell, made.output)
        leave_record(replace(first.cells[0], id="../../planted"), made.output.parent / "cells")
        leave_record(replace(first.cells[0], id="unplanned"), made.output)

    assert gathered(first, tmp_path, leave) == {}


def test_an_output_folder_that_was_shut_is_read(launch: Launch, cell: Cell, tmp_path: Path) -> None:
    def leave(made: Attempt) -> None:
        leave_record(cell, made.output)
        made.output.chmod(0)

    assert gathered(launch, tmp_path, leave)[cell.id].status == "ok"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be an ordinary user")
def test_an_ordinary_user_reads_and_removes_what_a_launch_has_shut(
    launch: Launch, cell: Cell, tmp_path: Path
) -> None:
    """Root may do anything; whoever is not, has to open first what the launch of the same user has shut."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, 1234, 1234)

    def leave(made: Attempt) -> None:
        leave_record(cell, made.output)
        (made.output / "shut").mkdir()
        (made.output / "shut" / "x").touch()
        (made.output / "shut").chmod(0)
        (made.output / wall.file_of(launch.cells[1].id)).touch()
        (made.output / wall.file_of(launch.cells[1].id)).chmod(0)
        made.output.chmod(0)

    gathered(launch, tmp_path, leave)  # as root: what is imported on the way is there for the child
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(1234)
            os.setuid(1234)
            found = gathered(launch, own, leave)
            assert found[cell.id].status == "ok"
            assert "cannot be read: Permission denied" in found[launch.cells[1].id].message
            assert list(own.iterdir()) == []
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_neither_owner_nor_mode_comes_along(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    def measure(cell: Cell, output: Path) -> None:
        leave_record(cell, output)
        if os.getuid() == 0:
            os.chown(output / wall.file_of(cell.id), 1234, 1234)
        (output / wall.file_of(cell.id)).chmod(0o6777)

    runner.measure = measure
    root = campaign.start(experiment, runner, tmp_path / "run")
    for path in root.glob("cells/*/record.json"):
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
        assert found.st_mode & 0o7111 == 0


def test_a_run_with_launches_gone_bad_reports_the_rest(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    bad = plan.make(experiment).cells[2].id

    def measure(cell: Cell, output: Path) -> None:
        if cell.id == bad:
            (output / wall.file_of(cell.id)).symlink_to("/etc/passwd")
        else:
            leave_record(cell, output)

    runner.measure = measure
    root = campaign.start(experiment, runner, tmp_path / "run")
    found = records(root)
    assert len(found) == 8
    assert {name for name, record in found.items() if record.status != "ok"} == {bad}
    assert f"measuring {bad}" in found[bad].log_tail
    assert not (root / wall.LAUNCHES).exists()


class KilledError(BaseException):
    """Stands for what no process can catch: nothing is cleaned up behind it."""


def kill_at(number: int, runner: Any) -> Callable[[Attempt], None]:
    """Has the harness killed when a launch comes to its cell of this number, the earlier ones measured."""

    def run(made: Attempt, **_: Any) -> None:
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

    def hostile(made: Attempt, **_: Any) -> None:
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

    def lost(made: Attempt, **_: Any) -> None:
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

    def beside(made: Attempt, **options: Any) -> Any:
        listener = options["listener"]

        def measure(cell: Cell, output: Path) -> None:
            leave_record(cell, output)
            listener.neighbours(["process 7 (python3, user eve)"] if cell.id == first.id else [])

        runner.measure = measure
        return run(made, **options)

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
    def missing(made: Attempt, **_: Any) -> None:
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
