"""How fast a lookup could be at best on the GPU that measured it, and how near each design comes.

Three things must happen at the same time, and the slowest of them is the limit:

* **memory**: each row once, indices, sample weights and outputs pass between memory and L2. Rows pass at the
  faster of the measured rates of random rows and of a stream, the rest at that of a stream.
* **L2**: the same passes between L2 and the multiprocessors, at the measured rate of rows out of L2.
* **L1**: every distinct row of a bag passes from L1 into registers, 128 bytes per multiprocessor and clock.

Assumed, so that a limit is rather too low than too high: the three overlap without a gap, caches are fully
associative and hold rows alone, every byte moved is one that was asked for. Where all that a pass over the
tables touches fits L2, and the next pass looks up the same, the memory has nothing to do; where all rows of
the traces fit, it has none of them to give. What beats such a limit finds rows in L2 that an earlier pass
left there, or loads a row from L1 once for several bags.

Times are net of what events cost, and so are the rates: see `net_gbps`. Where that cost is large beside a
time, the time is known too roughly for a share, and none is told: see `EVENTS_DECIDE`.

Beside it stands a **model**, which is no limit: `lru`, what would take place if both caches were LRU and met
the rows as the bags hold them, bag after bag. A kernel that takes rows in another order can be faster, so
that bags that share a row meet it at the same time; and a real cache does worse than LRU of its full size.

Without a clock L1's rate is not known. There is then no limit, unless memory binds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from harness.analysis.frame import LoadedRun, passes, single_launch
from harness.errors import BadInputError
from harness.records import MEASURED, Cell, CellRecord, Environment, Workload
from harness.traces import demand
from harness.traces.demand import Demand

L1_BYTES = 256 * 2**10
"""The most that a multiprocessor of any GPU so far has."""
L1_BYTES_PER_CLOCK = 128
"""What a multiprocessor loads from L1 per clock, since compute capability 7.0."""
EVENTS_DECIDE = 1 / 3
"""Where a pair of events costs more than this part of the time between them (that cost taken off), it decides
what is left: the cost is known to a tenth of itself, so such a time is known to 3 % at best."""
WELL_PAST_L2 = 8
"""A pass that touches so many times what L2 holds can find at most an eighth of it there from the pass
before, and of an LRU cache nothing."""
_CEILINGS = ("stream", "random_rows", "l2_rows")
_READ_BYTES, _READ_ROW_BYTES, _ROW_NUMBER_BYTES = 2**30, 512, 4
"""Of a reading behind a ceiling: all rows, one of them, and its number, which is read as well."""
_LEAST_GBPS = 1e-3
"""No memory is slower."""
_MOST_ROWS = 2**24
"""Rows and lookups of a trace that is worked out here: a folder's plan may be anybody's, and ask for more."""


@dataclass(frozen=True)
class Need:
    """What one part of the memory system must move for a table and batch, and how long that takes."""

    part: str
    """"memory", "L2" or "L1"."""
    bytes: float
    us: float


@dataclass(frozen=True)
class Machine:
    """The GPU of a run: medians over its records, net of what events cost."""

    stream_gbps: float
    random_rows_gbps: float
    l2_rows_gbps: float
    l2_bytes: int
    l1_gbps: float
    """Of all multiprocessors at the highest clock seen; 0: not known."""


@dataclass(frozen=True)
class Limit:
    """The least time of a lookup of one table and batch."""

    dataset: str
    binding: Need
    """The slowest of the needs."""
    needs: list[Need]
    """Each row passes once from memory and once from L2."""
    lru: Need
    """The slowest of what two LRU caches would have to move, bags in order. No limit but a model."""
    every_lookup: Need
    """What a kernel takes from L2 that reads every row of every bag there, without help from L1. No limit: a
    kernel may do better."""
    compulsory_bytes: float
    """Every distinct row, index, sample weight and output once."""
    past_l2: float
    """What a pass over all tables touches ÷ what L2 holds."""
    batch_distinct_rows: float
    coverage: list[tuple[float, float]]
    """(n, share of the trace's accesses that go to its n hottest rows)."""
    tables_examined: list[int]


def own(run: LoadedRun, every: Mapping[tuple[str, Workload], Limit]) -> list[Limit]:
    """Of all that `by_workload` gives those at the experiment's own workload, where that was measured."""
    cells = {r.cell.dataset.name: r.cell for r in reversed(run.records) if r.status in MEASURED}
    found = (every.get((dataset, cells[dataset].workload)) for dataset in run.datasets if dataset in cells)
    return [limit for limit in found if limit]


def by_workload(run: LoadedRun) -> dict[tuple[str, Workload], Limit]:
    """By dataset and workload those of all that was measured in a run on a GPU whose records carry ceilings;
    at points of a sweep where the run's file tells what is asked there, which would take too long for all of
    them here."""
    gpu = machine(run)
    if gpu is None:
        return {}
    known = demand.read(run.folder)
    # Of those with one workload a sweep's file names the point that stands first; its cells may have failed.
    cells: dict[tuple[str, Workload], list[Cell]] = {}
    measured = set()
    for record in run.whole.records:
        key = record.cell.dataset.name, record.cell.workload
        cells.setdefault(key, []).append(record.cell)
        if record.status in MEASURED:
            measured.add(key)
    found = {}
    for (dataset, work), alike in cells.items():
        if (dataset, work) not in measured:
            continue
        told = (known.get((dataset, cell.point)) for cell in alike)
        asked = next(filter(None, told), None) or next(
            (_worked_out(cell, run) for cell in alike if not cell.point), None
        )
        if asked:
            limit = of(work, alike[0].timing.cache, asked, gpu)
            if gpu.l1_gbps or limit.binding.part == "memory":
                found[dataset, work] = limit
    return found


def machine(run: LoadedRun) -> Machine | None:
    """The run's GPU; None on the CPU and where no record carries the ceilings."""
    rates = [(r, found) for r in run.records if r.environment and (found := net_gbps(r))]
    if run.on_cpu or not rates:
        return None
    environment: Environment = next(r.environment for r, _ in rates if r.environment)
    clock_mhz = max((state.sm_clock_mhz for r, _ in rates for state in r.gpu), default=0)
    return Machine(
        **{f"{name}_gbps": median(found[name] for _, found in rates) for name in _CEILINGS},
        l2_bytes=environment.l2_bytes,
        l1_gbps=environment.multiprocessors * L1_BYTES_PER_CLOCK * clock_mhz / 1e3,
    )


def net_gbps(record: CellRecord) -> dict[str, float]:
    """A record's ceilings as its samples are: of all bytes that are read, by the time less what events cost.

    Older records hold them of rows alone, by the time between two events; from the size of what was read and
    what a pair of events costs follows the other. Empty where one is missing.
    """
    overhead_us, found = record.ceilings.get("event_overhead_us", 0.0), {}
    for name in _CEILINGS:
        net = record.ceilings.get(f"{name}_net_gbps", 0.0)
        if not net and (gross := record.ceilings.get(f"{name}_gbps", 0.0)) >= _LEAST_GBPS:
            read = _READ_BYTES * (1 + _ROW_NUMBER_BYTES / _READ_ROW_BYTES)
            taken_us = _us(_READ_BYTES, gross) - overhead_us
            net = read / taken_us / 1e3 if taken_us > 0 else 0.0
        if net >= _LEAST_GBPS:
            found[name] = net
    return found if len(found) == len(_CEILINGS) else {}


def events_decide(records: Iterable[CellRecord], metric: str = "total_us") -> bool:
    """Whether a pair of events costs too much beside what these records have between two of them: a call, or
    by `stage_us` all of a pass."""
    shares = []
    for record in records:
        calls = record.cell.workload.tables if single_launch(record) and metric != "stage_us" else 1
        series = passes(record).get(metric) if record.status in MEASURED else None
        if series is not None and "event_overhead_us" in record.ceilings:
            shares.append(record.ceilings["event_overhead_us"] / (calls * float(np.median(series))))
    return bool(shares) and median(shares) > EVENTS_DECIDE


def of(work: Workload, cache: str, asked: Demand, gpu: Machine) -> Limit:
    """The limit of one dataset. `cache`: as `Timing.cache`."""
    streamed = work.asked_bytes + work.output_bytes
    compulsory = asked.batch_distinct_rows * asked.row_bytes + streamed
    touched = work.tables * compulsory
    all_stay = cache == "steady" and touched <= gpu.l2_bytes
    # Whichever batches take turns, they look up rows of the same traces, and none twice that features share.
    of_traces = min(work.tables * asked.distinct_rows * asked.row_bytes, work.table_bytes)
    rows_stay = all_stay or (cache != "cold" and of_traces <= gpu.l2_bytes)
    # What a bag asks for more than once may be loaded once and counted.
    loaded = asked.bag_rows * asked.row_bytes or float(work.loaded_bytes)

    def needs(from_memory: float, from_l2: float, memory_gbps: float) -> list[Need]:
        """Of that many rows; the rest of the bytes is the same for all."""
        fetched = 0.0 if rows_stay else from_memory * asked.row_bytes
        moved = 0 if all_stay else streamed
        past_l1 = from_l2 * asked.row_bytes + streamed
        found = [
            Need("memory", fetched + moved, _us(fetched, memory_gbps) + _us(moved, gpu.stream_gbps)),
            Need("L2", past_l1, _us(past_l1, gpu.l2_rows_gbps)),
        ]
        return [*found, Need("L1", loaded, _us(loaded, gpu.l1_gbps))] if gpu.l1_gbps else found

    everything, once = every_lookup_bytes(work), asked.batch_distinct_rows
    least = needs(once, once, max(gpu.random_rows_gbps, gpu.stream_gbps))
    lru = needs(asked.fetched_rows(gpu.l2_bytes), asked.fetched_rows(L1_BYTES), gpu.random_rows_gbps)
    return Limit(
        dataset=asked.dataset,
        binding=_slowest(least),
        needs=least,
        lru=_slowest(lru),
        every_lookup=Need("L2", everything, _us(everything, gpu.l2_rows_gbps)),
        compulsory_bytes=compulsory,
        past_l2=touched / gpu.l2_bytes,
        batch_distinct_rows=asked.batch_distinct_rows,
        coverage=asked.coverage,
        tables_examined=asked.tables,
    )


def every_lookup_bytes(work: Workload) -> int:
    """Of one table and batch: every row as often as it is looked up, indices, sample weights and outputs."""
    return work.loaded_bytes + work.asked_bytes + work.output_bytes


def _slowest(needs: list[Need]) -> Need:
    return max(needs, key=lambda need: need.us)


def _us(moved: float, gbps: float) -> float:
    return moved / gbps / 1e3


def _worked_out(cell: Cell, run: LoadedRun) -> Demand | None:
    """From seed or trace file, for a run without the file; None where that trace is not in its folder, and
    where it would take minutes and gigabytes."""
    if cell.workload.rows + cell.workload.lookups > _MOST_ROWS:
        return None
    try:
        return demand.of(cell, run.folder)
    except BadInputError:
        return None
