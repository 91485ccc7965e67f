"""Runs as folders: complete, partial, several, and malformed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import synthetic_run as synthetic

from harness import plan
from harness.analysis import frame, provenance
from harness.analysis.analyse import analyse
from harness.errors import BadInputError
from harness.records import Variant
from harness.report import names


def test_one_row_per_cell_in_the_experiments_order(tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(stock=True))
    (loaded,) = frame.load([run])
    cells = provenance.cells(loaded)
    assert len(cells) == 6 * 5 * 3
    assert list(dict.fromkeys(cell.variant for cell in cells)) == list(synthetic.experiment(stock=True).arms)
    assert list(dict.fromkeys(cell.dataset for cell in cells)) == [
        "one_item",
        "high",
        "medium",
        "low",
        "random",
    ]
    assert loaded.reference == Variant("baseline", "12.1")
    record = json.loads((run / cells[0].record).read_text(encoding="utf-8"))
    by_pass = np.reshape(record["samples"]["kernel_us"], (-1, 12)).mean(axis=1)
    assert cells[0].times["kernel_us"] == pytest.approx(np.median(by_pass))


def test_total_is_prepare_plus_kernel_of_the_same_pass() -> None:
    cell = plan.make(synthetic.experiment(arms=(Variant("combined", "12.1"),))).cells[0]
    record = synthetic.record(cell)
    series = frame.passes(record)
    assert series["total_us"] == pytest.approx(series["kernel_us"] + series["prepare_us"])
    without = dataclasses.replace(
        record, samples={k: v for k, v in record.samples.items() if k != "prepare_us"}
    )
    assert frame.passes(without)["total_us"] == pytest.approx(series["kernel_us"])


def test_samples_of_one_launch_for_all_tables() -> None:
    cell = plan.make(synthetic.experiment()).cells[0]
    record = dataclasses.replace(
        synthetic.record(cell), samples={"kernel_us": [5.0, 6.0], "stage_us": [60.0, 70.0]}
    )
    assert frame.passes(record)["kernel_us"].tolist() == [5.0, 6.0]


def test_partial_run_names_what_is_pending(tmp_path: Path) -> None:
    run = synthetic.write_run(
        tmp_path / "run",
        synthetic.experiment(),
        lambda cell: synthetic.record(cell) if cell.replicate == 0 else None,
    )
    (loaded,) = frame.load([run])
    assert len(loaded.pending) == 50
    assert sum(cell.status == "pending" for cell in provenance.cells(loaded)) == 50
    assert len(loaded.records) == 25


def test_records_alone_are_enough(tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment())
    (run / "plan.json").unlink()
    (run / "experiment.toml").unlink()
    (loaded,) = frame.load([run])
    assert loaded.reference == Variant("baseline", "12.1")
    assert loaded.title == "run"
    assert len(loaded.records) == 75


def test_variants_of_several_runs_keep_apart(tmp_path: Path) -> None:
    one = synthetic.write_run(tmp_path / "one", synthetic.experiment(replicates=1))
    two = synthetic.write_run(tmp_path / "two", synthetic.experiment("13.0", replicates=1))
    again = shutil.copytree(one, tmp_path / "other" / "one")
    optmt = Variant("optmt", "12.1")
    found = analyse([one, two])
    assert names.contestant(found, found.runs[0], optmt) == "optmt@12.1"
    found = analyse([one, again])
    assert len({run.name for run in found.runs}) == 2
    assert names.contestant(found, found.runs[1], optmt) == "optmt@12.1 (other/one)"


def test_the_reference_is_that_of_the_experiment_and_otherwise_a_baseline(tmp_path: Path) -> None:
    arms = (Variant("optmt", "12.1"), Variant("baseline", "12.1"))
    made = synthetic.experiment(arms=arms, reference="optmt@12.1", replicates=1)
    run = synthetic.write_run(tmp_path / "run", made)
    assert frame.load_run(run).reference == arms[0]
    path = run / "experiment.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("optmt@12.1", "another"), encoding="utf-8")
    assert frame.load_run(run).reference == arms[1]


@pytest.mark.parametrize("arms", ["3", "[3]", "[{}]", "[{design = 3}]", '[{design = "stock", tunables = 3}]'])
def test_arms_that_are_none_are_named_with_their_file(arms: str, tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    (run / "experiment.toml").write_text(f"arms = {arms}\n", encoding="utf-8")
    with pytest.raises(BadInputError, match=r"experiment\.toml: arms or datasets"):
        frame.load_run(run)


def test_what_is_no_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is not the folder of a run"):
        frame.load([tmp_path])
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    with pytest.raises(BadInputError, match="named twice"):
        frame.load([run, run])
    record = next(run.glob("cells/*/record.json"))
    record.write_text(
        record.read_text(encoding="utf-8").replace('"schema_version": 1', '"schema_version": 99')
    )
    with pytest.raises(BadInputError, match=r"record\.json.*schema_version 99"):
        frame.load([run])
    shutil.rmtree(run)
    synthetic.write_run(run, synthetic.experiment(replicates=1))
    (run / "experiment.toml").write_text("arms = 3\n", encoding="utf-8")
    with pytest.raises(BadInputError, match=r"experiment\.toml"):
        frame.load([run])


@pytest.mark.parametrize("value", [float("nan"), 0.0, -1.0])
def test_samples_that_are_no_times_are_refused(value: float, tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment())
    path = sorted(run.glob("cells/*/record.json"))[3]
    record = json.loads(path.read_text(encoding="utf-8"))
    record["samples"]["stage_us"][5] = value
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(BadInputError, match=f"{path}: stage_us: a pass is not longer than 0"):
        frame.load([run])


def test_a_record_in_another_cells_folder_is_refused(tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment())
    first, second = sorted(run.glob("cells/*/record.json"))[:2]
    shutil.copy(second, first)
    with pytest.raises(BadInputError, match=f"{first}: is the record of another cell, {second.parent.name}"):
        frame.load([run])
