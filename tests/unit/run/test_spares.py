"""Processes that load PyTorch before their launch is known measure as others do, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness import plan, wall
from harness.experiment import Experiment
from harness.plan import Launch
from harness.records import CellRecord, Model, load
from harness.run import campaign, spares
from harness.run import cores as own_cores
from harness.run.gpu import Gpu
from harness.run.local import LocalRunner
from harness.run.spares import Process, Spares


def children() -> list[str]:
    """Of this process."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()


def records(root: Path) -> list[CellRecord]:
    """Of a run, in order of their files."""
    return [load(CellRecord, path) for path in sorted(root.glob("cells/*/record.json"))]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Allows spares on the CPU, too, and says which processes became a launch."""
    found: list[int] = []
    take = Spares.take

    def noting(
        self: Spares, board: Gpu | None, arguments: list[str], environment: Mapping[str, str]
    ) -> Process | None:
        process = take(self, board, arguments, environment)
        found.extend([] if process is None else [process.pid])
        return process

    monkeypatch.setattr(Spares, "take", noting)
    monkeypatch.setattr(spares, "may_load_beside", lambda launch, boards: True)
    return found


def test_all_launches_but_the_first_are_spares(
    experiment: Experiment, tmp_path: Path, taken: list[int]
) -> None:
    before = children()
    experiment = replace(experiment, replicates=3, arms=experiment.arms[:1])
    root = campaign.start(experiment, LocalRunner(), tmp_path / "run")
    assert len(taken) == 2
    assert {(record.status, record.message) for record in records(root)} == {("ok", "")}
    for record in records(root):
        log = (root / "cells" / record.cell.id / "log.txt").read_text(encoding="utf-8")
        assert "ok after" in log
    assert children() == before


def test_one_that_has_ended_is_replaced(
    experiment: Experiment, tmp_path: Path, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = Spares.prepare

    def killed(self: Spares, board: Gpu | None) -> None:
        prepare(self, board)
        for process in self._waiting.values():
            spares.kill(process)
            process.wait()

    monkeypatch.setattr(Spares, "prepare", killed)
    experiment = replace(experiment, replicates=2, arms=experiment.arms[:1])
    root = campaign.start(experiment, LocalRunner(), tmp_path / "run")
    assert not taken
    assert {record.status for record in records(root)} == {"ok"}


def sleeper() -> Process:
    """A process that never reads what it is told."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def noted(begun: list[Process]) -> Callable[[Gpu | None], Process]:
    """Starts such processes, and keeps them to look at."""

    def start(board: Gpu | None) -> Process:
        begun.append(sleeper())
        return begun[-1]

    return start


def test_nobody_waits_for_one_that_does_not_read_a_long_environment() -> None:
    begun: list[Process] = []
    found = Spares(noted(begun))
    found.prepare(None)
    assert found.take(None, [], {"LONG": "x" * 2**20}) is None
    assert [process.returncode for process in begun] == [-signal.SIGKILL]


def test_an_interrupt_at_the_first_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Process] = []
    found = Spares(noted(begun))
    for uuid in ("GPU-1", "GPU-2", "GPU-3"):
        found.prepare(cast(Gpu, SimpleNamespace(uuid=uuid)))
    kill = spares.kill

    def interrupted(process: Process) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        kill(process)

    monkeypatch.setattr(spares, "kill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found.close()
    assert [process.returncode for process in begun] == [-signal.SIGKILL] * 3


def started(**environment: str) -> subprocess.Popen[str]:
    """A spare, outside any run."""
    command = [sys.executable, "-m", wall.SPARE]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def test_one_that_nobody_tells_anything_ends() -> None:
    said, _ = started().communicate(timeout=60)
    assert said == ""


def test_where_pytorch_cannot_be_loaded_the_launch_itself_says_so(
    experiment: Experiment, runner: LocalRunner, tmp_path: Path
) -> None:
    """In the environment that it is told, which is another than that in which it was started."""
    root = campaign.start(experiment, runner, tmp_path / "run")
    cell = plan.make(experiment).launches[0].cells[0]
    cells, output, broken = tmp_path / "cells", tmp_path / "out", tmp_path / "broken"
    for folder in (cells, output, broken):
        folder.mkdir()
    (broken / "torch.py").write_text("raise OSError('no such library')\n", encoding="utf-8")
    (cells / wall.file_of(cell.id)).write_bytes((root / "cells" / cell.id / wall.CELL).read_bytes())
    arguments = wall.Place(str(root), str(cells), str(output)).arguments([cell.id], 60)
    for path, status in ((str(broken), "failed"), ("", "ok")):
        process = started(PYTHONPATH=str(broken))
        said, _ = process.communicate(
            wall.Told(arguments, {**os.environ, "PYTHONPATH": path}).line(), timeout=120
        )
        assert process.returncode == 0, said
        record = load(CellRecord, output / wall.file_of(cell.id))
        assert (record.status, "no such library" in record.message) == (status, status == "failed")


@pytest.mark.parametrize(
    ("cores", "boards", "model", "may"),
    [
        (4, 1, None, True),
        (3, 1, None, False),
        (7, 2, None, False),
        (8, 2, None, True),
        (64, 1, Model(), False),
    ],
)
def test_where_cores_are_few_or_the_host_is_timed_there_are_none(
    experiment: Experiment,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    boards: int,
    model: Model | None,
    may: bool,
) -> None:
    monkeypatch.setattr(own_cores, "ours", lambda: cores)

    def of(device: str) -> Launch:
        launch = plan.make(experiment).launches[0]
        work = replace(launch.cells[0].workload, device=device)  # type: ignore[arg-type]
        return replace(launch, cells=(replace(launch.cells[0], workload=work, model=model),))

    assert spares.may_load_beside(of("cuda"), boards) is may
    assert not spares.may_load_beside(of("cpu"), boards)
