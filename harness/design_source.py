"""What a design is made of, in files and as a hash: results are of these sources and no others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInputError
from harness.files import read_plain

if TYPE_CHECKING:
    from harness.designs import Design

DESIGNS_DIR = Path(__file__).resolve().parent.parent / "opt_designs"
COMMON_DIR = DESIGNS_DIR / "common"
PEER_FILES = ("peer.py", "requirements.txt")
"""What the folder of a peer holds besides: what the bench calls, and what its image installs."""
LAUNCH_HEADER = "launch.h"
"""What device code includes for the numbers of its launches. No file: it is made of design.toml."""
LATER = {"hashed": "when set"}
"""Metadata of fields added after the first reference results: a design that leaves such a field at its
default keeps its hash, and with it its results."""

_MOST_BYTES = 2**24
_COMMENT = r"""
    / (?:\\\n)* / (?: \\\n | [^\n] )*                   # goes on in the next line where a \ ends its own
    | / (?:\\\n)* \* .*? \* (?:\\\n)* /
"""
_COMMENTS = re.compile(_COMMENT, re.DOTALL | re.VERBOSE)
_TOKEN = re.compile(
    rf"""
    (?P<blank> (?: \s | {_COMMENT} )+ )
    | (?P<raw> (?<!\w) (?: u8 | [uUL] )? R"(?P<mark> [^()\\\s]{{0,16}} ) \( .*? \) (?P=mark)" )
    | " (?: \\. | [^"\\\n] )* "
    | ' (?: \\. | [^'\\\n] )* '
    | \b \d (?: '? [\w.] )*                            # 1'000 is no character
    """,
    re.DOTALL | re.VERBOSE,
)
"""Where a // begins no comment: what C++ has in quotation marks; and the comments and blanks between."""
_CONTINUED = re.compile(r"^(?:[^\n]*\\\n)+", re.MULTILINE)
_INCLUDE = re.compile(r"^[^\S\n]*(?:#|%:)[^\S\n]*include(\b.*|_next\b)", re.MULTILINE)
_INCLUDED = re.compile(r'\s*(?:"(?P<quoted>[^"]+)"|<(?P<angled>[^>]+)>)')
_PROSE = ("title", "summary", "paper", "folder")


def source_hash(design: Design) -> str:
    """Hash of what decides the machine code and the launch; comments and prose do not count."""
    facts = {k: v for k, v in _facts(design).items() if k not in _PROSE}
    for tunable in facts["tunables"].values():
        del tunable["summary"], tunable["names"]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for source in sources(design):
        text = text_of(source)
        code = without_comments(text) if design.compiled else text
        digest.update(f"\0{source.name}\0{code}".encode())
    return digest.hexdigest()[:16]


def without_comments(code: str) -> str:
    """C++ without its comments, and with single spaces alone; what stands in quotation marks as it is."""
    return _TOKEN.sub(lambda token: " " if token["blank"] else token[0], code).strip()


def text_of(source: Path) -> str:
    """What a file of a design says; BadInputError where it cannot be read or is not UTF-8."""
    try:
        text = read_plain(source, _MOST_BYTES).decode("utf-8-sig")  # some editors begin with a mark
    except OSError as error:
        raise BadInputError(f"{source}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{source}: byte {error.start + 1} is not UTF-8; save it as UTF-8.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def sources(design: Design) -> list[Path]:
    """Its device code and every file of ours that this includes, directly or through another; of a peer what
    measures it. BadInputError where an included file is nowhere, or nobody can tell which it is."""
    found: list[Path] = []
    if design.measured_by_peer:
        return [design.folder / name for name in PEER_FILES]
    waiting = [design.folder / "kernel.cuh"] if design.compiled else []
    while waiting:
        source = waiting.pop()
        if source in found:
            continue
        found.append(source)
        waiting += _included(source, design.folder)
    return sorted(found)


def _included(source: Path, folder: Path) -> Iterator[Path]:
    """The files of ours that a file includes, found as the compilers find them."""
    for line, what in _includes(text_of(source)):
        name = _INCLUDED.match(what)
        if name is None:
            raise BadInputError(
                f"{source}:{line}: this #include does not say which file it means, and kernels are compiled "
                'anew only where a file that is known has changed; write it as #include "helper.cuh".'
            )
        if LAUNCH_HEADER in (name["quoted"], name["angled"]):
            continue
        places = [folder, COMMON_DIR, DESIGNS_DIR]
        if name["quoted"]:
            places.insert(0, source.parent)
        beside = [file for place in places if (file := place / (name["quoted"] or name["angled"])).is_file()]
        if beside:
            yield beside[0].resolve()
        elif name["quoted"]:
            raise BadInputError(
                f"{source}:{line}: includes {name['quoted']!r}, which is neither beside it nor in {folder} "
                f"or {COMMON_DIR}; correct the name, or write it in <> if it is a header of CUDA."
            )


def _includes(code: str) -> Iterator[tuple[int, str]]:
    """Of every #include the number of its line, and what follows the word."""

    # Each line break that goes leaves a \v, which is a blank as well, so that lines can still be counted.
    def gone(text: re.Match[str]) -> str:
        return " " + "\v" * text[0].count("\n")

    def plain(token: re.Match[str]) -> str:
        return gone(token) if token["raw"] else _COMMENTS.sub(gone, token[0]) if token["blank"] else token[0]

    def joined(lines: re.Match[str]) -> str:
        return "\v" * lines[0].count("\n") + lines[0].replace("\\\n", "")

    text = _CONTINUED.sub(joined, _TOKEN.sub(plain, code.replace("\v", " ")))
    for found in _INCLUDE.finditer(text):
        before = text[: found.start()]
        yield 1 + before.count("\n") + before.count("\v"), found[1]


def _facts(value: Any) -> dict[str, Any]:
    """A dataclass's fields as plain values, save those of `LATER` that are at their default."""
    facts = dataclasses.asdict(value)
    for spec in dataclasses.fields(value):
        inner = getattr(value, spec.name)
        default = spec.default if spec.default_factory is dataclasses.MISSING else spec.default_factory()
        if spec.metadata == LATER and inner == default:
            del facts[spec.name]
        elif dataclasses.is_dataclass(inner):
            facts[spec.name] = _facts(inner)
        elif isinstance(inner, tuple) and inner and dataclasses.is_dataclass(inner[0]):
            facts[spec.name] = [_facts(each) for each in inner]
    return facts
