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


def records(run: Path) -> list[CellRecord]:
    with cell_files.opened(run) as files:
        return [cell_files.load(CellRecord, files, cell_id, wall.RECORD) for cell_id in files.ids()]


def test_both_toolchains_and_the_self_test_are_there() -> None:
    assert {"paper", "modern", "selftest"} <= {run.name for run in RUNS}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}/{run.name}")
def test_the_plan_is_that_of_its_experiment_and_every_cell_was_measured(run: Path) -> None:
    planned = plan.make(experiment.read(run / "experiment.toml"))
    assert load(plan.Plan, run / "plan.json") == planned
    found = {record.cell.id: record for record in records(run)}
    assert set(found) == {cell.id for cell in planned.cells}
    for cell in planned.cells:
        record = found[cell.id]
        assert record.cell == cell
        assert record.status == "ok", record.message
        assert record.check is not None
        assert record.check.passed
        assert record.samples["kernel_us"]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}/{run.name}")
def test_its_cells_are_one_file(run: Path) -> None:
    assert {path.name for path in run.iterdir() if path.is_dir()} == set(), "`harness pack` has not been run"
    assert (run / wall.PACKED).is_file()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}/{run.name}")
def test_a_gpu_ran_sources_of_a_known_commit(run: Path) -> None:
    named = (REFERENCE_DIR / "README.md").read_text(encoding="utf-8")
    for record in records(run):
        assert record.environment is not None
        assert record.environment.device == "cuda"
        commit = record.environment.git_commit
        assert commit
        if record.environment.git_dirty:  # then the page says of which commit the files were
            said = rf"\| {run.parent.name}/{run.name} \| [0-9a-f]{{12}} \| {commit[:12]} with changes \|"
            assert re.search(said, named), f"{REFERENCE_DIR / 'README.md'} does not say what {run} measured"
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
