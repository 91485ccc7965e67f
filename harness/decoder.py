"""Plain values, as JSON has them, into dataclasses: strictly by the types of their fields.

Nothing is converted but whole numbers where a float is wanted. A bool is no number, no number is infinite,
and numbers are held against the `harness.bounds.Range` of their type. Text is returned safe to show (see
`harness.text`). Where a dataclass has a method `problem`, it tells what no type does: what is wrong with a
field, beginning with its name, or "". Standard library only, since containers read with it, too.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from harness.bounds import Range
from harness.text import clean, first_hidden, shown

T = TypeVar("T")
_Decoder = Callable[[Any], Any]
_MOST_CHARACTERS = 2**20
"""Of one text: the end of a log, most of all."""
_FINITE = Range(-1e300, 1e300)
_INT64 = Range(-(2**63), 2**63 - 1)


class MismatchError(Exception):
    """A value is not what its type says. As text: where, and what is wrong, without a full stop."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self._problem = problem
        self._place = ""

    def within(self, place: str) -> MismatchError:
        """The same, seen from one level further out: `place` is `.field` or `[index]`."""
        self._place = place + self._place
        return self

    def __str__(self) -> str:
        return f"{self._place.removeprefix('.') or 'the file'}: {self._problem}"


def decode(kind: type[T], raw: Any) -> T:
    """`raw` as the dataclass `kind`; MismatchError where it does not match."""
    decoded: T = _decoder(typing.cast(Any, kind))(raw)
    return decoded


@functools.cache
def _decoder(kind: Any) -> _Decoder:
    """What turns a raw value into one of the annotated type `kind`, made once."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _Fields(kind)
    if origin is Annotated:
        return functools.partial(_within, _decoder(arguments[0]), _range_of(kind))
    if origin is Literal:
        return functools.partial(_one_of, arguments)
    if origin in (typing.Union, types.UnionType):  # of a type and None
        return functools.partial(_optional, _decoder(next(a for a in arguments if a is not type(None))))
    if origin is list and (arguments[0] is float or typing.get_origin(arguments[0]) is Annotated):
        return functools.partial(_numbers, _decoder(arguments[0]), _range_of(arguments[0]))
    if origin is list:
        return functools.partial(_items, _decoder(arguments[0]))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return functools.partial(_sequence, _decoder(arguments[0]))
        return functools.partial(_tuple, [_decoder(argument) for argument in arguments])
    if origin is dict:
        return functools.partial(_mapping, _decoder(arguments[1]))
    plain: dict[Any, _Decoder] = {str: _text, bool: _truth, int: _whole, float: _real}
    return plain[kind]


def _range_of(kind: Any) -> Range:
    """The bounds in an annotated type; those of every float where it has none."""
    return next((a for a in typing.get_args(kind) if isinstance(a, Range)), _FINITE)


def _within(decoder: _Decoder, bounds: Range, raw: Any) -> Any:
    value = decoder(raw)
    if problem := bounds.problem(value):
        raise MismatchError(problem)
    return value


def _one_of(known: tuple[Any, ...], raw: Any) -> Any:
    if raw not in known:
        raise MismatchError(f"{_quoted(raw)} is none of {', '.join(map(repr, known))}")
    return raw


def _optional(decoder: _Decoder, raw: Any) -> Any:
    return None if raw is None else decoder(raw)


def _numbers(decoder: _Decoder, bounds: Range, raw: Any) -> Any:
    """A list of numbers at once, for samples come in tens of thousands."""
    if isinstance(raw, list) and set(map(type, raw)) <= {float} and not bounds.first_problem(raw):
        return raw
    return _items(decoder, raw)


def _items(decoder: _Decoder, raw: Any) -> list[Any]:
    if not isinstance(raw, list):
        raise MismatchError(f"{_quoted(raw)} is not a list")
    found = []
    for item in raw:
        try:
            found.append(decoder(item))
        except MismatchError as error:
            raise error.within(f"[{len(found)}]") from None
    return found


def _sequence(decoder: _Decoder, raw: Any) -> tuple[Any, ...]:
    return tuple(_items(decoder, raw))


def _tuple(decoders: list[_Decoder], raw: Any) -> tuple[Any, ...]:
    if isinstance(raw, list) and len(raw) != len(decoders):
        raise MismatchError(f"holds {len(raw)} values, not {len(decoders)}")
    each = iter(decoders)
    return tuple(_items(lambda item: next(each)(item), raw))


def _mapping(decoder: _Decoder, raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise MismatchError(f"{_quoted(raw)} is not an object")
    found = {}
    for key, item in raw.items():
        if hidden := first_hidden(key):
            raise MismatchError(f"a key holds {hidden}, which cannot be shown")
        try:
            found[key] = decoder(item)
        except MismatchError as error:
            raise error.within(f".{shown(key)}") from None
    return found


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise MismatchError(f"{_quoted(raw)} is not text")
    if len(raw) > _MOST_CHARACTERS:
        raise MismatchError(f"has {len(raw):,} characters, and may have {_MOST_CHARACTERS:,}")
    if raw.isprintable():
        return raw
    try:
        raw.encode()
    except UnicodeEncodeError as error:
        raise MismatchError(f"holds half a character, U+{ord(raw[error.start]):04X}") from None
    return clean(raw)


def _truth(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise MismatchError(f"{_quoted(raw)} is neither true nor false")
    return raw


def _whole(raw: Any) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise MismatchError(f"{_quoted(raw)} is not a whole number")
    if problem := _INT64.problem(raw):
        raise MismatchError(problem)
    return raw


def _real(raw: Any) -> float:
    if not isinstance(raw, int | float) or isinstance(raw, bool):
        raise MismatchError(f"{_quoted(raw)} is not a number")
    if not math.isfinite(raw):
        raise MismatchError(f"{raw} is not a finite number")
    return float(raw)


def _quoted(raw: Any) -> str:
    return f"'{shown(raw)}'" if isinstance(raw, str) else shown(raw)


class _Fields:
    """Decodes the fields of a dataclass; needs those without a default and takes no others."""

    def __init__(self, kind: Any) -> None:
        hints = typing.get_type_hints(kind, include_extras=True)
        missing = dataclasses.MISSING
        self._kind = kind
        self._fields = {f.name: _decoder(hints[f.name]) for f in dataclasses.fields(kind)}
        self._required = [
            f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing
        ]
        self._problem: Callable[[Any], str] | None = getattr(kind, "problem", None)

    def __call__(self, raw: Any) -> Any:
        if not isinstance(raw, dict):
            raise MismatchError("is not an object")
        values = {}
        for name, item in raw.items():
            if (decoder := self._fields.get(name)) is None:
                raise MismatchError(f"is not a field of {self._kind.__name__}").within(f".{shown(name)}")
            try:
                values[name] = decoder(item)
            except MismatchError as error:
                raise error.within(f".{name}") from None
        for name in self._required:
            if name not in values:
                raise MismatchError("is missing").within(f".{name}")
        value = self._kind(**values)
        if self._problem and (problem := self._problem(value)):
            name, _, what = problem.partition(": ")
            raise MismatchError(what).within(f".{name}")
        return value
