"""TOML into validated dataclasses: one sentence with file and key path where something does not fit."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import BadInputError
from harness.files import read_plain

T = TypeVar("T")

FORBID_UNKNOWN = {"extra": "forbid"}
"""Pydantic's setting for a dataclass that is read from a user's file: a misspelt key is a mistake."""
_MOST_BYTES = 16 * 2**20
_PLAIN = {
    "dataclass_type": "should be a table",
    "dict_type": "should be a table",
    "tuple_type": "should be a list",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "bool_parsing": "should be true or false",
}
"""Pydantic's kinds of problems in a TOML file's words."""


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables; BadInputError where it cannot be read or is not TOML."""
    try:
        return tomllib.loads(read_plain(path, _MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: is not TOML: {error}.") from error


def validated(kind: type[T], raw: Any, source: Path | str) -> T:
    """`raw` as the dataclass `kind`; BadInputError naming `source` and the key path of the first problem."""
    # Imported late: pydantic costs more than everything `harness --help` needs.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            raise BadInputError(f"{source}: {key}: is not a known key.") from error
        if first["type"] in ("missing", "missing_argument"):
            raise BadInputError(f"{source}: {key}: is missing.") from error
        given = " ".join(str(first["input"]).split())
        problem = _PLAIN.get(first["type"], first["msg"].replace("Input should", "should"))
        raise BadInputError(f"{source}: {key}: {problem} (given: {given[:60]}).") from error
