"""A runner that stands in for containers, and the records that it leaves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import wall
from harness.plan import Plan
from harness.progress import Progress
from harness.records import Cell as CellToMeasure
from harness.records import CellRecord, KernelFacts, load, to_json, write_whole
from harness.run.attempt import Attempt
from harness.run.gpu import Gpu
from harness.run.runner import Outcome, Terms
from harness.wall import Provenance
from tests import synthetic_run as synthetic


class FakeRunner:
    """Runs `measure` for every cell in this process; `ending` is how each launch ends."""

    def __init__(self) -> None:
        self.launched: list[tuple[str, list[str]]] = []
        self.checked: list[Plan] = []
        self.cleared: list[Path] = []
        self.measure: Callable[[CellToMeasure, Path], None] = leave_record
        self.ending = Outcome("ended")
        self.boards: list[Gpu] = []

    def check(self, plan: Plan, folder: Path, progress: Progress) -> None:
        self.checked.append(plan)

    def clear(self, root: Path, progress: Progress) -> None:
        self.cleared.append(root)

    @contextlib.contextmanager
    def hold(self, root: Path, progress: Progress) -> Iterator[None]:
        yield

    def run(self, attempt: Attempt, terms: Terms) -> Outcome:
        launch = attempt.launch
        self.launched.append((launch.id, [cell.id for cell in launch.cells]))
        attempt.sign(Provenance("docker"))
        try:
            terms.listener.line("starting")
            for cell in launch.cells:
                terms.listener.line(wall.announce(cell.id))
                terms.listener.line(f"measuring {cell.id}")
                self.measure(load(CellToMeasure, attempt.cells / wall.file_of(cell.id)), attempt.output)
            return self.ending
        finally:
            attempt.over = True


def leave_record(cell: CellToMeasure, output: Path, **changes: Any) -> None:
    """What a good measurement leaves."""
    write_whole(output / wall.file_of(cell.id), to_json(replace(good_record(cell), **changes)))


def good_record(cell: CellToMeasure) -> CellRecord:
    """The record of a cell that was measured on the CPU."""
    made = synthetic.cpu_record(cell)
    kernel = KernelFacts("pytorch", "", "PyTorch", "cpu", 0, 0, 0, 0.0, "")
    return replace(made, kernel=kernel)


class Heard:
    """Listens to a launch: its lines, and `on_line` for each of them."""

    def __init__(self, on_line: Callable[[str], None] = lambda line: None) -> None:
        self.lines: list[str] = []
        self.beside: list[str] = []
        self._on_line = on_line

    def line(self, text: str) -> None:
        self.lines.append(text)
        self._on_line(text)

    def neighbours(self, names: Sequence[str]) -> None:
        self.beside += names
