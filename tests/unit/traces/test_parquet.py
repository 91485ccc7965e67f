"""Columns of Parquet files: exact whatever their type, lists as bags, one sentence for the rest."""

from __future__ import annotations

import datetime
import decimal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadInputError, MachineError
from harness.traces import parquet
from harness.traces.columns import Mapping
from harness.traces.formats import import_trace

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = [4, 0, 9, 4, 2]
BIG = 2**60
Refused = Callable[..., None]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "log.parquet"


def columns(source: Path, **arrays: Any) -> Path:
    pq.write_table(pa.table(arrays), source)
    return source


def rows_of(source: Path, array: Any, **more: Any) -> list[int]:
    """The rows that a column with these values gives."""
    out = source.with_name("trace")
    options = {"rows": 10**6, "mapping": "first_appearance", **more}
    trace = import_trace(columns(source, c=array), out, column="c", **options)
    rows: list[int] = trace.indices.tolist()
    for file in out.iterdir():
        file.unlink()
    out.rmdir()
    return rows


@pytest.mark.parametrize("kind", ["int8", "int64", "uint8", "uint64", "string", "decimal128", "dictionary"])
def test_row_numbers(source: Path, kind: str) -> None:
    array = pa.array(ROWS)
    if kind == "dictionary":
        array = array.dictionary_encode()
    else:
        array = array.cast(pa.decimal128(20, 0) if kind == "decimal128" else kind)
    assert rows_of(source, array, rows=10, mapping="rows") == ROWS


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([BIG, BIG + 1, None, BIG + 2, BIG]), [0, 1, 2, 3, 0]),
        (pa.array([2**64 - 1, 2**64 - 2, None], pa.uint64()), [0, 1, 2]),
        (pa.array([BIG, BIG + 1, None]).dictionary_encode(), [0, 1, 2]),
        (pa.array(["x", None, "y", "x", None]).dictionary_encode(), [0, 1, 2, 0, 1]),
        (pa.array(["x", None, "", "x"], pa.large_string()), [0, 1, 2, 0]),
        (pa.array([b"x", b"\xff", b"x"]), [0, 1, 0]),
        (pa.array([1.5, float("nan"), None, float("nan"), 0.0, -0.0]), [0, 1, 1, 1, 2, 2]),
        (pa.array([True, False, None, True]), [0, 1, 2, 0]),
        (pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("1.10")]), [0, 1, 0]),
        (pa.array([BIG, BIG + 1, BIG], pa.timestamp("ns")), [0, 1, 0]),
        (pa.array([datetime.date(1, 1, 1), datetime.date(9999, 1, 1)]), [0, 1]),
        (pa.array([b"0" * 16, b"1" * 16, b"0" * 16], pa.uuid()), [0, 1, 0]),
        (pa.nulls(3), [0, 0, 0]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_categories(source: Path, array: Any, expected: list[int]) -> None:
    assert rows_of(source, array) == expected


def test_a_category_has_one_row_in_every_part(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over batches, row groups, and dictionaries that differ between them."""
    monkeypatch.setattr(parquet, "_AT_ONCE", 3)
    values = [BIG, BIG + 1, None, BIG + 1, BIG + 2, BIG, None, BIG + 2]
    for array in (pa.array(values), pa.array(values).dictionary_encode()):
        table = pa.table({"c": array})
        with pq.ParquetWriter(source, table.schema) as writer:
            for begin in range(0, len(values), 4):
                writer.write_table(table.slice(begin, 4))
        out = source.with_name(str(array.type.id))
        made = import_trace(source, out, rows=9, column="c", mapping="first_appearance")
        assert made.indices.tolist() == [0, 1, 2, 1, 3, 0, 2, 3]


@pytest.mark.parametrize("kind", ["list_", "large_list", "list_view"])
def test_lists_are_bags(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(parquet, "_LISTS_AT_ONCE", 2)
    ids = pa.array([[1, 2], [3], [], [4, 1, 1]], getattr(pa, kind)(pa.int64()))
    names = pa.array([["x", None], ["y"], [], ["x"]], getattr(pa, kind)(pa.string()))
    columns(source, ids=ids, names=names)
    trace = import_trace(source, tmp_path / "ids", rows=10, column="ids")
    assert trace.offsets is not None
    assert (trace.indices.tolist(), trace.offsets.tolist()) == ([1, 2, 3, 4, 1, 1], [0, 2, 3, 3, 6])
    assert trace.header.bags == 4
    trace.verify()
    named = import_trace(source, tmp_path / "names", rows=9, column="names", mapping="first_appearance")
    assert named.indices.tolist() == [0, 1, 2, 0]


def test_lists_of_one_size(source: Path, tmp_path: Path) -> None:
    columns(source, c=pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)))
    trace = import_trace(source, tmp_path / "t", rows=10, column="c")
    assert trace.offsets is not None
    assert (trace.indices.tolist(), trace.offsets.tolist()) == ([1, 2, 3, 4], [0, 2, 4])


def test_lists_of_somebodys_own_type(source: Path, tmp_path: Path) -> None:
    lists = pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2))
    columns(source, c=pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int64(), [2]), lists))
    wanted: dict[Mapping, list[int]] = {"rows": [1, 2, 3, 4], "first_appearance": [0, 1, 2, 3]}
    for mapping, rows in wanted.items():
        trace = import_trace(source, tmp_path / mapping, rows=10, column="c", mapping=mapping)
        assert trace.offsets is not None
        assert (trace.indices.tolist(), trace.offsets.tolist()) == (rows, [0, 2, 4])


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (pa.array(["x", "1"]), "column 'c': value 1 is 'x', not a row number"),
        (pa.array([1, 2, None, 30]), "value 3 is missing"),
        (pa.array([1, 30, None]), "value 2: row 30 is not in the table (0 to 9)"),
        (pa.array([1, -1]), "value 2: row -1 is not in the table"),
        (pa.array([2**64 - 1], pa.uint64()), "value 1: row 18446744073709551615 is not in the table"),
        (pa.array([BIG, None]).dictionary_encode(), f"value 1: row {BIG} is not in the table"),
        (pa.array([3.0]), "value 1 is '3.0', not a row number"),
        (pa.array([b"5", b"x"]), "value 2 is 'x', not a row number"),
        (pa.array([b"\xff"]), r"value 1 is '\xff', not a row number"),
        (pa.array([True]), "value 1 is 'True', not a row number"),
        (pa.array([[1], [2, None]]), "value 3 is missing"),
        (pa.array([[1], None]), "list 2 is missing; a bag of no rows is an empty list"),
        (
            pa.array([[[1]]]),
            "holds list<element: list<element: int64>>; name a column of values, or of lists",
        ),
        (pa.array([{"a": 1}]), "holds struct<a: int64>; name a column of values"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "holds map<string, int64"),
        (pa.array([[], []], pa.list_(pa.int64())), "is empty"),
        (pa.array([], pa.int64()), "is empty"),
    ],
    ids=str,
)
def test_refused(source: Path, out: Path, refused: Refused, array: Any, said: str) -> None:
    refused(columns(source, c=array), out, said, column="c")


def test_texts_may_be_kept_as_bytes(source: Path, out: Path) -> None:
    columns(source, c=pa.array([b"5", b" 07"]))
    assert import_trace(source, out, rows=10, column="c").indices.tolist() == [5, 7]


def test_the_column_is_the_one_of_that_name(
    source: Path, tmp_path: Path, out: Path, refused: Refused
) -> None:
    """Not one whose name begins alike: Arrow takes a dot for a step into a structure."""
    columns(source, **{"user.id": [1, 2], "user": [3, 4]})
    assert import_trace(source, tmp_path / "a", rows=10, column="user").indices.tolist() == [3, 4]
    assert import_trace(source, tmp_path / "b", rows=10, column="user.id").indices.tolist() == [1, 2]
    refused(source, out, "has no column 'id'; it has: user.id, user.", column="id")
    refused(source, out, "name the column")
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["c", "c"]), source)
    refused(source, out, "2 columns are called 'c', number 1 and number 2", column="c")


def test_whatever_is_wrong_with_the_file_is_a_sentence(
    source: Path, tmp_path: Path, out: Path, refused: Refused
) -> None:
    whole = columns(source, c=list(range(3000))).read_bytes()
    for broken in (b"", b"PAR1", whole[:-20], whole[20:], b"PAR1" + bytes(100) + b"PAR1"):
        source.write_bytes(broken)
        refused(source, out, "cannot be read as Parquet: ", column="c")
    for at in range(4, len(whole), 41):  # some damage leaves numbers, but none that is no row
        source.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        said = ""
        try:
            made = import_trace(source, tmp_path / f"{at}", rows=3000, column="c")
            assert 0 <= made.indices.min() <= made.indices.max() < 3000
        except BadInputError as error:
            said = str(error)
        assert not said or (said.startswith(f"{source}: ") and "\n" not in said)
    refused(
        tmp_path, out, "cannot be read: Is a directory; name one of its files", column="c", form="parquet"
    )


def test_a_string_that_is_no_text(source: Path, out: Path, refused: Refused) -> None:
    text = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    refused(columns(source, c=text), out, "cannot be read as Parquet", column="c", mapping="first_appearance")


def test_without_pyarrow(
    tmp_path: Path, out: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "log.parquet"
    source.touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(source, out, "pip install pyarrow", MachineError, column="c")


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("text", ["x", "x" * 5000])
def test_files_that_were_joined(
    source: Path, tmp_path: Path, out: Path, refused: Refused, indexed: bool, text: str
) -> None:
    """The end is the last one's, and its columns would be read out of the first."""
    parts = []
    for rows, beside in ((ROWS, "x"), (ROWS[::-1], text)):
        table = pa.table({"c": rows, "d": [f"{beside}{n}" for n in rows]})
        pq.write_table(table, source, write_page_index=indexed, compression="none")
        parts.append(source.read_bytes())
        assert import_trace(source, tmp_path / f"{len(parts)}", rows=10, column="c").indices.tolist() == rows
    source.write_bytes(b"".join(parts))
    refused(source, out, "log.parquet: is several Parquet files one behind the other, of which", column="c")


def test_only_where_bytes_are_left_over_a_file_is_searched(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmap.mmap", None)
    blocks, _ = parquet.parquet_blocks(columns(source, c=ROWS), "log", "c", "rows", 10)
    assert [block.tolist() for block, _ in blocks] == [ROWS]
