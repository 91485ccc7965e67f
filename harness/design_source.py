"""What a design is made of, in files and as a hash: results are of these sources and no others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInputError

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

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_PROSE = ("title", "summary", "paper", "folder")


def source_hash(design: Design) -> str:
    """Hash of what decides the machine code and the launch; comments and prose do not count."""
    facts = {k: v for k, v in _facts(design).items() if k not in _PROSE}
    for tunable in facts["tunables"].values():
        del tunable["summary"], tunable["names"]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for source in sources(design):
        text = source.read_text(encoding="utf-8")
        code = without_comments(text) if design.compiled else text
        digest.update(f"\0{source.name}\0{code}".encode())
    return digest.hexdigest()[:16]


def without_comments(code: str) -> str:
    """C++ without its comments, and with single spaces alone."""
    return " ".join(_COMMENT.sub(" ", code).split())


def sources(design: Design) -> list[Path]:
    """Its device code and every file of ours that this includes, directly or through another; of a peer what
    measures it. BadInputError where an included file is nowhere."""
    found: list[Path] = []
    if design.measured_by_peer:
        return [design.folder / name for name in PEER_FILES]
    waiting = [design.folder / "kernel.cuh"] if design.compiled else []
    while waiting:
        source = waiting.pop()
        if source in found:
            continue
        found.append(source)
        for name in re.findall(r'^\s*#include\s+"([^"]+)"', source.read_text(encoding="utf-8"), re.MULTILINE):
            if name == LAUNCH_HEADER:
                continue
            beside = [d / name for d in (source.parent, COMMON_DIR, DESIGNS_DIR) if (d / name).is_file()]
            if not beside:
                raise BadInputError(
                    f"{source}: includes {name!r}, which is neither beside it nor in {COMMON_DIR}."
                )
            waiting.append(beside[0].resolve())
    return sorted(found)


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
