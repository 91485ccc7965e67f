"""What is read back is of its field's type and finite, or is refused in a sentence."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from harness.codec import load, parse, to_json
from harness.errors import BadInputError
from harness.text import clean


@dataclass(frozen=True)
class Inner:
    count: int
    share: float = 0.5


@dataclass(frozen=True)
class Whole:
    name: str
    inner: Inner
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    values: list[float] = field(default_factory=list)
    named: dict[str, float] = field(default_factory=dict)
    lists: dict[str, list[float]] = field(default_factory=dict)
    pairs: tuple[tuple[int, str], ...] = ()
    maybe: Inner | None = None
    schema_version: int = 1


GOOD = Whole("é", Inner(3), "b", True, [1.0, 2.5], {"x": 1.0}, {"y": [0.0]}, (), Inner(1, 2.0))


def text(**changes: Any) -> bytes:
    return json.dumps(dataclasses.asdict(GOOD) | changes).encode()


def test_there_and_back() -> None:
    assert parse(Whole, to_json(GOOD).encode(), "x") == GOOD
    assert to_json(parse(Whole, to_json(GOOD).encode(), "x")) == to_json(GOOD)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON: byte 1 is not UTF-8; save it as UTF-8"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a":' * 100_000, "is nested too deeply"),
        (b"[]", "is not an object"),
        (b"null", "is not an object"),
        (text(values=[1.0]).replace(b"1.0", b"NaN"), r"values\[0\]: nan is not a finite number"),
        (text(values=[1.0]).replace(b"1.0", b"-Infinity"), r"values\[0\]: -inf is not a finite number"),
        (text(values=[12.5]).replace(b"12.5", b"1e400"), r"values\[0\]: inf is not a finite number"),
        (text(named={"x": 12.5}).replace(b"12.5", b"1e400"), r"named\.x: inf is not a finite number"),
        (text(lists={"y": [12.5]}).replace(b"12.5", b"1e400"), r"lists\.y\[0\]: inf is not a finite number"),
        (text(values=[10**400]), r"values\[0\]: inf is not a finite number"),
        (text(inner={"count": 10**400}), r"inner\.count: inf is not a whole number"),
        (text(inner={"count": 2**63}), "is more than 9223372036854775807"),
        (
            text(inner={"count": 1}).replace(b'"count": 1', b'"count": ' + b"9" * 5000),
            r"inner\.count: inf is not a whole number",
        ),
        (text(inner={"count": 1.5}), r"inner\.count: 1\.5 is not a whole number"),
        (text(inner={"count": True}), r"inner\.count: True is not a whole number"),
        (text(inner={"count": 1, "share": True}), r"inner\.share: True is not a number"),
        (text(inner={}), r"inner\.count: is missing"),
        (text(inner={"count": 1, "more": 1}), r"inner\.more: is not a field of Inner"),
        (text(**{"\ud800": 1}), r"\\ud800.*: is not a field of Whole"),
        (text(name="\ud800"), "name: holds half a character"),
        (text(named={"\udfff": 1.0}), r"named: a key holds U\+DFFF"),
        (text(named={"x": "1"}), r"named\.x: '1' is not a number"),
        (text(kind="c"), "kind: 'c' is none of 'a', 'b'"),
        (text(kind=["a"]), r"kind: \['a'\] is none of"),
        (text(flag=1), "flag: 1 is neither true nor false"),
        (text(values={"0": 1.0}), r"values: \{'0': 1\.0\} is not a list"),
        (text(maybe=3), "maybe: is not an object"),
        (text(pairs=[[1]]), r"pairs\[0\]: holds 1 values, not 2"),
        (text(pairs=[[1, 2]]), r"pairs\[0\]\[1\]: 2 is not text"),
        (text(schema_version=2), "has schema_version 2, this program reads up to 1; update it"),
        (text(schema_version=10**400), "schema_version"),
        (text().replace(b'"flag"', b'"name"'), "a key is there twice in one object"),
        (b"\xef\xbb\xbf" + text(), "it begins with a byte order mark; save it without"),
        (b"[" + b"[]," * 2**20 + b"1]", "holds more than 1,048,576 lists and objects"),
        (b"[" + b"1," * (2**23 + 1) + b"1]", "holds more than 8,388,608 values"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(content: bytes, said: str) -> None:
    with pytest.raises(BadInputError, match=f"^the file: .*({said})") as raised:
        parse(Whole, content, "the file")
    assert len(str(raised.value)) < 300
    str(raised.value).encode()


def test_floats_whose_sum_is_too_large_are_fine_each() -> None:
    values = [1e308, 1e308, -1e308]
    assert parse(Whole, text(values=values), "x").values == values


_JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
_FIELDS = some.sampled_from([f.name for f in dataclasses.fields(Whole)])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some.dictionaries(_FIELDS, _JSON, max_size=4))
def test_whatever_stands_in_a_field_is_read_right_or_refused(changes: dict[str, Any]) -> None:
    try:
        found = parse(Whole, text(**changes), "the file")
    except BadInputError:
        return
    # What was accepted is what was written, and can be written again.
    written = json.loads(to_json(found))
    for name, value in changes.items():
        assert same(written[name], value)


def same(one: Any, other: Any) -> bool:
    if isinstance(other, dict) and isinstance(one, dict):
        return all(same(one[key], other[key]) for key in other)  # defaults may have been added
    if isinstance(other, str):
        return bool(one == clean(other))  # fit to be shown
    if isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) and (not isinstance(one, float) or math.isfinite(one))


@given(some.binary(max_size=200))
def test_any_bytes_are_refused_in_a_sentence(content: bytes) -> None:
    with pytest.raises(BadInputError):
        parse(Whole, content, "the file")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"nothing\.json: cannot be read: No such file"):
        load(Whole, tmp_path / "nothing.json")
    (tmp_path / "link.json").symlink_to("/dev/zero")
    with pytest.raises(BadInputError, match=r"link\.json: is a link"):
        load(Whole, tmp_path / "link.json")
    (tmp_path / "large.json").write_bytes(text())
    with pytest.raises(BadInputError, match=r"large\.json: holds more"):
        load(Whole, tmp_path / "large.json", most_bytes=10)
