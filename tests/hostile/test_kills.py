"""Runs on this machine itself, killed at any moment: nothing is lost, doubled or left at work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.killing import children_at_work, kill_child, killed_over_and_over

KILLS = int(os.environ.get("HARNESS_HOSTILE_KILLS", "4"))


@pytest.mark.timeout(60 + 30 * KILLS)
def test_local_runs(tmp_path: Path) -> None:
    tally = killed_over_and_over(
        "local", KILLS, 1, tmp_path, lambda root: len(children_at_work(root)), kill_child
    )
    print(f"\nlocal runs: {tally}")
    assert (tally.lost, tally.doubled, tally.left_behind) == (0, 0, 0), tally
    assert tally.kills >= KILLS
