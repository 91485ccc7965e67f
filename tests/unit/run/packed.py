"""Packed runs as somebody else may have made or changed them."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import wall


def rewrite(
    root: Path, change: Callable[[str, bytes], bytes] = lambda _, content: content, *extra: Any
) -> None:
    """The packed file with changed members, and further ones: (ZipInfo or name, content)."""
    with zipfile.ZipFile(root / wall.PACKED) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(root / wall.PACKED, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in held.items():
            archive.writestr(name, change(name, content))
        for member, content in extra:
            archive.writestr(member, content)


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    made.compress_type = zipfile.ZIP_DEFLATED
    return made


def first_name(root: Path) -> str:
    with zipfile.ZipFile(root / wall.PACKED) as archive:
        return next(name for name in archive.namelist() if name.endswith(wall.RECORD))


def patched(root: Path, name: str, at: int, value: bytes) -> None:
    """Changes a member's entry in the archive's list, at so many bytes into it."""
    content = bytearray((root / wall.PACKED).read_bytes())
    entry = content.rindex(name.encode()) - 46
    assert content[entry : entry + 4] == b"PK\1\2"
    content[entry + at : entry + at + len(value)] = value
    (root / wall.PACKED).write_bytes(content)
