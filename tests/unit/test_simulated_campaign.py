"""The campaign that nobody measures: small, through every stage; effort grows with cells and no faster."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from harness import plan
from harness.analysis.analyse import analyse
from harness.experiment import MOST_CELLS
from harness.run import campaign
from tests.effort import calls

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "simulate-campaign"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="simulate_campaign")


def test_a_small_campaign_goes_through_every_stage(
    script: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "run"
    monkeypatch.setattr("harness.run.attempt.recorded_hash", script["source_hash"])
    script["main"]([str(root), "--replicates", "4", "--arms", "3", "--datasets", "2", "--passes", "5"])
    out = capfd.readouterr().out
    assert out.startswith("24 cells: 3 arms, 2 datasets, 4 replicates\n")
    assert [line.split("  ")[0] for line in out.splitlines()[1:-1]] == [
        "plan",
        "plan and gather",
        "resume, nothing to do",
        "analyse",
        "analyse and report",
    ]
    (run,) = analyse([root]).runs
    assert (run.planned, run.measured) == (24, 24)
    (boards,) = (finding for finding in run.findings if finding.what == "boards")
    assert boards.detail.startswith("4 boards; ")


def test_the_largest_campaign_that_is_allowed_is_planned(script: dict[str, Any]) -> None:
    given = script["experiment"](1000, 20, 5, 10)
    assert len(given.arms) == 20
    assert len(plan.make(given).cells) == MOST_CELLS


def test_going_on_with_a_run_reads_no_design_again_for_each_record(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def recorded_hash(name: str) -> str:
        asked.append(name)
        found: str = script["source_hash"](name)
        return found

    monkeypatch.setattr("harness.run.attempt.recorded_hash", script["source_hash"])
    monkeypatch.setattr(campaign, "recorded_hash", recorded_hash)
    efforts = []
    for replicates in (2, 4):
        root = tmp_path / str(replicates)
        campaign.start(script["experiment"](replicates, 3, 2, 5), script["Pretended"](), root)
        asked.clear()
        efforts.append(calls(lambda root=root: campaign.resume(root, script["Pretended"]())))  # type: ignore[misc]
        assert len(asked) == 3, "once for each design"
    assert efforts[1] < 2.2 * efforts[0]
