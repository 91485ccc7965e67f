"""Models of traffic: a KeyedJaggedTensor, Meta's dlrm_datasets, a folder of traces."""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from harness import experiment, models, tuning
from harness.cli import cli
from harness.records import Cell, CellRecord, Dataset, Timing, load
from harness.traces import copies, recorded
from harness.traces.stretches import Stretches
from harness.traces.trace import open_trace
from tests.unit.imports.some_traffic import (
    BAGS,
    LENGTHS,
    ROWS,
    VALUES,
    check,
    each_table,
    made,
    meta,
    refused,
    samples,
    saved,
    tensors,
    torchrecs_class,
    traces,
)


@pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="needs TorchRec (`make setup`)")
@pytest.mark.parametrize("looked_at", [False, True])
def test_a_keyed_jagged_tensor_as_torchrec_saves_it(tmp_path: Path, looked_at: bool) -> None:
    jagged_tensor = torchrecs_class()
    parts = tensors()
    jagged = jagged_tensor(keys=parts["keys"], values=parts["values"], lengths=parts["lengths"])
    if looked_at:  # it then keeps what it worked out, JaggedTensors too
        jagged.to_dict()
        jagged.offsets()
    check(made(saved(tmp_path, jagged)))


def test_a_dict_of_its_parts(tmp_path: Path) -> None:
    check(made(saved(tmp_path, tensors())))


def test_offsets_do_in_place_of_lengths(tmp_path: Path) -> None:
    parts = tensors()
    offsets = np.concatenate([[0], np.cumsum(LENGTHS.flatten())]).astype(np.int32)
    check(made(saved(tmp_path, parts | {"lengths": None, "offsets": torch.from_numpy(offsets)})))


def test_several_batches_one_after_the_other(tmp_path: Path) -> None:
    first, second = (samples(slice(0, 100)), samples(slice(100, BAGS)))
    check(made(saved(tmp_path, [first, second])))
    (tmp_path / "out.toml").unlink()
    said = refused(saved(tmp_path, [first, second | {"keys": ["a", "b", "c"]}]))
    assert "batch 1 has other features than the first" in said
    assert "batch 1: values: is no list" in refused(saved(tmp_path, [first, second | {"values": None}]))
    # The same tensors over and over take a file no larger than once.
    assert "larger than the file that they are in" in refused(saved(tmp_path, [first] * 5000))


def test_types_weights_and_what_is_said_beside_the_traffic(tmp_path: Path) -> None:
    parts = tensors()
    parts |= {"values": parts["values"].int(), "weights": torch.rand(len(parts["values"]))}
    options = ["--rows", "10000", "--rows", "user=500", "--dim", "tag/7=4"]
    model = made(saved(tmp_path, parts), *options, "--batch", "64", "--dtype", "float16")
    tables = each_table(model)
    assert [(table.rows, table.dim) for table in tables] == [(500, 8), (10_000, 8), (10_000, 4)]
    assert (model.weighted, model.index_dtype, model.dtype, model.batch) == (True, "int32", "float16", 64)
    assert experiment.of_designs(["stock"], "13.0", model=str(tmp_path / "out.toml")).datasets == ("own",)
    text = (tmp_path / "out.toml").read_text(encoding="utf-8")
    assert "# tag/7\n" in text


def test_all_tables_of_metas_file(tmp_path: Path) -> None:
    path = saved(tmp_path, meta())
    packed = tmp_path / "fbgemm_t3_bs256.pt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    check(made(packed))


def test_tables_that_nobody_looks_up_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    indices, offsets, lengths = meta()
    lengths = torch.cat([lengths, torch.zeros(1, BAGS, dtype=torch.int64)])
    offsets = torch.cat([offsets, offsets[-1:].expand(BAGS)])
    path = saved(tmp_path, (indices, offsets, lengths))
    assert "feature table 3 looks nothing up; --skip-empty leaves such out" in refused(path)
    check(made(path, "--skip-empty"))


def test_a_folder_of_traces_with_their_bags(tmp_path: Path) -> None:
    folder = traces(tmp_path / "traces", a=LENGTHS[0], b=LENGTHS[1], c=LENGTHS[2])
    (folder / ".DS_Store").write_bytes(b"\0")
    model = made(folder)
    assert [table.rows for table in each_table(model)] == list(ROWS)
    for table, own in zip(each_table(model), LENGTHS, strict=True):
        assert table.lengths(BAGS) == tuple(sorted(own.tolist()))


def test_traces_of_other_kinds_and_bags_laid_over_them(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    np.save(folder / "views.npy", np.arange(100) % 7)
    (folder / "clicks.txt.gz").write_bytes(gzip.compress(b"3\n1\n2\n" * 20))
    model = made(folder, "--pooling", "3")
    text = (tmp_path / "out.toml").read_text(encoding="utf-8")
    assert text.index("# clicks\n") < text.index("# views\n")
    assert [(table.rows, table.pooling) for table in each_table(model)] == [(4, 3), (7, 3)]
    assert model.batch == 20


@pytest.mark.parametrize("name", ["medium", "own", "mixed", "-", "-x"])
def test_a_file_in_the_working_directory_is_no_synthetic_trace_and_no_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    (folder / name).write_text("3\n1\n2\n0\n", encoding="utf-8")
    monkeypatch.chdir(folder)
    command = ["trace", "model", ".", str(tmp_path / "out.toml"), "--dim", "4", "--pooling", "2"]
    ran = CliRunner().invoke(cli, command, input="9\n9\n")
    assert ran.exit_code == 0, ran.output
    (table,) = each_table(models.read(str(tmp_path / "out.toml")))
    assert (table.rows, table.pooling) == (4, 2)


def test_row_numbers_behind_the_last_whole_bag_are_told_and_are_rows_of_the_table(tmp_path: Path) -> None:
    folder, out = tmp_path / "traces", tmp_path / "out.toml"
    folder.mkdir()
    np.save(folder / "views.npy", np.array([0, 1, 2, 3, 70]))
    (folder / "clicks.txt").write_text("0\n1\n2\n3\n9\n8\n7\n", encoding="utf-8")
    (folder / "whole.txt").write_text("0\n1\n2\n3\n", encoding="utf-8")
    command = ["trace", "model", str(folder), str(out), "--dim", "4", "--pooling"]
    ran = CliRunner().invoke(cli, [*command, "4"])
    assert "Left out behind the last whole bag of 4: 3 row numbers of clicks, 1 of views." in ran.output
    assert [table.rows for table in each_table(models.read(str(out)))] == [10, 71, 4]
    out.unlink()
    assert "feature views: access 5: row 70 is outside" in refused(folder, "--pooling", "4", "--rows", "50")
    (folder / "views.npy").unlink()
    (folder / "clicks.txt").unlink()
    assert "Left out" not in CliRunner().invoke(cli, [*command, "2"]).output


def test_each_features_trace_is_written_beside_the_model(tmp_path: Path) -> None:
    parts = tensors() | {"keys": ["user", "item", "tag 7"]}
    model = made(saved(tmp_path, parts), "--traces", str(tmp_path / "traces"), "--rows", "item=9500")
    for name, values, lengths in zip(parts["keys"], VALUES, LENGTHS, strict=True):
        trace = open_trace(tmp_path / "traces" / name)
        trace.verify()
        assert trace.offsets is not None
        assert np.array_equal(trace.indices, values)
        assert np.array_equal(np.diff(trace.offsets), lengths)
        assert trace.header.rows == (9500 if name == "item" else int(values.max()) + 1)
    (tmp_path / "out.toml").unlink()
    again = each_table(made(tmp_path / "traces"))
    in_order_of_names = [each_table(model)[number] for number in (1, 2, 0)]
    assert [replace(table, places="") for table in again] == [
        replace(table, places="") for table in in_order_of_names
    ]


def test_a_model_of_traffic_runs_with_every_output_checked(tmp_path: Path) -> None:
    made(saved(tmp_path, tensors()), "--dim", "item=16")
    settings = ["workload.device=cpu", "replicates=1", "timing.max_seconds=0.1", "timing.min_passes=3"]
    command = ["run", "--model", str(tmp_path / "out.toml"), "--design", "stock", "--local"]
    command += ["--output", str(tmp_path / "run")]
    ran = CliRunner().invoke(cli, [*command, *(part for one in settings for part in ("--set", one))])
    assert ran.exit_code == 0, ran.output
    record = load(CellRecord, tmp_path / "run" / "cells" / "stock-own-r0" / "record.json")
    assert record.check is not None
    assert record.check.passed
    # Two batches of 8, 16 and 8 columns, and the first table in ragged bags.
    assert record.check.elements == BAGS * (2 * 32 + 8)


@pytest.mark.parametrize("source", ["jagged", "meta", "folder"])
def test_a_model_that_replays_looks_up_the_traffic_as_it_was(tmp_path: Path, source: str) -> None:
    if source == "folder":
        given = traces(tmp_path / "given", a=LENGTHS[0], b=LENGTHS[1], c=LENGTHS[2])
    else:
        parts = tensors() | {"keys": ["user", "item", "tag 7"]}
        given = saved(tmp_path, meta() if source == "meta" else parts)
    model = made(given, "--traces", str(tmp_path / "kept"), "--replay", "--batch", "100")
    assert (model.batch, {table.bags for table in each_table(model)}) == (100, {"own"})
    lookups = [int(own.sum()) for own in LENGTHS]
    assert [table.lookups(BAGS) for table in each_table(model)] == lookups
    assert 'trace = "kept/' in (tmp_path / "out.toml").read_text(encoding="utf-8")
    work = replace(model.example(), device="cpu")
    cell = Cell("a", "stock", "pytorch", Dataset("own"), work, Timing(), 0, 1)
    for table in recorded.traces_of(work.groups):
        copies.copy(table, partial(tuning.write, tmp_path))
    stretches = Stretches.read(cell, tmp_path)
    for feature, (values, lengths) in enumerate(zip(VALUES, LENGTHS, strict=True)):
        assert stretches.rows(feature, 0, 2).tolist() == values[: lengths[:200].sum()].tolist()
        assert stretches.lengths(feature, 1).tolist() == lengths[100:200].tolist()


def test_a_model_that_replays_may_be_moved_with_its_traces(tmp_path: Path) -> None:
    parts = tensors() | {"keys": ["user", "item", "tag 7"]}
    before = made(saved(tmp_path, parts), "--traces", str(tmp_path / "kept"), "--replay")
    (tmp_path / "there").mkdir()
    for name in ("out.toml", "kept"):
        (tmp_path / name).rename(tmp_path / "there" / name)
    after = models.read(str(tmp_path / "there" / "out.toml"))
    assert [replace(table, trace="") for table in after.tables] == [
        replace(table, trace="") for table in before.tables
    ]
    assert all(Path(table.trace).is_dir() for table in after.tables)


def test_replays_need_a_place_and_leave_nothing_behind_where_they_fail(tmp_path: Path) -> None:
    source = saved(tmp_path, tensors())
    command = ["trace", "model", str(source), str(tmp_path / "out.toml"), "--dim", "8", "--replay"]
    ran = CliRunner().invoke(cli, command)
    assert ran.exit_code == 2
    assert "--replay needs --traces DIR" in ran.output
    kept = ["--replay", "--traces", str(tmp_path / "kept")]
    assert "'tag/7' is no name for a trace's folder" in refused(source, *kept)
    other = saved(tmp_path, tensors() | {"keys": ["user", "item", "tag 7"]})
    said = refused(other, *kept, "--dtype", "int8", "--dim", "user=4")
    assert "traffic.pt: makes no model with these options: dtype: int8 tables of 4 to 8 columns" in said
    assert not (tmp_path / "kept").exists()
