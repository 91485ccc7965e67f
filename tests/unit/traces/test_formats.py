"""Import: every format gives the rows that were put in, and every kind of damage its own sentence."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pytest
import torch

from harness.errors import BadInputError, MachineError
from harness.traces import meta
from harness.traces.formats import import_trace, read_trace

ROWS = [4, 0, 9, 4, 2]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the import goes; its folder holds nothing else."""
    return tmp_path / "out" / "trace"


def refused(source: Path, out: Path, said: str, kind: type[Exception] = BadInputError, **more: Any) -> None:
    """The import fails with this text and the source's name, and leaves nothing."""
    with pytest.raises(kind, match=re.escape(said)) as caught:
        import_trace(source, out, **{"rows": 10, **more})
    assert "\n" not in str(caught.value)
    if kind is BadInputError:
        assert str(source) in str(caught.value)
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_text(tmp_path: Path, out: Path) -> None:
    source = tmp_path / "rows.txt"
    source.write_text("\n".join(map(str, ROWS)))
    trace = import_trace(source, out, rows=10)
    assert trace.indices.tolist() == ROWS
    assert trace.header.origin == str(source)
    assert list(out.parent.iterdir()) == [out]
    assert read_trace(source, 10).tolist() == read_trace(out, 10).tolist() == ROWS


def test_text_refused(tmp_path: Path, out: Path) -> None:
    source = tmp_path / "rows.txt"
    source.write_text("1\n11\n", encoding="utf-8")
    refused(source, out, "line 2: row 11 is outside")
    refused(source, out, "has no columns", column="c")
    refused(source, out, "has no tables", table=1)
    refused(tmp_path / "absent.txt", out, "No such file")


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, ">i4"])
def test_numpy(tmp_path: Path, out: Path, dtype: Any) -> None:
    source = tmp_path / "rows.npy"
    np.save(source, np.array(ROWS, dtype=dtype))
    assert import_trace(source, out, rows=10).indices.tolist() == ROWS
    assert read_trace(source, 10).tolist() == ROWS


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([1.0]), "no one-dimensional array of integers"),
        (np.array([[1]]), "no one-dimensional array of integers"),
        (np.array([True]), "no one-dimensional array of integers"),
        (np.array([], dtype=np.int64), "is empty"),
        (np.array([1, -3]), "access 2: row -3 is negative"),
        (np.array([1, 2**63], dtype=np.uint64), "access 2: row 9223372036854775808 is outside"),
        (np.array([{}], dtype=object), "is cut short, or no plain NumPy array"),
    ],
)
def test_numpy_refused(tmp_path: Path, out: Path, array: np.ndarray[Any, Any], said: str) -> None:
    source = tmp_path / "rows.npy"
    np.save(source, array, allow_pickle=True)
    refused(source, out, said)
    with pytest.raises(BadInputError, match=re.escape(said)):
        read_trace(source, 10)


def test_numpy_cut_short(tmp_path: Path, out: Path) -> None:
    source = tmp_path / "rows.npy"
    np.save(source, np.arange(9))
    whole = source.read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        source.write_bytes(whole[:length])
        refused(source, out, "is cut short, or no plain NumPy array")


def test_csv_of_row_numbers(tmp_path: Path, out: Path) -> None:
    source = tmp_path / "log.csv"
    source.write_text("user,item\n" + "".join(f'"a,b",{row}\n' for row in ROWS), encoding="utf-8")
    shares: list[float] = []
    trace = import_trace(source, out, rows=10, column="item", progress=shares.append)
    assert trace.indices.tolist() == ROWS
    assert trace.header.origin == f"{source}, column 'item'"
    assert shares[-1] == 1


def test_csv_categories(tmp_path: Path, out: Path) -> None:
    """In the order of first appearance, over the borders of what is read at once; "01" is not 1."""
    source = tmp_path / "log.tsv"
    values = ["b7", "01", "1", "", "b7", "NA", "1"]
    source.write_text("".join(f"0\t{value}\n" for value in values), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.traces.columns._AT_ONCE", 2)
        trace = import_trace(source, out, rows=5, column="#2", mapping="first_appearance")
    assert trace.indices.tolist() == [0, 1, 2, 3, 0, 4, 2]
    assert "order of their first appearance" in trace.header.origin


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        ("c\n1\n12\n", {}, "value 2: row 12 is not in the table (0 to 9)"),
        ("c\n1\n-1\n", {}, "value 2: row -1 is not in the table"),
        ("c\n1\n18446744073709551615\n", {}, "value 2: row 18446744073709551615 is not in"),
        ("c\n1\n99999999999999999999\n", {}, "value 2 is 99999999999999999999, not a row number"),
        ("c,d\n1,1\n,2\n", {}, "value 2 is missing"),
        ("c\n1\n2.5\n", {}, "value 2 is 2.5, not a row number"),
        ("c\n1.0\n2.0\n", {}, "value 1 is 1.0, not a row number"),
        ("c\n1\nxy\n", {}, "value 2 is 'xy', not a row number"),
        ("d\n1\n", {}, "column 'c' cannot be read"),
        ("", {}, "column 'c' cannot be read"),
        ("c\n", {}, "is empty"),
        ('c\n"1\n', {}, "column 'c' cannot be read"),
        ("c\n1\n", {"column": None}, "name the column"),
        ("c\n1\n", {"column": "#4"}, "column '#4' cannot be read"),
        ("c\na\nb\nc\n", {"mapping": "first_appearance", "rows": 2}, "more than 2 different values"),
    ],
)
def test_csv_refused(tmp_path: Path, out: Path, content: str, more: dict[str, Any], said: str) -> None:
    source = tmp_path / "log.csv"
    source.write_text(content, encoding="utf-8")
    refused(source, out, said, **{"column": "c", **more})


def test_csv_not_text(tmp_path: Path, out: Path) -> None:
    source = tmp_path / "log.csv"
    source.write_bytes(b"c\n\xff\xfe\n")
    refused(source, out, "column 'c' cannot be read", column="c")
    refused(tmp_path / "absent.csv", out, "No such file", column="c")


def test_parquet(tmp_path: Path, out: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    source = tmp_path / "log.parquet"
    names = pa.array(["x", None, "y", "x", None]).dictionary_encode()
    pq.write_table(
        pa.table({"row": ROWS, "name": names, "bag": [[1]] * 5, "gap": [1, 2, None, 3, 4]}), source
    )
    assert import_trace(source, out, rows=10, column="row").indices.tolist() == ROWS
    named = import_trace(source, tmp_path / "named", rows=10, column="name", mapping="first_appearance")
    assert named.indices.tolist() == [0, 1, 2, 0, 1]
    other = tmp_path / "other" / "trace"
    refused(source, other, "value 1 is 'x', not a row number", column="name")
    refused(source, other, "value 3 is missing", column="gap")
    refused(source, other, "has no column 'none'; it has: row, name, bag, gap", column="none")
    refused(source, other, "value 3: row 9 is not in the table", column="row", rows=9)
    refused(source, other, "not a row number", column="bag")
    refused(source, other, "lists", column="bag", mapping="first_appearance")
    source.write_bytes(source.read_bytes()[:-20])
    refused(source, other, "cannot be read as Parquet", column="row")


def test_parquet_without_pyarrow(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(tmp_path / "log.parquet", out, "pip install pyarrow", MachineError, column="c")


# Two tables of three bags.
INDICES, OFFSETS, LENGTHS = [5, 6, 7, 1, 2, 3], [0, 2, 2, 3, 4, 4, 6], [[2, 0, 1], [1, 0, 2]]


def save_meta(path: Path, value: Any = None, **options: Any) -> Path:
    if value is None:
        value = tuple(torch.tensor(part) for part in (INDICES, OFFSETS, LENGTHS))
    with cast(IO[bytes], gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb")) as file:
        torch.save(value, file, **options)
    return path


@pytest.mark.parametrize("name", ["t2_bs3.pt.gz", "t2_bs3.pt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_meta(tmp_path: Path, name: str, zipped: bool) -> None:
    source = save_meta(tmp_path / name, _use_new_zipfile_serialization=zipped)
    shares: list[float] = []
    first = import_trace(source, tmp_path / "out" / "0", rows=10, table=0, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    second = import_trace(source, tmp_path / "out" / "1", rows=10, table=1)
    assert first.offsets is not None
    assert second.offsets is not None
    assert (first.indices.tolist(), first.offsets.tolist()) == ([5, 6, 7], [0, 2, 2, 3])
    assert (second.indices.tolist(), second.offsets.tolist()) == ([1, 2, 3], [0, 1, 1, 3])
    assert second.header.table == 1
    assert second.header.origin == f"{source}, table 1"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0", "1"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([torch.tensor(INDICES)], "does not hold the three integer tensors"),
        ({"indices": torch.tensor(INDICES)}, "does not hold the three integer tensors"),
        ([torch.tensor([1.5])] * 3, "does not hold the three integer tensors"),
        ([torch.tensor(INDICES)] * 3, "are not [accesses], [tables · bags + 1] and [tables, bags]"),
        ([torch.tensor(p) for p in (INDICES, [0, 2, 2, 3, 4, 4, 7], LENGTHS)], "offsets do not reach"),
        ([torch.tensor(p) for p in (INDICES, [0, 2, 1, 3, 4, 4, 6], LENGTHS)], "offset 3 is less"),
        ([torch.tensor(p) for p in (INDICES, [0, 1, 2, 3, 4, 4, 6], LENGTHS)], "lengths of the bags"),
    ],
)
def test_meta_of_another_shape(tmp_path: Path, out: Path, value: Any, said: str) -> None:
    refused(save_meta(tmp_path / "t.pt.gz", value), out, said, table=0)


def test_meta_refused(tmp_path: Path, out: Path) -> None:
    source = save_meta(tmp_path / "t.pt.gz")
    refused(source, out, "holds 2 tables; give the number of one, 0 to 1")
    refused(source, out, "holds 2 tables", table=2)
    refused(source, out, "holds 2 tables", table=-1)
    refused(source, out, "access 1: row 5 is outside", table=0, rows=5)
    refused(tmp_path / "absent.pt.gz", out, "No such file", table=0)


def test_meta_damaged(tmp_path: Path, out: Path) -> None:
    packed = save_meta(tmp_path / "t.pt.gz").read_bytes()
    source = tmp_path / "damaged.pt.gz"
    for broken in (packed[: len(packed) // 2], packed[:-4], packed[:40] + b"garbage" + packed[47:]):
        source.write_bytes(broken)
        refused(source, out, "cannot be unpacked", table=0)
    plain = gzip.decompress(packed)
    for broken in (b"", plain[: len(plain) // 2], b"no torch file"):
        source.write_bytes(gzip.compress(broken))
        refused(source, out, "is damaged, or holds other things", table=0)


def test_meta_executes_nothing(tmp_path: Path, out: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    refused(save_meta(tmp_path / "t.pt.gz", Harmful()), out, "nothing in it was executed", table=0)
    bare = tmp_path / "bare.pt.gz"
    bare.write_bytes(gzip.compress(pickle.dumps(Harmful())))
    refused(bare, out, "nothing in it was executed", table=0)
    assert not (tmp_path / "executed").exists()


def test_gzip_bomb(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meta, "_ALWAYS_UNPACKED", 1 << 16)
    source = tmp_path / "bomb.pt.gz"
    source.write_bytes(gzip.compress(bytes(1 << 24)))
    refused(source, out, "unpacks to more than", table=0)
    inside = tmp_path / "bomb.pt"
    with zipfile.ZipFile(inside, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    refused(inside, out, "is a compressed archive inside", table=0)
