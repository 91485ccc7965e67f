"""Turns an experiment into launches of cells: pure, ordered, the same for the same seed.

Replicates are blocks: every arm is launched once in each, in a random order of its own, so that drift of the
machine (heat, clocks, neighbours) meets all arms alike instead of the one that happens to run last. Within a
launch cells are shuffled too, but those that share tables stay together, for making tables takes time.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.bounds import Count
from harness.errors import BadInputError
from harness.experiment import MOST_CELLS, Experiment, dataset_of, slug
from harness.groups import OWN_TRAFFIC
from harness.records import SCHEMA_VERSION, Cell, SchemaVersion, Variant, Workload, load
from harness.sweep import Point, points

MOST_BYTES = 2**28
"""Of a plan's file, with `MOST_CELLS` cells."""
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*")
_MOST_NAME = 200
"""Of a cell's or launch's id in bytes; file systems take names of 255, and some is added."""


@dataclass(frozen=True)
class Launch:
    """One container, or one local process: many cells of one arm, in order."""

    id: str
    design: str
    toolchain: str
    replicate: Count
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Plan:
    """Every launch of a run, in the order in which they happen."""

    launches: tuple[Launch, ...]
    schema_version: SchemaVersion = SCHEMA_VERSION

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
    made = Plan(tuple(launches))
    _check_ids([cell.id for cell in made.cells], experiment.name)
    return made


def read(path: Path) -> Plan:
    """The plan of a run, which somebody else may have written.

    BadInputError where it is not a plan, or asks for what no experiment may: ids that are no names of
    files or stand twice, more cells than an experiment's limit; larger workloads `load` refuses."""
    found = load(Plan, path, most_bytes=MOST_BYTES)
    cells = found.cells
    if len(cells) > MOST_CELLS:
        raise BadInputError(f"{path}: holds {len(cells)} cells, and a run takes {MOST_CELLS} at most.")
    _check_ids([launch.id for launch in found.launches], path)
    _check_ids([cell.id for cell in cells], path)
    return found


def _check_ids(ids: Sequence[str], source: Path | str) -> None:
    """They name files and folders, so they must stay names."""
    seen: set[str] = set()
    for name in ids:
        if len(name) > _MOST_NAME or not _FILE_NAME.fullmatch(name):
            raise BadInputError(
                f"{source}: id {name[:60]!a} cannot name a folder: it is not of at most {_MOST_NAME} "
                "letters, "
                "digits and -_.=+, a letter or digit first; shorten names of datasets, or sweep fewer keys "
                "at once."
            )
        if name in seen:
            raise BadInputError(
                f"{source}: id {name!r} stands twice; names of datasets must differ in a letter."
            )
        seen.add(name)


def _together(cells: list[tuple[Point, str]]) -> list[tuple[Point, str]]:
    """Cells that share tables one after the other, in the order in which the first of each comes."""
    order: dict[tuple[object, ...], int] = {}
    for point, _ in cells:
        order.setdefault(_tables(point.workload), len(order))
    return sorted(cells, key=lambda cell: order[_tables(cell[0].workload)])


def _tables(work: Workload) -> tuple[object, ...]:
    return work.tables, work.rows, work.dim, work.dtype, work.groups


def _cell(experiment: Experiment, arm: Variant, point: Point, dataset: str, replicate: int) -> Cell:
    found = dataset_of(dataset)
    recorded = sum(group.all_features for group in point.workload.groups if group.trace)
    if found.name == OWN_TRAFFIC and recorded:
        origin = f"recorded: {recorded} of {point.workload.tables} features replay a trace of their own"
        found = dataclasses.replace(found, origin=origin)
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
