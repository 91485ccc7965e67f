"""What one batch of one table asks of the memory system: distinct rows, and what caches must fetch.

`datasets.json` in a run's folder holds it for every dataset of the run, of a sweep at the experiment's own
workload. It follows from experiment, seed and
trace files alone, so it can be made at any time; it is written once, since it takes seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness import records
from harness.bounds import Amount, Count
from harness.errors import BadInputError
from harness.progress import Progress, Silent
from harness.records import Cell, Dataset, Workload
from harness.traces import replay, stats
from harness.traces.replay import Rows
from harness.traces.stack import NEVER, stack_distances

FILE = "datasets.json"
KIB, MIB = 2**10, 2**20
CACHE_BYTES = (
    *(size * KIB for size in (16, 32, 64, 96, 128, 164, 192, 228, 256, 512)),
    *(
        size * MIB
        for size in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28, 30, 32, 36, 40, 48, 50, 60, 64, 72)
    ),
    *(size * MIB for size in (80, 96, 100, 112, 120, 126, 128, 160, 192, 256)),
)
"""Caches that the curve tells of: those of a multiprocessor, then the second-level caches there are."""
HOTTEST = (1, 100, 1_000, 10_000, 60_000)
"""Numbers of hottest rows whose share of the accesses is told; 60,000 is what the paper pins."""
EXACT_UP_TO = stats.EXACT_UP_TO
_MANY = 2**24
"""Lookups of a table, each of which takes some tenths of a microsecond to look into."""
_COUNTABLE = 2**27
"""Row numbers up to which counting each row is quicker, and takes less memory, than telling them apart."""


@dataclass(frozen=True)
class Demand:
    """One dataset under one workload; counts per table and batch are means over the tables examined."""

    dataset: str
    accesses: Amount
    """Length of a table's trace; a mean where tables replay different ones. So are the next two."""
    distinct_rows: Amount
    coverage: list[tuple[Amount, Amount]]
    """(n, share of the trace's accesses that go to its n hottest rows)."""
    lookups: Count
    """Rows looked up per table and batch."""
    row_bytes: Count
    tables: list[Count]
    """Those examined: of the tables that replay the same trace, the first and the middle one; of batches so
    large that tables hardly differ, the first."""
    batch_distinct_rows: Amount
    """Distinct rows per table and batch."""
    misses: list[tuple[Amount, Amount]]
    """(bytes of a cache, rows that it must fetch per table and batch): fully associative, least recently used
    goes first, empty at first, rows and nothing else in it."""

    def fetched_rows(self, cache_bytes: float) -> float:
        """Rows that a cache must fetch; between two sizes on the curve, what the larger one must."""
        return next((rows for size, rows in self.misses if size >= cache_bytes), self.batch_distinct_rows)


@dataclass(frozen=True)
class Datasets:
    """The file."""

    datasets: list[Demand]
    schema_version: records.SchemaVersion = records.SCHEMA_VERSION


def write(cells: Iterable[Cell], root: Path, progress: Progress | None = None) -> None:
    """Writes the demand of every dataset among the cells to `root`, where their trace files lie."""
    progress = progress or Silent()
    first = {cell.dataset.name: cell for cell in reversed(list(cells)) if not cell.point}
    demands = []
    for number, (name, cell) in enumerate(sorted(first.items()), 1):
        what = f"{cell.workload.lookups:,} lookups of a table, dataset {number} of {len(first)}"
        progress.now(f"working out what {name} asks of the memory system ({what})")
        demands.append(of(cell, root))
    records.write_whole(root / FILE, records.to_json(Datasets(demands), indent=None))


def read(root: Path) -> dict[str, Demand]:
    """By dataset; empty where the run has no such file, or a damaged one: it can be made again."""
    try:
        return {demand.dataset: demand for demand in records.load(Datasets, root / FILE).datasets}
    except BadInputError:
        return {}


def of(cell: Cell, root: Path) -> Demand:
    """The demand of a cell's dataset. BadInputError where its trace file cannot be read."""
    synthetic = cell.dataset.path is None
    return _of(cell.dataset, cell.workload, cell.seed, None if synthetic else root)


@functools.lru_cache(maxsize=64)
def _of(dataset: Dataset, work: Workload, seed: int, root: Path | None) -> Demand:
    """Kept, since runs side by side replay the same traces. `root`: None for a synthetic one."""
    traces = replay.read_traces(Cell("", "", "", dataset, work, records.Timing(), 0, seed), root or Path())
    sharing: dict[int, list[int]] = {}
    for table, trace in enumerate(traces):
        sharing.setdefault(id(trace), []).append(table)
    row_bytes = work.row_bytes
    # Tables that replay the same trace count as often as there are of them.
    weights = [len(tables) / work.tables for tables in sharing.values()]
    few = work.lookups > _MANY
    examined = [sorted({tables[0], tables[0 if few else len(tables) // 2]}) for tables in sharing.values()]
    counts = [np.sort(np.bincount(traces[tables[0]]))[::-1] for tables in examined]
    curves = [_mean([_fetches(traces, table, work, row_bytes) for table in tables]) for tables in examined]
    distinct, *misses = _mean(curves, weights)
    return Demand(
        dataset=dataset.name,
        accesses=_mean([[float(seen.sum())] for seen in counts], weights)[0],
        distinct_rows=_mean([[float(np.count_nonzero(seen))] for seen in counts], weights)[0],
        coverage=list(zip(HOTTEST, _mean([_coverage(seen) for seen in counts], weights), strict=True)),
        lookups=work.lookups,
        row_bytes=row_bytes,
        tables=sorted(table for tables in examined for table in tables),
        batch_distinct_rows=distinct,
        misses=list(zip(CACHE_BYTES, misses, strict=True)),
    )


def _coverage(hottest_first: Rows) -> list[float]:
    total = hottest_first.sum()
    return [float(hottest_first[:size].sum() / total) for size in HOTTEST]


def _fetches(traces: Sequence[Rows], table: int, work: Workload, row_bytes: int) -> list[float]:
    """Distinct rows of a table's batch, then what each of `CACHE_BYTES` must fetch."""
    indices = replay.lookups(traces[table], table, work.tables, work.lookups)
    return [float(_distinct(indices)), *fetched(indices, [size // row_bytes for size in CACHE_BYTES])]


def _distinct(indices: Rows) -> int:
    if indices.max() < _COUNTABLE:
        return int(np.count_nonzero(np.bincount(indices)))
    return len(np.unique(indices))


def fetched(indices: Rows, capacities: Sequence[int], exact_up_to: int = EXACT_UP_TO) -> list[float]:
    """How many of these accesses miss an LRU cache, empty at first, for each capacity in rows.

    More accesses than `exact_up_to` are estimated from those to a random subset of the rows.
    """
    rate = min(1.0, exact_up_to / len(indices))
    sample = indices if rate == 1 else indices[stats.is_sampled(indices, rate)]
    distances = stack_distances(sample)
    again = np.sort(distances[distances != NEVER]) / rate
    first = len(distances) - len(again)
    return [float(first + len(again) - np.searchsorted(again, size)) / rate for size in capacities]


def _mean(lines: Sequence[Sequence[float]], weights: Sequence[float] | None = None) -> list[float]:
    mean: list[float] = np.average(np.asarray(lines, dtype=float), axis=0, weights=weights).tolist()
    return mean
