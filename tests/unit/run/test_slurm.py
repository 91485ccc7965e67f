"""Following a run's jobs where Slurm's answers are made up; the real one is asked in tests/slurm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness import plan, wall
from harness.cli import cli
from harness.errors import BadInputError, MachineError
from harness.experiment import Experiment
from harness.plan import Launch
from harness.progress import Silent
from harness.records import CellRecord, load, to_json, write_whole
from harness.run import at_node, campaign, runner, slurm, squeue
from tests.pretended_runner import FakeRunner, good_record


class Told(Silent):
    def __init__(self) -> None:
        self.expected = self.done = 0
        self.said: list[str] = []

    def expect(self, steps: int) -> None:
        self.expected = steps

    def advance(self, steps: int = 1) -> None:
        self.done += steps

    def say(self, line: str) -> None:
        self.said.append(line)


class Cluster:
    """Stands in for Slurm: `ends` tells how the jobs of a replicate end, one after the other."""

    def __init__(self, ends: dict[int, list[str]], root: Path) -> None:
        self.ends = ends
        self.root = root
        self.submitted: list[list[int]] = []
        self.cancelled: list[str] = []
        self.strays: list[str] = []
        self.leave: Callable[[Launch, str], bool] = lambda launch, state: state == "COMPLETED"
        self._state: dict[str, str] = {}

    def submit(self, work: object, each: Sequence[Sequence[Any]], **_: object) -> list[str]:
        array = len(self.submitted)
        self.submitted.append([arguments[1] for arguments in each])
        ids = []
        for number, arguments in enumerate(each):
            replicate = int(arguments[1])
            state = self.ends[replicate].pop(0)
            for launch in plan.read(self.root / wall.PLAN).launches:
                if launch.replicate == replicate and self.leave(launch, state):
                    self.measured(launch)
            ids.append(f"{array}_{number}")
            if state:
                self._state[ids[-1]] = state
        return ids

    def measured(self, launch: Launch) -> None:
        for cell in launch.cells:
            folder = self.root / at_node.JOBS / at_node.folder_of(cell.replicate) / wall.CELLS / cell.id
            folder.mkdir(parents=True, exist_ok=True)
            (folder / wall.LOG).write_text("measuring\n", encoding="utf-8")
            write_whole(folder / wall.RECORD, to_json(good_record(cell)))

    def states(self, jobs: Iterable[str]) -> dict[str, str]:
        return {name: self._state[name] for name in jobs if name in self._state}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, list[str]]], Cluster]:
    def make(ends: dict[int, list[str]]) -> Cluster:
        made = Cluster(ends, tmp_path / "run")
        for name in ("submit", "states"):
            monkeypatch.setattr(squeue, name, getattr(made, name))
        monkeypatch.setattr(squeue, "require", lambda: None)
        monkeypatch.setattr(squeue, "named", lambda name: made.strays)
        monkeypatch.setattr(squeue, "cancel", made.cancelled.extend)
        monkeypatch.setattr(slurm, "POLL_S", 0.0)
        return made

    return make


def started(experiment: Experiment, root: Path, progress: Told) -> dict[str, CellRecord]:
    slurm.start(experiment, root, {"partition": "gpu"}, local=True, podman=False, progress=progress)
    return {path.parent.name: load(CellRecord, path) for path in root.glob("cells/*/record.json")}


def test_a_replicate_is_tried_again_within_limits(
    experiment: Experiment, cluster: Callable[[dict[int, list[str]]], Cluster], tmp_path: Path
) -> None:
    made = cluster({0: ["COMPLETED"], 1: ["PREEMPTED", "NODE_FAIL", "COMPLETED"]})
    told = Told()
    found = started(experiment, tmp_path / "run", told)
    assert made.submitted == [[0, 1], [1], [1]]
    assert {record.status for record in found.values()} == {"ok"}
    assert (told.expected, told.done) == (8, 8)
    assert told.said == [
        "Replicate 2: Slurm's job 0_1 ended as PREEMPTED.",
        "Replicate 2: Slurm's job 1_0 ended as NODE_FAIL.",
    ]
    assert not (tmp_path / "run" / at_node.JOBS).exists()


@pytest.mark.parametrize(
    ("state", "status"),
    [("TIMEOUT", "timeout"), ("OUT_OF_MEMORY", "oom"), ("FAILED", "failed"), ("", "failed")],
)
def test_what_is_given_up_has_a_named_status(
    state: str,
    status: str,
    experiment: Experiment,
    cluster: Callable[[dict[int, list[str]]], Cluster],
    tmp_path: Path,
) -> None:
    made = cluster({0: ["COMPLETED"], 1: [state] * 3})
    first = plan.make(experiment).launches[-2]
    made.leave = lambda launch, state: state == "COMPLETED" or launch.id == first.id
    found = started(experiment, tmp_path / "run", Told())
    assert len(made.submitted) == slurm.MOST_TRIES
    kept = {cell.id for cell in first.cells}
    for name, record in found.items():
        if record.cell.replicate == 0 or name in kept:
            assert record.status == "ok"
        else:
            assert record.status == status
            assert f"ended as {state or 'unknown to Slurm'}" in record.message
            assert record.message.endswith("3 jobs were submitted for it.")


def test_a_folder_that_nodes_do_not_share_is_guessed(
    experiment: Experiment, cluster: Callable[[dict[int, list[str]]], Cluster], tmp_path: Path
) -> None:
    made = cluster({0: ["COMPLETED"] * 3, 1: ["FAILED"] * 3})
    made.leave = lambda launch, state: False
    found = started(experiment, tmp_path / "run", Told())
    assert {record.status for record in found.values()} == {"failed"}
    assert all("do the nodes share this folder?" in record.message for record in found.values())


def test_records_that_show_late_are_waited_for(
    experiment: Experiment, cluster: Callable[[dict[int, list[str]]], Cluster], tmp_path: Path
) -> None:
    made = cluster({0: ["COMPLETED"], 1: ["COMPLETED"]})
    looks = 0

    def states(jobs: Iterable[str]) -> dict[str, str]:
        nonlocal looks
        looks += 1
        if looks == 4:
            for launch in plan.read(made.root / wall.PLAN).launches:
                made.measured(launch)
        return dict.fromkeys(jobs, "COMPLETED")

    made.leave = lambda launch, state: False
    squeue.states = states  # put back by the fixture's monkeypatch
    found = started(experiment, tmp_path / "run", Told())
    assert {record.status for record in found.values()} == {"ok"}
    assert made.submitted == [[0, 1]]


def test_damaged_and_misplaced_records_are_not_taken_in(
    experiment: Experiment, cluster: Callable[[dict[int, list[str]]], Cluster], tmp_path: Path
) -> None:
    made = cluster({0: ["FAILED", "COMPLETED"], 1: ["FAILED", "COMPLETED"]})

    def leave(launch: Launch, state: str) -> bool:
        made.measured(launch)
        if state == "FAILED":
            place = made.root / at_node.JOBS / at_node.folder_of(launch.replicate) / wall.CELLS
            one, other = (place / cell.id / wall.RECORD for cell in launch.cells)
            other.write_bytes(one.read_bytes())
            one.write_text("{", encoding="utf-8")
        return False

    made.leave = leave
    found = started(experiment, tmp_path / "run", Told())
    assert {record.status for record in found.values()} == {"ok"}
    assert made.submitted == [[0, 1], [0, 1]]


def test_jobs_that_the_journal_does_not_know_are_cancelled(
    experiment: Experiment, cluster: Callable[[dict[int, list[str]]], Cluster], tmp_path: Path
) -> None:
    made = cluster({0: ["COMPLETED"], 1: ["COMPLETED"]})
    made.strays = ["77_0", "77_1"]
    started(experiment, tmp_path / "run", Told())
    assert made.cancelled == ["77_0", "77_1"]


def test_a_job_measures_its_replicate_from_the_beginning(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = campaign.start(experiment, FakeRunner(), tmp_path / "run", measure=False)
    at_work = FakeRunner()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7,GPU-8")
    chosen: dict[str, object] = {}

    def choose(**options: object) -> FakeRunner:
        chosen.update(options)
        return at_work

    monkeypatch.setattr(runner, "choose", choose)
    place = root / at_node.JOBS / at_node.folder_of(1)
    for _ in range(2):  # the second time as when Slurm puts a job back into its queue
        at_node.measure(str(root), 1, 2, True, False)
        found = [load(CellRecord, path) for path in place.glob("cells/*/record.json")]
        assert {record.cell.replicate for record in found} == {1}
        assert len(found) == 4
    assert len(at_work.launched) == 4
    assert (chosen["gpu"], chosen["local"]) == ("GPU-7", True)

    def refuse(*_: object) -> None:
        raise MachineError("No image here.")

    monkeypatch.setattr(at_work, "check", refuse)
    with pytest.raises(MachineError):
        at_node.measure(str(root), 1, 2, True, False)
    words = root / at_node.JOBS / at_node.words_of(1)
    assert words.read_text(encoding="utf-8") == "No image here."


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="There is no `sinfo` here"):
        squeue.options_of("partition=gpu")
    monkeypatch.setattr(squeue, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"pip install 'embedding-harness\[slurm\]'"):
        squeue.require()


@pytest.mark.parametrize("text", ["partition", "partition=", "setup=rm", "", "gres=gpu:1,,time=5"])
def test_options_that_are_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squeue, "require", lambda: None)
    with pytest.raises(BadInputError, match="is none of partition, gres, "):
        squeue.options_of(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["smoke", "--cancel"], "--cancel goes with --resume"),
        (["smoke", "--slurm", "partition=x", "--gpu", "1"], "without --part and --gpu"),
        (["--resume", "nowhere", "--slurm", "partition=x"], "goes with a new run"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, ["run", *arguments])
    assert result.exit_code == 2
    assert said in result.output


def test_a_run_of_slurms_is_known(experiment: Experiment, tmp_path: Path) -> None:
    root = campaign.start(replace(experiment, replicates=1), FakeRunner(), tmp_path / "run")
    assert not slurm.is_of_slurm(root)
    write_whole(root / slurm.JOURNAL, to_json(slurm.Journal("x", {}, True, False)))
    assert slurm.is_of_slurm(root)
