"""The local runner starts the real thing: `python -m harness.bench` on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import plan, wall
from harness.experiment import Experiment
from harness.files import Folder
from harness.plan import Launch
from harness.progress import Silent
from harness.records import CellRecord, load
from harness.run import attempt, campaign
from harness.run.local import LocalRunner
from harness.run.runner import Outcome, Terms
from tests.pretended_runner import Heard


def run(
    runner: LocalRunner,
    launch: Launch,
    root: Path,
    heard: Heard,
    *,
    deadline_s: float = 60,
    spoil: Callable[[Path], object] = lambda path: None,
) -> Outcome:
    """Runs a launch once, with its cells spoilt beforehand."""
    with Folder.open(root) as folder, attempt.begun(launch, folder) as made:
        for cell in launch.cells:
            spoil(made.cells / wall.file_of(cell.id))
        outcome = runner.run(made, Terms(deadline_s, heard))
        assert made.over
        return outcome


def test_measures_on_the_cpu(experiment: Experiment, tmp_path: Path) -> None:
    experiment = replace(experiment, replicates=1, arms=experiment.arms[:1])
    root = campaign.start(experiment, LocalRunner(), tmp_path / "run")
    found = [load(CellRecord, path) for path in sorted(root.glob("cells/*/record.json"))]
    assert [(record.status, record.message) for record in found] == [("ok", ""), ("ok", "")]
    for record in found:
        assert record.environment is not None
        assert (record.environment.runner, record.environment.device) == ("local", "cpu")
        assert len(record.environment.git_commit) == 40
        assert record.environment.hostname
        assert (root / "cells" / record.cell.id / "log.txt").read_text(encoding="utf-8")


def test_stopped_at_the_deadline(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run")
    launch = plan.make(experiment).launches[0]
    for path in root.glob("cells/*/record.json"):
        path.unlink()
    # Starting PyTorch alone takes longer than this.
    outcome = run(LocalRunner(), launch, root, Heard(), deadline_s=0.05)
    assert (outcome.status, outcome.message) == (
        "timeout",
        "The launch was stopped at its deadline of 0.05 s.",
    )
    assert not list(root.glob("cells/*/record.json")), "nothing was measured"


def test_a_child_that_fails_says_how(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run")
    launch = plan.make(experiment).launches[0]
    heard = Heard()
    outcome = run(
        LocalRunner(), launch, root, heard, spoil=lambda path: path.write_text("{", encoding="utf-8")
    )
    assert outcome.status == "failed"
    assert "exit code 1" in outcome.message
    assert heard.lines[0] == wall.announce(launch.cells[0].id)


_RUN = """
import sys
from pathlib import Path
from harness import experiment, plan
from harness.files import Folder
from harness.run import attempt
from harness.run.local import LocalRunner
from harness.run.runner import Terms
root = Path(sys.argv[1])
launch = plan.make(experiment.read(root / "experiment.toml")).launches[0]
class Print:
    def line(self, text): print(text, flush=True)
    def neighbours(self, names): pass
with Folder.open(root) as folder, attempt.begun(launch, folder) as made:
    LocalRunner().run(made, Terms(60, Print()))
"""


def test_the_child_does_not_outlive_a_killed_parent(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    timing = replace(experiment.timing, max_seconds=60, min_passes=10**9, max_passes=10**9)
    root = campaign.start(replace(experiment, timing=timing), runner, tmp_path / "run")
    parent = subprocess.Popen([sys.executable, "-c", _RUN, str(root)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline().startswith("::cell")
    (child,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text(encoding="utf-8").split()
    parent.kill()
    parent.communicate()
    for _ in range(100):
        if not running(int(child)):
            return
        time.sleep(0.05)
    os.kill(int(child), 9)
    pytest.fail("The measuring process went on after its parent was killed.")


def running(process: int) -> bool:
    """Whether it is there and not merely waiting to be reaped by whoever adopted it."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_check_needs_pytorch(experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.errors import MachineError
    from harness.run import local

    monkeypatch.setattr(local, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="pip install"):
        LocalRunner().check(plan.make(experiment), tmp_path, Silent())


def test_a_process_carries_the_peer_of_its_launch_and_no_other(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_PEER", "/elsewhere")
    launch = plan.make(experiment).launches[0]
    environment = {
        name: LocalRunner()._environment(replace(launch, design=name), None, Silent())
        for name in ("stock", "fbgemm")
    }
    assert "HARNESS_PEER" not in environment["stock"]
    assert Path(environment["fbgemm"]["HARNESS_PEER"], "peer.py").is_file()
