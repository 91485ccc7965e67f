"""The measurements that ship with the project: whole, checked, and of known commits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness import cell_files, experiment, plan, wall
from harness.cli.shared import REFERENCE_DIR
from harness.records import CellRecord, load

RUNS = sorted(path.parent for path in REFERENCE_DIR.glob("*/*/plan.json"))
README = (REFERENCE_DIR / "README.md").read_text(encoding="utf-8")


def records(run: Path) -> list[CellRecord]:
    with cell_files.opened(run) as files:
        there = [cell_id for cell_id in files.ids() if files.kind(cell_id, wall.RECORD)]
        return [cell_files.load(CellRecord, files, cell_id, wall.RECORD) for cell_id in there]


def said_to_be_unfinished() -> set[str]:
    """Runs of which the README says so, as GPU/NAME."""
    told = [part for part in README.split("\n\n") if "not finished" in part]
    return {name for part in told for name in re.findall(r"`([^`/ ]+/[^`/ ]+)`", part)}


def is_unfinished(run: Path) -> bool:
    return len(records(run)) < len(load(plan.Plan, run / "plan.json").cells)


def test_the_readme_names_the_runs_that_are_not_finished() -> None:
    assert said_to_be_unfinished() == {f"{run.parent.name}/{run.name}" for run in RUNS if is_unfinished(run)}


def test_both_toolchains_and_the_self_test_are_there() -> None:
    assert {"paper", "modern", "selftest"} <= {run.name for run in RUNS}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}/{run.name}")
def test_the_plan_is_that_of_its_experiment_and_every_cell_was_measured(run: Path) -> None:
    planned = plan.make(experiment.read(run / "experiment.toml"))
    assert load(plan.Plan, run / "plan.json") == planned
    found = {record.cell.id: record for record in records(run)}
    cells = {cell.id: cell for cell in planned.cells}
    assert set(found) == set(cells) or (is_unfinished(run) and set(found) < set(cells))
    for record in found.values():
        assert record.cell == cells[record.cell.id]
        assert record.status == "ok", record.message
        assert record.check is not None
        assert record.check.passed
        assert record.samples["kernel_us"]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}/{run.name}")
def test_its_cells_are_one_file(run: Path) -> None:
    if is_unfinished(run):  # a folder, so that it can go on
        assert not (run / wall.PACKED).exists()
        return
    assert {path.name for path in run.iterdir() if path.is_dir()} == set(), "`harness pack` has not been run"
    assert (run / wall.PACKED).is_file()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}/{run.name}")
def test_a_gpu_ran_sources_of_a_known_commit(run: Path) -> None:
    for record in records(run):
        assert record.environment is not None
        assert record.environment.device == "cuda"
        commit = record.environment.git_commit
        assert commit
        if record.environment.git_dirty:  # then the page says of which commit the files were
            said = rf"\| {run.parent.name}/{run.name} \| [0-9a-f]{{12}} \| {commit[:12]} with changes \|"
            assert re.search(said, README), f"{REFERENCE_DIR / 'README.md'} does not say what {run} measured"
        assert record.kernel is not None


@pytest.mark.parametrize(
    "run", [r for r in RUNS if (r / "selftest.json").is_file()], ids=lambda run: run.parent.name
)
def test_verdicts_do_not_cry_wolf_and_find_what_matters(run: Path) -> None:
    judged = json.loads((run / "selftest.json").read_text(encoding="utf-8"))
    assert judged["exit_code"] == 0
    for tested in judged["tests"]:
        assert tested["threshold"] == 0.01
        for rate in tested["rates"]:
            if rate["injected"] == 0:
                assert rate["rate"] <= 0.05
            if rate["injected"] == 0.05:
                assert rate["rate"] >= 0.95
