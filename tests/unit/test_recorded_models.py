"""Models whose tables replay traces of their own: from the file to the rows and bags at the operator."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from harness import experiment, models, plan, tuning
from harness.analysis import comparable, kind_demand
from harness.analysis.analyse import analyse
from harness.bench import batch, check, design, hot_rows, rotation
from harness.bench.batch import Batch
from harness.bench.cell import Bench
from harness.bench.failures import CellError
from harness.bench.rotation import Turn
from harness.bench.tables import Tables, TableStore
from harness.cli import cli
from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.progress import Silent
from harness.records import Cell, CellRecord, Dataset, Timing, Workload, load
from harness.run import layout
from harness.traces import copies, demand, recorded, replay
from harness.traces.stretches import Stretches
from harness.traces.trace import array_blocks, write_trace
from harness.workload import summary

USER = [[3, 1], [], [4], [1, 5, 9], [2, 6], [], [5]]
"""Row numbers of each bag."""
ITEM = [[10], [11, 12], [13], [], [14], [15, 16, 17], [18]]
MODEL = """
title = "Mine"
source = "me"
batch = 3
tables = [
    { rows = 10, dim = 8, trace = "user", bags = "own" },
    { rows = 20, dim = 4, trace = "deeper/item", bags = "own" },
]
"""
CPU = ("workload.device=cpu", "replicates=1", "timing.max_seconds=0.05", "timing.min_passes=3")


def trace(folder: Path, bags: Sequence[Sequence[int]], rows: int, *, own: bool = True) -> Path:
    indices = np.array([row for bag in bags for row in bag], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(bag) for bag in bags])]) if own else None
    write_trace(folder, array_blocks(indices), rows=rows, origin="by hand", offsets=offsets)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trace(tmp_path / "user", USER, 10)
    trace(tmp_path / "deeper" / "item", ITEM, 20)
    return tmp_path


def model(folder: Path, text: str = MODEL) -> Path:
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return folder / "mine.toml"


def refused(folder: Path, text: str = MODEL) -> str:
    with pytest.raises(BadInputError) as error:
        models.read(str(model(folder, text)))
    return str(error.value)


def run(folder: Path, *options: str, text: str = MODEL) -> tuple[int, str]:
    command = ["run", "--model", str(model(folder, text)), "--design", "stock", "--local", *options]
    command += ["--output", str(folder / "run"), *(part for one in CPU for part in ("--set", one))]
    ran = CliRunner().invoke(cli, command)
    if isinstance(ran.exception, BadInputError):
        return 2, str(ran.exception)
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.output


def laid_out(folder: Path, text: str = MODEL, name: str = "own", **changes: object) -> tuple[Cell, Path]:
    """A cell of the model on the CPU, and a folder with the copies that a run has of its traces."""
    work = models.read(str(model(folder, text))).example()
    work = dataclasses.replace(work, device="cpu", **changes)  # type: ignore[arg-type]
    root = folder / "laid out"
    (root / "traces").mkdir(parents=True, exist_ok=True)
    for table in recorded.traces_of(work.groups):
        copies.copy(table, partial(tuning.write, root))
    return Cell("a", "stock", "pytorch", Dataset(name), work, Timing(), 0, 1), root


def batches(cell: Cell, root: Path, count: int) -> list[Batch]:
    traces, own_bags = replay.read_traces(cell, root), replay.read_bags(cell, root)
    return [batch.make(cell, traces, Tables([]), number, own_bags) for number in range(count)]


def bags_of(made: Batch, feature: int) -> list[list[int]]:
    """Row numbers of each bag, as the operator meets them."""
    begins = made.starts(feature).tolist()
    rows = made.indices[feature].tolist()
    return [rows[begin:end] for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True)]


def test_batches_are_the_traces_bags_in_order_and_wrap_round(folder: Path) -> None:
    cell, root = laid_out(folder)
    made = batches(cell, root, 5)
    for feature, wanted in enumerate((USER, ITEM)):
        assert [bag for one in made for bag in bags_of(one, feature)] == (3 * wanted)[:15]
    # 7 bags are 2 batches of 3 and a bit.
    stretches = Stretches(cell, replay.read_traces(cell, root), replay.read_bags(cell, root))
    assert [stretches.in_trace(feature) for feature in (0, 1)] == [2, 2]


def test_a_trace_shorter_than_a_batch_wraps_round_within_it(folder: Path) -> None:
    cell, root = laid_out(folder, batch=17)
    (made,) = batches(cell, root, 1)
    assert bags_of(made, 0) == (3 * USER)[:17]


def test_all_tables_together_are_asked_for_the_same_bags(folder: Path) -> None:
    cell, root = laid_out(folder)
    for made in batches(cell, root, 3):
        offsets, rows = made.asked.offsets.tolist(), made.asked.indices.tolist()
        found = [rows[begin:end] for begin, end in itertools.pairwise(offsets)]
        assert found == bags_of(made, 0) + bags_of(made, 1)


def test_batches_of_unequal_lookups_are_joined_one_after_the_other(folder: Path) -> None:
    cell, root = laid_out(folder, weighted=True)
    made = batches(cell, root, 4)
    whole = batch.joined(made)
    for feature in (0, 1):
        assert bags_of(whole, feature) == [bag for one in made for bag in bags_of(one, feature)]
        weights = whole.sample_weights[feature]
        assert weights is not None
        assert len(weights) == len(whole.indices[feature])


@pytest.mark.parametrize("bags", ['bags = "own"', "pooling = 2"])
def test_tables_that_share_a_trace_begin_at_places_of_their_own(folder: Path, bags: str) -> None:
    text = MODEL.replace('trace = "deeper/item", bags = "own"', f'trace = "user", count = 2, {bags}')
    cell, root = laid_out(folder, text)
    traces = replay.read_traces(cell, root)
    assert traces[0] is traces[1] is traces[2]
    assert len(list((root / "traces").iterdir())) == 2
    (made,) = batches(cell, root, 1)
    rows = [row for bag in USER for row in bag]
    if "pooling" in bags:
        assert [made.indices[n].tolist() for n in (1, 2)] == [(2 * rows)[at : at + 6] for at in (3, 6)]
    else:
        assert [bags_of(made, n) for n in range(3)] == [(2 * USER)[at : at + 3] for at in (0, 2, 4)]


def test_bags_of_a_fixed_length_are_laid_over_a_trace_without_any(tmp_path: Path) -> None:
    trace(tmp_path / "user", USER, 10, own=False)
    text = MODEL.replace('"user", bags = "own"', '"user", pooling = 2').replace(
        '    { rows = 20, dim = 4, trace = "deeper/item", bags = "own" },\n', ""
    )
    cell, root = laid_out(tmp_path, text)
    first, second = batches(cell, root, 2)
    assert bags_of(first, 0) == [[3, 1], [4, 1], [5, 9]]
    assert bags_of(second, 0) == [[2, 6], [5, 3], [1, 4]]
    assert "bags: " in refused(tmp_path, text.replace("pooling = 2", 'bags = "own"'))


def test_own_bags_hold_another_datasets_rows(folder: Path) -> None:
    cell, root = laid_out(folder, name="random")
    first, second = batches(cell, root, 2)
    assert [len(bag) for one in (first, second) for bag in bags_of(one, 0)] == [2, 0, 1, 3, 2, 0]
    (synthetic, _) = replay.read_traces(cell, root)
    asked = torch.cat([first.indices[0], second.indices[0]]).tolist()
    assert asked == synthetic[:8].tolist()


@given(
    bags=st.lists(st.lists(st.integers(0, 99), max_size=5), min_size=1, max_size=12).filter(any),
    size=st.integers(1, 9),
    number=st.integers(0, 5),
    several=st.integers(1, 3),
)
def test_no_access_is_both_looked_up_and_left_out(
    bags: list[list[int]], size: int, number: int, several: int
) -> None:
    group = TableGroup(
        100, 4, trace="x", trace_sha256="0" * 64, bags="own", rows_per_own_bag=sum(map(len, bags)) / len(bags)
    )
    work = Workload(**{**summary((group,)), "groups": (group,), "batch": size, "device": "cpu"})  # type: ignore[arg-type]
    cell = Cell("a", "stock", "pytorch", Dataset("own"), work, Timing(), 0, 1)
    rows = np.arange(sum(map(len, bags)))  # each access tells its place
    offsets = np.concatenate([[0], np.cumsum([len(bag) for bag in bags])])
    stretches = Stretches(cell, [rows], {0: offsets})
    taken, left = stretches.rows(0, number, several), stretches.rest(0, number, several)
    apart = [stretches.rows(0, one) for one in range(number, number + several)]
    assert taken.tolist() == np.concatenate(apart).tolist()
    assert len(taken) == stretches.count(0, number, several)
    assert not set(taken.tolist()) & set(left.tolist())
    assert set(taken.tolist()) | set(left.tolist()) == set(rows.tolist())
    assert stretches.lengths(0, number).sum() == len(apart[0])


def test_rows_to_pin_are_of_what_no_batch_takes(folder: Path) -> None:
    cell, root = laid_out(folder, batch=2)
    traces, own_bags = replay.read_traces(cell, root), replay.read_bags(cell, root)
    made = batches(cell, root, 2)
    chosen = hot_rows.choose(cell, traces, made, 3, own_bags)
    # Bags 4 to 6 are left: of the first [2, 6], [], [5], of the second [14], [15, 16, 17], [18].
    assert [[rows.tolist() for rows in one] for one in chosen] == [[[2, 5, 6], [14, 15, 16]]] * 2
    assert hot_rows.held_bytes(cell, traces, 2, 3, own_bags) == 8 * 2 * 3


def test_as_many_batches_take_turns_as_empty_l2_and_a_short_trace_is_told(folder: Path) -> None:
    cell, root = laid_out(folder)
    traces, own_bags = replay.read_traces(cell, root), replay.read_bags(cell, root)
    found = rotation.plan(cell, traces, 2000, own_bags)
    assert found.batches > 2
    assert found.facts["bytes_until_trace_repeats"] < found.facts["bytes_between_turns"]
    # Between two turns of a batch that is repeated every second pass: one other batch, and the outputs.
    stretches = Stretches(cell, traces, own_bags)
    between = rotation.touched_bytes(cell.workload, stretches, 2)
    assert between == 5 * 32 + 4 * 16 + cell.workload.all_lookups * 8 + 6 * 8 + 3 * 12 * 4


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


def test_too_little_memory_offers_no_cut(folder: Path) -> None:
    cell, _ = laid_out(folder)
    with pytest.raises(CellError, match="its tables replay traces and cannot be cut down"):
        batch.check_memory(cell.workload, False, lambda asked: 0, 10)


def test_bags_that_are_all_empty_in_a_batch(folder: Path) -> None:
    trace(folder / "rare", [[], [], [], [7]] + [[]] * 3, 10)
    code, said = run(folder, text=MODEL.replace('"user"', '"rare"'))
    assert code == 0, said
    record = load(CellRecord, folder / "run" / "cells" / "stock-own-r0" / "record.json")
    assert (record.status, record.message) == ("ok", "")
    assert record.facts["batch_distinct_rows"] == (0 + 4) / 2
    kinds = analyse([folder / "run"]).runs[0].kinds
    assert {kind.rows: kind.demands[0].distinct_rows for kind in kinds} == {10: 0, 20: 4}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_call_for_all_tables_gets_the_bags_of_each(folder: Path, dtype: str) -> None:
    cell, root = laid_out(folder, dtype=dtype)
    traces, own_bags = replay.read_traces(cell, root), replay.read_bags(cell, root)
    stored = TableStore().get(cell.workload, cell.seed)
    made = [batch.make(cell, traces, stored, number, own_bags) for number in range(4)]

    def bind(given: Batch) -> list[batch.Lookup]:
        return [lambda: design._all_tables(given)]

    found = check.run(made[0], None, bind)
    others = check.run_others(made, [Turn(bind(one)) for one in made])
    assert check.worst_of([found, *others]).passed
    wrong = Turn([lambda: design._all_tables(made[1])])
    assert not check.worst_of(check.run_others([made[0], made[2]], [wrong, wrong])).passed


def test_fbgemm_looks_up_batches_of_unequal_lookups(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fbgemm_gpu")
    peer = Path(__file__).resolve().parents[2] / "opt_designs" / "fbgemm"
    monkeypatch.setenv("HARNESS_PEER", str(peer))
    cell, root = laid_out(folder)
    record = Bench(root).measure(dataclasses.replace(cell, design="fbgemm", timing=Timing(max_seconds=0.05)))
    assert (record.status, record.message) == ("ok", "")


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
    assert kind_demand.read(root).keys() == demand.read(root).keys() == {"own", "random"}


def test_what_is_tuned_is_the_recorded_traffic(folder: Path) -> None:
    what = tuning.asked(str(model(folder)))
    assert what.traffic == "own"
    indices, offsets = tuning.batches_of(what, "cpu", None)[1]
    assert indices.tolist() == [1, 5, 9, 2, 6, 14, 15, 16, 17]
    assert offsets.diff().tolist() == [3, 2, 0, 0, 1, 3]
    smaller = tuning.asked(str(model(folder, MODEL.replace("rows = 20", "rows = 16"))))
    with pytest.raises(BadInputError, match="access 7: row 16 is outside the table"):
        tuning.batches_of(smaller, "cpu", None)
