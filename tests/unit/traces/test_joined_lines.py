"""CSV and TSV files that were joined: the second one's line of names is no line of values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.traces import text
from harness.traces.formats import import_trace

LINES = "item,x\n7,1\n8,2\n"
Refused = Callable[..., None]
CATEGORIES: dict[str, Any] = {"mapping": "first_appearance"}


@pytest.mark.parametrize("block", [16, 1 << 22])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("more", [{}, CATEGORIES])
def test_names_in_the_middle(
    tmp_path: Path,
    out: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    ending: str,
    more: dict[str, Any],
) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", block)
    for name, separated in (("both.csv", LINES), ("both.tsv", LINES.replace(",", "\t"))):
        source = tmp_path / name
        source.write_bytes((separated * 2).replace("\n", ending).encode())
        refused(
            source,
            out,
            "line 4: names column 'item' again; where files were joined, take",
            **more,
            column="item",
        )
    source = tmp_path / "quoted.csv"
    source.write_bytes(f'{LINES}"item","x"\n7,1\n'.replace("\n", ending).encode())
    refused(source, out, "line 4: names column 'item' again", **more, column="item")


@pytest.mark.parametrize("block", [16, 1 << 22])
@pytest.mark.parametrize("column", ["item", "x", "#1", "#2"])
@pytest.mark.parametrize("second", [LINES, LINES.replace("item", '"item"'), "7,1\n"])
def test_a_mark_in_the_middle(
    tmp_path: Path,
    out: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    column: str,
    second: str,
) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", block)
    source = tmp_path / "both.csv"
    source.write_bytes(LINES.encode("utf-8-sig") + second.encode("utf-8-sig"))
    refused(source, out, "line 4: begins with U+FEFF, as files do; where files", **CATEGORIES, column=column)


@pytest.mark.parametrize(
    ("content", "column", "more", "rows"),
    [
        ("item,x\nitems,item\n8,item\nitems,item\n", "item", CATEGORIES, [0, 1, 0]),
        ("0,1\n5,1\n0,0\n5,1\n", "0", CATEGORIES, [0, 1, 0]),
        ("0,1\n0,1\n1,0\n0,1\n", "0", {}, [0, 1, 0]),
        ("item,\ufeffx\na,\ufeffb\nitem,x\n", "#1", CATEGORIES, [0, 1, 0]),
    ],
)
def test_what_names_a_column_may_stand_elsewhere(
    tmp_path: Path, out: Path, content: str, column: str, more: dict[str, Any], rows: list[int]
) -> None:
    """In other columns, as a part of a value, and where it is a number: some programs number columns."""
    source = tmp_path / "log.csv"
    source.write_text(content, encoding="utf-8")
    assert import_trace(source, out, rows=10, column=column, **more).indices.tolist() == rows
