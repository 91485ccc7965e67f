"""Dataclasses to JSON and back, for what crosses the container's wall and for what is kept of it.

Standard library only. What is read may have been written by anybody: every value is of its field's type,
finite, and of a size that the rest of the program can take, or the file is refused in one sentence."""

from __future__ import annotations

import codecs
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness import decoder
from harness.errors import BadInputError
from harness.files import read_plain
from harness.text import shown

SCHEMA_VERSION = 1
"""Of every file that is written here; a newer one is refused."""
MOST_BYTES = 2**27
"""Of a file where nothing else is said: more than any record has."""
# Together with that they keep what a file unfolds to in memory below 2 GiB, whatever is in it.
_MOST_OBJECTS = 2**20
_MOST_KEYS = 2**22
_MOST_VALUES = 2**23
_MOST_DIGITS = 20
"""Of a whole number: more than 64 bits have. Longer ones become floats, which no field for a count takes."""
LATER = {"written": "when set"}
"""Metadata of fields added after records were first kept: at their default they are left out, so that what
does not use them is written as it always was."""
T = TypeVar("T")


def to_json(value: Any, *, indent: int | None = 1) -> str:
    """A dataclass as JSON text, stable to the letter for equal values."""
    return json.dumps(value, default=fields, indent=indent, sort_keys=True, allow_nan=False) + "\n"


def fields(value: Any) -> dict[str, Any]:
    """A dataclass's values by field, without those of `LATER` that are at their default."""
    return {
        field.name: getattr(value, field.name)
        for field in dataclasses.fields(value)
        if field.metadata != LATER or getattr(value, field.name) != _default(field)
    }


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def load(kind: type[T], path: Path, *, most_bytes: int = MOST_BYTES) -> T:
    """Reads a dataclass from a JSON file.

    Raises BadInputError, naming the file and the field, where the text is not what the class describes, was
    written by a newer version of this program, or the file may not be read: a link, a pipe, one
    that is too large."""
    return typed(kind, read_json(path, most_bytes=most_bytes), path)


def parse(kind: type[T], content: bytes, source: Path | str) -> T:
    """As `load`, from a file's contents; `source` is what messages call it."""
    return typed(kind, _raw(content, source), source)


def read_json(path: Path, *, most_bytes: int = MOST_BYTES) -> Any:
    """What a JSON file holds, as plain values; BadInputError where it may not be read."""
    try:
        content = read_plain(path, most_bytes, follow=False)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}.") from error
    return _raw(content, path)


def typed(kind: type[T], raw: Any, source: Path | str) -> T:
    """As `load`, of what `read_json` gave; `source` is what messages call it."""
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int | float) and version > SCHEMA_VERSION:
        raise BadInputError(
            f"{source}: has schema_version {shown(version)}, this program reads up to {SCHEMA_VERSION}; "
            "update it."
        )
    try:
        return decoder.decode(kind, raw)
    except decoder.MismatchError as error:
        raise BadInputError(f"{source}: {error}.") from error


def _raw(content: bytes, source: Path | str) -> Any:
    if content.startswith(codecs.BOM_UTF8):
        raise BadInputError(f"{source}: is not JSON: it begins with a byte order mark; save it without.")
    for what, found, most in (
        ("lists and objects", content.count(b"[") + content.count(b"{"), _MOST_OBJECTS),
        ("keys", content.count(b":"), _MOST_KEYS),
        ("values", content.count(b","), _MOST_VALUES),
    ):
        if found > most:
            raise BadInputError(f"{source}: holds more than {most:,} {what}.")
    try:
        return json.loads(
            content.decode("utf-8"), parse_int=_whole_number, object_pairs_hook=_without_doubles
        )
    except RecursionError:
        raise BadInputError(f"{source}: is nested too deeply to be what it should be.") from None
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{source}: is not JSON: byte {error.start + 1} is not UTF-8; save it as UTF-8."
        ) from error
    except ValueError as error:
        raise BadInputError(f"{source}: is not JSON: {error}.") from error


def _whole_number(text: str) -> int | float:
    return int(text) if len(text) <= _MOST_DIGITS else float(text)


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice in one object")
    return found
