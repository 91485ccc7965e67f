"""A run's cells in its folder: their records and their logs, which nobody but the host writes."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TextIO

from harness import wall
from harness.codec import parse
from harness.errors import BadInputError
from harness.files import Folder
from harness.plan import Launch, Plan
from harness.progress import Progress
from harness.records import Cell, CellRecord, to_json
from harness.run.attempt import MOST_TAIL

_TAIL_LINES = 40
_DAMAGED = "record.damaged.json"


@contextlib.contextmanager
def opened(root: Folder, cell: Cell) -> Iterator[Folder]:
    """A cell's folder."""
    with root.inner(wall.CELLS) as cells, cells.inner(cell.id) as folder:
        yield folder


def read(plan: Plan, root: Folder) -> dict[str, CellRecord]:
    """The records that are there, by cell.

    One that is damaged, or another cell's, is put aside and a failed one that says why takes its place: the
    other cells are unaffected, and `--retry-failed` measures it again."""
    found: dict[str, CellRecord] = {}
    if not root.kind(wall.CELLS):
        return found
    with root.inner(wall.CELLS) as cells:
        for cell in plan.cells:
            if not cells.kind(cell.id):
                continue
            with cells.inner(cell.id) as folder:
                if folder.kind(wall.RECORD):
                    found[cell.id] = _readable(folder, cell)
    return found


def _readable(folder: Folder, cell: Cell) -> CellRecord:
    path = folder.path / wall.RECORD
    most = wall.most_record_bytes(cell.workload.tables, cell.timing.max_passes)
    try:
        record = parse(CellRecord, folder.read(wall.RECORD, most), path)
        if record.cell != cell:
            raise BadInputError(f"{path}: is the record of another cell, {record.cell.id[:100]}.")
        return record
    except (BadInputError, OSError) as error:
        why = str(error) if isinstance(error, BadInputError) else f"{path}: cannot be read: {error.strerror}."
        folder.remove(_DAMAGED)
        folder.rename(wall.RECORD, _DAMAGED)
        record = CellRecord(cell, "failed", f"{why} It was put aside as {_DAMAGED}.")
        folder.write_whole(wall.RECORD, to_json(record))
        return record


def log_bytes(plan: Plan, root: Folder) -> int:
    """What the logs of all cells take."""
    total = 0
    with root.inner(wall.CELLS) as cells:
        for cell in plan.cells:
            if cells.kind(cell.id):
                with cells.inner(cell.id) as folder:
                    total += folder.size(wall.LOG)
    return total


class Logs:
    """Shares a launch's output out among its cells' log files, by the announcements in it, and keeps in
    mind whom else the GPU served meanwhile."""

    def __init__(self, launch: Launch, root: Folder, progress: Progress) -> None:
        self._cells = {cell.id: cell for cell in launch.cells}
        self._root = root
        self._progress = progress
        self._file: TextIO | None = None
        self._current = ""
        self._since_look: list[str] = []
        self._tails: dict[str, str] = {}
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._neighbours: dict[str, dict[str, None]] = {}
        self.begun: set[str] = set()
        """The cells announced."""

    @property
    def finished(self) -> int:
        """How many cells were followed by another."""
        return max(0, len(self.begun) - 1)

    def __enter__(self) -> Logs:
        # What is said before the first announcement (a failed import, most of all) goes to the first cell.
        first = next(iter(self._cells.values()))
        self._progress.now(f"{first.variant.label}, replicate {first.replicate + 1}: starting")
        self._write_to(first)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def line(self, text: str) -> None:
        """One line of the launch's output."""
        cell = self._cells.get(wall.announced(text))
        if cell is None:
            self._tail.append(text)
            assert self._file is not None
            self._file.write(text + "\n")
            return
        if cell.id in self.begun:
            return  # said before; what is measured once is announced once
        if self.begun:
            self._progress.advance()
        self.begun.add(cell.id)
        if cell.id != self._current:
            self._write_to(cell)
        self._since_look.append(cell.id)
        what = ", ".join(filter(None, (cell.variant.label, cell.dataset.name, cell.point)))
        self._progress.now(f"{what}, replicate {cell.replicate + 1}")

    def neighbours(self, names: Sequence[str]) -> None:
        """Who else is on the GPU now: noted for every cell that ran since the last check."""
        for cell_id in self._since_look:
            self._neighbours.setdefault(cell_id, {}).update(dict.fromkeys(names))
        self._since_look = [self._current] if self._current in self.begun else []

    def seen_beside(self, cell: Cell) -> list[str]:
        """Those that were there while the cell ran."""
        return list(self._neighbours.get(cell.id, ()))

    def tail(self, cell: Cell) -> str:
        """The last lines of a cell's log."""
        return self._ended(self._tail) if cell.id == self._current else self._tails.get(cell.id, "")

    def _write_to(self, cell: Cell) -> None:
        if self._file is not None:
            self._file.close()
        if self._current:
            self._tails[self._current] = self._ended(self._tail)
        self._current = cell.id
        self._tail.clear()
        with opened(self._root, cell) as folder:
            folder.remove(wall.LOG)
            # By lines, for somebody may be watching.
            self._file = os.fdopen(folder.create(wall.LOG), "w", buffering=1, encoding="utf-8")

    @staticmethod
    def _ended(lines: deque[str]) -> str:
        return "\n".join(lines)[-MOST_TAIL:]
