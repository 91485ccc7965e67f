"""Traces on disk: complete or absent, and what is damaged is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import BadInputError
from harness.traces.trace import Block, Trace, check_offsets, open_trace, write_trace


def write(out: Path, numbers: list[int] = [3, 1, 2], **more: Any) -> Trace:  # noqa: B006
    return write_trace(out, [(np.array(numbers), 1.0)], **{"rows": 10, "origin": "here", **more})


def test_round_trip(tmp_path: Path) -> None:
    shares: list[float] = []
    blocks: list[Block] = [(np.array([1, 2], dtype=np.int64), 0.5), (np.array([9], dtype=np.uint8), 1.0)]
    offsets = np.array([0, 2, 2, 3])
    out = tmp_path / "deep" / "trace"
    trace = write_trace(out, blocks, rows=10, origin="here", table=4, offsets=offsets, progress=shares.append)
    assert trace.indices.tolist() == [1, 2, 9]
    assert trace.offsets is not None
    assert trace.offsets.tolist() == [0, 2, 2, 3]
    assert isinstance(trace.indices, np.memmap)
    header = trace.header
    assert (header.rows, header.accesses, header.bags, header.table) == (10, 3, 3, 4)
    assert (header.origin, header.dtype) == ("here", "int32")
    assert np.load(out / "indices.npy").tolist() == [1, 2, 9]
    assert shares == [0.5, 1.0]
    trace.verify()


def test_wide_rows_and_many_blocks(tmp_path: Path) -> None:
    blocks = ((np.full(1000, 2**31 + part), part / 300) for part in range(300))
    trace = write_trace(tmp_path / "t", blocks, rows=2**40, origin="here")
    assert trace.header.dtype == "int64"
    assert len(trace.indices) == 300_000
    assert trace.indices[-1] == 2**31 + 299


def test_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def blocks() -> Iterator[Block]:
        yield np.array([1]), 0.5
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_trace(tmp_path / "t", blocks(), rows=10, origin="here")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("numbers", "more", "said"),
    [
        ([1, 10], {}, "here: access 2: row 10 is outside the table (0 to 9)"),
        ([1, -1], {}, "here: access 2: row -1 is negative"),
        ([], {}, "here: is empty"),
        ([1], {"rows": 0}, "at least one row, and at most 9223372036854775807 (given: 0)"),
        ([1], {"rows": 2**63}, "(given: 9223372036854775808)"),
        ([1], {"offsets": np.array([0, 2])}, "here: the offsets do not reach from 0 to the number"),
        ([1, 2], {"offsets": np.array([0, 2, 1, 2])}, "here: offset 3 is less than the one before"),
    ],
)
def test_refuses_to_write(tmp_path: Path, numbers: list[int], more: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInputError, match=re.escape(said)):
        write(tmp_path / "t", numbers, **more)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64])
def test_boundaries_of_bags_that_fall_are_refused_whatever_their_type(dtype: type[np.integer[Any]]) -> None:
    check_offsets(np.array([0, 3, 3, 8], dtype), 8, "x")
    with pytest.raises(BadInputError, match=r"^x: offset 3 is less than the one before it\.$"):
        check_offsets(np.array([0, 5, 3, 8], dtype), 8, "x")


def test_never_overwrites(tmp_path: Path) -> None:
    write(tmp_path / "t")
    with pytest.raises(BadInputError, match="exists already"):
        write(tmp_path / "t", [5])
    assert open_trace(tmp_path / "t").indices.tolist() == [3, 1, 2]


def test_cannot_write_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadInputError, match="cannot be written: Not a directory"):
        write(tmp_path / "file" / "t")


def test_damage_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t")
    data, header = tmp_path / "t" / "indices.npy", tmp_path / "t" / "trace.json"
    good, said = data.read_bytes(), json.loads(header.read_text(encoding="utf-8"))

    data.write_bytes(good[:-1])
    with pytest.raises(BadInputError, match=r"indices\.npy: is cut short"):
        open_trace(tmp_path / "t")
    np.save(data, np.array([1, 2], dtype="<i4"))
    with pytest.raises(BadInputError, match=r"holds int32 \[2\] where trace.json says int32 \[3\]"):
        open_trace(tmp_path / "t")
    data.write_bytes(good[:-4] + b"\x07\0\0\0")
    with pytest.raises(BadInputError, match=r"/t: is damaged: its row numbers or bags are not those"):
        open_trace(tmp_path / "t").verify()
    data.unlink()
    with pytest.raises(BadInputError, match=r"indices\.npy: cannot be read: No such file"):
        open_trace(tmp_path / "t")

    header.write_text(json.dumps(said | {"schema_version": 99}), encoding="utf-8")
    with pytest.raises(BadInputError, match="schema_version 99"):
        open_trace(tmp_path / "t")
    header.write_text(json.dumps(said | {"rows": 0}), encoding="utf-8")
    with pytest.raises(BadInputError, match=r"trace\.json: rows: 0 is less than 1"):
        open_trace(tmp_path / "t")
    header.write_text(json.dumps({k: v for k, v in said.items() if k != "rows"}))
    with pytest.raises(BadInputError, match="rows: is missing"):
        open_trace(tmp_path / "t")
    header.unlink()
    with pytest.raises(BadInputError, match=r"trace\.json: cannot be read"):
        open_trace(tmp_path / "t")
