"""Columns of CSV and TSV files: the right column's values on every line, or the line at fault."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import BadInputError
from harness.traces import delimited, text
from harness.traces.delimited import delimited_blocks
from harness.traces.formats import import_trace

ROWS = [4, 0, 9, 4, 2]
Refused = Callable[..., None]
OFTEN = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FIELD = st.text(st.characters(exclude_characters="\0\r\ufeff", exclude_categories=["Cs"]), max_size=6)


def read(path: Path, content: str | bytes, column: str, *, tabs: bool = False, **more: Any) -> list[int]:
    """What a column of this content gives; categories unless told otherwise."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    options = {"mapping": "first_appearance", "rows": 10**6, **more}
    return [n for block, _ in delimited_blocks(path, column, tabs=tabs, **options) for n in block.tolist()]


def numbered(values: list[str]) -> list[int]:
    order = list(dict.fromkeys(values))
    return [order.index(value) for value in values]


def test_csv_of_row_numbers(tmp_path: Path, out: Path) -> None:
    source = tmp_path / "log.csv"
    source.write_text("user,item\n" + "".join(f'"a,b",{row}\n' for row in ROWS), encoding="utf-8")
    shares: list[float] = []
    trace = import_trace(source, out, rows=10, column="item", progress=shares.append)
    assert trace.indices.tolist() == ROWS
    assert trace.header.origin == f"{source}, column 'item'"
    assert shares[-1] == 1


def test_tsv_of_categories(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of first appearance, over the borders of what is read at once; "01" is not 1."""
    monkeypatch.setattr(text, "BLOCK_BYTES", 8)
    source = tmp_path / "log.tsv"
    values = ["b7", "01", "1", "", "b7", "NA", "1"]
    source.write_text("".join(f"0\t{value}\n" for value in values), encoding="utf-8")
    trace = import_trace(source, out, rows=5, column="#2", mapping="first_appearance")
    assert trace.indices.tolist() == [0, 1, 2, 3, 0, 4, 2]
    assert "order of their first appearance" in trace.header.origin


@pytest.mark.parametrize(
    ("ending", "line", "said"),
    [
        ("csv", "item;x", "'item;x', unless it is separated by semicolons; then write commas"),
        ("csv", "1|24|M", "'1|24|M', unless it is separated by vertical bars; then write commas"),
        ("tsv", "1::A|B::5", "'1::A|B::5', unless it is separated by double colons; then write commas"),
        ("csv", '1::"A"', """'1::"A"', unless it is separated by double colons"""),
        ("tsv", '"1"|"A"', """'"1"|"A"', unless it is separated by vertical bars"""),
        ("csv", "item\tx", r"'item\tx', unless it is separated by tabs; then say --format tsv"),
        ("tsv", "item,x", "'item,x', unless it is separated by commas; then say --format csv"),
    ],
)
def test_another_separator_is_told(
    tmp_path: Path, out: Path, refused: Refused, ending: str, line: str, said: str
) -> None:
    source = tmp_path / f"t.{ending}"
    source.write_text(f"{line}\n5\n", encoding="utf-8")
    refused(source, out, f"line 1: is one column, {said}", column="item")
    assert import_trace(source, tmp_path / "by-name", rows=10, column=line).indices.tolist() == [5]
    told: list[str] = []
    import_trace(source, out, rows=10, column="#1", mapping="first_appearance", warn=told.append)
    assert said in told[0]
    quoted = line.replace('"', '""')
    source.write_text(f'"{quoted}"\n5\n', encoding="utf-8")
    import_trace(
        source, tmp_path / "quoted", rows=10, column="#1", mapping="first_appearance", warn=told.append
    )
    assert len(told) == 1


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        ("c\n1\n12\n", {}, "line 3: column 'c': value 2: row 12 is not in the table (0 to 9)"),
        ("c\n1\n-1\n", {}, "line 3: column 'c': value 2: row -1 is not in the table"),
        ("c\n1\n99999999999999999999\n", {}, "value 2: row 99999999999999999999 is not in"),
        ("c,d\n1,1\n,2\n", {}, "line 3: column 'c': value 2 is missing"),
        ("c\n1\n\n2\n", {}, "line 3: column 'c': value 2 is missing"),
        ("c\n1\n\n", {}, "line 3: column 'c': value 2 is missing"),
        ("c,d\n5,1\n7,1\n9,1\n1e2,1\n", {}, "line 5: column 'c': value 4 is '1e2', not a row number"),
        ("c\n5\n7\n3.0\n", {}, "line 4: column 'c': value 3 is '3.0', not a row number"),
        ("c\n1\nxy\n", {}, "line 3: column 'c': value 2 is 'xy', not a row number"),
        ('d,c\n"a\nb",1\n"c",x\n', {}, "line 4: column 'c': value 2 is 'x'"),
        ("d\n1\n", {}, "has no column 'c'; it has: d."),
        ("c,d,c\n1,2,3\n", {}, "2 columns are called 'c', number 1 and number 3"),
        (",".join(["c"] * 60_000) + "\n", {}, "60000 columns are called 'c'"),
        (",".join(f"d{n}" for n in range(60_000)) + "\n", {}, "d19 and 59980 more."),
        ("", {}, "is empty"),
        ("\n1\n", {}, "line 1: is blank"),
        ("c\n", {}, "is empty"),
        ('c\n1\n"1\n2\n', {}, "lines 3 to 4: a quotation mark opens a field that does not end"),
        ('c,d\n"1"x,2\n', {}, "line 2: a quotation mark within a quoted field is not written twice"),
        ('c\n"' + "1,\n" * 2_000_000, {}, "has a field of more than 4,194,304 characters; close its quot"),
        ("c\n1\n", {"column": None}, "name the column"),
        ("c\n1\n", {"column": "#4"}, "has no column '#4'; the columns of line 1 are #1 to #1"),
        ("c\n1\n", {"column": "#0"}, "has no column '#0'"),
        ("c\n1\n", {"column": "#" + "9" * 5_000}, "has no column '#99999999"),
        ("c\n1\n", {"column": "#²"}, "has no column '#²'; it has: c."),
        ("c\na\nb\nd\n", {"mapping": "first_appearance", "rows": 2}, "more than 2 different values"),
        ("c,d\n1,2,\n3,4,\n", {}, "line 2: ends in a separator, which makes 3 fields where line 1 has 2"),
        ("c,d\n1,2\n3,4,\n", {}, "line 3: ends in a separator"),
        ("c,d\n1,2,5\n", {}, "line 2: has 3 fields where line 1 has 2; a field that holds a comma belongs"),
        ("c,d\n1,2\n3\n", {}, "line 3: has 1 field where line 1 has 2"),
        ("c\n1,2\n", {}, "line 2: has 2 fields where line 1 has 1"),
        ("c\n1\x002\n", {}, "is a binary file"),
        (" c,d\n1,2\n", {}, "has no column 'c'; it has: ' c', d."),
        ("c,\n1,2\n", {"column": "d"}, "has no column 'd'; it has: c, ''."),
        ("c\n1\n2\t\n", {}, r"line 3: column 'c': value 2 is '2\t'"),
        ('c\n1\n"2\n3"\n', {}, r"line 3: column 'c': value 2 is '2\n3', not a row number"),
    ],
)
def test_csv_refused(
    tmp_path: Path, out: Path, refused: Refused, content: str, more: dict[str, Any], said: str
) -> None:
    source = tmp_path / "log.csv"
    source.write_bytes(content.encode())
    refused(source, out, said, **{"column": "c", **more})


def test_numbers_of_many_digits_are_the_numbers_that_they_are(tmp_path: Path) -> None:
    most = 2**63 - 1
    content = f"c\n{'0' * 40}5\n{'0' * 5000}\n{most - 1}\n1{'0' * 18}\n7\n"
    assert read(tmp_path / "t", content, "c", mapping="rows", rows=most) == [5, 0, most - 1, 10**18, 7]
    with pytest.raises(BadInputError, match=f"line 2: .* row {most} is not in the table .0 to {most - 1}"):
        read(tmp_path / "t", f"c\n{most}\n", "c", mapping="rows", rows=most)
    with pytest.raises(BadInputError, match=r"line 3: .* row 0+… is not in the table .0 to 999"):
        read(tmp_path / "t", f"c\n{'0' * 30}5\n{'0' * 60}1000\n", "c", mapping="rows", rows=1000)


def test_texts_are_as_long_as_they_are(tmp_path: Path) -> None:
    """Quoted ones too: the csv module would refuse them by itself."""
    text = "y" * 200_000
    assert read(tmp_path / "c", f'c,d\n1,"{text}"\n2,{text}\n', "c", tabs=False, mapping="rows") == [1, 2]


@pytest.mark.parametrize("block", [7, 1 << 22])
def test_lines_that_end_in_carriage_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", block)
    content = "c,d\r1,2\r3,4\r5,6\r"
    assert read(tmp_path / "c", content, "c", tabs=False, mapping="rows") == [1, 3, 5]


@pytest.mark.parametrize("tabs", [False, True])
@pytest.mark.parametrize("block", [16, 1 << 22])
@pytest.mark.parametrize(("ending", "other"), [("\n", "\r"), ("\r", "\n"), ("\r\n", "\r"), ("\r\r\n", "\r")])
def test_a_line_break_of_another_kind_ends_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, other: str, block: int, tabs: bool
) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", block)
    for at in (1, 2, 3):
        lines = ["item,x", "1,a", "2,b", "3,c", ""]
        lines[at] += f"{other}7,d"
        content = ending.join(lines).replace(",", "\t" if tabs else ",")
        for mapping in ("rows", "first_appearance"):
            with pytest.raises(BadInputError, match=rf"t: line {at + 1}: a carriage return .* in one way"):
                read(tmp_path / "t", content, "item", tabs=tabs, mapping=mapping)


@pytest.mark.parametrize("block", [16, 1 << 22])
@pytest.mark.parametrize("ending", ["\n", "\r", "\r\n", "\r\r\n"])
def test_lines_may_end_in_any_way_that_is_the_same_throughout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, block: int
) -> None:
    """Breaks of another kind within quotation marks are no lines; nor are those of their own kind."""
    monkeypatch.setattr(text, "BLOCK_BYTES", block)
    for last in ("", ending):
        for inner in ("b", "b\rc", "b\nc", "b\r\nc"):
            content = ending.join(["item,x", "1,a", f'2,"{inner}"', "3,c"]) + last
            assert read(tmp_path / "t", content, "item", mapping="rows") == [1, 2, 3]
            assert read(tmp_path / "t", content.replace("x", f'"{inner}"', 1), "#1") == [0, 1, 2, 3]
        assert read(tmp_path / "t", ending.join(["c", "1", "2", "3"]) + last, "c", tabs=True) == [0, 1, 2]


def test_tsv_knows_no_quotation_marks(tmp_path: Path, out: Path, refused: Refused) -> None:
    content = '1\tplain\n2\t"Weird Al\n3\tplain\n4\tclose"\n5\t"a ""b"" c"\n'
    assert read(tmp_path / "t", content, "#1", tabs=True, mapping="rows") == [1, 2, 3, 4, 5]
    assert read(tmp_path / "t", 'c\n"a"\na\n', "c", tabs=True) == [0, 1]
    source = tmp_path / "quoted.tsv"
    source.write_text('c\td\n1\t"a\tb"\n', encoding="utf-8")
    refused(source, out, "line 2: has 3 fields where line 1 has 2.", column="c")
    source.write_text('c\td\n"1"\t2\n', encoding="utf-8")
    refused(source, out, """line 2: column 'c': value 1 is '"1"'""", column="c")


def test_a_quoted_field_over_lines_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    content = 'c,d\n1,plain\n2,"Weird Al\n3,plain\n4,close"\n5,"a\r\nb"\n'
    assert read(tmp_path / "t", content, "c", mapping="rows", warn=told.append) == [1, 2, 5]
    assert len(told) == 1
    assert "line 3: a quoted field goes on to line 5" in told[0]


def test_a_heading_over_lines_is_told_too(tmp_path: Path) -> None:
    told: list[str] = []
    content = 'item,"title\n1,a\n2,b"\n3,c\n'
    assert read(tmp_path / "t", content, "item", mapping="rows", warn=told.append) == [3]
    assert len(told) == 1
    assert "line 1: a quoted field goes on to line 3, as a field may; if the quotation mark" in told[0]


def test_a_number_in_the_place_of_a_name_is_told_where_line_1_has_names(
    tmp_path: Path, out: Path, refused: Refused
) -> None:
    source = tmp_path / "named.csv"
    source.write_text("item,x\n6,2\n7,7\n", encoding="utf-8")
    said = "line 1: column '#1': value 1 is 'item', not a row number from 0 to 9; if line 1 names"
    refused(source, out, said, column="#1")


def test_blank_lines(tmp_path: Path) -> None:
    """Missing values of the one column there is; nothing where there are more."""
    path = tmp_path / "t"
    assert read(path, "c\n5\n\n7\n", "c") == [0, 1, 2]
    assert read(path, 'c\n5\n""\n7\n', "c") == [0, 1, 2]
    assert read(path, "\n5\n", "#1", tabs=True) == [0, 1]
    assert read(path, "c,d\n\n5,1\n\n7,2\n\n\n", "c", mapping="rows", rows=10) == [5, 7]
    with pytest.raises(BadInputError, match="line 4: column 'c': value 2 is 'x'"):
        read(path, "c,d\n5,1\n\nx,2\n", "c", mapping="rows")


def test_what_stands_round_the_values(tmp_path: Path) -> None:
    """A byte order mark, ends of lines of every system, spaces, other columns in any encoding."""
    path = tmp_path / "t"
    rows: dict[str, Any] = {"mapping": "rows", "rows": 10}
    assert read(path, "\ufeffc,d\r\n1,2\r\n3,4\r\n", "c", **rows) == [1, 3]
    assert read(path, "c,d\r1,2\r3,4\r", "c", **rows) == [1, 3]
    assert read(path, "d, c\n1, 2\n3, 4", " c", **rows) == [2, 4]
    assert read(path, b"c,d\n1,\xe9t\xe9\n3,\xff\n", "c", **rows) == [1, 3]
    assert read(path, b"c\n\xff\n\xfe\n\xff\n", "c") == [0, 1, 0]
    with pytest.raises(BadInputError, match=re.escape(r"line 2: column 'c': value 1 is '\xff'")):
        read(path, b"c\n\xff\n", "c", **rows)


@OFTEN
@given(
    records=st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(FIELD, min_size=n, max_size=n), min_size=1)
    ),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    ending=st.sampled_from(["\n", "\r\n"]),
    block=st.integers(300, 400),
)
def test_what_a_writer_of_csv_writes_is_read(
    tmp_path: Path, records: list[list[str]], quoting: Any, ending: str, block: int
) -> None:
    written = io.StringIO()
    csv.writer(written, quoting=quoting, lineterminator=ending).writerows(records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK_BYTES", block)
        for place in range(len(records[0])):
            expected = numbered([record[place] for record in records])
            assert read(tmp_path / "t", written.getvalue(), f"#{place + 1}") == expected


@OFTEN
@given(
    content=st.text(st.sampled_from('12,\n\n,x"\t\r '), min_size=1, max_size=40),
    tabs=st.booleans(),
    mapping=st.sampled_from(["rows", "first_appearance"]),
)
def test_plain_lines_read_at_once_are_as_those_read_one_by_one(
    tmp_path: Path, content: str, tabs: bool, mapping: str
) -> None:
    def outcome() -> list[int] | str:
        try:
            return read(tmp_path / "t", content, "#1", tabs=tabs, mapping=mapping)
        except BadInputError as error:
            return str(error)

    usual = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited._Reader, "_at_once", lambda *_: None)
        assert outcome() == usual


@OFTEN
@given(data=st.data(), lines=st.integers(2, 30), columns=st.integers(2, 5), quoted=st.booleans())
def test_a_line_with_other_fields_is_named(
    tmp_path: Path, data: st.DataObject, lines: int, columns: int, quoted: bool
) -> None:
    value = '"7"' if quoted else "7"
    table = [[value] * columns for _ in range(lines)]
    at = data.draw(st.integers(1, lines - 1))
    table[at] = [value] * data.draw(st.integers(1, 9).filter(lambda n: n != columns))
    with pytest.raises(BadInputError, match=f"line {at + 1}: has {len(table[at])} field"):
        read(tmp_path / "t", "".join(",".join(line) + "\n" for line in table), "#1")
