"""What a launch leaves counts only where it is the planned cell's record; nothing else is touched."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import plan, wall
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
