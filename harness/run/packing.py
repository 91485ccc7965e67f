"""Packs the cells of a run into one file, and unpacks them.

Both write the new form beside the old one and put it in place by a single rename: a run killed in between is
read as it was."""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from harness import cell_files, wall
from harness import plan as plans
from harness.cell_files import MOST_MEMBER_BYTES, MOST_UNFOLDED, CellFiles
from harness.errors import BadInputError
from harness.files import Folder, is_part_of, part_of
from harness.plan import Plan
from harness.progress import Progress, Silent
from harness.run import lease
from harness.run import part as parts

_OLD, _NEW = f".{wall.CELLS}.packed", f".{wall.CELLS}.unpacked"
"""Folders about to be removed, and being written; leftovers of a killed process are removed."""
_LEVEL, _LONG = 9, 2**16
"""Of packing; and bytes of a file that is worth a look at how far it packs."""
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""Of every member, so that equal cells make an equal file."""


def pack(root: Path, progress: Progress | None = None) -> Path:
    """Puts the cells of a finished run into one file in place of their folder, and returns its path.

    BadInputError where the folder holds no run, one that is not finished, is packed already, or has among its
    cells what is no file of a cell. Every file is read back out of the packed one before the folder goes."""
    progress = progress or Silent()
    _require_run(root)
    with lease.run_folder(root), Folder.open(root) as folder:
        _remove_leftovers(folder)
        if cell_files.is_packed(folder):
            raise BadInputError(f"{root}: is packed already.")
        _require_finished(root, folder)
        part = part_of(wall.PACKED)
        try:
            with cell_files.opened(folder) as files:
                found = list(_files(files, folder))
                progress.expect(2 * len(found))
                _write(folder, part, found, files, progress)
                # By the reader that will have nothing else.
                with cell_files.packed(folder, part) as packed:
                    _require_same(found, files, packed, progress)
            folder.rename(part, wall.PACKED)
            folder.settle()
        finally:
            folder.remove(part)
        folder.rename(wall.CELLS, _OLD)
        folder.remove(_OLD)
    return root / wall.PACKED


def unpack(root: Path, progress: Progress | None = None) -> Path:
    """Makes a folder of the cells of a packed run again, and returns its path.

    BadInputError where the folder holds no packed run, or its packed file is damaged."""
    progress = progress or Silent()
    _require_run(root)
    with lease.run_folder(root), Folder.open(root) as folder:
        _remove_leftovers(folder)
        if not cell_files.is_packed(folder):
            raise BadInputError(f"{root}: is not packed: its cells are not in a {wall.PACKED} alone.")
        try:
            with cell_files.opened(folder) as files, folder.inner(_NEW, create=True) as made:
                found = list(_names(files))
                progress.expect(len(found))
                for cell_id, name in found:
                    with made.inner(cell_id, create=True) as inner:
                        inner.write_whole(name, cell_files.read(files, cell_id, name, MOST_MEMBER_BYTES))
                        inner.settle()
                    progress.advance()
                made.settle()
            folder.rename(_NEW, wall.CELLS)
            folder.settle()
        finally:  # a full disk needs the room
            folder.remove(_NEW)
        folder.remove(wall.PACKED)
    return root / wall.CELLS


def drop_copy(folder: Folder) -> None:
    """Removes the packed file that stayed beside its cells where `pack` was killed between the two, before
    the run goes on and the two differ. One that says something else stays where it is.

    BadInputError where it has what the cells have not."""
    if not (folder.kind(wall.CELLS) and folder.kind(wall.PACKED)):
        return
    with cell_files.opened(folder) as files, contextlib.suppress(BadInputError):
        with cell_files.packed(folder, wall.PACKED) as packed:
            _require_same(list(_names(packed)), files, packed, Silent())
        folder.remove(wall.PACKED)


def _require_run(root: Path) -> None:
    if not (root / wall.PLAN).is_file():
        raise BadInputError(f"{root}: is not the folder of a run (it has no {wall.PLAN}).")


def _remove_leftovers(folder: Folder) -> None:
    for name in [name for name in folder.names() if name in (_OLD, _NEW) or is_part_of(name, wall.PACKED)]:
        folder.remove(name)


def _require_finished(root: Path, folder: Folder) -> None:
    plan, part = plans.read(root / wall.PLAN), parts.read(folder)
    with cell_files.opened(folder) as files:
        planned = Plan(tuple(launch for launch in plan.launches if part.has(launch))).cells
        pending = sum(not files.kind(cell.id, wall.RECORD) for cell in planned)
    if pending or folder.kind(wall.LAUNCHES):
        raise BadInputError(
            f"{root}: is not finished ({pending} of {len(planned)} cells have no record), and only a "
            f"finished run is packed; go on with `harness run --resume {root}` first."
        )


def _names(files: CellFiles) -> Iterator[tuple[str, str]]:
    for cell_id in files.ids():
        for name in files.names(cell_id):
            yield cell_id, name


def _files(files: CellFiles, folder: Folder) -> Iterator[tuple[str, str]]:
    """Cell and name of every file; BadInputError where there is something else, which would be lost."""
    for cell_id, name in _names(files):
        path = files.path(cell_id, name)
        if (kind := files.kind(cell_id, name)) != "a file":
            raise BadInputError(f"{path}: is {kind or 'gone'} and not a file; remove it, then pack the run.")
        if not cell_files.is_name(cell_id, name):
            raise BadInputError(f"{path}: is no file of a cell; remove it, then pack the run.")
        yield cell_id, name


def _write(
    folder: Folder, part: str, found: list[tuple[str, str]], files: CellFiles, progress: Progress
) -> None:
    with os.fdopen(folder.create(part), "wb") as out:
        with zipfile.ZipFile(out, "w") as archive:
            for cell_id, name in found:
                member = zipfile.ZipInfo(f"{wall.CELLS}/{cell_id}/{name}", _LONG_AGO)
                member.create_system = 3  # Unix, wherever it is made
                member.external_attr = (stat.S_IFREG | 0o644) << 16
                content = cell_files.read(files, cell_id, name, MOST_MEMBER_BYTES)
                archive.writestr(member, content, _how(content), compresslevel=_LEVEL)
                progress.advance()
        out.flush()
        os.fsync(out.fileno())


def _how(content: bytes) -> int:
    """Packed, or stored where that would make it look like a bomb to the reader: a log of one line again and
    again."""
    if len(content) > _LONG and len(zlib.compress(content, _LEVEL)) * MOST_UNFOLDED < len(content):
        return zipfile.ZIP_STORED
    return zipfile.ZIP_DEFLATED


def _require_same(
    found: list[tuple[str, str]], files: CellFiles, packed: CellFiles, progress: Progress
) -> None:
    for cell_id, name in found:
        one, other = (cell_files.read(where, cell_id, name, MOST_MEMBER_BYTES) for where in (files, packed))
        if one != other:
            raise BadInputError(f"{files.path(cell_id, name)}: changed while it was packed; pack it again.")
        progress.advance()
