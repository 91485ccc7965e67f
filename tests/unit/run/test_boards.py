"""Several boards share a run's replicates out among them, and measure them side by side."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness import plan, wall
from harness.errors import BadInputError, InterruptedRunError, MachineError
from harness.experiment import Experiment
from harness.files import Folder
from harness.plan import Launch
from harness.records import Cell, CellRecord, load
from harness.run import attempt, boards, campaign
from harness.run import gpu as gpus
from harness.run.attempt import Attempt, CalledOffError
from harness.run.gpu import Gpu
from harness.run.runner import Outcome, Terms, choose
from harness.run.watch import Neighbours, Watch
from harness.sweep import Axis
from tests.pretended_runner import FakeRunner, Heard, good_record, leave_record

BOARDS = [Gpu(n, f"GPU-{n}", "H100", "580", 2**36, 2**36) for n in range(4)]


def on_board(cell: Cell, uuid: str) -> CellRecord:
    made = good_record(cell)
    assert made.environment is not None
    return replace(made, environment=replace(made.environment, gpu_uuid=uuid))


def shared(
    experiment: Experiment, count: int, done: Mapping[str, CellRecord] | None = None
) -> list[boards.Share]:
    done = done or {}
    pending = campaign._pending(plan.make(experiment), done, False)
    return boards.shares(pending, done, BOARDS[:count], Path("run"))


def units(share: boards.Share) -> set[tuple[int, object]]:
    return {(cell.replicate, cell.workload) for launch in share.launches for cell in launch.cells}


def cells(shares: Sequence[boards.Share]) -> list[str]:
    return sorted(cell.id for share in shares for launch in share.launches for cell in launch.cells)


def test_one_board_takes_all_in_the_plans_order(experiment: Experiment) -> None:
    planned = plan.make(experiment)
    for count in (0, 1):
        (share,) = shared(experiment, count)
        assert share.launches == planned.launches


@pytest.mark.parametrize(("replicates", "count"), [(1, 4), (2, 4), (3, 2), (5, 4)])
def test_a_replicate_is_never_split(experiment: Experiment, replicates: int, count: int) -> None:
    experiment = replace(experiment, replicates=replicates)
    found = shared(experiment, count)
    assert cells(found) == sorted(cell.id for cell in plan.make(experiment).cells)
    assert [len({launch.replicate for launch in share.launches}) for share in found] == [1] * replicates
    assert all({launch.design for launch in share.launches} == {"baseline", "stock"} for share in found)


@pytest.mark.parametrize(("replicates", "count", "expected"), [(3, 4, 12), (4, 4, 4), (2, 4, 4), (1, 3, 3)])
def test_points_of_a_sweep_spread_so_that_boards_come_out_even(
    experiment: Experiment, replicates: int, count: int, expected: int
) -> None:
    sweep = (Axis("workload.batch", (8, 16, 32, 64, 128, 256)),)
    experiment = replace(experiment, replicates=replicates, sweep=sweep)
    found = shared(experiment, count)
    assert len(found) == expected
    assert expected % count == 0
    assert cells(found) == sorted(cell.id for cell in plan.make(experiment).cells)
    # What is compared, all variants for one workload, is in one share.
    for one, other in itertools.combinations(found, 2):
        assert not units(one) & units(other)


def test_what_a_board_has_begun_stays_there(experiment: Experiment) -> None:
    every = plan.make(experiment).cells
    first, second = ([cell for cell in every if cell.replicate == number] for number in (0, 1))
    done = {first[0].id: on_board(first[0], "GPU-1")}
    found = shared(experiment, 2, done)
    assert [(share.uuid, len(cells([share]))) for share in found] == [("GPU-1", 3), ("", len(second))]
    with pytest.raises(BadInputError, match=r"run: replicate 1 was begun on GPU GPU-1.*--gpu GPU-1"):
        shared(experiment, 1, done)
    # What is complete is nobody's any more, and a part of a board is told by another name.
    complete = {cell.id: on_board(cell, "GPU-1") for cell in first}
    assert [share.uuid for share in shared(experiment, 1, complete)] == [""]
    part = on_board(first[0], "MIG-1")
    assert part.environment is not None
    sliced = {first[0].id: replace(part, environment=replace(part.environment, mig=True))}
    assert [share.uuid for share in shared(experiment, 1, sliced)] == [""]


def test_boards_take_their_own_before_what_any_may_take() -> None:
    launches = [Launch(name, "stock", "pytorch", 0, ()) for name in "abc"]
    waiting = boards._Waiting([boards.Share((launches[0],)), boards.Share((launches[1],), "GPU-1")])
    assert waiting.take("GPU-1") == boards.Share((launches[1],), "GPU-1")
    assert waiting.take("GPU-1") == boards.Share((launches[0],))
    assert waiting.take("GPU-1") is None
    other = boards._Waiting([boards.Share((launches[2],), "GPU-7")])
    assert other.take("GPU-1") is None


class Side(FakeRunner):
    """Two boards, each of whose launches calls `at` with its attempt."""

    def __init__(self, at: Callable[[Attempt], None]) -> None:
        super().__init__()
        self.boards = BOARDS[:2]
        self.at = at
        self.where: dict[str, str] = {}

    def run(self, attempt: Attempt, terms: Terms) -> Outcome:
        assert attempt.board is not None
        self.where |= {cell.id: attempt.board.uuid for cell in attempt.launch.cells}
        attempt.over = False
        try:
            self.at(attempt)
            return super().run(attempt, terms)
        finally:
            attempt.over = True


def records(root: Path) -> dict[str, CellRecord]:
    return {path.parent.name: load(CellRecord, path) for path in root.glob("cells/*/record.json")}


def test_boards_work_at_the_same_time(experiment: Experiment, tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=60)  # breaks where one launch waits for the other's end

    def at(_: Attempt) -> None:
        together.wait()

    runner = Side(at)
    root = campaign.start(experiment, runner, tmp_path / "run")
    assert {record.status for record in records(root).values()} == {"ok"}
    assert len(records(root)) == 8
    assert not (root / wall.LAUNCHES).exists()
    by_replicate = {(name[-2:], uuid) for name, uuid in runner.where.items()}
    assert len(by_replicate) == 2
    assert {uuid for _, uuid in by_replicate} == {"GPU-0", "GPU-1"}
    assert all((root / "cells" / name / "log.txt").read_text(encoding="utf-8") for name in records(root))


def test_what_ends_one_board_ends_all(experiment: Experiment, tmp_path: Path) -> None:
    begun = threading.Barrier(2, timeout=60)
    ended = []

    def at(made: Attempt) -> None:
        begun.wait()
        assert made.board is not None
        if made.board.uuid == "GPU-0":
            raise MachineError("No Docker daemon answers.")
        cell = made.launch.cells[0]
        leave_record(cell, made.output, environment=on_board(cell, "GPU-1").environment)
        made.sign(wall.Provenance("docker"))
        assert made.called_off.wait(60)
        ended.append(made.launch.replicate)
        raise CalledOffError("The launch was called off.")

    root = tmp_path / "run"
    with pytest.raises(MachineError, match=r"No Docker daemon answers; 1 cell has its record.*--resume"):
        campaign.start(experiment, Side(at), root)
    assert len(ended) == 1, "it was told, and waited for"
    (kept,) = records(root)
    rest = Side(lambda _: None)
    campaign.resume(root, rest)
    assert len(records(root)) == 8
    assert kept not in rest.where


def test_an_interrupt_ends_all_boards(experiment: Experiment, tmp_path: Path) -> None:
    begun = threading.Barrier(2, timeout=60)

    def at(made: Attempt) -> None:
        if begun.wait() == 0:
            signal.raise_signal(signal.SIGTERM)  # to the process, whose main thread it reaches
        assert made.called_off.wait(60)
        raise CalledOffError("The launch was called off.")

    root = tmp_path / "run"
    with pytest.raises(InterruptedRunError, match="0 cells have their records"):
        campaign.start(experiment, Side(at), root)
    campaign.resume(root, Side(lambda _: None))
    assert len(records(root)) == 8


def test_a_launch_that_is_called_off_stops(experiment: Experiment, tmp_path: Path) -> None:
    launch = plan.make(experiment).launches[0]
    with Folder.open(tmp_path) as folder, attempt.begun(launch, folder) as made:
        with Watch(made, Neighbours(None, lambda _: False), Heard()) as watch:
            assert not watch.stop()
            made.called_off.set()
            with pytest.raises(CalledOffError):
                watch.stop()
        made.discard(folder)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("0", [0]), ("all", [0, 1, 2, 3]), ("0,2", [0, 2]), ("GPU-3,GPU-1", [3, 1]), ("1,GPU-1", [1])],
)
def test_gpus_by_choice(choice: str, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "gpus", lambda: BOARDS)
    assert [gpu.index for gpu in gpus.find(choice)] == expected


@pytest.mark.parametrize(
    ("choice", "found", "said"),
    [
        ("0,7", BOARDS, r"--gpu 0,7: '7' is not a GPU of this machine; there are: 0 \(H100, GPU-0\)"),
        ("0,", BOARDS, "'' is not a GPU"),
        ("all", [], "there are: none"),
        ("all", [BOARDS[0], replace(BOARDS[1], name="A100")], "is of different models"),
    ],
)
def test_gpus_that_cannot_be_had(
    choice: str, found: list[Gpu], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "gpus", lambda: found)
    with pytest.raises(BadInputError, match=said):
        gpus.find(choice)


@pytest.mark.parametrize("choice", ["all", "0,1"])
def test_commands_that_use_one_gpu_say_so(choice: str) -> None:
    with pytest.raises(BadInputError, match="this command uses one GPU"):
        choose(local=True, gpu=choice, wait=False, build=False)
    choose(local=True, gpu=choice, wait=False, build=False, several=True)
