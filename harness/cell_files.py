"""Reads the files of a run's cells, from the folder CELLS or from the single file PACKED.

Standard library only. Every reader of a run goes through `opened`, and does not see which of the two it is.
A packed run is a zip archive of the same files under the same names, so that `unzip` gives the folder back.
Neither is trusted: no link is followed, no name leads out of the run, no size is believed."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar, cast

from harness import wall
from harness.codec import MOST_BYTES, parse
from harness.errors import BadInputError
from harness.files import Folder
from harness.records import Cell, CellRecord

MOST_MEMBER_BYTES = 2**28
"""Of one file in a packed run."""
_MOST_PACKED_BYTES = 2**34
_BLOCK = 2**20
_MOST_AT_ONCE = 2**27
"""Of a packed file, read in one piece. The list of its members is."""
_MEMBER, _MOST_MEMBERS = b"PK\1\2", 2**19
"""How each begins in that list, and how many are believed: a run has 100,000 cells at most, with a few files
each. A larger list takes minutes and gigabytes to read."""
MOST_UNFOLDED = 100
"""Times its own size that a packed file may hold; records pack to a fifth."""
_SMALL = 2**26
"""Bytes that it may hold however small it is."""
_FOLDER = re.compile(rf"{wall.CELLS}/(\w[\w.=+-]{{0,199}}/)?", re.ASCII)
"""As other programs that make zip archives name it."""
_NAME = re.compile(rf"{wall.CELLS}/(\w[\w.=+-]{{0,199}})/(\w[\w.-]{{0,99}})", re.ASCII)
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, NotImplementedError, OSError, OverflowError, RuntimeError, ValueError),
)
"""What `zipfile` raises over archives that are none."""
T = TypeVar("T")


class CellFiles(Protocol):
    """Where the files of a run's cells are read from."""

    def ids(self) -> list[str]:
        """Names of the cells there are, sorted; others' too."""
        ...

    def names(self, cell_id: str) -> list[str]:
        """Of all that a cell has, sorted; BadInputError where what has the cell's name is no folder."""
        ...

    def kind(self, cell_id: str, name: str) -> str:
        """What a cell has by this name: "a file", "a link" and so on; empty where it has nothing."""
        ...

    def path(self, cell_id: str, name: str) -> Path:
        """What messages call a file."""
        ...

    def opened(self, cell_id: str, name: str, most_bytes: int) -> IO[bytes]:
        """A file, to be read and closed. OSError where it cannot be opened; BadInputError where it is no
        regular file or holds more than `most_bytes`."""
        ...


def read(files: CellFiles, cell_id: str, name: str, most_bytes: int = MOST_BYTES) -> bytes:
    """The contents of a file; BadInputError where it cannot be read, or holds more than that."""
    path = files.path(cell_id, name)
    try:
        with files.opened(cell_id, name, most_bytes) as file:
            left, blocks = most_bytes + 1, list[bytes]()
            while left and (block := file.read(min(_BLOCK, left))):  # at once it would take room for the most
                blocks.append(block)
                left -= len(block)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}.") from error
    if not left:  # it grew meanwhile
        raise BadInputError(f"{path}: holds more than the {most_bytes / 2**20:.0f} MiB that it may.")
    return b"".join(blocks)


def load(kind: type[T], files: CellFiles, cell_id: str, name: str) -> T:
    """A dataclass from a cell's JSON file; as `codec.load`."""
    return parse(kind, read(files, cell_id, name), files.path(cell_id, name))


def record(files: CellFiles, cell: Cell) -> CellRecord:
    """The record of a cell; where the file is not the record of this cell, a failed one that says so."""
    path = files.path(cell.id, wall.RECORD)
    try:
        found = load(CellRecord, files, cell.id, wall.RECORD)
    except BadInputError as error:
        return CellRecord(cell, "failed", f"Its record cannot be used: {error}")
    if found.cell != cell:
        what = f"of {found.cell.id}" if found.cell.id != cell.id else "not of the cell that was planned"
        return CellRecord(cell, "failed", f"Its record cannot be used: {path}: is {what}.")
    return found


@contextlib.contextmanager
def opened(root: Folder | Path) -> Iterator[CellFiles]:
    """Those of the run in this folder; none where it has neither CELLS nor PACKED. Where both are there the
    folder counts: `harness pack` was ended between the two.

    BadInputError where one of them is something else, the packed file is no archive of cells, both are there
    and the packed file has what the folder has not, or, at the end, the run was packed meanwhile."""
    with contextlib.ExitStack() as held:
        if isinstance(root, Path):
            try:
                root = held.enter_context(Folder.open(root))
            except OSError as error:
                raise BadInputError(f"{root}: cannot be read: {error.strerror}.") from error
        if is_packed(root):
            yield held.enter_context(packed(root, wall.PACKED))
        elif root.kind(wall.CELLS):
            cells = held.enter_context(root.inner(wall.CELLS))
            files = _InFolder(cells)
            if root.kind(wall.PACKED):
                _require_all(root, files)
            try:
                yield files
            except (BadInputError, OSError):
                if root.holds(wall.CELLS, cells):
                    raise
            if not root.holds(wall.CELLS, cells):  # and files may have been missed
                raise BadInputError(f"{cells.path}: was packed while it was read; read it again.")
        else:
            yield _InArchive(root.path / wall.PACKED, None, {})


def is_packed(root: Folder) -> bool:
    """Whether the cells of this run are packed."""
    return bool(root.kind(wall.PACKED)) and not root.kind(wall.CELLS)


def _require_all(root: Folder, files: CellFiles) -> None:
    """BadInputError where something is in the packed file alone, as when `unzip` was ended half way."""
    missing = ""
    with contextlib.suppress(BadInputError), packed(root, wall.PACKED) as others:
        for cell_id in others.ids():
            for name in others.names(cell_id):
                missing = missing or ("" if files.kind(cell_id, name) else f"{cell_id}/{name}")
    if missing:
        raise BadInputError(
            f"{root.path}: has both {wall.CELLS} and {wall.PACKED}, and {missing} is in {wall.PACKED} alone; "
            f"remove {wall.CELLS} if it was unpacked by half, or {wall.PACKED} if the run went on without it."
        )


def is_name(cell_id: str, name: str) -> bool:
    """Whether a packed run may hold a file of this name for a cell of this name."""
    return bool(_NAME.fullmatch(f"{wall.CELLS}/{cell_id}/{name}"))


class _InFolder:
    def __init__(self, cells: Folder) -> None:
        self._cells = cells

    def ids(self) -> list[str]:
        return sorted(self._cells.names())

    def names(self, cell_id: str) -> list[str]:
        with self._cells.inner(cell_id) as folder:
            return sorted(folder.names())

    def kind(self, cell_id: str, name: str) -> str:
        if (kind := self._cells.kind(cell_id)) != "a folder":
            return kind if kind == "a link" else ""
        with self._cells.inner(cell_id) as folder:
            return folder.kind(name)

    def path(self, cell_id: str, name: str) -> Path:
        return self._cells.path / cell_id / name

    def opened(self, cell_id: str, name: str, most_bytes: int) -> IO[bytes]:
        with self._cells.inner(cell_id) as folder:
            return os.fdopen(folder.opened(name, most_bytes), "rb")


class _InArchive:
    def __init__(
        self, path: Path, archive: zipfile.ZipFile | None, members: dict[str, dict[str, zipfile.ZipInfo]]
    ) -> None:
        self._path = path
        self._archive = archive
        self._members = members

    def ids(self) -> list[str]:
        return sorted(self._members)

    def names(self, cell_id: str) -> list[str]:
        return sorted(self._members.get(cell_id, {}))

    def kind(self, cell_id: str, name: str) -> str:
        return "a file" if name in self._members.get(cell_id, {}) else ""

    def path(self, cell_id: str, name: str) -> Path:
        return self._path / wall.CELLS / cell_id / name

    def opened(self, cell_id: str, name: str, most_bytes: int) -> IO[bytes]:
        path = self.path(cell_id, name)
        member = self._members.get(cell_id, {}).get(name)
        if member is None or self._archive is None:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        if member.file_size > most_bytes:
            raise BadInputError(f"{path}: holds more than the {most_bytes / 2**20:.0f} MiB that it may.")
        try:
            # Which reads no more than the size that was just looked at.
            return io.BufferedReader(_Member(self._archive.open(member), path))
        except _DAMAGED as error:
            raise BadInputError(f"{path}: is damaged: {error}.") from error


class _Member(io.RawIOBase):
    """A file of an archive; a sentence where it turns out to be damaged."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            found = self._file.read(len(buffer))
        except _DAMAGED as error:
            raise BadInputError(f"{self._path}: is damaged: {error}.") from error
        buffer[: len(found)] = found
        return len(found)


class _InPieces:
    """A file of which no piece is read that would not fit into memory, whatever it says of itself."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        if min(left, size if size >= 0 else left) > _MOST_AT_ONCE:
            raise zipfile.BadZipFile("its list of members is too long")
        found = self._file.read(min(left, size) if size >= 0 else left)
        if found.count(_MEMBER) > _MOST_MEMBERS:
            raise zipfile.BadZipFile(f"it lists more than {_MOST_MEMBERS:,} files")
        return found


@contextlib.contextmanager
def packed(root: Folder, name: str) -> Iterator[CellFiles]:
    """Those in the packed file of this name; BadInputError where it is not one."""
    path = root.path / name
    with os.fdopen(root.opened(name, _MOST_PACKED_BYTES), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            archive = zipfile.ZipFile(cast(IO[bytes], _InPieces(file, size)))
        except _DAMAGED as error:
            raise BadInputError(f"{path}: is no zip archive: {error}.") from error
        with archive:
            yield _InArchive(path, archive, _members(path, archive, size))


def _members(path: Path, archive: zipfile.ZipFile, size: int) -> dict[str, dict[str, zipfile.ZipInfo]]:
    """Cell → name → member; BadInputError where one is not a cell's file, stands twice, or could not be read
    with bounded memory."""
    found: dict[str, dict[str, zipfile.ZipInfo]] = {}
    total = 0
    for member in archive.infolist():
        shown = f"{path}: holds {member.filename[:80]!a}, which is"
        if member.is_dir() and not member.file_size and _FOLDER.fullmatch(member.filename):
            continue
        if not (name := _NAME.fullmatch(member.filename)):
            raise BadInputError(
                f"{shown} no file of a cell; unzip it, remove that and {wall.PACKED}, then `harness pack`."
            )
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise BadInputError(f"{shown} a link or a device and not a file.")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadInputError(
                f"{shown} not packed by deflate; unpack it by other means, then `harness pack`."
            )
        files = found.setdefault(name[1], {})
        if name[2] in files:
            raise BadInputError(f"{shown} there twice.")
        files[name[2]] = member
        total += member.file_size
    if total > max(_SMALL, MOST_UNFOLDED * size):
        raise BadInputError(
            f"{path}: would unpack to {total / 2**20:,.0f} MiB, more than {MOST_UNFOLDED} times its size."
        )
    return found
