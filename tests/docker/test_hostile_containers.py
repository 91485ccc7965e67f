"""A container with malicious code gets no file outside its folder, no belief, no endless wait."""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from harness import plan, wall
from harness.analysis import frame
from harness.build.images import Target
from harness.plan import Launch, Plan
from harness.progress import Progress
from harness.records import CellRecord, Variant
from harness.run import campaign
from harness.run.docker import DockerRunner
from tests.docker import hostile_launch
from tests.docker.test_container_runs import containers, experiment, records
from tests.killing import pretended

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(1200),
    pytest.mark.xdist_group("hostile containers"),  # all look at one run, of minutes
]

SECRET = "nobody but its owner may read this: 7b0f4d"
BELIEVED = ("other_provenance", "nothing_but_a_good_record", "a_shut_folder")
"""Tricks behind which a record counts, for it is the planned cell's."""
SAID = {
    "files_without_an_end": "it left more than",
    "bytes_without_an_end": "it wrote more than|stopped at its deadline",  # where the machine is busy
    "folders_without_an_end": "it made a folder in its output|is a folder|without leaving a record",
    "folders": "it made a folder in its output|is a folder",
    "it_goes_on_without_a_log": "did not end before the deadline|stopped at its deadline",
    "processes_without_an_end": "without leaving a record|stopped at its deadline",
    "everybody_is_killed": "without leaving a record",
    "sparse_files": "holds more than",
    "pipes": "is a pipe",
    "sockets": "is a socket",
    "records_are_links_to_a_secret": "is a link",
    "a_rivals_records": "other id, design, toolchain",
    "designs_that_nobody_planned": "other workload, seed",
    "half_characters": "half a character",
    "numbers_that_are_none": "is too large|is no number|is not a finite number",
}
"""Of some, what their records say."""


@dataclass
class Hostile:
    """A run whose launches each attack in a way of their own, and what it left."""

    root: Path
    tricks: dict[str, str]
    """By cell."""
    records: dict[str, CellRecord]
    host_changed: bool
    left_behind: list[Any]

    def log(self, cell_id: str) -> str:
        """A cell's log."""
        path = self.root / wall.CELLS / cell_id / wall.LOG
        return path.read_text(encoding="utf-8") if path.exists() else ""


class SideBySide(DockerRunner):
    """Containers on the CPU that are said to be on two boards: while one waits for its deadline the other
    goes through the next tricks, and each could do harm to a neighbour too."""

    def check(self, plan: Plan, folder: Path, progress: Progress) -> None:
        super().check(plan, folder, progress)
        self.boards = pretended(folder, 2)


@pytest.fixture(scope="module")
def hostile(
    built: list[Target],
    client: docker.DockerClient,
    tmp_path_factory: pytest.TempPathFactory,
    own_names: None,
) -> Hostile:
    """Each launch tries a trick of its own, with well-behaved ones between them."""
    folder = tmp_path_factory.mktemp("hostile")
    host = folder / "host"
    host.mkdir()
    (host / "secret").write_text(SECRET, encoding="utf-8")
    (host / "secret").chmod(0o600)
    (host / "victim").write_text("precious", encoding="utf-8")
    given = experiment(
        arms=(Variant("stock", "pytorch"), Variant("baseline", "12.1")),
        replicates=-(-len(hostile_launch.TRICKS) // 2),
        deadline_s=15.0,
    )
    planned = plan.make(given)
    names = itertools.chain(hostile_launch.TRICKS, itertools.repeat("nothing_but_a_good_record"))
    tricks = dict(zip((launch.id for launch in planned.launches), names, strict=False))
    program = Path(hostile_launch.__file__).read_text(encoding="utf-8")
    options = DockerRunner._options

    def changed(self: DockerRunner, attempt: Any, **named: Any) -> dict[str, Any]:
        entry = ["python3", "-c", program, tricks[attempt.launch.id], str(host)]
        return options(self, attempt, **named) | {"entrypoint": entry}

    before = state(host)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DockerRunner, "_options", changed)
        root = campaign.start(given, SideBySide(), folder / "run")
    by_cell = {cell.id: tricks[launch.id] for launch in planned.launches for cell in launch.cells}
    return Hostile(root, by_cell, records(root), state(host) != before, containers(client, root))


def state(folder: Path) -> dict[str, tuple[Any, ...]]:
    """All that can be told of a folder and what is in it."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        seen = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (seen.st_ino, seen.st_mode, seen.st_uid, seen.st_mtime_ns, content)
    return found


def plain_files(root: Path) -> Iterator[Path]:
    """Every file of a run, each of which is plain, the host's own, and not to be run."""
    for path in root.rglob("*"):
        seen = path.lstat()
        assert stat.S_ISREG(seen.st_mode) or stat.S_ISDIR(seen.st_mode), path
        assert (seen.st_uid, seen.st_gid) == (os.getuid(), os.getgid()), path
        if stat.S_ISREG(seen.st_mode):
            assert seen.st_mode & 0o7111 == 0, path
            yield path


def test_no_file_outside_its_folder_was_read_or_written(hostile: Hostile) -> None:
    assert not hostile.host_changed
    for path in plain_files(hostile.root):
        content = path.read_bytes()
        assert SECRET.encode() not in content, path
        assert b"ESCAPED" not in content, path
        assert b"\x1b" not in content, path
        assert path.stat().st_size < 20 * 2**20, path
    assert {path.name for path in hostile.root.iterdir()} == {
        *(".lock", ".lock.json", "cells", "datasets.json", "experiment.toml", "manifest.json", "plan.json"),
    }
    for cell_id in hostile.tricks:
        names = {path.name for path in (hostile.root / wall.CELLS / cell_id).iterdir()}
        assert names <= {wall.CELL, wall.RECORD, wall.LOG}


def test_every_launch_came_to_an_end_and_nothing_of_it_is_left(hostile: Hostile) -> None:
    assert set(hostile.records) == set(hostile.tricks)
    assert hostile.left_behind == []
    assert {launch: hostile.log(launch).count("trick: ") for launch in firsts(hostile)} == dict.fromkeys(
        firsts(hostile), 1
    ), "every trick was tried"


def firsts(hostile: Hostile) -> list[str]:
    """The first cell of every launch, whose log begins with what the program says before all else."""
    launches: list[Launch] = plan.read(hostile.root / wall.PLAN).launches  # type: ignore[assignment]
    return [launch.cells[0].id for launch in launches]


@pytest.mark.parametrize("trick", hostile_launch.TRICKS)
def test_what_is_believed(trick: str, hostile: Hostile) -> None:
    found = [hostile.records[cell] for cell, tried in hostile.tricks.items() if tried == trick]
    assert len(found) >= 2
    for record in found:
        assert len(record.message) < 3000
        if trick in BELIEVED:
            assert (record.status, record.message) == ("ok", "")
            assert record.samples["stage_us"] == [2.0] * 10
            assert record.environment is not None
            assert hostile_launch.PLANTED not in str(record.environment)
            assert record.environment.image.startswith("embedding-harness-test/")
            assert len(record.environment.git_commit) == 40
        elif trick == "a_record_that_keeps_changing" and record.status == "ok":
            assert record.samples["stage_us"] == [2.0] * 10, "it was the record in that moment"
        else:
            assert record.status in ("failed", "timeout"), record.message
            assert any(said in record.message for said in SAID.get(trick, "").split("|")), record.message


def test_a_launch_sees_nothing_of_others(hostile: Hostile) -> None:
    """Neither their cells, nor records, nor logs; nor where on the host all that lies."""
    (line,) = (
        line for cell in hostile.tricks for line in hostile.log(cell).splitlines() if line.startswith("SEEN ")
    )
    seen = json.loads(line.removeprefix("SEEN "))
    assert {path.removeprefix("/proc/self/root") for path in seen} == {"/launch/cells", "/launch/out"}


def test_too_long_a_log_is_cut_and_says_so(hostile: Hostile) -> None:
    for trick, said in (
        ("a_line_without_an_end", "bytes more, which were not kept"),
        ("lines_without_an_end", "The rest was not kept"),
    ):
        logs = [hostile.log(cell) for cell, tried in hostile.tricks.items() if tried == trick]
        assert any(said in log for log in logs), trick
        assert max(map(len, logs)) < 17 * 2**20


def test_the_report_shows_the_rest(hostile: Hostile) -> None:
    run = frame.load_run(hostile.root)
    assert {record.cell.id for record in run.records} == set(hostile.tricks)
