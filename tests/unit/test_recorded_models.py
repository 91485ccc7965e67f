"""Models whose tables replay traces of their own: from the file to the run and what is made of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from harness import experiment, models, plan, tuning
from harness.analysis import comparable, kind_demand
from harness.analysis.analyse import analyse
from harness.cli import cli
from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.progress import Silent
from harness.records import Cell, CellRecord, Dataset, Timing, Workload, load
from harness.run import layout
from harness.traces import demand, replay
from harness.workload import summary
from tests.unit.recorded_traces import (
    CPU,
    ITEM,
    MODEL,
    USER,
    laid_out,
    model,
    refused,
    run,
    trace,
    with_traces,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the model's traces in it."""
    return with_traces(tmp_path)


def test_a_run_from_the_file_to_the_report(folder: Path) -> None:
    code, said = run(folder)
    assert code == 0, said
    root = folder / "run"
    record = load(CellRecord, root / "cells" / "stock-own-r0" / "record.json")
    assert (record.status, record.message) == ("ok", "")
    assert record.check is not None
    # Two batches of 3 bags of 8 and 4 columns, and the first table in ragged bags.
    assert record.check.elements == 3 * (2 * 12 + 8)
    assert record.facts["accesses"] == 9
    assert record.facts["batch_distinct_rows"] == (3 + 4) / 2
    assert record.cell.dataset.origin == "recorded: 2 of 2 features replay a trace of their own"
    user = next(path for path in (root / "traces").glob("user-*.npy") if ".bags" not in path.name)
    assert np.load(user).tolist() == [row for bag in USER for row in bag]
    told = json.loads((root / demand.FILE).read_text(encoding="utf-8"))
    assert set(told["traces"]) == {f"traces/{path.name}" for path in (root / "traces").iterdir()}
    assert len(told["traces"]) == 4
    assert json.loads((root / "manifest.json").read_text(encoding="utf-8"))["indices"].keys() == {"own"}
    assert [kind.lookups for kind in analyse([root]).runs[0].kinds] == [4, 4]
    verified = CliRunner().invoke(cli, ["verify", str(root)])
    assert verified.exit_code == 0, verified.output
    assert "traces: of 1 datasets, made anew, are those that were measured" in verified.output


def test_a_run_goes_on_with_its_own_copies_and_notices_other_ones(folder: Path) -> None:
    assert run(folder)[0] == 0
    root = folder / "run"
    for path in [*(folder / "user").iterdir(), folder / "mine.toml"]:
        path.unlink()
    (root / "cells" / "stock-own-r0" / "record.json").unlink()
    ran = CliRunner().invoke(cli, ["run", "--resume", str(root), "--local"])
    assert ran.exit_code == 0, ran.output
    assert (root / "cells" / "stock-own-r0" / "record.json").is_file()
    bags = next((root / "traces").glob("item-*.bags.npy"))
    bags.chmod(0o644)
    np.save(bags, np.array([0, 1, 3, 4, 5, 5, 8, 9]))
    ran = CliRunner().invoke(cli, ["run", "--resume", str(root), "--local"])
    assert ran.exit_code != 0
    assert "has changed since the run began" in str(ran.exception) + ran.output
    verified = CliRunner().invoke(cli, ["verify", str(root)])
    assert verified.exit_code != 0
    assert f"{bags.name}: has changed" in verified.output


def test_sweeps_over_the_batch(folder: Path) -> None:
    code, said = run(folder, "--set", 'sweep=[{key="workload.batch", values=[1, 5]}]')
    assert code == 0, said
    found = {}
    for path in (folder / "run" / "cells").glob("stock-*/record.json"):
        record = load(CellRecord, path)
        assert (record.status, record.message) == ("ok", "")
        found[record.cell.workload.batch] = record.facts["batch_distinct_rows"]
    assert found == {1: 1.5, 3: 3.5, 5: 6.0}


def test_larger_tables_than_max_rows_cannot_be_cut_off(folder: Path) -> None:
    code, said = run(folder, "--set", "model.max_rows=12")
    assert code == 2
    assert said == (
        "model.max_rows: 12 would cut off rows that the traces of mine's tables look up; make it 20 or more, "
        "or leave it out."
    )
    assert run(folder, "--set", "model.max_rows=20")[0] == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"user"', '"usher"', r"tables\.0\.trace: .*usher: is no folder of a trace; `harness trace import`"),
        ('"deeper/item"', '"mine.toml"', r"tables\.1\.trace: .*mine\.toml: is no folder of a trace"),
        ('"user", bags = "own"', '"", bags = "own"', r"tables\.0\.trace: is missing; bags = .own. are those"),
        ('bags = "own" },\n ', 'bags = "own", pooling = 2 },\n ', r"tables\.0\.pooling: follows from the tr"),
        ('bags = "own" },\n ', 'bags = "own", coverage = 0.5 },\n ', r"tables\.0\.coverage: follows"),
        ('bags = "own" },\n ', 'bags = "own", counts = "1:2" },\n ', r"tables\.0\.counts: are of bags"),
        ('bags = "own" },\n ', 'bags = "own", zipf_s = 1.0 },\n ', r"tables\.0\.trace: is the tables'"),
        ('bags = "own" },\n ', f'trace_sha256 = "{"0" * 64}" }},\n ', r"tables\.0\.trace_sha256: foll"),
        ('"user", bags = "own"', '"user", rows_per_own_bag = 2.0', r"tables\.0\.rows_per_own_bag: follows"),
    ],
)
def test_what_does_not_fit_is_named_with_its_field(folder: Path, old: str, new: str, said: str) -> None:
    assert old in MODEL
    with pytest.raises(BadInputError, match=rf"mine\.toml: {said}"):
        models.read(str(model(folder, MODEL.replace(old, new))))


def test_damaged_traces_are_named_with_their_file(folder: Path) -> None:
    whole = (folder / "user" / "indices.npy").read_bytes()
    (folder / "user" / "indices.npy").write_bytes(whole[:-4])
    said = refused(folder)
    assert "tables.0.trace: " in said
    assert "user/indices.npy: " in said
    (folder / "user" / "indices.npy").write_bytes(whole)
    np.save(folder / "user" / "offsets.npy", np.array([0, 2, 1, 3, 6, 8, 8, 9]))
    assert "user/offsets.npy: offset 3 is less than the one before it" in refused(folder)
    np.save(folder / "user" / "offsets.npy", np.array([0, 1, 2, 3, 6, 8, 8, 9]))
    assert "is damaged: its row numbers or bags are not those that were imported" in run(folder)[1]
    assert not (folder / "run" / "plan.json").exists()
    (folder / "user" / "offsets.npy").unlink()
    assert "offsets.npy: cannot be read" in refused(folder)


def test_a_row_outside_its_table_is_named_with_file_and_access(folder: Path) -> None:
    code, said = run(folder, text=MODEL.replace("rows = 20", "rows = 16"))
    assert code == 2
    assert said == f"{folder}/deeper/item: indices.npy: access 7: row 16 is outside the table (0 to 15)."
    assert not (folder / "run" / "plan.json").exists()


def test_a_trace_that_was_replaced_meanwhile_is_noticed(folder: Path) -> None:
    made = experiment.of_designs(["stock"], "13.0", CPU, str(model(folder)))
    for path in (folder / "user").iterdir():
        path.unlink()
    (folder / "user").rmdir()
    trace(folder / "user", ITEM[:1], 20)
    with pytest.raises(BadInputError, match="user: is another trace than the one that was here when"):
        layout.check_traces(made, plan.make(made), Silent())


def test_an_experiment_says_the_same_after_it_was_written(folder: Path) -> None:
    made = experiment.of_designs(["stock"], "13.0", CPU, str(model(folder)))
    (folder / "again.toml").write_text(experiment.to_toml(made), encoding="utf-8")
    assert experiment.read(folder / "again.toml") == made
    assert made.datasets == ("own",)


def test_where_a_trace_was_kept_makes_no_difference(folder: Path, tmp_path: Path) -> None:
    def traits(user: str, sha256: str) -> comparable.Traits:
        group = TableGroup(10, 8, trace=user, trace_sha256=sha256 * 64)
        work = Workload(**{**summary((group,)), "groups": (group,)})  # type: ignore[arg-type]
        cell = Cell("a", "stock", "pytorch", Dataset("own"), work, Timing(), 0, 1)
        return comparable.decisive([comparable.Source(CellRecord(cell, "ok"), tmp_path)])

    assert comparable.differing(traits("/here/user", "a"), traits("/there/user", "a")) == []
    (found,) = comparable.differing(traits("/here/user", "a"), traits("/here/user", "b"))
    assert found.what == "workload.groups"


def test_bags_that_are_all_empty_in_a_batch(folder: Path) -> None:
    trace(folder / "rare", [[], [], [], [7]] + [[]] * 3, 10)
    code, said = run(folder, text=MODEL.replace('"user"', '"rare"'))
    assert code == 0, said
    record = load(CellRecord, folder / "run" / "cells" / "stock-own-r0" / "record.json")
    assert (record.status, record.message) == ("ok", "")
    assert record.facts["batch_distinct_rows"] == (0 + 4) / 2
    kinds = analyse([folder / "run"]).runs[0].kinds
    assert {kind.rows: kind.demands[0].distinct_rows for kind in kinds} == {10: 0.5, 20: 4}


def test_traces_are_read_once_where_a_run_begins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, root = laid_out(folder)
    read: list[str] = []
    honest = replay.read_traces

    def counted(one: Cell, where: Path) -> list[replay.Rows]:
        read.append(one.dataset.name)
        return honest(one, where)

    monkeypatch.setattr(replay, "read_traces", counted)
    kinds = kind_demand.Collected()
    others = [dataclasses.replace(cell, dataset=Dataset(name)) for name in ("own", "random")]
    demand.write([cell, *others], root, also=kinds.add)
    kinds.write(root)
    assert read == ["own", "random"]
    assert kind_demand.read(root).keys() == {name for name, _ in demand.read(root)} == {"own", "random"}


def test_what_is_tuned_is_the_recorded_traffic(folder: Path) -> None:
    what = tuning.asked(str(model(folder)))
    assert what.traffic == "own"
    indices, offsets = tuning.batches_of(what, "cpu", None)[1]
    assert indices.tolist() == [1, 5, 9, 2, 6, 14, 15, 16, 17]
    assert offsets.diff().tolist() == [3, 2, 0, 0, 1, 3]
    smaller = tuning.asked(str(model(folder, MODEL.replace("rows = 20", "rows = 16"))))
    with pytest.raises(BadInputError, match="access 7: row 16 is outside the table"):
        tuning.batches_of(smaller, "cpu", None)
