"""Where traces come from: packed files by any name, pipes and standard input, as well as plain files."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import BadInputError, MachineError
from harness.traces import sources, streams
from harness.traces.formats import format_of, import_trace, read_trace

Refused = Callable[..., None]
TEXT, TABLE = b"1\n2\n3\n", b"d,c\n7,1\n7,2\n7,3\n"


def zstd(content: bytes) -> bytes:
    pa = pytest.importorskip("pyarrow")
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as writer:
        writer.write(content)
    made: bytes = packed.getvalue().to_pybytes()
    return made


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_files(tmp_path: Path, out: Path, refused: Refused, packing: str) -> None:
    pack = PACKINGS[packing]
    array = io.BytesIO()
    np.save(array, np.array([1, 2, 3]))
    contents = {"t.txt": TEXT, "t": TEXT, "t.csv": TABLE, "t.tsv": TABLE.replace(b",", b"\t")}
    for name, content in {**contents, "t.npy": array.getvalue()}.items():
        source = tmp_path / f"{name}.{packing}"
        source.write_bytes(pack(content))
        column = "c" if name in ("t.csv", "t.tsv") else None
        made = import_trace(source, tmp_path / f"made-{name}", rows=10, column=column)
        assert made.indices.tolist() == [1, 2, 3]
        source.write_bytes(pack(content)[:-5])
        refused(source, out, "is cut short or damaged and cannot be unpacked", column=column)
    padded = tmp_path / "padded.txt.bz2"
    padded.write_bytes(bz2.compress(TEXT) + bytes(512))
    assert read_trace(padded, 10).tolist() == [1, 2, 3]
    twice = tmp_path / "twice.txt.gz"
    twice.write_bytes(pack(TEXT) + pack(b"4\n"))
    assert read_trace(twice, 10).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("harm", [lambda behind: behind[:-3], lambda behind: b"\xff" * len(behind)])
def test_a_damaged_stream_behind_others_is_no_end(
    tmp_path: Path, packing: str, harm: Callable[[bytes], bytes]
) -> None:
    pack, source = PACKINGS[packing], tmp_path / "t.txt"
    many = b"4\n" * 100_000  # more than one block of any packing
    source.write_bytes(pack(TEXT) + pack(many) + pack(b"5\n"))
    assert read_trace(source, 10).tolist() == [1, 2, 3, *[4] * 100_000, 5]
    source.write_bytes(pack(TEXT) + harm(pack(many)))
    with pytest.raises(BadInputError, match="is cut short or damaged and cannot be unpacked"):
        read_trace(source, 10)


@pytest.mark.parametrize(
    ("head", "packer"),
    [
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"\x1f\x9d\x90", "compress"),
        (b"\x5d\0\0\x80", "lzma"),
        (b"7z\xbc\xaf", "7z"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"form": "csv", "column": "c"}, {"form": "parquet", "column": "c"}])
def test_what_is_packed_otherwise_is_to_be_unpacked_first(
    tmp_path: Path, out: Path, refused: Refused, head: bytes, packer: str, options: dict[str, Any]
) -> None:
    source = tmp_path / "day_0"
    source.write_bytes(head + bytes(100))
    refused(source, out, f"is packed by {packer}", **options)


@pytest.mark.parametrize("name", ["t.txt", "t.npy", "t_bs1.pt"])
def test_categories_are_of_columns_alone(tmp_path: Path, out: Path, refused: Refused, name: str) -> None:
    (tmp_path / name).write_bytes(TEXT)
    refused(tmp_path / name, out, "only a column's values may be categories", mapping="first_appearance")


def test_xz_may_be_padded_between_streams(tmp_path: Path) -> None:
    source = tmp_path / "t.txt.xz"
    source.write_bytes(lzma.compress(TEXT) + bytes(8) + lzma.compress(b"4\n") + bytes(4))
    assert read_trace(source, 10).tolist() == [1, 2, 3, 4]


def test_frames_of_zstd_that_are_to_be_skipped(tmp_path: Path) -> None:
    """pzstd begins with one, and puts one before every frame."""
    source, skipped = tmp_path / "t.txt.zst", b"\x50\x2a\x4d\x18\x04\0\0\0\x10\0\0\0"
    source.write_bytes(skipped + zstd(TEXT) + skipped + zstd(b"4\n"))
    assert read_trace(source, 10).tolist() == [1, 2, 3, 4]


def test_what_a_file_is_packed_with_is_seen_and_not_told(tmp_path: Path) -> None:
    (tmp_path / "T.CSV").write_bytes(gzip.compress(TABLE))
    assert import_trace(tmp_path / "T.CSV", tmp_path / "t", rows=10, column="c").indices.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.csv", "csv"),
        ("T.CSV", "csv"),
        ("a.csv.gz", "csv"),
        ("A.Tsv.ZST", "tsv"),
        ("a.tab", "tsv"),
        ("a.pq", "parquet"),
        ("a.snappy.parquet", "parquet"),
        ("A.NPY", "npy"),
        ("t_bs1.pt.gz", "pt"),
        ("train.txt", "text"),
        ("day_0", None),
        ("day_0.gz", None),
        ("-", None),
    ],
)
def test_formats_by_name(name: str, form: str | None) -> None:
    assert format_of(Path(name)) == form


def test_names_that_tell_nothing(tmp_path: Path, out: Path, refused: Refused) -> None:
    source = tmp_path / "day_0"
    source.write_bytes(b"0\t1\t\t68fd1e64\n0\t2\t\t\n")
    refused(source, out, "say --format csv, tsv or parquet", column="#4")
    options = {"rows": 9, "column": "#4", "mapping": "first_appearance"}
    assert import_trace(source, tmp_path / "t", form="tsv", **options).indices.tolist() == [0, 1]  # type: ignore[arg-type]


def piped(content: bytes, path: Path) -> threading.Thread:
    """Writes into a pipe, some bytes at a time, as soon as it is read."""

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for begin in range(0, len(content), 3):
                pipe.write(content[begin : begin + 3])

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    return writer


def test_pipes(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    table, array = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table({"c": [1, 2, 3]}), table)
    np.save(array, np.array([1, 2, 3]))
    contents = {"p.txt": TEXT, "p": gzip.compress(TEXT), "p.csv": TABLE, "P.CSV.GZ": gzip.compress(TABLE)}
    for name, content in {**contents, "p.parquet": table.getvalue(), "p.npy": array.getvalue()}.items():
        pipe = tmp_path / name
        os.mkfifo(pipe)
        writer = piped(content, pipe)
        column = "c" if format_of(pipe) in ("csv", "parquet") else None
        made = import_trace(pipe, tmp_path / f"made-{name}", rows=10, column=column)
        writer.join()
        assert made.indices.tolist() == [1, 2, 3]
        assert made.header.origin.startswith(str(pipe))


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def given(content: bytes) -> Path:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return Path("-")

    made = import_trace(given(TABLE), tmp_path / "a", rows=10, form="csv", column="c")
    assert made.indices.tolist() == [1, 2, 3]
    assert made.header.origin == "standard input, column 'c'"
    assert import_trace(given(gzip.compress(TEXT)), tmp_path / "b", rows=10).indices.tolist() == [1, 2, 3]
    assert sources.look_up(str(given(TEXT)), None, 1).indices.tolist() == [1, 2, 3]
    with pytest.raises(BadInputError, match="standard input: line 1: row 20 is outside"):
        import_trace(given(b"20\n"), tmp_path / "c", rows=10)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(BadInputError, match="standard input: is closed; name a file"):
        import_trace(Path("-"), tmp_path / "c", rows=10)


def test_zstd_without_pyarrow(
    tmp_path: Path, out: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "t.txt.zst"
    source.write_bytes(zstd(TEXT))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(source, out, "zstd -dc FILE | harness trace import -", MachineError)


def test_a_full_disk_is_no_fault_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "t.npy.gz"
    source.write_bytes(gzip.compress(bytes(100)))
    (tmp_path / "unpacked").symlink_to("/dev/full")
    with pytest.raises(BadInputError, match=f"^{tmp_path}: cannot be written: No space left"):
        streams.as_file(source, tmp_path)


def test_a_disk_with_room_for_a_part_is_full_too(tmp_path: Path) -> None:
    """A limit on files' sizes stands in for it: of what goes beyond, as much is written as fits."""
    source = tmp_path / "t.npy.gz"
    source.write_bytes(gzip.compress(bytes(4 * 2**20 + 2000)))  # the last block is the one that does not fit
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 2**20 + 1000, before[1]))
    try:
        with pytest.raises(BadInputError, match=f"^{tmp_path}: cannot be written: File too large"):
            streams.as_file(source, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """Told with their bytes spelt out, in messages and in what is written."""
    source = tmp_path / os.fsdecode(b"caf\xe9.txt")
    source.write_bytes(TEXT)
    made = import_trace(source, tmp_path / os.fsdecode(b"\xff"), rows=10)
    assert made.header.origin == f"{tmp_path}/caf\\xe9.txt"
    with pytest.raises(BadInputError, match=r"caf\\xe9\.txt: line 2: row 2 is outside"):
        import_trace(source, tmp_path / "t", rows=2)


@pytest.mark.parametrize("name", ["a.npy", "a.pt", "a.pt.gz", "a.parquet", "a.csv", "a.txt"])
def test_a_device_without_an_end_is_refused_by_whatever_link(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/zero")
    column = {"column": "#1"} if name.endswith(("parquet", "csv")) else {}
    table = {"table": 0} if ".pt" in name else {}
    with pytest.raises(BadInputError, match=rf"{name}: is a device and not a file\.$"):
        import_trace(tmp_path / name, tmp_path / "out", rows=9, **column, **table)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_standard_input_from_such_a_device_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.cli", "trace", "import", "-", str(tmp_path / "out")]
    with Path("/dev/zero").open("rb") as zeros:
        ran = subprocess.run(
            [*command, "--rows", "9", "--format", "npy"],
            stdin=zeros,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode != 0
    assert "standard input: is a device and not a file." in ran.stderr


def test_nothing_at_all_is_still_read_as_nothing() -> None:
    with streams.opened(Path("/dev/null")) as stream:
        assert stream.file.read() == b""
