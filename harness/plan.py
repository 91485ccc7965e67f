"""Turns an experiment into launches of cells: pure, ordered, the same for the same seed.

Replicates are blocks: every arm is launched once in each, in a random order of its own, so that drift of the
machine (heat, clocks, neighbours) meets all arms alike instead of the one that happens to run last.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from harness.experiment import Arm, Experiment, dataset_of, slug
from harness.records import SCHEMA_VERSION, Cell


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
            names = shuffle.sample(experiment.datasets, len(experiment.datasets))
            cells = tuple(_cell(experiment, arm, name, replicate) for name in names)
            launch_id = f"{len(launches):03d}-{slug(arm.label)}-r{replicate}"
            launches.append(Launch(launch_id, arm.design, arm.toolchain, replicate, cells))
    return Plan(tuple(launches))


def _cell(experiment: Experiment, arm: Arm, dataset: str, replicate: int) -> Cell:
    found = dataset_of(dataset)
    return Cell(
        id=f"{slug(arm.label)}-{slug(found.name)}-r{replicate}",
        design=arm.design,
        toolchain=arm.toolchain,
        dataset=found,
        workload=experiment.workload,
        timing=experiment.timing,
        replicate=replicate,
        seed=experiment.seed,
        tunables=dict(arm.tunables),
    )
