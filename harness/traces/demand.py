"""What one batch of one table asks of the memory system: distinct rows, and what caches must fetch.

`datasets.json` in a run's folder holds it for every dataset of the run, and of a sweep for every workload. It
follows from experiment, seed and trace files alone, so it can be made at any time; it is written once, since
it takes seconds.
"""

from __future__ import annotations

import functools
import hashlib
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness import records
from harness.bounds import Amount, Count
from harness.codec import LATER
from harness.errors import BadInputError
from harness.progress import Progress, Silent
from harness.records import Cell, Dataset, Workload
from harness.text import readable
from harness.traces import bags, replay, stats, synth
from harness.traces.arrays import open_array
from harness.traces.replay import Rows
from harness.traces.stack import NEVER, distinct, occurrences, stack_distances
from harness.traces.stretches import Stretches

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
MOST_ACCESSES = 2**28
"""Of a dataset's traces and batches together, worked out where a run begins: minutes and gigabytes. Of all
points of a sweep together as many again."""
_MOST_LATER = 2**23
"""The same where a report finds no file: seconds. A folder's plan may be anybody's, and ask for anything."""
_MANY = 2**24
"""Lookups of a table, of which it takes seconds to work out what caches must fetch."""
_AT_ONCE = 2**20
"""Lookups whose bags are looked at together."""
_OWN_BATCHES = 8
"""So many batches are examined where bags are a trace's own and differ from batch to batch."""


@dataclass(frozen=True)
class Demand:
    """One dataset under one workload; counts per table and batch are means over the tables examined.

    Of a model whose tables differ in width, rows per batch are counted by their bytes, in rows of the widest
    table."""

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
    large that tables hardly differ, and of each kind of a model's tables, the first."""
    batch_distinct_rows: Amount
    """Distinct rows per table and batch; a row that several features look up counts once for all of them."""
    misses: list[tuple[Amount, Amount]]
    """(bytes of a cache, rows that it must fetch per table and batch): fully associative, least recently used
    goes first, empty at first, rows and nothing else in it."""
    point: str = field(default="", metadata=LATER)
    """Of a sweep the first with this workload; empty for the experiment's own."""
    bag_rows: Amount = field(default=0.0, metadata=LATER)
    """Distinct rows of each bag, of all bags of a table and batch together; 0: nobody counted."""

    def fetched_rows(self, cache_bytes: float) -> float:
        """Rows that a cache must fetch; between two sizes on the curve, what the larger one must."""
        return next((rows for size, rows in self.misses if size >= cache_bytes), self.batch_distinct_rows)


@dataclass(frozen=True)
class Datasets:
    """The file."""

    datasets: list[Demand]
    traces: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the trace files in the folder, by their paths in it; of traces' own bags, too."""
    schema_version: records.SchemaVersion = records.SCHEMA_VERSION

    def problem(self) -> str:
        """Why a trace would not lie in the run's folder; empty where all do."""
        out = next(filter(records.leads_out, self.traces), "")
        return f"traces: {out!r} leads out of the run's folder" if out else ""


def write(
    cells: Iterable[Cell],
    root: Path,
    progress: Progress | None = None,
    also: Callable[[Cell, Curves], None] | None = None,
) -> None:
    """Writes the demand of every dataset among the cells to `root`, where their trace files lie, and of
    every other workload that a sweep has for it.

    A dataset of more than `MOST_ACCESSES` is left out, and `progress` told so. `also`: is given the first
    cell of each other dataset and its curves, which take time to work out.
    """
    progress = progress or Silent()
    first = _apart(cells)
    left = {True: MOST_ACCESSES, False: MOST_ACCESSES}
    demands = []
    for number, cell in enumerate(first, 1):
        accesses, name, own = _accesses(cell, root), cell.dataset.name, not cell.point
        where = name if own else f"{name} at {cell.point}"
        which = f"{number} of {len(first)}, {where}, {accesses:,} accesses"
        progress.now(f"working out what is asked of the memory system: {which}")
        if accesses > left[own]:
            progress.say(f"{where}: {_too_many(accesses, left[own])}. The report goes without its limits.")
            continue
        curves = Curves(cell, Stretches.read(cell, root))
        demands.append(_made(cell, curves))
        if own and also is not None:
            also(cell, curves)
        left[False] -= 0 if own else accesses
        del curves  # and traces, before the next ones are made beside them
    paths = {path for cell in first for path in files(cell)}
    found = Datasets(demands, {path: _sha256(root / path) for path in sorted(paths)})
    records.write_whole(root / FILE, records.to_json(found, indent=None))


def _apart(cells: Iterable[Cell]) -> list[Cell]:
    """The first cell of every dataset and workload: at the experiment's own point, then by its label."""
    found: dict[tuple[str, Workload], Cell] = {}
    for cell in sorted(cells, key=lambda cell: (cell.point != "", cell.dataset.name, cell.point)):
        found.setdefault((cell.dataset.name, cell.workload), cell)
    return list(found.values())


def files(cell: Cell) -> set[str]:
    """Paths in the run's folder of what a cell replays that is not made from its seed."""
    groups = [group for group in cell.workload.groups if group.trace]
    found = {group.trace_file for group in groups} | {g.bags_file for g in groups if g.bags == "own"}
    return found | ({cell.dataset.path} if cell.dataset.path is not None else set())


def read(root: Path) -> dict[tuple[str, str], Demand]:
    """By dataset and point; empty where the run has no such file, or a damaged one: it can be made again."""
    try:
        return {(one.dataset, one.point): one for one in records.load(Datasets, root / FILE).datasets}
    except BadInputError:
        return {}


def check_traces(root: Path) -> None:
    """BadInputError where a trace in the run's folder is not the one that it began with."""
    try:
        traces = records.load(Datasets, root / FILE).traces
    except BadInputError:  # a run of before there was such a file, or a damaged one
        return
    for name, sha256 in traces.items():
        if _sha256(root / name) != sha256:
            raise BadInputError(
                f"{readable(root / name)}: has changed since the run began; put back what it was, or start a "
                "new run."
            )


def _sha256(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device has no end
            raise BadInputError(f"{readable(path)}: is no file.")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInputError(f"{readable(path)}: cannot be read: {error.strerror}.") from error


def of(cell: Cell, root: Path, most_accesses: int = _MOST_LATER) -> Demand:
    """The demand of a cell's dataset. BadInputError where its trace file cannot be read, or there are more
    than `most_accesses` in traces and batches."""
    if (accesses := _accesses(cell, root)) > most_accesses:
        raise BadInputError(f"{cell.dataset.name}: {_too_many(accesses, most_accesses)}.")
    return _of(cell.dataset, cell.workload, cell.seed, root if files(cell) else None)


def _accesses(cell: Cell, root: Path) -> int:
    """How many there are in the traces of a cell's dataset and in one batch of each."""
    rows, lookups = cell.workload.rows, cell.workload.lookups
    if cell.dataset.path is not None:
        return len(open_array(root / cell.dataset.path, cell.dataset.path)) + lookups
    if cell.workload.groups:
        return replay.accesses_of_model(cell, root) + cell.workload.all_lookups
    name, tables = cell.dataset.name, min(cell.workload.tables, len(synth.MIXED))
    names = {synth.dataset_of_table(name, table) for table in range(tables)}
    return sum(synth.period_length(name, rows) + lookups for name in names)


def _too_many(accesses: int, most: int) -> str:
    return f"{accesses:,} accesses are too many to work out what caches must fetch; the most is {most:,}"


@functools.lru_cache(maxsize=64)
def _of(dataset: Dataset, work: Workload, seed: int, root: Path | None) -> Demand:
    """Kept, since runs side by side replay the same traces. `root`: None for a synthetic one."""
    cell = Cell("", "", "", dataset, work, records.Timing(), 0, seed)
    return _made(cell, Curves(cell, Stretches.read(cell, root or Path())))


class Curves:
    """How a cell's features look up their rows; of each worked out once, for it takes time."""

    def __init__(self, cell: Cell, stretches: Stretches) -> None:
        self.traces = stretches.traces
        self._cell, self._stretches = cell, stretches
        self._counts: dict[int, Rows] = {}
        self._of: dict[int, list[float]] = {}

    def hottest_first(self, feature: int) -> Rows:
        """How often its trace holds each of its rows, the most frequent first."""
        trace = self.traces[feature]
        if id(trace) not in self._counts:
            self._counts[id(trace)] = np.sort(occurrences(trace)[1])[::-1]
        return self._counts[id(trace)]

    def of(self, feature: int) -> list[float]:
        """Distinct rows of its batch, of those of a table that several look up its part; those of each of its
        bags, of all together; then how many of its accesses miss an LRU cache of each of `CACHE_BYTES`, with
        rows as wide as its table's and nothing else in it. With own bags, whose batches differ, of the first
        few batches on average."""
        if feature not in self._of:
            self._of[feature] = self._worked_out(feature)
        return self._of[feature]

    def _worked_out(self, feature: int) -> list[float]:
        work, stretches = self._cell.workload, self._stretches
        table, group = work.features[feature].table, work.features[feature].group
        row_bytes = work.row_bytes_of(group.dim)
        capacities = [size // row_bytes for size in CACHE_BYTES]
        sharing = [place for place, other in enumerate(work.features) if other.table == table]
        several = group.bags == "own"
        numbers = range(max(1, min(_OWN_BATCHES, stretches.in_trace(feature))) if several else 1)
        return _mean(
            [
                [
                    stretches.distinct(sharing, number) / len(sharing),
                    self._of_bags(feature, number),
                    *fetched(stretches.rows(feature, number), capacities),
                ]
                for number in numbers
            ]
        )

    def _of_bags(self, feature: int, number: int) -> int:
        """Distinct rows of each bag, of all bags together."""
        lengths = bags.of_feature(self._cell, self._stretches, number, feature)
        rows = self._stretches.rows(feature, number)
        ends, most = np.cumsum(lengths), int(rows.max(initial=0)) + 1
        again = begin = 0
        # Some bags at a time, for what is sorted here takes several times the memory of the rows.
        for own in np.split(lengths, np.searchsorted(ends, np.arange(_AT_ONCE, len(rows), _AT_ONCE))):
            of_bag, end = np.repeat(np.arange(len(own)), own), begin + int(own.sum())
            sorted_by_bag = np.sort(rows[begin:end] + most * of_bag)
            again += int(np.count_nonzero(np.diff(sorted_by_bag) == 0))
            begin = end
        return len(rows) - again


def _made(cell: Cell, curves: Curves) -> Demand:
    work, traces = cell.workload, curves.traces
    sharing: dict[tuple[int, int], list[int]] = {}
    for table, trace in enumerate(traces):
        sharing.setdefault((id(trace), work.features[table].kind), []).append(table)
    row_bytes = work.row_bytes
    # Tables of one kind that replay the same trace count as often as there are of them.
    weights = [len(tables) / work.tables for tables in sharing.values()]
    few = work.lookups > _MANY or bool(work.groups)
    examined = [sorted({tables[0], tables[0 if few else len(tables) // 2]}) for tables in sharing.values()]
    counts = [curves.hottest_first(tables[0]) for tables in examined]

    def fetches(table: int) -> list[float]:
        own = work.row_bytes_of(work.features[table].group.dim)
        return [rows * own / row_bytes for rows in curves.of(table)]

    distinct, of_bags, *misses = _mean([_mean(list(map(fetches, tables))) for tables in examined], weights)
    return Demand(
        dataset=cell.dataset.name,
        point=cell.point,
        accesses=_mean([[float(seen.sum())] for seen in counts], weights)[0],
        distinct_rows=_mean([[float(len(seen))] for seen in counts], weights)[0],
        coverage=list(zip(HOTTEST, _mean([_coverage(seen) for seen in counts], weights), strict=True)),
        lookups=work.lookups,
        row_bytes=row_bytes,
        tables=sorted(table for tables in examined for table in tables),
        batch_distinct_rows=distinct,
        misses=list(zip(CACHE_BYTES, misses, strict=True)),
        bag_rows=of_bags,
    )


def _coverage(hottest_first: Rows) -> list[float]:
    total = hottest_first.sum()
    return [float(hottest_first[:size].sum() / total) for size in HOTTEST]


def fetched(indices: Rows, capacities: Sequence[int], exact_up_to: int = EXACT_UP_TO) -> list[float]:
    """How many of these accesses miss an LRU cache, empty at first, for each capacity in rows.

    More accesses than `exact_up_to` are estimated from those to a random subset of the rows, within what is
    known without: each row misses once at least, and no access more than once.
    """
    if not len(indices):  # a batch of empty bags
        return [0.0] * len(capacities)
    rate = min(1.0, exact_up_to / len(indices))
    sample = indices if rate == 1 else indices[stats.is_sampled(indices, rate)]
    distances = stack_distances(sample)
    again = np.sort(distances[distances != NEVER]) / rate
    misses = (len(distances) - np.searchsorted(again, capacities)) / rate
    if rate < 1:
        misses = np.clip(misses, distinct(indices), len(indices))
    return [float(count) for count in misses]


def _mean(lines: Sequence[Sequence[float]], weights: Sequence[float] | None = None) -> list[float]:
    mean: list[float] = np.average(np.asarray(lines, dtype=float), axis=0, weights=weights).tolist()
    return mean
