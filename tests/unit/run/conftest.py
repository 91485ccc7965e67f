"""A small experiment that needs no GPU, and a runner that stands in for containers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.experiment import Experiment
from harness.plan import Launch, Plan
from harness.progress import Progress
from harness.records import Cell as CellToMeasure
from harness.records import CellRecord, Timing, Variant, Workload, load, to_json, write_whole
from harness.run.runner import Outcome


@pytest.fixture
def experiment() -> Experiment:
    """Two arms, two datasets, two replicates: eight cells in four launches."""
    return Experiment(
        name="small",
        title="A small one",
        arms=(Variant("baseline", "12.1"), Variant("stock", "pytorch")),
        reference="baseline@12.1",
        datasets=("one_item", "random"),
        workload=Workload(tables=2, rows=1000, dim=16, batch=8, pooling=4, device="cpu"),
        timing=Timing(max_seconds=0.05),
        replicates=2,
    )


class FakeRunner:
    """Runs `measure` for every cell in this process; `ending` is how each launch ends."""

    def __init__(self) -> None:
        self.launched: list[tuple[str, list[str]]] = []
        self.checked: list[Plan] = []
        self.measure: Callable[[CellToMeasure, Path], None] = leave_record
        self.ending = Outcome("ended")

    def check(self, plan: Plan, folder: Path, progress: Progress) -> None:
        self.checked.append(plan)

    @contextlib.contextmanager
    def hold(self, root: Path, progress: Progress) -> Iterator[None]:
        yield

    def run(
        self, launch: Launch, root: Path, *, deadline_s: float, on_line: Callable[[str], None]
    ) -> Outcome:
        self.launched.append((launch.id, [cell.id for cell in launch.cells]))
        on_line("starting")
        for cell in launch.cells:
            on_line(f"::cell {cell.id}")
            on_line(f"measuring {cell.id}")
            self.measure(load(CellToMeasure, root / "cells" / cell.id / "cell.json"), root)
        return self.ending


def leave_record(cell: CellToMeasure, root: Path) -> None:
    """What a good measurement leaves."""
    write_whole(root / "cells" / cell.id / "record.json", to_json(CellRecord(cell, "ok")))


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()
