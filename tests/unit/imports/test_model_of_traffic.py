"""Models of traffic: a KeyedJaggedTensor, Meta's dlrm_datasets, a folder of traces."""

from __future__ import annotations

import gzip
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner

from harness import experiment, models
from harness.cli import cli
from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.records import CellRecord, load
from harness.traces import synth
from harness.traces.trace import array_blocks, write_trace

BAGS = 256
LENGTHS = np.stack(
    [
        np.ones(BAGS, np.int64),
        np.random.default_rng(1).poisson(6, BAGS),
        np.where(np.arange(BAGS) % 4, 0, 3),
    ]
)
ROWS = (400, 9_000, 5)
VALUES = [
    synth.zipf(rows, int(own.sum()), 7, s=s, q=2.0)
    for rows, own, s in zip(ROWS, LENGTHS, (1.1, 0.9, 0.1), strict=True)
]
NAMES = ["user", "item", "tag/7"]


def tensors() -> dict[str, Any]:
    return {
        "keys": list(NAMES),
        "values": torch.from_numpy(np.concatenate(VALUES)),
        "lengths": torch.from_numpy(LENGTHS.flatten()),
    }


def made(source: Path, *options: str) -> models.ModelFile:
    out = source.parent / "out.toml"
    ran = CliRunner().invoke(cli, ["trace", "model", str(source), str(out), "--dim", "8", *options])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return models.read(str(out))


def refused(source: Path, *options: str) -> str:
    with pytest.raises(BadInputError) as error:
        made(source, *options)
    assert not (source.parent / "out.toml").exists()
    assert not list(source.parent.glob(".import*"))
    return str(error.value)


def saved(tmp_path: Path, value: Any) -> Path:
    torch.save(value, tmp_path / "traffic.pt")
    return tmp_path / "traffic.pt"


def each_table(model: models.ModelFile) -> list[TableGroup]:
    return [feature.group for feature in model.example().features]


def torchrecs_class() -> Any:
    """KeyedJaggedTensor, whose import warns of what it does not find."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
    return KeyedJaggedTensor


def check(model: models.ModelFile) -> None:
    """It has the rows and the bags of the traffic above."""
    tables = each_table(model)
    assert [table.rows for table in tables] == [int(own.max()) + 1 for own in VALUES]
    for table, lengths in zip(tables, LENGTHS, strict=True):
        assert table.lengths(BAGS) == tuple(sorted(lengths.tolist()))
    assert model.batch == BAGS
    assert tables[0].zipf_s > 0


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


@pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="needs TorchRec (`make setup`)")
def test_a_batch_that_varies_between_features_is_refused(tmp_path: Path) -> None:
    jagged_tensor = torchrecs_class()
    jagged = jagged_tensor(
        keys=["a", "b"],
        values=torch.arange(4),
        lengths=torch.tensor([1, 2, 1]),
        stride_per_key_per_rank=[[1], [2]],
    )
    said = refused(saved(tmp_path, jagged))
    assert said.endswith("traffic.pt: a batch that varies between features is not measured.")


def test_a_dict_of_its_parts(tmp_path: Path) -> None:
    check(made(saved(tmp_path, tensors())))


def test_offsets_do_in_place_of_lengths(tmp_path: Path) -> None:
    parts = tensors()
    offsets = np.concatenate([[0], np.cumsum(LENGTHS.flatten())]).astype(np.int32)
    check(made(saved(tmp_path, parts | {"lengths": None, "offsets": torch.from_numpy(offsets)})))


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


def meta() -> tuple[torch.Tensor, ...]:
    offsets = np.concatenate([[0], np.cumsum(LENGTHS.flatten())])
    return tuple(torch.from_numpy(part) for part in (np.concatenate(VALUES), offsets, LENGTHS))


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


def traces(folder: Path, **lengths: npt.NDArray[np.int64]) -> Path:
    for name, values, rows in zip(("a", "b", "c"), VALUES, ROWS, strict=True):
        own = lengths.get(name)
        offsets = None if own is None else np.concatenate([[0], np.cumsum(own)])
        write_trace(folder / name, array_blocks(values), rows=rows, origin="here", offsets=offsets)
    return folder


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


class Foreign:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (self.path, "w")


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    said = refused(saved(tmp_path, {"keys": ["a"], "values": Foreign(str(tmp_path / "executed"))}))
    assert "holds other things than tensors and a KeyedJaggedTensor; nothing in it was executed" in said
    assert not (tmp_path / "executed").exists()


def changed(**parts: Any) -> dict[str, Any]:
    return tensors() | parts


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            3,
            "holds neither a KeyedJaggedTensor, or a dict of keys, values and lengths, nor the three tensors",
        ),
        (changed(values=None), "values: is no list of 32 or 64-bit row numbers"),
        (changed(values=torch.rand(5)), "values: is no list of 32 or 64-bit row numbers"),
        (changed(values=torch.zeros(4, 4, dtype=torch.int64)), "values: is no list of"),
        (changed(values=torch.zeros(1, dtype=torch.int64).expand(10**9)), "larger than the file"),
        (changed(lengths=None), "lengths: are missing, and so are offsets"),
        (changed(lengths=torch.rand(3)), "lengths: is no tensor of 32 or 64-bit whole numbers"),
        (changed(lengths=torch.ones(3, dtype=torch.int64)), "its bags hold 3 row numbers by their lengths"),
        (changed(lengths=torch.ones(4, dtype=torch.int64)), "holds 4 bags for 3 features, and these need"),
        (changed(lengths=torch.zeros(0, dtype=torch.int64)), "holds 0 bags for 3 features"),
        (changed(lengths=torch.tensor([-1, 1, 1])), "feature user: has a bag of negative length"),
        # Which add up to 4 in 64 bits.
        (changed(lengths=torch.tensor([2**62] * 3 + [2**62 + 4, 0, 0])), "feature user: has a bag of 4,611,"),
        (changed(offsets=torch.tensor([0, 1])), "the offsets do not reach from 0"),
        (changed(keys="user"), "keys: is no list of the features' names"),
        (changed(keys=[]), "holds no features"),
        (changed(keys=["a", "a", "b"]), "two features are called 'a'; rename one"),
        (changed(keys=["a", 5, "b"]), "feature 1 is called '5'; a name is a text of"),
        (changed(keys=["a", " ", "b"]), "feature 1 is called"),
        (changed(keys=["a", "b\x1b[2J", "c"]), "feature 1 is called"),
        (changed(keys=["a", "b" * 300, "c"]), "feature 1 is called"),
        (changed(weights=torch.rand(3)), "weights: is no tensor with one for each of"),
        (changed(inverse_indices=3), "inverse_indices: is none of keys, values, lengths"),
        ((torch.ones(3), torch.ones(3)), "does not hold the three integer tensors"),
        ((torch.arange(3), torch.arange(4), torch.ones(3, dtype=torch.int64)), "are not [accesses]"),
        (
            (torch.arange(3), torch.tensor([0, 1, 4]), torch.ones(2, 1, dtype=torch.int64)),
            "do not reach from 0",
        ),
        (
            (torch.arange(3), torch.tensor([0, 1, 3]), torch.ones(2, 1, dtype=torch.int64)),
            "the lengths of the bags are not the distances between their offsets",
        ),
        (
            (torch.zeros(0, dtype=torch.int64), torch.tensor([0, 0]), torch.zeros(1, 1, dtype=torch.int64)),
            "no feature looks anything up",
        ),
    ],
)
def test_what_is_no_traffic(tmp_path: Path, value: Any, said: str) -> None:
    assert said in refused(saved(tmp_path, value))


def test_row_numbers_outside_their_tables(tmp_path: Path) -> None:
    parts = tensors()
    parts["values"][BAGS + 1] = -4
    assert "feature item: access 2: row -4 is negative" in refused(saved(tmp_path, parts))
    parts["values"][BAGS + 1] = 2**40
    path = saved(tmp_path, parts)
    assert "feature item: holds row 1,099,511,627,776; say with --rows that its table" in refused(path)
    assert "feature user: access 2: row 30" in refused(
        path, "--rows", "user=1", "--rows", "item=1099511627776"
    )
    assert "access 2: row 1099511627776 is outside the table (0 to 8999)" in refused(path, "--rows", "9000")


@pytest.mark.parametrize("keep", [0, 10, -10])
def test_a_file_that_is_cut_short(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path, tensors())
    path.write_bytes(path.read_bytes()[: keep or 1000])
    assert "traffic.pt: is damaged, or holds other things" in refused(path)
    packed = tmp_path / "traffic.pt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes() * 9)[:-20])
    assert "is cut short or damaged and cannot be unpacked" in refused(packed)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dim", "nobody=4"], "--dim nobody: "),
        (["--rows", "nobody=4"], "has no feature of that name"),
        (["--pooling", "4"], "has bags of its own; --pooling is for folders of traces"),
        (["--mode", "mean"], "weighted: sample weights go with mode"),
    ],
)
def test_options_that_do_not_go_with_the_traffic(tmp_path: Path, options: list[str], said: str) -> None:
    parts = tensors()
    parts["weights"] = torch.rand(len(parts["values"]))
    assert said in refused(saved(tmp_path, parts), *options)


def test_every_table_needs_a_width(tmp_path: Path) -> None:
    path, out = saved(tmp_path, tensors()), str(tmp_path / "out.toml")
    ran = CliRunner().invoke(cli, ["trace", "model", str(path), out, "--dim", "user=4"])
    assert "--dim: say how many columns the table of item has." in str(ran.exception)
    ran = CliRunner().invoke(cli, ["trace", "model", str(path), out, "--dim", "user=x"])
    assert "'user=x' is neither N nor NAME=N" in ran.output
    assert ran.exit_code == 2


def test_nothing_is_written_over(tmp_path: Path) -> None:
    path = saved(tmp_path, tensors())
    made(path)
    with pytest.raises(BadInputError, match=r"out\.toml: exists already"):
        made(path)
    ran = CliRunner().invoke(cli, ["trace", "model", str(path), str(tmp_path / "out.json"), "--dim", "4"])
    assert str(ran.exception).endswith("out.json: a model's file ends in .toml; name it so.")


def test_folders_that_are_no_traffic(tmp_path: Path) -> None:
    folder = traces(tmp_path / "traces", a=LENGTHS[0], b=LENGTHS[1])
    assert "traces/c: has no bags of its own; say with --pooling" in refused(folder)
    assert "are less than a bag of --pooling 1000" in refused(folder, "--pooling", "1000")
    assert "traces/a: is one table's trace; name the folder" in refused(folder / "a")
    other = traces(tmp_path / "others", a=LENGTHS[0], b=np.append(LENGTHS[1], 0), c=LENGTHS[2])
    assert "others: a has 256 bags and b 257; the features of a model have one each" in refused(other)
    (tmp_path / "empty").mkdir()
    assert "empty: holds no features" in refused(tmp_path / "empty")
    (folder / "x").mkdir()
    assert "traces/x: is no file, no imported trace" in refused(folder, "--pooling", "2")
    assert "nowhere.csv: is neither a folder of traces nor a .pt file" in refused(tmp_path / "nowhere.csv")
    assert "nowhere.pt: cannot be read: No such file" in refused(tmp_path / "nowhere.pt")


def test_a_device_is_not_read_until_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / "traffic.pt").symlink_to("/dev/zero")
    assert "traffic.pt: is a device and not a file" in refused(tmp_path / "traffic.pt")


def test_a_name_that_no_reader_could_see(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    np.save(folder / "a\udcff.npy", np.arange(3))
    assert r"feature 0 is called" in refused(folder, "--pooling", "1")
