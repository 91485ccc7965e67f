"""What one batch asks of the memory system by kind of table, for models whose tables differ.

`kinds.json` in a run's folder holds it for every dataset of the run, of a sweep at the experiment's own
workload. `datasets.json` holds the same of all tables together; see `harness.traces.demand`, whose figures
these are, each of the first table of its kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness import records
from harness.errors import BadInputError
from harness.progress import Progress, Silent
from harness.records import Cell
from harness.traces import demand, replay
from harness.traces.demand import CACHE_BYTES, HOTTEST, MOST_ACCESSES, Demand
from harness.traces.replay import Rows
from harness.traces.stack import occurrences

FILE = "kinds.json"
_CACHES = tuple(size for size in CACHE_BYTES if size & (size - 1) == 0)
"""Those caches that the curves tell of: powers of two, for there may be thousands of kinds."""


@dataclass(frozen=True)
class KindDemands:
    """The file."""

    datasets: dict[str, list[Demand]]
    """By dataset, of each kind in the order of the workload's groups, its own rows counted."""
    schema_version: records.SchemaVersion = records.SCHEMA_VERSION


def write(cells: Iterable[Cell], root: Path, progress: Progress | None = None) -> None:
    """Writes the demand of every dataset among the cells by kind of table to `root`, where their trace files
    lie; nothing where all tables are alike. A dataset of more than `MOST_ACCESSES` is left out: the demand of
    the whole, worked out before, has said so."""
    progress = progress or Silent()
    first = {cell.dataset.name: cell for cell in reversed(list(cells)) if not cell.point}
    found = {}
    for name, cell in sorted(first.items()):
        if cell.workload.groups and _accesses(cell) <= MOST_ACCESSES:
            progress.now(f"working out what each kind of table asks of the memory system: {name}")
            found[name] = of(cell, root)
    if found:
        records.write_whole(root / FILE, records.to_json(KindDemands(found), indent=None))


def read(root: Path) -> dict[str, list[Demand]]:
    """By dataset; empty where the run has no such file, or a damaged one."""
    try:
        return records.load(KindDemands, root / FILE).datasets
    except BadInputError:
        return {}


def of(cell: Cell, root: Path) -> list[Demand]:
    """The demand of each kind of a cell's tables. BadInputError where its trace file cannot be read."""
    work = cell.workload
    traces = replay.read_traces(cell, root)
    first: dict[int, int] = {}
    for place, feature in enumerate(work.features):
        first.setdefault(feature.kind, place)
    distinct = {id(trace): trace for trace in traces}
    counts = {key: np.sort(occurrences(trace)[1])[::-1] for key, trace in distinct.items()}
    return [
        _of_kind(cell, first[kind], traces[first[kind]], counts[id(traces[first[kind]])])
        for kind in range(len(work.groups))
    ]


def _of_kind(cell: Cell, place: int, trace: Rows, counts: Rows) -> Demand:
    """`counts`: how often the trace holds each of its rows, the most frequent first."""
    work, group = cell.workload, cell.workload.features[place].group
    indices = replay.lookups(trace, place, work.tables, group.lookups(work.batch))
    row_bytes = work.row_bytes_of(group.dim)
    fetched = demand.fetched(indices, [size // row_bytes for size in _CACHES])
    return Demand(
        dataset=cell.dataset.name,
        accesses=float(len(trace)),
        distinct_rows=float(len(counts)),
        coverage=[(size, float(counts[:size].sum() / counts.sum())) for size in HOTTEST],
        lookups=len(indices),
        row_bytes=row_bytes,
        tables=[place],
        batch_distinct_rows=float(len(occurrences(indices)[0])),
        misses=list(zip(_CACHES, fetched, strict=True)),
    )


def _accesses(cell: Cell) -> int:
    """How many there are in all traces and in a batch."""
    of_file = cell.dataset.path is not None
    return cell.workload.all_lookups + (0 if of_file else replay.accesses_of_model(cell))
