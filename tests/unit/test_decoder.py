"""Raw values into dataclasses: nothing is converted in silence, and what does not fit is named."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bounds import Count, Range
from harness.decoder import MismatchError, decode


@dataclass(frozen=True)
class Inner:
    name: str
    size: Annotated[int, Range(1, 10)] = 1

    def problem(self) -> str:
        return "size: is not for nobody" if self.name == "nobody" and self.size > 1 else ""


@dataclass(frozen=True)
class Outer:
    inner: Inner
    share: float = 0.5
    sure: bool = False
    kind: Literal["a", "b"] = "a"
    maybe: Inner | None = None
    pair: tuple[int, int] = (0, 0)
    many: tuple[Inner, ...] = ()
    times: list[Annotated[float, Range(0, 100)]] = field(default_factory=list)
    counts: dict[str, Count] = field(default_factory=dict)


def plain(**changes: Any) -> dict[str, Any]:
    return {"inner": {"name": "x"}, **changes}


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ([], "the file: is not an object"),
        ({}, "inner: is missing"),
        (plain(other=1), "other: is not a field of Outer"),
        (plain(inner={}), "inner.name: is missing"),
        (plain(inner={"name": 3}), "inner.name: 3 is not text"),
        (plain(inner={"name": "\ud800"}), "inner.name: holds half a character, U+D800"),
        (plain(inner={"name": "x" * 2**21}), "inner.name: has 2,097,152 characters, and may have 1,048,576"),
        (plain(inner={"name": "x", "size": True}), "inner.size: True is not a whole number"),
        (plain(inner={"name": "x", "size": 1.0}), "inner.size: 1.0 is not a whole number"),
        (plain(inner={"name": "x", "size": 11}), "inner.size: 11 is more than 10"),
        (plain(inner={"name": "nobody", "size": 2}), "inner.size: is not for nobody"),
        (plain(share=True), "share: True is not a number"),
        (plain(share=math.nan), "share: nan is not a finite number"),
        (plain(share=math.inf), "share: inf is not a finite number"),
        (plain(share="0.5"), "share: '0.5' is not a number"),
        (plain(sure=1), "sure: 1 is neither true nor false"),
        (plain(kind="c"), "kind: 'c' is none of 'a', 'b'"),
        (plain(kind=["a"]), "kind: ['a'] is none of 'a', 'b'"),
        (plain(maybe=3), "maybe: is not an object"),
        (plain(pair=[1]), "pair: holds 1 values, not 2"),
        (plain(pair=[1, None]), "pair[1]: None is not a whole number"),
        (plain(pair=[1, 2**63]), "pair[1]: 9223372036854775808 is more than 9223372036854775807"),
        (plain(many=[{"name": "x"}, {"name": "x", "size": 0}]), "many[1].size: 0 is less than 1"),
        (plain(many={}), "many: {} is not a list"),
        (plain(times=[1.0, 2.0, math.nan]), "times[2]: nan is not a finite number"),
        (plain(times=[1.0, -0.5]), "times[1]: -0.5 is less than 0"),
        (plain(times=[1.0, 2, 101]), "times[2]: 101 is more than 100"),
        (plain(times=[1e308, 1e308]), "times[0]: 1e+308 is more than 100"),
        (plain(counts={"a": -1}), "counts.a: -1 is less than 0"),
        (plain(counts={"\x1b": 1}), "counts: a key holds U+001B, which cannot be shown"),
        (plain(counts=[]), "counts: [] is not an object"),
    ],
)
def test_what_does_not_fit_is_named(raw: Any, sentence: str) -> None:
    with pytest.raises(MismatchError) as caught:
        decode(Outer, raw)
    assert str(caught.value) == sentence


def test_text_is_fit_to_be_shown() -> None:
    assert decode(Outer, plain(inner={"name": "\x1b[1mA\x07"})).inner.name == "A\\x07"


_INNERS = st.builds(Inner, st.text(st.characters(exclude_categories=("C", "Z"))), st.just(1))
_OUTERS = st.builds(
    Outer,
    _INNERS,
    st.floats(-1e100, 1e100),
    st.booleans(),
    st.sampled_from(["a", "b"]),
    st.none() | _INNERS,
    st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 9)),
    st.lists(_INNERS).map(tuple),
    st.lists(st.floats(0, 100)),
    st.dictionaries(st.text("abc"), st.integers(0, 2**63 - 1)),
)


@given(_OUTERS)
def test_what_was_written_is_read_again(value: Outer) -> None:
    assert decode(Outer, json.loads(json.dumps(dataclasses.asdict(value)))) == value
