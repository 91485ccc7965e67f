"""Text traces: what is accepted, and the sentence for everything else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import BadInputError
from harness.traces import text
from harness.traces.formats import read_trace

SLOW_DISK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"7\n", [7]),
        (b"0\n9\n3", [0, 9, 3]),
        (b"1\r\n2\r\n", [1, 2]),
        (b"0005\n", [5]),
        (b"\xef\xbb\xbf1\n", [1]),
    ],
)
def test_reads(tmp_path: Path, content: bytes, expected: list[int]) -> None:
    (tmp_path / "trace.txt").write_bytes(content)
    read = read_trace(tmp_path / "trace.txt", 10)
    assert read.dtype == np.int64
    assert read.tolist() == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"1\n2\n10\n", "line 3: row 10 is outside the table (0 to 9)"),
        (b"1\n-2\n", "line 2: row -2 is negative"),
        (b"1\n2.5\n", "line 2: '2.5' is not a whole number"),
        (b"1\nabc", "line 2: 'abc' is not a whole number"),
        (b"1 2\n", "line 1: '1 2' is not a whole number"),
        (b"1\r2\n", "line 1: '1\\r2' is not a whole number"),
        (b"1\n\n2\n", "line 2: is blank"),
        (b"\n", "line 1: is blank"),
        (b"1\n9999999999999999999\n", "line 2: row 9999999999999999999 is too large"),
        (b"1\n0000000000000000005\n", "line 2: row 0000000000000000005 has more than 18 digits"),
        ("1\n٣\n".encode(), "line 2: '٣' is not a whole number"),
        (b"1\n\xff\n", "line 2:"),
        (b"\x1f\x8b\x08", "is cut short or damaged and cannot be unpacked"),
        (b"\xfd7zXZ\x00", "is cut short or damaged and cannot be unpacked"),
        (b"BZh9rubbish", "is cut short or damaged and cannot be unpacked"),
        (b"(\xb5/\xfdrubbish", "is cut short or damaged and cannot be unpacked"),
        (
            b"\x93NUMPY\x01\x00",
            "is a NumPy file, not plain text; call it .npy, or import it with --format npy",
        ),
        (b"PAR1....", "is a Parquet file, not plain text; call it .parquet"),
        ("1\n2\n".encode("utf-16"), "is UTF-16 text, not plain text; convert it to UTF-8"),
        ("\ufeff1\n".encode("utf-16-be"), "is UTF-16 text, not plain text; convert it to UTF-8"),
        ("1\n2\n".encode("utf-32"), "is UTF-32 text, not plain text; convert it to UTF-8"),
        ("\ufeff1\n".encode("utf-32-be"), "is UTF-32 text, not plain text; convert it to UTF-8"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"1\n\x00\x00", "is a binary file"),
    ],
)
def test_refuses_with_file_and_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "trace.txt"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=re.escape(f"{path}: {said}")):
        read_trace(path, 10)


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"missing\.txt: cannot be read: No such file"):
        read_trace(tmp_path / "missing.txt", 10)
    with pytest.raises(BadInputError, match="cannot be read: Is a directory"):
        next(text.text_blocks(tmp_path, 10))


def test_line_numbers_go_on_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", 16)
    path = tmp_path / "trace.txt"
    path.write_bytes(b"".join(b"%d\n" % n for n in range(1000)) + b"x\n")
    with pytest.raises(BadInputError, match="line 1001: 'x'"):
        read_trace(path, 1000)
    path.write_bytes(b"7" * 100)
    with pytest.raises(BadInputError, match="line 1: is more than 16 bytes long"):
        read_trace(path, 1000)


@SLOW_DISK
@given(
    rows=st.lists(st.integers(0, 10**12), min_size=1, max_size=60),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    last=st.booleans(),
    block=st.integers(20, 64),
)
def test_reads_what_was_written(tmp_path: Path, rows: list[int], ending: str, last: bool, block: int) -> None:
    path = tmp_path / "trace.txt"
    path.write_bytes((ending.join(map(str, rows)) + (ending if last else "")).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK_BYTES", block)
        assert read_trace(path, 10**12 + 1).tolist() == rows


@SLOW_DISK
@given(content=st.text("019-\r\n x", max_size=12).map(str.encode) | st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace.txt"
    path.write_bytes(content)
    if b"\r" in content[:-1] and b"\n" not in content:
        content = content.replace(b"\r", b"\n")
    ended = content if content.endswith(b"\n") else content + b"\n"
    lines = ended.replace(b"\r\n", b"\n")[:-1].split(b"\n")
    if all(line.isdigit() and int(line) < 100 and len(line) <= 18 for line in lines):
        assert read_trace(path, 100).tolist() == [int(line) for line in lines]
    else:
        with pytest.raises(BadInputError, match=re.escape(str(path))):
            read_trace(path, 100)
