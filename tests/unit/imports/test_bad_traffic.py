"""What no model is made of: one sentence each, and nothing is left behind."""

from __future__ import annotations

import gzip
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from harness.cli import cli
from harness.errors import BadInputError
from harness.imports import jagged, torch_file
from tests.unit.imports.some_traffic import (
    BAGS,
    LENGTHS,
    each_table,
    made,
    refused,
    saved,
    tensors,
    torchrecs_class,
    traces,
)


@pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="needs TorchRec (`make setup`)")
def test_a_batch_that_varies_between_features_is_refused(tmp_path: Path) -> None:
    jagged_tensor = torchrecs_class()
    varying = jagged_tensor(
        keys=["a", "b"],
        values=torch.arange(4),
        lengths=torch.tensor([1, 2, 1]),
        stride_per_key_per_rank=[[1], [2]],
    )
    said = refused(saved(tmp_path, varying))
    assert said.endswith("traffic.pt: a batch that varies between features is not measured.")


@pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="needs TorchRec (`make setup`)")
def test_a_batch_that_varies_by_what_it_says_of_each_feature_is_refused(tmp_path: Path) -> None:
    """Its bags could be shared out evenly: 3 and 1 are as many as 2 and 2."""
    jagged_tensor = torchrecs_class()
    batch = jagged_tensor(keys=["a", "b"], values=torch.arange(4), lengths=torch.tensor([1, 1, 1, 1]))
    batch._stride_per_key = [2, 2]
    assert [table.rows for table in made(saved(tmp_path, batch)).tables] == [2, 4]
    (tmp_path / "out.toml").unlink()
    batch._stride_per_key = [3, 1]
    said = refused(saved(tmp_path, batch))
    assert said.endswith("traffic.pt: a batch that varies between features is not measured.")


VARIES = "a batch that varies between features is not measured."


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"stride_per_key": [torch.ones(2), torch.ones(2)]}, "stride_per_key: is no list of whole numbers"),
        ({"stride_per_key": torch.ones(2)}, "stride_per_key: is no list of whole numbers"),
        ({"stride_per_key": "22"}, "stride_per_key: is no list of whole numbers"),
        ({"stride_per_key": [2, 3]}, VARIES),
        ({"variable_stride_per_key": torch.ones(2)}, VARIES),
        ({"variable_stride_per_key": True}, VARIES),
        ({"stride_per_key_per_rank": torch.ones(2)}, VARIES),
        ({"stride_per_key_per_rank": [2, 2]}, VARIES),
        ({"stride_per_key_per_rank": [["2"], ["2"]]}, VARIES),
        ({"stride_per_key_per_rank": [[1, 2], [2, 2]]}, VARIES),
        ({"stride_per_key_per_rank": [[BAGS]] * 3, "variable_stride_per_key": True}, VARIES),
        ({"stride_per_key_per_rank": [[BAGS]] * 3, "inverse_indices": (["user"], torch.ones(2))}, VARIES),
    ],
)
def test_what_a_batch_says_of_its_features_may_be_anything(parts: dict[str, Any], said: str) -> None:
    keyed = torch_file.Keyed()
    vars(keyed).update({f"_{name}": value for name, value in (tensors() | parts).items()})
    with pytest.raises(BadInputError, match=rf"^traffic\.pt: {said}"):
        jagged.features(keyed, "traffic.pt", 2**30)


@pytest.mark.parametrize("ranks", [None, [[BAGS]] * 3, [[BAGS - 9, 9], [1, BAGS - 1], [0, BAGS]]])
def test_equal_strides_are_no_obstacle(ranks: list[list[int]] | None) -> None:
    """TorchRec 0.6 tells those of each rank, too."""
    keyed = torch_file.Keyed()
    strides = {"stride_per_key": [BAGS] * 3, "variable_stride_per_key": False, "inverse_indices": None}
    strides["stride_per_key_per_rank"] = ranks
    vars(keyed).update({f"_{name}": value for name, value in (tensors() | strides).items()})
    assert len(jagged.features(keyed, "traffic.pt", 2**30).features) == 3


@pytest.mark.parametrize("name", ["tag/7", "../up", ".hidden", "ü" * 150])
def test_names_that_are_no_file_names(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, tensors() | {"keys": ["user", "item", name]})
    assert "is no name for a trace's folder" in refused(path, "--traces", str(tmp_path / "traces"))
    assert not (tmp_path / "traces").exists()
    assert "exists already" in refused(path, "--traces", str(tmp_path))


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
        (
            changed(lengths=torch.ones(2, 3, dtype=torch.int64)),
            "lengths: are [2, 3], and 3 features need [3, bags], with values feature after feature.",
        ),
        (changed(lengths=torch.ones(1, 3, dtype=torch.int64)), "lengths: are [1, 3], and 3 features need"),
        (changed(keys=["a"], lengths=torch.ones(2, 1).long()), "are [2, 1], and 1 feature needs [1, bags]"),
        (changed(lengths=torch.ones(1, 1, 3).long()), "whole numbers in one or two dimensions."),
        (
            changed(offsets=torch.ones(3, 3).long()),
            "offsets: is no tensor of 32 or 64-bit whole numbers in one",
        ),
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


@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_were_joined(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "traffic.pt"
    torch.save(tensors(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for behind in (whole, b"\n"):
        path.write_bytes(whole + behind)
        assert "traffic.pt: holds more than one torch.save wrote; where files were joined" in refused(path)


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


def test_what_is_neither_file_nor_folder_is_not_waited_for(tmp_path: Path) -> None:
    folder = traces(tmp_path / "traces", a=LENGTHS[0], b=LENGTHS[1], c=LENGTHS[2])
    os.mkfifo(folder / "pipe")
    said = "traces/pipe: is no file and no folder; take it out of the folder."
    assert refused(folder).endswith(said)
    (folder / "pipe").unlink()
    (folder / "pipe").symlink_to("nowhere")
    assert refused(folder, "--pooling", "2").endswith(said)


def test_a_large_table_in_a_folder_is_believed_where_its_size_is_given(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    (folder / "clicks.txt").write_text(f"{2**28}\n1\n", encoding="utf-8")
    np.save(folder / "views.npy", np.array([1, 2]))
    said = refused(folder, "--pooling", "1")
    assert said.endswith("feature clicks: holds row 268,435,456; say with --rows that its table is so large.")
    assert "access 1: row 268435456 is outside" in refused(folder, "--pooling", "1", "--rows", "9")
    for rows, of_views in ((f"clicks={2**29}", 3), (f"{2**29}", 2**29)):
        tables = each_table(made(folder, "--pooling", "1", "--rows", rows))
        assert [table.rows for table in tables] == [2**29, of_views]
        (tmp_path / "out.toml").unlink()


def test_a_device_is_not_read_until_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / "traffic.pt").symlink_to("/dev/zero")
    assert "traffic.pt: is a device and not a file" in refused(tmp_path / "traffic.pt")


def test_a_name_that_no_reader_could_see(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    np.save(folder / "a\udcff.npy", np.arange(3))
    assert r"feature 0 is called" in refused(folder, "--pooling", "1")
