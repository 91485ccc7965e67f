"""Runs that a real Slurm measures: jobs are killed at random, nodes fail, whoever follows dies."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness import plan, wall
from harness.console import Steps
from harness.errors import BadInputError
from harness.experiment import Experiment, to_toml
from harness.progress import Silent
from harness.records import CellRecord, Timing, Variant, Workload, load
from harness.run import slurm, squeue
from tests.slurm.conftest import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900), pytest.mark.xdist_group("slurm")]
ROOT = Path(__file__).resolve().parents[2]


def experiment(replicates: int = 3, device: str = "cpu") -> Experiment:
    return Experiment(
        name="small",
        title="A small one",
        arms=(Variant("stock"),),
        reference="stock",
        datasets=("one_item", "random"),
        workload=Workload(tables=2, rows=1000, dim=16, batch=8, pooling=4, device=device),  # type: ignore[arg-type]
        timing=Timing(max_seconds=0.1),
        replicates=replicates,
    )


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """This Slurm serves nobody else."""
    monkeypatch.setattr(slurm, "POLL_S", 0.5)


def started(given: Experiment, root: Path, **options: str) -> Path:
    asked = {"partition": "debug", **options}
    return slurm.start(given, root, asked, local=True, podman=False, progress=Silent())


def records(root: Path) -> dict[str, CellRecord]:
    return {path.parent.name: load(CellRecord, path) for path in root.glob("cells/*/record.json")}


def assert_whole(root: Path, given: Experiment) -> None:
    """The run is as if nothing had happened: every cell measured, with its log, and nothing beside it."""
    found = records(root)
    assert set(found) == {cell.id for cell in plan.make(given).cells}
    assert {(record.status, record.message) for record in found.values()} == {("ok", "")}
    assert all((root / wall.CELLS / name / wall.LOG).is_file() for name in found)
    assert not (root / "jobs").exists()


def jobs_of(root: Path) -> dict[str, tuple[str, int]]:
    told = json.loads((root / slurm.JOURNAL).read_text(encoding="utf-8"))["jobs"]
    return {number: (job["id"], job["tries"]) for number, job in told.items()}


@pytest.mark.parametrize(("most", "arrays"), [(500, 1), (3, 2)])
def test_replicates_are_measured_by_jobs_of_arrays(
    most: int, arrays: int, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = experiment(4)
    monkeypatch.setattr(squeue, "MOST_IN_ARRAY", most)
    root = started(given, tmp_path / "run")
    assert_whole(root, given)
    assert len({name.partition("_")[0] for name, _ in jobs_of(root).values()}) == arrays
    assert {tries for _, tries in jobs_of(root).values()} == {1}
    assert cluster.queued() == []


class Harm:
    """Does something to jobs that run, now and then, until it has done so often enough."""

    def __init__(self, times: int, harm: Callable[[str, str], object], cluster: Cluster) -> None:
        self._left = times
        self._harm = harm
        self._cluster = cluster
        self._ended = threading.Event()
        self._chance = random.Random(3)
        self._thread = threading.Thread(target=self._work)
        self.harmed: Counter[str] = Counter()

    def __enter__(self) -> Harm:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while self._left and not self._ended.wait(self._chance.uniform(0.5, 3)):
            running = sorted(self._cluster.running().items())
            if running:
                job, node = self._chance.choice(running)
                self._harm(job, node)
                self.harmed[job] += 1
                self._left -= 1


def test_jobs_that_are_killed_are_tried_again(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "MOST_TRIES", 10)
    given = experiment(5)

    def kill(job: str, node: str) -> None:
        subprocess.run(["scancel", "--full", "--signal=KILL", job], check=False)

    with Harm(4, kill, cluster) as harm:
        root = started(given, tmp_path / "run")
    assert sum(harm.harmed.values()) == 4
    assert_whole(root, given)
    assert sum(tries for _, tries in jobs_of(root).values()) > 5


def test_a_node_that_fails_is_told_and_its_replicate_taken_elsewhere(
    cluster: Cluster, tmp_path: Path
) -> None:
    given = experiment(3)
    said: list[str] = []

    class Told(Silent):
        def say(self, line: str) -> None:
            said.append(line)

    def down(job: str, node: str) -> None:
        cluster.said("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        cluster.said("scontrol", "update", f"nodename={node}", "state=resume")

    with Harm(1, down, cluster) as harm:
        asked = {"partition": "debug"}
        root = slurm.start(given, tmp_path / "run", asked, local=True, podman=False, progress=Told())
    (job,) = harm.harmed
    assert any(f"Slurm's job {job} ended as NODE_FAIL" in line for line in said), said
    assert_whole(root, given)


_FOLLOW = "import sys; from harness.cli import main; sys.argv[0] = 'harness'; main()"


def follower(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _FOLLOW, "run", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def begun(given: Experiment, root: Path) -> subprocess.Popen[bytes]:
    """A run of its own that submits jobs and follows them."""
    what = root.with_suffix(".toml")
    what.write_text(to_toml(given), encoding="utf-8")
    return follower(what, "--local", "--slurm", "partition=debug", "--output", root)


def test_whoever_follows_may_die_and_finds_the_jobs_again(cluster: Cluster, tmp_path: Path) -> None:
    given, root = experiment(4), tmp_path / "run"
    process = begun(given, root)
    while not cluster.running():
        assert process.poll() is None
        time.sleep(0.2)
    while not ((root / slurm.JOURNAL).is_file() and jobs_of(root)):
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = jobs_of(root)
    slurm.follow(root, progress=Silent())
    assert_whole(root, given)
    assert jobs_of(root) == before, "none was submitted again"


def test_jobs_that_nobody_knows_of_are_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    """Whoever submitted them died before the journal said so."""
    given, root = experiment(2), tmp_path / "run"
    process = begun(given, root)
    while not ((root / slurm.JOURNAL).is_file() and jobs_of(root)):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    told = json.loads((root / slurm.JOURNAL).read_text(encoding="utf-8"))
    (root / slurm.JOURNAL).write_text(json.dumps(told | {"jobs": {}}), encoding="utf-8")
    lost = {job["id"] for job in told["jobs"].values()}
    slurm.follow(root, progress=Silent())
    assert_whole(root, given)
    assert not lost & {name for name, _ in jobs_of(root).values()}


def test_jobs_are_cancelled_on_request(cluster: Cluster, tmp_path: Path) -> None:
    given, root = experiment(4), tmp_path / "run"
    # Jobs that are still at work when the interrupt comes, however late.
    endless = replace(given.timing, max_seconds=600, min_passes=10**8, max_passes=10**9)
    process = begun(replace(given, timing=endless), root)
    while not cluster.running():
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert cluster.queued(), "an interrupt leaves them at work"
    process = follower("--resume", root, "--cancel")
    assert process.wait(60) == 0
    while cluster.queued():
        time.sleep(0.2)


def test_what_no_node_can_measure_is_given_up_and_says_why(cluster: Cluster, tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("needs a machine without an NVIDIA GPU")
    given = experiment(1, device="cuda")
    root = started(given, tmp_path / "run")
    found = records(root)
    assert len(found) == 2
    for record in found.values():
        assert record.status == "failed"
        assert "ended as FAILED: There is no NVIDIA GPU with a working driver" in record.message
        assert record.message.endswith("3 jobs were submitted for it.")


def test_what_slurm_refuses_is_one_sentence(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"--slurm partition=nosuch: there is no .*there are: debug\."):
        squeue.options_of("partition=nosuch")
    with pytest.raises(BadInputError, match=r"--slurm gres=gpu:1: Slurm would refuse .*generic res"):
        squeue.options_of("gres=gpu:1")
    given = squeue.options_of("partition=debug, cpus-per-task=1")
    assert given == {"partition": "debug", "cpus_per_task": "1"}
    with pytest.raises(BadInputError, match=r"Slurm refuses the jobs: .*generic resource.*; none is in"):
        started(experiment(), tmp_path / "run", gres="gpu:1")
    assert cluster.queued() == []
    with Steps("Measuring") as steps:
        root = slurm.start(
            experiment(1), tmp_path / "again", {"time": "5"}, local=True, podman=False, progress=steps
        )
    assert_whole(root, experiment(1))
