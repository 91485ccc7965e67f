"""Sizes that follow from a workload, and records of before a field was there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.records import Cell, Dataset, Timing, Workload, load, to_json


@pytest.mark.parametrize(
    ("dtype", "dim", "read", "stored", "output"),
    [
        ("float32", 128, 512, 512, 512),
        ("float16", 128, 256, 256, 256),
        ("bfloat16", 3, 6, 6, 6),
        ("int8", 128, 132, 132, 256),
        ("int8", 20, 24, 36, 40),
        ("int4", 128, 68, 68, 256),
        ("int4", 5, 7, 20, 10),
    ],
)
def test_bytes_of_a_row(dtype: str, dim: int, read: int, stored: int, output: int) -> None:
    work = Workload(tables=3, rows=10, dim=dim, batch=2, pooling=5, dtype=dtype)  # type: ignore[arg-type]
    assert (work.row_bytes, work.stored_row_bytes, work.output_bytes) == (read, stored, 2 * output)
    assert work.table_bytes == 30 * stored


@pytest.mark.parametrize(
    ("dtype", "index_dtype", "weighted", "each"),
    [("float32", "int64", False, 8), ("float16", "int32", True, 6), ("int8", "int64", True, 12)],
)
def test_bytes_of_what_is_asked(dtype: str, index_dtype: str, weighted: bool, each: int) -> None:
    work = Workload(batch=2, pooling=5, dtype=dtype, index_dtype=index_dtype, weighted=weighted)  # type: ignore[arg-type]
    assert work.asked_bytes == 10 * each


def test_a_cell_of_before_ragged_bags_is_read(tmp_path: Path) -> None:
    cell = Cell("a", "stock", "pytorch", Dataset("random"), Workload(), Timing(), 0, 1)
    raw = json.loads(to_json(cell))
    del raw["workload"]["bags"]
    (tmp_path / "cell.json").write_text(json.dumps(raw), encoding="utf-8")
    assert load(Cell, tmp_path / "cell.json") == cell
