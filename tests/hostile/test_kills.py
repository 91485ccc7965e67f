"""Runs on this machine itself, killed at any moment: nothing is lost, doubled or left at work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.killing import boards_of, children_at_work, kill_child, killed_over_and_over

KILLS = int(os.environ.get("HARNESS_HOSTILE_KILLS", "2"))


@pytest.mark.timeout(60 + 30 * KILLS)
@pytest.mark.parametrize("kind", ["local", "boards"])
def test_local_runs(kind: str, tmp_path: Path) -> None:
    tally = killed_over_and_over(
        kind, KILLS, 1, tmp_path, lambda root: len(children_at_work(root)), kill_child
    )
    print(f"\n{kind}: {tally}")
    assert (tally.lost, tally.doubled, tally.left_behind) == (0, 0, 0), tally
    assert tally.kills >= KILLS
    if kind == "boards":
        runs = [boards_of(root) for root in sorted(tmp_path.glob("run*")) if root.is_dir()]
        assert all(len(boards) == 1 for run in runs for boards in run.values()), "a replicate is of one board"
        assert any(len(set.union(*run.values())) > 1 for run in runs), "several were at work"
