"""Dataclasses to JSON and back, for what crosses the container's wall and for what is kept of it.

Standard library only. What is read may have been written by anybody: every value is of its field's type,
finite, and of a size that the rest of the program can take, or the file is refused in one sentence."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from harness.errors import BadInputError
from harness.files import read_plain

SCHEMA_VERSION = 1
"""Of every file that is written here; a newer one is refused."""
MOST_BYTES = 512 * 2**20
"""Of any file: a plan of a hundred thousand cells has about 150 MB."""
_MOST_WHOLE = 2**63
T = TypeVar("T")


def to_json(value: Any, *, indent: int | None = 1) -> str:
    """A dataclass as JSON text, stable to the letter for equal values."""
    return json.dumps(dataclasses.asdict(value), indent=indent, sort_keys=True, allow_nan=False) + "\n"


def load(kind: type[T], path: Path, *, most_bytes: int = MOST_BYTES) -> T:
    """Reads a dataclass from a JSON file.

    Raises BadInputError, naming the file and the field, where the text is not what the class describes, was
    written by a newer version of this program, or the file is none that may be read: a link, a pipe, one
    that is too large."""
    try:
        content = read_plain(path, most_bytes, follow=False)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}.") from error
    return parse(kind, content, path)


def parse(kind: type[T], content: bytes, source: Path | str) -> T:
    """As `load`, from a file's contents; `source` is what messages call it."""
    try:
        raw = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise BadInputError(f"{source}: is nested too deeply to be what it should be.") from None
    except ValueError as error:
        raise BadInputError(f"{source}: is not JSON: {error}.") from error
    if isinstance(raw, dict):
        version = raw.get("schema_version", SCHEMA_VERSION)
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise BadInputError(
                f"{source}: has schema_version {str(version)[:20]}, this program reads up to "
                f"{SCHEMA_VERSION}; "
                "update it."
            )
    try:
        return typing.cast(T, _decode(kind, raw, ""))
    except _MismatchError as error:
        raise BadInputError(f"{source}: {error}.") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


class _MismatchError(Exception):
    pass


def _decode(kind: Any, raw: Any, where: str) -> Any:
    """`raw` (from JSON) as a value of the annotated type `kind`; `where` is the key path for messages."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return raw
    if dataclasses.is_dataclass(kind):
        return _decode_fields(kind, raw, where)
    if origin is Literal:
        if raw not in arguments:
            raise _MismatchError(f"{where}: {_short(raw)} is none of {', '.join(map(repr, arguments))}")
        return raw
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        return None if raw is None else _decode(inner[0], raw, where)
    if origin is list and isinstance(raw, list):
        if arguments[0] is float and _all_finite(raw):
            return raw  # samples come in tens of thousands
        return [_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(raw)]
    if origin is tuple and isinstance(raw, list):
        kinds = arguments[:1] * len(raw) if arguments[-1] is ... else arguments
        if len(kinds) != len(raw):
            raise _MismatchError(f"{where}: has {len(raw)} values where {len(kinds)} belong")
        return tuple(
            _decode(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, raw, strict=True))
        )
    if origin is dict and isinstance(raw, dict):
        return {
            _decode(str, key, f"{where}, a key"): _decode(arguments[1], item, f"{where}.{_key(key)}")
            for key, item in raw.items()
        }
    if kind is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        if (isinstance(raw, int) and abs(raw) >= _MOST_WHOLE) or not math.isfinite(raw):
            raise _MismatchError(f"{where}: {_short(raw)} is too large")
        return float(raw)
    if isinstance(kind, type) and isinstance(raw, kind) and (kind is bool or not isinstance(raw, bool)):
        if isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) >= _MOST_WHOLE:
            raise _MismatchError(f"{where}: {_short(raw)} is too large")
        if isinstance(raw, str) and not _is_text(raw):
            raise _MismatchError(f"{where}: holds half a character (a lone surrogate)")
        return raw
    name = getattr(kind, "__name__", str(kind))
    raise _MismatchError(f"{where or 'the file'}: {_short(raw)} is not {name}")


def _short(raw: Any) -> str:
    """A value for a message: its beginning, whatever is in it."""
    if isinstance(raw, int) and abs(raw) >= _MOST_WHOLE:
        return "a whole number of more than 19 digits"  # Python refuses to write out the largest of them
    if isinstance(raw, dict | list):
        return "a table" if isinstance(raw, dict) else "a list"
    return ascii(raw[:60] if isinstance(raw, str) else raw)


def _key(name: str) -> str:
    return name[:60] if _is_text(name) else ascii(name[:60])


def _is_text(raw: str) -> bool:
    """Whether it can be written down: JSON's escapes can spell half a character."""
    if raw.isascii():
        return True
    try:
        raw.encode()
    except UnicodeEncodeError:
        return False
    return True


def _all_finite(raw: list[Any]) -> bool:
    """Whether these are floats and finite, all of them; decided by their sum wherever that is enough."""
    return set(map(type, raw)) <= {float} and (math.isfinite(sum(raw)) or all(map(math.isfinite, raw)))


def _fits(hint: Any, value: Any) -> bool:
    """Whether it is plainly a value of this type, with nothing about it that would have to be looked into."""
    if type(value) is not hint:
        return False
    if hint is str:
        return bool(value.isascii())
    if hint is int:
        return bool(-_MOST_WHOLE < value < _MOST_WHOLE)
    return hint is bool or (hint is float and math.isfinite(value))


def _decode_fields(kind: Any, raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        raise _MismatchError(f"{where or 'the file'}: is not an object")
    fields = _fields(kind)
    prefix = f"{where}." if where else ""
    if unknown := sorted(raw.keys() - fields.keys()):
        raise _MismatchError(f"{prefix}{_key(unknown[0])}: is not a field of {kind.__name__}")
    values = {}
    for name, (hint, required) in fields.items():
        if name in raw:
            value = raw[name]
            # Most are what they should be already; runs of ten thousand records are read in one go.
            values[name] = value if _fits(hint, value) else _decode(hint, value, prefix + name)
        elif required:
            raise _MismatchError(f"{prefix}{name}: is missing")
    return kind(**values)


@functools.cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """A dataclass's fields: type, and whether there is no default."""
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    return {
        f.name: (hints[f.name], f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(kind)
    }
