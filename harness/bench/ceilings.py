"""What the memory system gives at most, measured in the process that measures the cells.

PyTorch has no operator that only reads rows: a gather writes as much as it reads, and a sum is bound by its
own arithmetic before a cache is. So a kernel of our own, `read_rows`, reads 512-byte rows at three kinds of
places.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from harness import wall
from harness.bench.driver import Kernel
from harness.bench.queue import Queue, elapsed_us, event

ROW_BYTES = 512
"""A row of 128 float32, the paper's."""
BUFFER_BYTES = 1 << 30
"""Read once by the first two, so hardly anything of it can come from L2."""
L2_SET_BYTES = 10_000_000
"""Rows that fit L2 of every GPU of today with room to spare; a quarter of L2 where that is less."""

_ORDER_BYTES = 4
"""A row's number, which is read as well: int32."""
_REPEATS = 15
_EMPTY_PAIRS = 150
_SHORT_KERNEL_CYCLES = 5000
"""Some 3 µs: shorter than what is measured, longer than the gap between two kernels of a graph."""
_FEW, _MANY = 8, 24
"""Kernels in the two graphs whose difference gives a kernel's time without events."""
_THREADS = 256
_BLOCKS_PER_SM = 8
PTX = Path(__file__).with_name("read_rows.ptx")


def measure(l2_bytes: int, multiprocessors: int) -> dict[str, float]:
    """GB/s (10^9 bytes) of rows read: in order (`stream_gbps`), at random places and each once
    (`random_rows_gbps`), out of a set that lies in L2 (`l2_rows_gbps`); `event_floor_us`, the time between
    two events with nothing between them; and `event_overhead_us`. Medians.

    These rates are of rows alone, by the time between two events. Each stands there a second time as a
    lookup's time is taken (`stream_net_gbps` and so on): of all bytes that the kernel reads, its row numbers
    among them, by that time less what the events add.
    """
    rows = BUFFER_BYTES // ROW_BYTES
    small = max(1, min(L2_SET_BYTES, l2_bytes // 4) // ROW_BYTES)
    generator = torch.Generator("cuda").manual_seed(0)
    data = torch.empty(rows, ROW_BYTES // 4, device="cuda").uniform_(generator=generator)
    in_order = torch.arange(rows, device="cuda", dtype=torch.int32)
    shuffled = torch.randperm(rows, device="cuda", generator=generator, dtype=torch.int32)
    within_l2 = torch.randint(small, (rows,), device="cuda", generator=generator, dtype=torch.int32)
    sink = torch.zeros(1, device="cuda")
    kernel = Kernel(PTX, wall.MARK)

    def gross_us(order: Tensor) -> float:
        launch = partial(kernel.launch, multiprocessors * _BLOCKS_PER_SM, _THREADS, [data, order, rows, sink])
        return median_us(launch, _REPEATS)

    times = {"stream": gross_us(in_order), "random_rows": gross_us(shuffled), "l2_rows": gross_us(within_l2)}
    overhead_us = event_overhead_us()
    found = [rate for which, taken in times.items() for rate in rates(which, rows, taken, overhead_us)]
    return {
        **dict(found),
        "event_floor_us": median_us(lambda: None, _EMPTY_PAIRS),
        "event_overhead_us": overhead_us,
    }


def rates(which: str, rows: int, gross_us: float, overhead_us: float) -> list[tuple[str, float]]:
    """Names and GB/s of a reading of so many rows: of rows alone and gross, and of all bytes and net."""
    return [
        (f"{which}_gbps", rows * ROW_BYTES / gross_us / 1e3),
        (f"{which}_net_gbps", rows * (ROW_BYTES + _ORDER_BYTES) / (gross_us - overhead_us) / 1e3),
    ]


def event_overhead_us() -> float:
    """What a pair of events adds to the time of the kernel between them, in microseconds.

    A kernel that starts after an event and is waited for by another takes longer between the two than it
    runs: on an H100 by 3 µs, a third of a fast lookup. The same short kernel is timed between two events and,
    without any, as the difference between a graph with many of it and a graph with few.
    """

    def kernel() -> None:
        torch.cuda._sleep(_SHORT_KERNEL_CYCLES)

    def graph_us(kernels: int) -> float:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(kernels):
                kernel()
        return median_us(graph.replay, _REPEATS)

    alone = (graph_us(_MANY) - graph_us(_FEW)) / (_MANY - _FEW)
    return max(0.0, median_us(kernel, _EMPTY_PAIRS) - alone)


def median_us(work: Callable[[], None], repeats: int) -> float:
    """Median time between two events with `work` between them: `repeats` times, after one not counted."""
    pairs = [(event(), event()) for _ in range(repeats + 1)]

    def once(begin: torch.cuda.Event, end: torch.cuda.Event) -> None:
        begin.record()
        work()
        end.record()

    Queue().run([partial(once, *pair) for pair in pairs], 3)
    return statistics.median(elapsed_us(pair) for pair in pairs[1:])


def scratch_bytes() -> int:
    """GPU memory that `measure` takes."""
    # The permutation is sorted as int64, with copies.
    return BUFFER_BYTES + 5 * 8 * (BUFFER_BYTES // ROW_BYTES)
