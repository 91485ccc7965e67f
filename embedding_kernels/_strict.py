"""Reads frozen dataclasses from JSON, strictly: every field there but what has a default, none besides, each
of its type."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_MOST_BYTES = 1 << 26


class PlanError(ValueError):
    """A plan that cannot be used: one sentence that names the file and the field."""


def read(kind: type[T], path: Path, newest: int) -> T:
    """The dataclass that a file holds. PlanError where it is not what the class describes.

    `newest`: the schema_version up to which it is read.
    """
    try:
        if path.exists() and not path.is_file():
            raise PlanError(f"{path}: is no file.")
        if path.stat().st_size > _MOST_BYTES:
            raise PlanError(f"{path}: holds more than {_MOST_BYTES:,} bytes, which no plan does.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: is not JSON: it is no text in UTF-8.") from error
    except PlanError:
        raise
    except ValueError as error:  # a NUL in the name
        raise PlanError(f"{str(path)!r}: is no file's name: {error}.") from error
    return parse(kind, text, path, newest)


def parse(kind: type[T], text: str, source: Path | str, newest: int) -> T:
    """The same of a file's text; `source` is what messages call it."""
    try:
        raw = json.loads(text, object_pairs_hook=_without_doubles)
    except RecursionError:
        raise PlanError(f"{source}: is nested too deeply to be a plan.") from None
    except ValueError as error:
        raise PlanError(f"{source}: is not JSON: {error}.") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > newest:
        raise PlanError(
            f"{source}: has schema_version {version}, and this embedding_kernels reads up to {newest}; "
            "update it."
        )
    try:
        made: T = _decoded(kind, raw, "")
    except _MismatchError as error:
        raise PlanError(f"{source}: {error}.") from error
    return made


class _MismatchError(Exception):
    """What is wrong, beginning with the field."""


def _decoded(kind: Any, raw: Any, field: str) -> Any:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _object(typing.cast("type[Any]", kind), raw, field)
    if origin is tuple:
        if not isinstance(raw, list):
            raise _wrong(field, raw, "a list")
        (each, _) = typing.get_args(kind)
        return tuple(_decoded(each, value, f"{field}[{n}]") for n, value in enumerate(raw))
    if origin in (types.UnionType, typing.Union):
        (other,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
        return None if raw is None else _decoded(other, raw, field)
    if origin is typing.Literal:
        allowed = typing.get_args(kind)
        if not any(raw == value and type(raw) is type(value) for value in allowed):
            raise _wrong(field, raw, " or ".join(json.dumps(value) for value in allowed))
        return raw
    return _plain(kind, raw, field)


def _plain(kind: Any, raw: Any, field: str) -> Any:
    if kind is str and isinstance(raw, str):
        return raw
    if kind is int and isinstance(raw, int) and not isinstance(raw, bool):
        if not 0 <= raw < 2**63:
            raise _wrong(field, raw, "a count")
        return raw
    if kind is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        if not 0 <= raw <= sys.float_info.max:
            raise _wrong(field, raw, "a finite number from 0 up")
        return float(raw)
    raise _wrong(field, raw, {str: "a text", int: "a whole number", float: "a number"}[kind])


def _object(kind: type[Any], raw: Any, field: str) -> Any:
    if not isinstance(raw, dict):
        raise _wrong(field, raw, "an object")
    hints = typing.get_type_hints(kind)
    fields = {each.name: each for each in dataclasses.fields(kind)}
    before = f"{field}." if field else ""
    for name in raw:
        if name not in fields:
            raise _MismatchError(f"{before}{_shown(name)}: is no field of a plan; leave it out")
    for name, field_of in fields.items():
        if name not in raw and field_of.default is dataclasses.MISSING:
            raise _MismatchError(f"{before}{name}: is missing")
    made = kind(**{name: _decoded(hints[name], value, before + name) for name, value in raw.items()})
    if problem := getattr(made, "problem", str)():
        raise _MismatchError(f"{before}{problem}")
    return made


def _wrong(field: str, raw: Any, wanted: str) -> _MismatchError:
    return _MismatchError(f"{field or 'the whole'}: is {_shown(raw)}, and should be {wanted}")


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice in one object")
    return found
