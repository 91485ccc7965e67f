"""Fuzzed traces, and a cache that somebody else has been at."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.build import cache
from harness.errors import BadInputError
from harness.patch import manifest
from harness.traces.trace import write_trace
from tests.hostile import nasty, simple_reader
from tests.hostile.program import counted, harness, hostile

ROWS = 50
lines = st.lists(
    st.integers(-2, ROWS).map(str)
    | st.sampled_from(["", " ", "7", "007", "1.0", "1e3", "+3", "nan", "9" * 30, "٣", "1 2", '"3"', '"', "#"])
    | nasty.texts,
    max_size=8,
) | st.lists(st.integers(0, ROWS - 1).map(str), min_size=1, max_size=40)
ends = st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n", "\0"])


@hostile
@given(data=st.data())
def test_traces(data: st.DataObject, tmp_path: Path) -> None:
    with counted("trace") as ended:
        source, out = tmp_path / f"trace{data.draw(st.sampled_from(sorted(MAKERS)))}", tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        options, simple = MAKERS[source.suffix](data, source)
        answer = harness("trace", "import", str(source), str(out), "--rows", str(ROWS), *options)
        if answer.code:
            assert not out.exists(), "nothing is left behind"
            ended["refused"] += 1
            return
        ended["accepted"] += 1
        assert np.load(out / "indices.npy").tolist() == simple()
        stats = json.loads(harness("trace", "stats", str(out), "--json").out, parse_constant=pytest.fail)
        assert stats[str(out)]["accesses"] == len(simple())


def text(data: st.DataObject, path: Path) -> tuple[list[str], Callable[[], list[int]]]:
    end = data.draw(ends)
    content = "".join(line + end for line in data.draw(lines)).encode("utf-8", "surrogatepass")
    if data.draw(st.integers(0, 9)) == 0:
        content = nasty.spoilt(content.decode("utf-8", "replace"), data.draw(st.integers(0, 2**32)))
    nasty.put(path, content)
    return [], lambda: [int(line) for line in content.decode("utf-8-sig").split()]


def table(data: st.DataObject, path: Path) -> tuple[list[str], Callable[[], list[int]]]:
    written, mark = data.draw(lines), "\t" if path.suffix == ".tsv" else ","
    head = data.draw(st.sampled_from(["item", "item", '"item"', " item", "item,item", ""]))
    quoted = data.draw(st.booleans())
    rows = [head] + [f"{n}{mark}{json.dumps(cell) if quoted else cell}" for n, cell in enumerate(written)]
    rows[0] = f"number{mark}{head}"
    content = "".join(row + "\n" for row in rows).encode("utf-8", "surrogatepass")
    nasty.put(path, content)

    def simple() -> list[int]:
        found = csv.DictReader(io.StringIO(content.decode("utf-8-sig")), delimiter=mark)
        return [int(row["item"]) for row in found]

    return ["--column", "item"], simple


def array(data: st.DataObject, path: Path) -> tuple[list[str], Callable[[], list[int]]]:
    kinds = st.sampled_from(["<i4", "<i8", ">i2", "u1", "<u8", "<f8", "?", "<U3", "<c8"])
    values = np.array(data.draw(st.lists(st.integers(0, ROWS + 1), max_size=9))).astype(data.draw(kinds))
    values = data.draw(st.sampled_from([values, values.reshape(1, -1), np.array(3), values[::2]]))
    np.save(path, values)
    content = path.read_bytes()
    how = data.draw(st.integers(0, 3))
    if how == 0:
        chance = random.Random(data.draw(st.integers(0, 2**32)))
        at = chance.randrange(len(content))
        nasty.put(path, content[:at] + bytes([chance.randrange(256)]) + content[at + chance.randrange(2) :])
    elif how == 1:
        shape = data.draw(
            st.sampled_from([b"(1152921504606846976,)", b"(-1,)", b"(4, 1)", b"((),)", b"(True,)"])
        )
        header = b"{'descr': '<i8', 'fortran_order': False, 'shape': " + shape + b", }"
        header += b" " * (118 - len(header) - 1) + b"\n"
        nasty.put(path, content[:8] + len(header).to_bytes(2, "little") + header + b"\0" * 64)
    return [], lambda: np.load(path, allow_pickle=False).tolist()


MAKERS: dict[str, Callable[[st.DataObject, Path], tuple[list[str], Callable[[], list[int]]]]] = {
    ".txt": text,
    ".csv": table,
    ".tsv": table,
    ".npy": array,
}


@hostile
@given(data=st.data())
def test_trace_folders(data: st.DataObject, tmp_path: Path) -> None:
    with counted("trace's folder") as ended:
        folder = tmp_path / "trace"
        shutil.rmtree(folder, ignore_errors=True)
        offsets = np.array([0, 2, 2, 5])
        write_trace(folder, [(np.array([4, 0, 4, 9, 1]), 1.0)], rows=ROWS, origin="here", offsets=offsets)
        name = data.draw(st.sampled_from(["trace.json", "trace.json", "indices.npy", "offsets.npy"]))
        if name == "trace.json" and data.draw(st.integers(0, 4)):
            tree = json.loads((folder / name).read_text(encoding="utf-8"))
            nasty.put(folder / name, json.dumps(data.draw(nasty.changed(tree, nasty.json_values))).encode())
        elif data.draw(st.booleans()):
            data.draw(st.sampled_from(nasty.NO_FILES))(folder / name)
        else:
            content = (folder / name).read_bytes()
            nasty.put(folder / name, content[: data.draw(st.integers(0, len(content) - 1))])
        answer = harness("trace", "stats", str(folder), "--json")
        ended["refused" if answer.code else "accepted"] += 1
        if answer.code == 0:
            assert json.loads(answer.out, parse_constant=pytest.fail)[str(folder)]["accesses"] == 5


def make(folder: Path) -> None:
    (folder / "lib").mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)


CONTENT = {"lib/code.so": bytes(range(256)) * 20, "manifest.json": b'{"a": 1}', "empty": b""}


@hostile
@given(data=st.data())
def test_caches(data: st.DataObject, tmp_path: Path) -> None:
    with counted("cache") as ended:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        folder = cache.make_once(tmp_path / "cache" / "entry", make)
        name = data.draw(st.sampled_from([*CONTENT, cache.SEAL, "lib", "more", "lib/more.h"]))
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        damage(data, folder / name)
        files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
        plain = [p for p in files if p.is_file() and not p.is_symlink() and p.stat().st_size < 2**20]
        whole = files == plain and before == {path: path.read_bytes() for path in plain}
        ended["whole" if whole else "made again"] += 1
        assert cache.is_whole(folder) == whole
        again = cache.make_once(folder, make)
        for path, content in CONTENT.items():
            assert (again / path).read_bytes() == content
        held = {str(path.relative_to(again)) for path in again.rglob("*") if not path.is_dir()}
        assert held == {*CONTENT, cache.SEAL}
        assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


def damage(data: st.DataObject, path: Path) -> None:
    """Changes one file of the entry, or puts one there."""
    if path.is_dir():
        shutil.rmtree(path)
        return
    content = path.read_bytes() if path.exists() else b""
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    how = data.draw(st.integers(0, 5))
    if how == 0:
        data.draw(st.sampled_from(nasty.NO_FILES))(path)
    elif how == 1:
        path.write_bytes(content[:at])
    elif how == 2:
        path.write_bytes(content[:at] + data.draw(st.binary(max_size=3)) + content[at:])
    elif how == 3:
        path.write_bytes(content[:at] + data.draw(st.binary(min_size=1, max_size=1)) + content[at + 1 :])
    elif how == 4:
        path.write_bytes(content)
    else:
        os.link(path, path.with_name("again")) if path.exists() else path.mkdir()


MANIFEST: dict[str, Any] = {
    **{"design": "mine", "source_hash": "0" * 16, "toolchain": "12.1", "compiler": "NVRTC 12.1.105"},
    **{"options": ["--std=c++17"], "tunables": {"distance": 2}, "dtypes": ["float32"], "modes": ["sum"]},
    **{"index_dtypes": ["int64"], "weighted": True, "padding": False, "max_dim": 0, "dim_multiple": 4},
    **{"prepares": False, "all_tables": True, "output_only": False, "schema_version": 1},
    "launch": {
        **{"threads_x": 32, "threads_y": 4, "blocks": 0, "bags_per_block": 1, "columns_per_block": 0},
        **{"blocks_per_sm": 0},
    },
    "entries": [
        {
            **{
                "function": "lookup_tables",
                "arch": "sm_90",
                "cubin": "sm_90.cubin",
                "symbol": "_Z1",
                "dtype": "float32",
            },
            **{"index_dtype": "int64", "tunables": {"distance": 2}, "registers": 40, "spill_bytes": 0},
            **{"shared_bytes": 0, "occupancy": 0.5, "cubin_sha256": "0" * 64, "output_dtype": "float32"},
            **{"generic": True, "threads_y": 0},
        }
    ],
    "special": [],
}


@hostile
@given(data=st.data())
def test_manifests(data: st.DataObject, tmp_path: Path) -> None:
    with counted("manifest") as ended:
        path = tmp_path / manifest.MANIFEST
        if data.draw(st.integers(0, 4)) == 0:
            nasty.put(path, nasty.spoilt(json.dumps(MANIFEST), data.draw(st.integers(0, 2**32))))
        else:
            nasty.put(path, json.dumps(data.draw(nasty.changed(MANIFEST, nasty.json_values))).encode())
        try:
            read = manifest.read(tmp_path)
        except BadInputError as error:
            said = str(error)
            assert said.startswith(f"{path}: ")
            ended["refused"] += 1
            return
        ended["accepted"] += 1
        written = json.loads(path.read_text(encoding="utf-8"))
        found = json.loads(json.dumps(dataclasses.asdict(read)))
        assert simple_reader.same(found, filled_in(written, found))
        assert all("/" not in entry.cubin and entry.threads_y >= 0 for entry in read.entries)


def filled_in(written: Any, found: Any) -> Any:
    """What was written, with what it leaves out as it was found: that has defaults."""
    if isinstance(written, dict) and isinstance(found, dict):
        return found | {key: filled_in(value, found.get(key)) for key, value in written.items()}
    if isinstance(written, list) and isinstance(found, list) and len(written) == len(found):
        return [filled_in(*pair) for pair in zip(written, found, strict=True)]
    return float(written) if type(found) is float and type(written) is int else written
