"""Turns an experiment into launches of cells: pure, ordered, the same for the same seed.

Replicates are blocks: every arm is launched once in each, in a random order of its own, so that drift of the
machine (heat, clocks, neighbours) meets all arms alike instead of the one that happens to run last. Within a
launch cells are shuffled too, but those that share tables stay together, for making tables takes time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from harness.experiment import Experiment, dataset_of, slug
from harness.records import SCHEMA_VERSION, Cell, Variant, Workload
from harness.sweep import Point, points


@dataclass(frozen=True)
class Launch:
    """One container, or one local process: many cells of one arm, in order."""

    id: str
    design: str
    toolchain: str
    replicate: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Plan:
    """Every launch of a run, in the order in which they happen."""

    launches: tuple[Launch, ...]
    schema_version: int = SCHEMA_VERSION

    @property
    def cells(self) -> list[Cell]:
        """All cells, in order."""
        return [cell for launch in self.launches for cell in launch.cells]


def make(experiment: Experiment) -> Plan:
    """The plan of an experiment. Every arm meets the same tables and indices: they follow from its seed."""
    shuffle = random.Random(experiment.seed)
    launches: list[Launch] = []
    for replicate in range(experiment.replicates):
        for arm in shuffle.sample(experiment.arms, len(experiment.arms)):
            where = points(experiment.workload, experiment.sweep, experiment.grid, arm.label)
            wanted = [(point, name) for point in where for name in experiment.datasets]
            chosen = _together(shuffle.sample(wanted, len(wanted)))
            cells = tuple(_cell(experiment, arm, point, name, replicate) for point, name in chosen)
            launch_id = f"{len(launches):03d}-{slug(arm.label)}-r{replicate}"
            launches.append(Launch(launch_id, arm.design, arm.toolchain, replicate, cells))
    return Plan(tuple(launches))


def _together(cells: list[tuple[Point, str]]) -> list[tuple[Point, str]]:
    """Cells that share tables one after the other, in the order in which the first of each comes."""
    order: dict[tuple[object, ...], int] = {}
    for point, _ in cells:
        order.setdefault(_tables(point.workload), len(order))
    return sorted(cells, key=lambda cell: order[_tables(cell[0].workload)])


def _tables(work: Workload) -> tuple[object, ...]:
    return work.tables, work.rows, work.dim, work.dtype


def _cell(experiment: Experiment, arm: Variant, point: Point, dataset: str, replicate: int) -> Cell:
    found = dataset_of(dataset)
    at = f"-{point.label.replace(',', '-')}" if point.label else ""
    return Cell(
        id=f"{slug(arm.label)}-{slug(found.name)}{at}-r{replicate}",
        design=arm.design,
        toolchain=arm.toolchain,
        dataset=found,
        workload=point.workload,
        timing=experiment.timing,
        replicate=replicate,
        seed=experiment.seed,
        tunables=arm.tunables | point.tunables,
        point=point.label,
        swept=point.keys,
        hot_rows=arm.hot_rows,
        model=experiment.model,
    )
