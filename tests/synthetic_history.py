"""Runs with made-up figures over some days, for tests alone: one design becomes faster, another creeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.experiment import Experiment
from harness.records import Cell, CellRecord, Variant
from tests import synthetic_run as synthetic

COMMITS = ("a" * 40, "b" * 40, "c" * 40, "d" * 40, "e" * 40)


def experiment(**changes: object) -> Experiment:
    arms = (Variant("baseline", "12.1"), Variant("optmt", "12.1"))
    settings = {"name": "nightly", "arms": arms, "datasets": ("medium", "random"), "replicates": 3}
    return synthetic.experiment(**(settings | changes))  # type: ignore[arg-type]


def on_day(
    day: int, speeds: Mapping[str, float] | None = None, **environment: object
) -> Callable[[Cell], CellRecord]:
    """Records of that day's commit; `speeds`: how many times as fast as synthetic ones a design is."""

    def make(cell: Cell) -> CellRecord:
        record = synthetic.record(cell, passes=24)
        assert record.environment is not None
        speed = (speeds or {}).get(cell.design, 1.0)
        # What is of chance differs from day to day.
        chance = 1 + 0.0005 * ((hash((cell.replicate, day)) % 7) - 3)
        samples = {k: [value * chance / speed for value in values] for k, values in record.samples.items()}
        changes = {"git_commit": COMMITS[day - 1], "driver": "580.00", **environment}
        return dataclasses.replace(
            record,
            samples=samples,
            environment=dataclasses.replace(record.environment, **changes),  # type: ignore[arg-type]
            started_at=f"2001-01-{day:02}T00:00:00Z",
        )

    return make


def write(folder: Path, day: int, speeds: Mapping[str, float] | None = None, **environment: object) -> Path:
    """The run of a day."""
    return synthetic.write_run(folder / f"day-{day}", experiment(), on_day(day, speeds, **environment))
