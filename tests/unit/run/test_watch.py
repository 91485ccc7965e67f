"""How much a launch writes, and who else is on its GPU: what the host sees while it runs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import plan, wall
from harness.experiment import Experiment
from harness.files import Folder
from harness.progress import Silent
from harness.run import attempt, watch
from harness.run.cells import Logs
from harness.run.gpu import Gpu
from harness.run.watch import Neighbours, Watch, in_container, in_session, in_words, too_much
from tests.pretended_runner import Heard

GPU = Gpu(0, "GPU-1", "H100", "580", 1, 1)


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Folder]:
    with Folder.open(tmp_path) as folder:
        yield folder


def test_what_a_launch_may_write(output: Folder) -> None:
    for number in range(watch._MOST_FILES):
        os.close(output.create(f"{number}"))
    output.write_whole("record", "x" * 100_000)
    assert too_much(output, cells=1) == ""
    for number in range(watch._FILES_PER_CELL):
        os.close(output.create(f"more{number}"))
    assert "it left more than 260 files" in too_much(output, cells=1)
    assert too_much(output, cells=2) == "", "more cells leave more"


def test_a_folder_is_too_much(output: Folder) -> None:
    output.inner("folder", create=True).close()
    assert "made a folder" in too_much(output, cells=1)


def test_bytes_count_where_they_take_room(output: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_MOST_BYTES", 2**20)
    monkeypatch.setattr(watch, "_BYTES_PER_CELL", 0)
    with open(output.create("sparse"), "wb") as file:
        file.truncate(2**40)
    assert too_much(output, cells=1) == ""
    with open(output.create("full"), "wb") as file:
        file.write(b"x" * 2**21)
        os.fsync(file.fileno())
    assert "it wrote more than" in too_much(output, cells=1)


def test_a_full_disk_is_nobodys_failure(output: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=100, f_frsize=4096))
    with pytest.raises(OSError, match="No space left") as raised:
        watch.require_room(output)
    assert raised.value.errno == errno.ENOSPC


class Nvml:
    """Lists these processes on every GPU."""

    class NVMLError(Exception):
        pass

    def __init__(self, compute: list[int], graphics: list[int]) -> None:
        self.compute, self.graphics = compute, graphics
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid) for pid in self.compute]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        if not self.graphics:
            raise self.NVMLError
        return [SimpleNamespace(pid=pid) for pid in self.graphics]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    made = Nvml([os.getpid(), os.getppid(), 2**22 + 5], [])
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.setattr(watch, "_sees_hosts_pids", lambda: True)
    return made


def test_others_are_named_and_ours_is_not(nvml: Nvml) -> None:
    with Neighbours(GPU, lambda pid: pid == os.getpid()) as neighbours:
        assert nvml.open == 1
        due_at_first = neighbours.due
        (other,) = neighbours.look()
        assert (due_at_first, neighbours.due) == (True, False), "the driver is not asked at every turn"
    assert nvml.open == 0
    assert other == in_words(os.getppid())
    assert other.startswith(f"process {os.getppid()} (")
    assert "user " in other


def test_where_numbers_are_not_the_hosts_nobody_is_accused(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_sees_hosts_pids", lambda: False)
    with Neighbours(GPU, lambda pid: False) as neighbours:
        assert neighbours.look() == []
    with Neighbours(None, lambda pid: False) as neighbours:
        assert neighbours.look() == []


def test_a_driver_that_says_nothing_is_no_trouble(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise nvml.NVMLError

    monkeypatch.setattr(nvml, "nvmlInit", refuse)
    with Neighbours(GPU, lambda pid: False) as neighbours:
        assert neighbours.look() == []


def test_whose_a_process_is() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        assert in_session(child.pid)(child.pid)
        assert not in_session(child.pid)(os.getpid())
        assert not in_session(child.pid)(2**22 + 5)
        assert not in_container("0123456789abcdef")(child.pid)
        assert not in_container("0123456789abcdef")(2**22 + 5)
    finally:
        child.communicate()


def test_a_watch_tells_of_neighbours_and_when_to_stop(
    nvml: Nvml, experiment: Experiment, tmp_path: Path
) -> None:
    launch = plan.make(experiment).launches[0]
    with Folder.open(tmp_path) as root, attempt.begun(launch, root) as made:
        heard = Heard()
        with Watch(made, Neighbours(GPU, lambda pid: pid == os.getpid()), heard) as watching:
            assert not watching.stop()
            assert heard.beside == [in_words(os.getppid())]
            (made.output / "folder").mkdir()
            assert watching.stop()
            assert "made a folder" in watching.why
        assert len(heard.beside) == 2, "a last look when the launch is over"


def test_cells_are_marked_that_were_at_work_when_somebody_was_there(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Between two looks nobody knows: then every cell that was at work is marked."""
    launch = plan.make(experiment).launches[0]
    first, second = launch.cells
    for cell in launch.cells:
        (tmp_path / wall.CELLS / cell.id).mkdir(parents=True)
    with Folder.open(tmp_path) as root, Logs(launch, root, Silent()) as logs:
        logs.neighbours(["early"])
        logs.line(wall.announce(first.id))
        logs.neighbours([])
        assert logs.seen_beside(first) == []
        logs.line(wall.announce(second.id))
        logs.neighbours(["eve"])
        assert (logs.seen_beside(first), logs.seen_beside(second)) == (["eve"], ["eve"])
        logs.neighbours(["mallory"])
        assert (logs.seen_beside(first), logs.seen_beside(second)) == (["eve"], ["eve", "mallory"])
