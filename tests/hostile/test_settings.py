"""Fuzzed settings: design.toml, experiments, and what --set makes of them.

Either one sentence that names the file or the flag, or exactly what was written: nothing converted in
silence, nothing without bounds.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import designs, experiment, plan
from harness.build import instances
from harness.errors import BadInputError
from harness.text import first_hidden
from tests.hostile import nasty
from tests.hostile.program import counted, hostile

MOST = 2**31 - 1
"""Of every number in a design.toml."""
ALL_TABLES = """
title = "t"
summary = "s"
all_tables = true
max_registers = 64
compiler_options = ["-lineinfo"]

[launch]
threads = [32, 4]
threads_y_of = { float16 = 2 }
bags_per_block = 2

[[special]]
kernel = "lookup_short"
dtypes = ["float16"]
launch = { threads = [32, 2] }
when = [{ rows_per_bag = [0, 32] }]

[supports]
dtypes = ["float32", "float16"]
index_dtypes = ["int64"]
modes = ["sum", "max"]
dim_multiple = 4
max_dim = 512

[tunables.depth]
default = 2
values = [2, 4]
"""
BY_TABLE = """
title = "t"
summary = "s"
prepares = true
fast = true

[launch]
threads = [32, 8]
blocks_per_sm = 4

[tunables.distance]
default = 2
values = [1, 2, 4]

[tunables.pinned_rows]
default = 60000
summary = "rows"
"""
MINE = {
    "title": "Mine",
    "arms": [
        {"design": "baseline", "toolchain": "12.1"},
        {"design": "combined", "toolchain": "13.0", "tunables": {"pinned_rows": 5}, "hot_rows": "oracle"},
        {"design": "stock"},
    ],
    "reference": "baseline@12.1",
    "datasets": ["medium", "random"],
    "workload": {"tables": 2, "rows": 1000, "batch": 64, "weighted": False, "dtype": "float32"},
    "timing": {"max_seconds": 1.0, "min_passes": 5, "max_passes": 50},
    "model": {"bottom": [8, 128], "top": [4, 1]},
    "sweep": [{"key": "workload.batch", "values": [16, 32], "hold": {"tables": 1}}],
    "replicates": 2,
    "seed": 7,
}


def equal(read: Any, written: Any) -> bool:
    """Whether a value read from TOML is the value that was written there."""
    if isinstance(written, dict):
        if dataclasses.is_dataclass(read):
            read = {field.name: getattr(read, field.name) for field in dataclasses.fields(read)}
        return all(key in read and equal(read[key], value) for key, value in written.items())
    if isinstance(written, list):
        return isinstance(read, tuple) and len(read) == len(written) and all(map(equal, read, written))
    if isinstance(read, float) and type(written) is int:
        return read == written
    return type(read) is type(written) and bool(read == written)


def every_number(value: Any) -> list[float]:
    """The numbers in a nested value."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)  # type: ignore[arg-type]
    if isinstance(value, dict | list | tuple):
        inner = value.values() if isinstance(value, dict) else value
        return [number for item in inner for number in every_number(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def one_sentence(error: BadInputError, names: str) -> None:
    said = str(error)
    assert names in said
    assert said.endswith((".", "?"))  # "Did you mean …?"
    assert "\n" not in said.replace(names, "")
    assert len(said) < 6000  # of which a path has 4096 at most


@hostile
@given(data=st.data())
def test_designs(data: st.DataObject, tmp_path: Path) -> None:
    with counted("design.toml") as ends:
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        (folder / "kernel.cuh").write_text("", encoding="utf-8")
        path = folder / "design.toml"
        base = tomllib.loads(data.draw(st.sampled_from([ALL_TABLES, BY_TABLE])))
        how = data.draw(st.integers(0, 9))
        if how < 2:
            nasty.put(path, nasty.spoilt(nasty.as_toml(base), data.draw(st.integers(0, 2**32))))
        elif how < 6:
            nasty.put(path, nasty.as_toml(data.draw(nasty.mild(base))).encode())
        else:
            tree = data.draw(nasty.changed(base, nasty.toml_values | grids()))
            nasty.put(path, nasty.as_toml(tree).encode())
        try:
            design = designs.get("mine", tmp_path)
        except BadInputError as error:
            one_sentence(error, str(folder))
            ends["refused"] += 1
            return
        ends["accepted"] += 1
        written = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        assert equal(design, written)
        assert all(0 <= number <= MOST for number in every_number(design))
        expressions = [instance.expression for instance in instances.of(design)]
        assert len(expressions) == len(set(expressions)) == design.kernels <= 1000
        assert all(name.isidentifier() for name in design.tunables)
        assert len(design.source_hash) == 16


def grids() -> st.SearchStrategy[Any]:
    """Tunables with more values together than anybody could wait for."""
    one = st.builds(lambda n: {"default": 0, "values": list(range(n))}, st.sampled_from([1, 10, 1000]))
    names = st.sampled_from("abcdefghi") | nasty.texts
    return st.dictionaries(names, one, max_size=9)


@hostile
@given(data=st.data())
def test_experiments(data: st.DataObject, tmp_path: Path) -> None:
    with counted("experiment.toml") as ends:
        path = tmp_path / "mine.toml"
        how = data.draw(st.integers(0, 9))
        if how < 2:
            nasty.put(path, nasty.spoilt(nasty.as_toml(MINE), data.draw(st.integers(0, 2**32))))
        elif how < 6:
            nasty.put(path, nasty.as_toml(data.draw(nasty.mild(MINE))).encode())
        else:
            nasty.put(path, nasty.as_toml(data.draw(nasty.changed(MINE, nasty.toml_values))).encode())
        try:
            read = experiment.read(path)
        except BadInputError as error:
            one_sentence(error, str(path))
            ends["refused"] += 1
            return
        ends["accepted"] += 1
        holds(read, tomllib.loads(path.read_text(encoding="utf-8-sig")), tmp_path)


def holds(read: experiment.Experiment, written: dict[str, Any], folder: Path) -> None:
    """An experiment is what was written, can be planned, and reads the same when written again."""
    told = json.loads(json.dumps(written))
    told.pop("datasets", None)  # become paths beside the file
    for arm in told.get("arms", []):
        arm["toolchain"] = arm.get("toolchain") or "pytorch"
    assert equal(read, told)
    assert not any(map(first_hidden, [read.title, read.name, *read.datasets]))
    cells = plan.make(read).cells
    assert 0 < len(cells) <= experiment.MOST_CELLS
    assert not any(cell.workload.problem() for cell in cells)
    assert len({cell.id for cell in cells}) == len(cells)
    if set(read.datasets) <= set(experiment.SYNTHETIC_DATASETS):
        again = folder / "again.toml"
        again.write_text(experiment.to_toml(read), encoding="utf-8")
        assert experiment.read(again) == read


KEYS = [
    *("workload.tables", "workload.rows", "workload.batch", "workload.pooling", "workload.dim"),
    *("workload.dtype", "workload.weighted", "workload.mode", "workload", "timing.max_seconds"),
    *("timing.min_passes", "timing.cache", "replicates", "seed", "deadline_s", "grid", "title", "name"),
    *("reference", "datasets", "arms", "model.bottom", "model", "sweep", "schema_version", "nothing"),
    *("workload.tables.x", "", ".", "a..b", "arms.0.design", "a" + ".a" * 500),
]
VALUES = st.one_of(
    st.sampled_from(
        [
            *("4", "0", "-5", "true", "1.0", "1e400", "nan", "inf", "0x" + "f" * 4000, "9" * 4400, '"4"'),
            *("[1, 2]", "[" * 1500, "{" * 1500, "2020-01-01", "float16", "mean", "1\nb = 2", "cpu"),
            *('["medium"]', '["medium", "medium"]', '["/dev/zero"]', "[]", "{}", "'", '"', "#", "1 # 2"),
            *('[{key = "workload.batch", values = [true]}]', '[{key = "workload.batch", values = [4, 4.0]}]'),
        ]
    ),
    nasty.numbers.map(lambda number: str(number) if isinstance(number, float) or number < 10**300 else "1"),
    nasty.texts,
    nasty.surrogates,
)


GOOD = [
    *(("workload.tables", "3"), ("workload.rows", "2_000"), ("workload.mode", "mean"), ("seed", "0x10")),
    *(("timing.max_seconds", "2"), ("timing.cache", '"cold"'), ("replicates", " 1 "), ("grid", "false")),
    *(("title", '"[x] & @y"'), ("title", "bare words"), ("datasets", '["low", "one_item"]'), ("name", "7.b")),
    *(("model.top", "[3, 1]"), ("workload.weighted", "true"), ("sweep", "[]"), (" seed ", "9 # nine")),
]
SETTINGS = st.sampled_from(GOOD) | st.tuples(st.sampled_from(KEYS) | nasty.texts, VALUES)


@hostile
@given(settings=st.lists(SETTINGS, min_size=1, max_size=2))
def test_set(settings: list[tuple[str, str]], tmp_path: Path) -> None:
    with counted("--set") as ends:
        path = tmp_path / "mine.toml"
        nasty.put(path, nasty.as_toml(MINE).encode())
        try:
            read = experiment.read(path, [f"{key}={value}" for key, value in settings])
        except BadInputError as error:
            one_sentence(error, "")
            ends["refused"] += 1
            return
        ends["accepted"] += 1
        written = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        for text in (f"{key}={value}" for key, value in settings):
            key, _, value = text.partition("=")
            *tables, last = key.strip().split(".")
            table = written
            for name in tables:
                table = table.setdefault(name, {})
            table[last] = simple_value(value)
        holds(read, written, tmp_path)


def simple_value(text: str) -> Any:
    """One TOML value, or else the text as it stands."""
    try:
        found = tomllib.loads("x = " + text)
    except (ValueError, RecursionError):
        return text.strip()
    return found["x"] if list(found) == ["x"] else text.strip()


def test_what_the_fuzzers_begin_with_is_good(tmp_path: Path) -> None:
    for name, text in (("one", ALL_TABLES), ("two", BY_TABLE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernel.cuh").write_text("", encoding="utf-8")
        (tmp_path / name / "design.toml").write_text(text, encoding="utf-8")
    assert list(designs.discover(tmp_path)) == ["one", "two"]
    (tmp_path / "mine.toml").write_text(nasty.as_toml(MINE), encoding="utf-8")
    holds(experiment.read(tmp_path / "mine.toml"), MINE, tmp_path)
    many = "".join(f"[tunables.t{n}]\ndefault = 0\nvalues = {list(range(10))}\n" for n in range(9))
    nasty.put(tmp_path / "one" / "design.toml", (ALL_TABLES + many).encode())
    with pytest.raises(BadInputError, match="kernels to compile, and a design has 1,000 at most"):
        designs.get("one", tmp_path)
