"""What one batch asks of the memory system by kind of table, for models whose tables differ.

`kinds.json` in a run's folder holds it for every dataset of the run, of a sweep at the experiment's own
workload. `datasets.json` holds the same of all tables together; see `harness.traces.demand`, whose figures
these are, each of the first table of its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness import records
from harness.errors import BadInputError
from harness.records import Cell
from harness.traces.demand import CACHE_BYTES, HOTTEST, Curves, Demand

FILE = "kinds.json"
_CACHES = tuple(size for size in CACHE_BYTES if size & (size - 1) == 0)
"""Those caches that the curves tell of: powers of two, for there may be thousands of kinds."""


@dataclass(frozen=True)
class KindDemands:
    """The file."""

    datasets: dict[str, list[Demand]]
    """By dataset, of each kind in the order of the workload's groups, its own rows counted."""
    schema_version: records.SchemaVersion = records.SCHEMA_VERSION


class Collected:
    """What `demand.write` hands on of each dataset, so that no traces are made for this file alone; nothing
    where all tables are alike."""

    def __init__(self) -> None:
        self._found: dict[str, list[Demand]] = {}

    def add(self, cell: Cell, curves: Curves) -> None:
        """The demand of each kind of a cell's tables."""
        if cell.workload.groups:
            self._found[cell.dataset.name] = of(cell, curves)

    def write(self, root: Path) -> None:
        """Writes the file, if there is anything to tell, into a run's folder."""
        if self._found:
            records.write_whole(root / FILE, records.to_json(KindDemands(self._found), indent=None))


def read(root: Path) -> dict[str, list[Demand]]:
    """By dataset; empty where the run has no such file, or a damaged one."""
    try:
        return records.load(KindDemands, root / FILE).datasets
    except BadInputError:
        return {}


def of(cell: Cell, curves: Curves) -> list[Demand]:
    """The demand of each kind of a cell's tables."""
    work = cell.workload
    first: dict[int, int] = {}
    for place, feature in enumerate(work.features):
        first.setdefault(feature.kind, place)
    return [_of_kind(cell, first[kind], curves) for kind in range(len(work.groups))]


def _of_kind(cell: Cell, place: int, curves: Curves) -> Demand:
    work, group = cell.workload, cell.workload.features[place].group
    counts = curves.hottest_first(place)
    distinct, of_bags, *misses = curves.of(place)
    return Demand(
        dataset=cell.dataset.name,
        accesses=float(len(curves.traces[place])),
        distinct_rows=float(len(counts)),
        coverage=[(size, float(counts[:size].sum() / counts.sum())) for size in HOTTEST],
        lookups=group.lookups(work.batch),
        row_bytes=work.row_bytes_of(group.dim),
        tables=[place],
        batch_distinct_rows=distinct,
        bag_rows=of_bags,
        misses=[(size, rows) for size, rows in zip(CACHE_BYTES, misses, strict=True) if size in _CACHES],
    )
