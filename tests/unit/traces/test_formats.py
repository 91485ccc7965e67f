"""Import: every format gives the rows that were put in, and every kind of damage its own sentence."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pytest
import torch

from harness.errors import BadInputError
from harness.traces import streams
from harness.traces.formats import import_trace, read_trace

ROWS = [4, 0, 9, 4, 2]
Refused = Callable[..., None]


def test_text(tmp_path: Path, out: Path) -> None:
    source = tmp_path / "rows.txt"
    source.write_text("\n".join(map(str, ROWS)))
    trace = import_trace(source, out, rows=10)
    assert trace.indices.tolist() == ROWS
    assert trace.header.origin == str(source)
    assert list(out.parent.iterdir()) == [out]
    assert read_trace(source, 10).tolist() == read_trace(out, 10).tolist() == ROWS


def test_text_refused(tmp_path: Path, out: Path, refused: Refused) -> None:
    source = tmp_path / "rows.txt"
    source.write_text("1\n11\n", encoding="utf-8")
    refused(source, out, "line 2: row 11 is outside")
    refused(source, out, "does not tell how its columns are separated; say --format csv", column="c")
    refused(source, out, "has no tables", table=1)
    refused(tmp_path / "absent.txt", out, "No such file")


@pytest.mark.parametrize("more", [{}, {"column": "c"}, {"column": "c", "form": "csv"}])
def test_archives_are_to_be_unpacked(
    tmp_path: Path, out: Path, refused: Refused, more: dict[str, Any]
) -> None:
    """Whatever else is asked: no other advice would lead to the table within."""
    inside = tmp_path / "log.csv"
    inside.write_text("c\n1\n", encoding="utf-8")
    for kind, name in (("zip", "log.csv.zip"), ("tar", "log.tar"), ("tar", "log.tar.gz"), ("tar", "log.tgz")):
        source = tmp_path / name
        if kind == "zip":
            with zipfile.ZipFile(source, "w") as archive:
                archive.write(inside, "log.csv")
        else:
            with tarfile.open(source, "w:gz" if name.endswith("gz") else "w") as tar:
                tar.add(inside, "log.csv")
        refused(source, out, f"is a {kind} archive, not plain text; unpack it", **more)


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
def test_numpy_refused(
    tmp_path: Path, out: Path, array: np.ndarray[Any, Any], said: str, refused: Refused
) -> None:
    source = tmp_path / "rows.npy"
    np.save(source, array, allow_pickle=True)
    refused(source, out, said)
    with pytest.raises(BadInputError, match=re.escape(said)):
        read_trace(source, 10)


def test_numpy_cut_short(tmp_path: Path, out: Path, refused: Refused) -> None:
    source = tmp_path / "rows.npy"
    np.save(source, np.arange(9))
    whole = source.read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        source.write_bytes(whole[:length])
        refused(source, out, "is cut short, or no plain NumPy array")


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
def test_meta_of_another_shape(tmp_path: Path, out: Path, value: Any, said: str, refused: Refused) -> None:
    refused(save_meta(tmp_path / "t.pt.gz", value), out, said, table=0)


def test_meta_refused(tmp_path: Path, out: Path, refused: Refused) -> None:
    source = save_meta(tmp_path / "t.pt.gz")
    refused(source, out, "holds 2 tables; give the number of one, 0 to 1")
    refused(source, out, "holds 2 tables", table=2)
    refused(source, out, "holds 2 tables", table=-1)
    refused(source, out, "access 1: row 5 is outside", table=0, rows=5)
    refused(tmp_path / "absent.pt.gz", out, "No such file", table=0)


def test_meta_damaged(tmp_path: Path, out: Path, refused: Refused) -> None:
    packed = save_meta(tmp_path / "t.pt.gz").read_bytes()
    source = tmp_path / "damaged.pt.gz"
    for broken in (packed[: len(packed) // 2], packed[:-4], packed[:40] + b"garbage" + packed[47:]):
        source.write_bytes(broken)
        refused(source, out, "cannot be unpacked", table=0)
    plain = gzip.decompress(packed)
    for broken in (b"", plain[: len(plain) // 2], b"no torch file"):
        source.write_bytes(gzip.compress(broken))
        refused(source, out, "is damaged, or holds other things", table=0)


def test_meta_executes_nothing(tmp_path: Path, out: Path, refused: Refused) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    refused(save_meta(tmp_path / "t.pt.gz", Harmful()), out, "nothing in it was executed", table=0)
    bare = tmp_path / "bare.pt.gz"
    bare.write_bytes(gzip.compress(pickle.dumps(Harmful())))
    refused(bare, out, "nothing in it was executed", table=0)
    assert not (tmp_path / "executed").exists()


def test_gzip_bomb(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr(streams, "ALWAYS_UNPACKED", 1 << 16)
    source = tmp_path / "bomb.pt.gz"
    source.write_bytes(gzip.compress(bytes(1 << 24)))
    refused(source, out, "unpacks to more than", table=0)
    inside = tmp_path / "bomb.pt"
    with zipfile.ZipFile(inside, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    refused(inside, out, "is a compressed archive inside", table=0)


def test_tensors_larger_than_their_file(tmp_path: Path, out: Path, refused: Refused) -> None:
    """Strides of 0 make any number of elements out of one."""
    small = [torch.tensor(part) for part in (INDICES, OFFSETS, LENGTHS)]
    for place, shape in enumerate([(10**15,), (10**15,), (10**9, 10**6)]):
        forged = list(small)
        forged[place] = torch.zeros(1, dtype=torch.int64).expand(shape)
        said = "its tensors are larger than the file that they are in"
        refused(save_meta(tmp_path / f"{place}.pt", forged), out, said, table=0)
    sparse = [*small[:2], small[2].to_sparse()]
    refused(save_meta(tmp_path / "sparse.pt", sparse), out, "three integer tensors", table=0)


HEADER = "{'descr': '<i8', 'fortran_order': False, 'shape': (%s,)}"


@pytest.mark.parametrize(
    "header",
    [
        HEADER % 10**18,
        HEADER % 10**30,
        HEADER % "-1",
        HEADER % "True",
        HEADER % "2,) * (99",
        HEADER.replace("<i8", "<i0") % 3,
        HEADER.replace("'<i8'", "None") % 3,
        HEADER.replace("'<i8'", "('<i8', (10**9, 10**9))") % 3,
        HEADER.replace("'<i8'", "'O'") % 3,
        "(" * 5000,
        "[" * 900 + "]" * 900,
        "9" * 9000,
        "{",
        "",
    ],
)
def test_absurd_numpy_headers(tmp_path: Path, out: Path, refused: Refused, header: str) -> None:
    source = tmp_path / "rows.npy"
    source.write_bytes(b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header.encode() + bytes(80))
    refused(source, out, "is cut short, or no plain NumPy array")
    with pytest.raises(BadInputError, match="no plain NumPy array"):
        read_trace(source, 10)


def test_a_damaged_folder_is_read_to_its_end_and_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("1\n2\n3\n", encoding="utf-8")
    import_trace(tmp_path / "rows.txt", tmp_path / "t", rows=10)
    assert read_trace(tmp_path / "t", 10).tolist() == [1, 2, 3]
    data = tmp_path / "t" / "indices.npy"
    data.write_bytes(data.read_bytes()[:-4] + b"\4\0\0\0")
    with pytest.raises(BadInputError, match="/t: is damaged"):
        read_trace(tmp_path / "t", 10)


def test_arrays_behind_the_first_are_not_passed_over(tmp_path: Path, out: Path, refused: Refused) -> None:
    source = tmp_path / "two.npy"
    with source.open("wb") as file:
        np.save(file, np.array([1, 2]))
        np.save(file, np.array([3, 4]))
    refused(source, out, "two.npy: holds more behind its first array; save one array alone.")


@pytest.mark.parametrize("zipped", [True, False])
def test_meta_files_that_were_joined(tmp_path: Path, out: Path, refused: Refused, zipped: bool) -> None:
    """Of two alike only one would be read, whichever that is."""
    first = save_meta(tmp_path / "a.pt", _use_new_zipfile_serialization=zipped).read_bytes()
    other = tuple(torch.tensor(part) for part in (INDICES[::-1], OFFSETS, LENGTHS))
    second = save_meta(tmp_path / "b.pt", other, _use_new_zipfile_serialization=zipped).read_bytes()
    source = tmp_path / "joined.pt"
    for behind in (second, b"\n", b"garbage" * 9):
        source.write_bytes(first + behind)
        refused(source, out, "joined.pt: holds more than one torch.save wrote; where files were", table=0)
    packed = tmp_path / "joined.pt.gz"
    packed.write_bytes(gzip.compress(first) + gzip.compress(second))
    refused(packed, out, "joined.pt.gz: holds more than one torch.save wrote", table=0)
    source.write_bytes(b"garbage" + first)
    refused(source, out, "joined.pt: ", table=0)
