"""Runs as folders: complete, partial, several, and malformed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness import experiment, plan
from harness.analysis import frame, history, provenance
from harness.analysis.analyse import analyse
from harness.errors import BadInputError
from harness.records import CellRecord, Variant
from harness.report import names
from tests import synthetic_run as synthetic


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


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("experiment.toml", frame.load_run),
        ("experiment.toml", history.experiment_of),
        ("experiment.toml", experiment.of_run),
        ("plan.json", frame.load_run),
    ],
    ids=["report", "history", "experiment", "plan"],
)
@pytest.mark.parametrize(
    ("put", "said"),
    [
        (lambda path, own: path.symlink_to(own), "is a link, which is not followed here"),
        (lambda path, own: path.symlink_to("nowhere"), "is a link, which is not followed here"),
        (lambda path, own: path.mkdir(), "is a folder and not a file"),
        (lambda path, own: os.mkfifo(path), "is a pipe and not a file"),
    ],
    ids=["link", "dangling link", "folder", "pipe"],
)
def test_what_stands_in_the_place_of_a_run_s_own_file_is_a_sentence(
    tmp_path: Path, put: Callable[[Path, Path], None], said: str, name: str, read: Callable[[Path], object]
) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    own = (run / name).rename(tmp_path / "own")
    put(run / name, own)
    with pytest.raises(BadInputError, match=rf"{re.escape(str(run / name))}: {said}"):
        read(run)


@pytest.mark.parametrize("text", ["", "\n", 'title = "T"\n', 'reference = ""\n'])
def test_an_experiment_that_no_run_wrote_is_refused(text: str, tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    (run / "experiment.toml").write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError, match=r"experiment\.toml: reference: is missing, .* put that back, or"):
        frame.load_run(run)


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
    (run / "experiment.toml").write_text("arms = 3\n", encoding="utf-8")
    with pytest.raises(BadInputError, match=r"experiment\.toml"):
        frame.load([run])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (math.nan, r"samples.stage_us\[5\]: nan is not a finite number"),
        (math.inf, r"samples.stage_us\[5\]: inf is not a finite number"),
        (-1.0, r"samples.stage_us\[5\]: -1 is less than 0"),
        (1e300, r"samples.stage_us\[5\]: 1e\+300 is more than 1e\+13"),
        (0.0, "stage_us: a pass is not longer than 0"),
        (5e-324, "stage_us: a pass is not longer than 0"),
    ],
)
def test_a_record_whose_samples_are_no_times_is_a_failed_one(value: float, why: str, tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    path = sorted(run.glob("cells/*/record.json"))[3]
    record = json.loads(path.read_text(encoding="utf-8"))
    record["samples"]["stage_us"][5] = value
    path.write_text(json.dumps(record), encoding="utf-8")
    failed = failed_alone(run)
    assert failed.cell.id == path.parent.name
    assert re.search(f"{path}: {why}", failed.message)


def failed_alone(run: Path) -> CellRecord:
    """The one record of the run that failed."""
    (failed,) = (r for r in frame.load_run(run).records if r.status == "failed")
    return failed


def swapped(path: Path, other: Path) -> None:
    shutil.copy(other, path)


def in_another_way(path: Path, other: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace('"seed": 1', '"seed": 2'), encoding="utf-8")


def newer(path: Path, other: Path) -> None:
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"schema_version": 1', '"schema_version": 99'), encoding="utf-8")


def a_folder(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path, other: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_link(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(other)


def a_link_to_a_device(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def sparse(path: Path, other: Path) -> None:
    os.truncate(path, 64 * 2**30)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (swapped, "is of "),
        (in_another_way, "is not of the cell that was planned"),
        (newer, "has schema_version 99, this program reads up to 1; update it"),
        (a_folder, "is a folder and not a file"),
        (a_pipe, "is a pipe and not a file"),
        (a_link, "is a link, which is not followed here"),
        (a_link_to_a_device, "is a link, which is not followed here"),
        (sparse, "holds more than the 128 MiB that it may"),
        (lambda path, _: path.write_text("[" * 100_000), "is nested too deeply to be what it should be"),
        (lambda path, _: path.write_text("[" * 2_000_000), "holds more than 1,048,576 lists and objects"),
        (
            lambda path, _: path.write_bytes(b"\xff\xfe{}"),
            "is not JSON: byte 1 is not UTF-8; save it as UTF-8",
        ),
        (lambda path, _: path.write_text(""), "is not JSON: Expecting value"),
        (lambda path, _: path.write_text("[]"), "the file: is not an object"),
        (
            lambda path, _: path.write_text('{"cell": 1, "cell": 2}'),
            "is not JSON: a key is there twice in one object",
        ),
    ],
)
def test_one_bad_record_is_one_failed_cell(
    damage: Callable[[Path, Path], object], why: str, tmp_path: Path
) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    path, other = sorted(run.glob("cells/*/record.json"))[:2]
    damage(path, other)
    failed = failed_alone(run)
    assert failed.cell.id == path.parent.name
    assert f"{path}: {why}" in failed.message


def test_a_record_that_nobody_planned_does_not_count(tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    planned = len(frame.load_run(run).records)
    stranger = next(run.glob("cells/*"))
    shutil.copytree(stranger, run / "cells" / "stranger")
    (run / "cells" / "another").mkdir()
    (run / "cells" / "another" / "record.json").write_text("{", encoding="utf-8")
    assert len(frame.load_run(run).records) == planned


def test_without_a_plan_a_cell_is_of_its_own_folder(tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    (run / "plan.json").unlink()
    whole = frame.load_run(run).records
    assert len(whole) == 25
    path = next(run.glob("cells/*/cell.json"))
    cell = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(cell | {"id": "../../elsewhere"}), encoding="utf-8")
    with pytest.raises(BadInputError, match="is of another cell"):
        frame.load([run])
