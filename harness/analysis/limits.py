"""How fast a lookup could be at best on the GPU that measured it, and how near each design comes.

Three things must happen at the same time, and the slowest of them is the limit:

* **memory**: the rows that L2 lacks, indices, sample weights and outputs pass between memory and L2. Rows are
  those that an LRU cache of the size of L2 must fetch, at the measured rate of random rows; the rest at the
  measured rate of a stream.
* **L2**: what L1 lacks passes from L2 to the multiprocessors, at the measured rate of rows out of L2. L1 is
  taken at its best: all bags pass in order through one LRU cache of `L1_BYTES`.
* **L1**: every row looked up passes from L1 into registers, 128 bytes per multiprocessor and clock.

Both caches are taken to meet the rows as the bags hold them, bag after bag. A kernel may take them in another
order, so that bags that share a row meet it at the same time. The limit of **any order** is lower: every
distinct row passes once from memory, at the faster of its two rates, and once from L2.

Assumed, so that a limit is rather too low than too high: the three overlap without a gap, L2 and L1 are
fully associative and hold rows alone, L2 is one piece, and every byte moved is one that was asked for. Where
all that a pass over the tables touches fits L2, and nothing flushes it, the memory has nothing to do. A
design that beats the limit of bags in order takes rows in another one, or a cache keeps them better than LRU
does. One that beats that of any order loads a row from L1 once for several bags, or finds part of the rows in
L2 from the pass before: a pass repeats its batch, which traffic does not.

Without a clock L1's rate is not known. There is then no limit, unless memory binds.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from harness.analysis.frame import LoadedRun
from harness.errors import BadInputError
from harness.records import MEASURED, Cell, Environment, Workload
from harness.traces import demand
from harness.traces.demand import Demand

L1_BYTES = 256 * 2**10
"""The most that a multiprocessor of any GPU so far has."""
L1_BYTES_PER_CLOCK = 128
"""What a multiprocessor loads from L1 per clock, since compute capability 7.0."""
_CEILINGS = ("stream_gbps", "random_rows_gbps", "l2_rows_gbps")
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
    """The GPU of a run: medians over its records."""

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
    """Where rows are looked up bag after bag."""
    binding_in_any_order: Need
    any_order: list[Need]
    """Where rows are looked up in whatever order: each distinct one passes once from memory and from L2."""
    every_lookup: Need
    """What a kernel takes from L2 that reads every row of every bag there, without help from L1. No limit: a
    kernel may do better."""
    compulsory_bytes: float
    """Every distinct row, index, sample weight and output once."""
    batch_distinct_rows: float
    coverage: list[tuple[float, float]]
    """(n, share of the trace's accesses that go to its n hottest rows)."""
    tables_examined: list[int]


def find(run: LoadedRun) -> list[Limit]:
    """Those of a run on a GPU whose records carry ceilings."""
    gpu = machine(run)
    if gpu is None:
        return []
    known = demand.read(run.folder)
    cells = {r.cell.dataset.name: r.cell for r in reversed(run.records) if r.status in MEASURED}
    found = []
    for dataset in run.datasets:
        if (cell := cells.get(dataset)) and (asked := known.get(dataset) or _worked_out(cell, run)):
            limit = of(cell.workload, cell.timing.cache == "cold", asked, gpu)
            if gpu.l1_gbps or limit.binding.part == "memory":
                found.append(limit)
    return found


def machine(run: LoadedRun) -> Machine | None:
    """The run's GPU; None on the CPU and where no record carries the ceilings."""
    whole = (r for r in run.records if all(r.ceilings.get(name, 0) >= _LEAST_GBPS for name in _CEILINGS))
    records = [r for r in whole if r.environment]
    if run.on_cpu or not records:
        return None
    environment: Environment = next(r.environment for r in records if r.environment)
    clock_mhz = max((state.sm_clock_mhz for r in records for state in r.gpu), default=0)
    return Machine(
        **{name: median(r.ceilings[name] for r in records) for name in _CEILINGS},
        l2_bytes=environment.l2_bytes,
        l1_gbps=environment.multiprocessors * L1_BYTES_PER_CLOCK * clock_mhz / 1e3,
    )


def of(work: Workload, cold: bool, asked: Demand, gpu: Machine) -> Limit:
    """The limit of one dataset. `cold`: L2 is flushed before every lookup."""
    streamed = work.asked_bytes + work.output_bytes
    compulsory = asked.batch_distinct_rows * asked.row_bytes + streamed
    stays = not cold and work.tables * compulsory <= gpu.l2_bytes
    loaded = float(work.loaded_bytes)

    def needs(from_memory: float, from_l2: float, memory_gbps: float) -> list[Need]:
        """Of that many rows; the rest of the bytes is the same in any order."""
        fetched = 0.0 if stays else from_memory * asked.row_bytes
        moved = 0 if stays else streamed
        past_l1 = from_l2 * asked.row_bytes + streamed
        found = [
            Need("memory", fetched + moved, _us(fetched, memory_gbps) + _us(moved, gpu.stream_gbps)),
            Need("L2", past_l1, _us(past_l1, gpu.l2_rows_gbps)),
        ]
        return [*found, Need("L1", loaded, _us(loaded, gpu.l1_gbps))] if gpu.l1_gbps else found

    everything, once = loaded + streamed, asked.batch_distinct_rows
    in_order = needs(asked.fetched_rows(gpu.l2_bytes), asked.fetched_rows(L1_BYTES), gpu.random_rows_gbps)
    any_order = needs(once, once, max(gpu.random_rows_gbps, gpu.stream_gbps))
    return Limit(
        dataset=asked.dataset,
        binding=_slowest(in_order),
        needs=in_order,
        binding_in_any_order=_slowest(any_order),
        any_order=any_order,
        every_lookup=Need("L2", everything, _us(everything, gpu.l2_rows_gbps)),
        compulsory_bytes=compulsory,
        batch_distinct_rows=asked.batch_distinct_rows,
        coverage=asked.coverage,
        tables_examined=asked.tables,
    )


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
