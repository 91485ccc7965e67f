"""TOML into validated dataclasses: one sentence with file and key path where something does not fit."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import tomllib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from harness.errors import BadInputError
from harness.files import read_plain
from harness.text import first_hidden, meant, quoted, shown

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

FORBID_UNKNOWN = {"extra": "forbid"}
"""Pydantic's setting for a dataclass that is read from a user's file: a misspelt key is a mistake."""
_MOST_BYTES = 2**20
_DEEP_KEY = re.compile(r"""(?:(?:(?<![\w-])[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){32}""")
"""A dotted key of more parts than anything here has; tomllib takes time by the square of their number."""
_MOST_DEPTH = 32
_MOST_DIGITS = 40
_MOST_CHARACTERS = 4096
"""Of one text or key; a path has no more."""
_PLAIN = {
    "dataclass_type": "should be a table",
    "dict_type": "should be a table",
    "tuple_type": "should be a list",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
}
"""Pydantic's kinds of problems in a TOML file's words."""


def read_toml(path: Path, *, follow: bool = True) -> dict[str, Any]:
    """The file's tables; BadInputError where it cannot be read, is no TOML, or is a link without `follow`."""
    try:
        content = read_plain(path, _MOST_BYTES, follow=follow)
        return parse_toml(content.decode("utf-8-sig"))  # some editors begin with a mark
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{path}: is not TOML: byte {error.start + 1} is not UTF-8; save it as UTF-8."
        ) from error
    except ValueError as error:
        raise BadInputError(f"{path}: is not TOML: {error}.") from error


def parse_toml(text: str) -> dict[str, Any]:
    """The tables in a TOML text; ValueError, with what is wrong, where it is not TOML."""
    if _DEEP_KEY.search(text):
        raise ValueError("a key has too many parts")
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python's own, of numbers and dates
        raise ValueError("a number has too many digits, or a date is none") from None


def validated(kind: type[T], raw: Any, source: Path | str) -> T:
    """`raw` as the dataclass `kind`; BadInputError naming `source` and the key path of the first problem.

    Strictly: a bool is no number, a number no text.
    """
    from pydantic import ValidationError

    _check_plain(raw, source)
    try:
        # By way of JSON, whose lists and tables pydantic takes for tuples and dataclasses even when strict.
        value: T = _adapter(cast(Any, kind)).validate_json(json.dumps(raw), strict=True)
        return value
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(shown(str(part)) for part in first["loc"]) or "the file"
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            *place, wrong = first["loc"]
            near = meant(str(wrong), _keys(kind, place))
            raise BadInputError(f"{source}: {key}: is not a known key.{near}") from error
        if first["type"] in ("missing", "missing_argument"):
            raise BadInputError(f"{source}: {key}: is missing.") from error
        if first["type"] == "value_error":
            raise BadInputError(f"{source}: {key}: {first['ctx']['error']}.") from error
        problem = _PLAIN.get(first["type"], first["msg"].replace("Input should", "should"))
        raise BadInputError(f"{source}: {key}: {problem} (given: {quoted(first['input'])}).") from error


def _keys(kind: Any, place: Sequence[int | str]) -> list[str]:
    """The keys that may stand at a place of a value of this kind; none where that is not known."""
    for part in place:
        inner = [one for one in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(one)]
        if isinstance(part, int):
            continue  # of a list; its items' kind is among the arguments
        kind = typing.get_type_hints(inner[0]).get(part) if inner else None
    found = [one for one in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(one)]
    return [field.name for field in dataclasses.fields(found[0])] if found else []


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    # Imported late: pydantic costs more than everything `harness --help` needs.
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _check_plain(raw: Any, source: Path | str, place: tuple[str, ...] = ()) -> None:
    """Refuses what no key may hold, whatever its type: dates, endless numbers, text that cannot be shown."""
    where = f"{source}: {'.'.join(place) or 'the file'}"
    if len(place) > _MOST_DEPTH:
        raise BadInputError(f"{source}: {'.'.join(place[:3])}…: is nested too deeply.")
    if isinstance(raw, dict):
        for key, value in raw.items():
            if hidden := first_hidden(key):
                raise BadInputError(f"{where}: a key holds {hidden}, which cannot be shown; remove it.")
            _check_length(key, f"{where}: a key")
            _check_plain(value, source, (*place, shown(key)))
    elif isinstance(raw, list | tuple):
        for number, value in enumerate(raw):
            _check_plain(value, source, (*place, str(number)))
    elif isinstance(raw, str):
        if hidden := first_hidden(raw):
            raise BadInputError(f"{where}: holds {hidden}, which cannot be shown; remove it.")
        _check_length(raw, where)
    elif isinstance(raw, int) and not isinstance(raw, bool):
        if abs(raw) >= 10**_MOST_DIGITS:
            raise BadInputError(f"{where}: {shown(raw)} is out of all bounds.")
    elif not isinstance(raw, bool | float) and raw is not None:
        raise BadInputError(f"{where}: {shown(str(raw))} is a date or time, which nothing here takes.")


def _check_length(text: str, where: str) -> None:
    if len(text) > _MOST_CHARACTERS:
        raise BadInputError(f"{where}: has {len(text):,} characters, and may have {_MOST_CHARACTERS:,}.")
