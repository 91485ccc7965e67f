"""`python -m harness.bench.profile`, with the arguments of `harness.bench`: what a profiler looks at.

Makes, checks and warms up each cell as `harness.bench` does, then walks once over its tables with the
profiler on for nothing but the lookups and their prepares. A profiler that runs the program again for every
pass of its counters finds the same launches in the same order each time. In the profile a launch of the
kernel `wall.MARK` says where a cell begins: on one block for the first cell, on two for the second, and so
on.

Writes OUTPUT/<id>.json for each cell: its record, without samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from harness import wall
from harness.bench import ceilings, ending
from harness.bench.cell import Bench
from harness.bench.driver import Kernel
from harness.bench.failures import CellError
from harness.bench.gpu import Gpu
from harness.bench.inference import Inference
from harness.bench.nvml import Watch
from harness.bench.stopwatch import GpuStopwatch, Stopwatch
from harness.records import Cell, CellRecord, load, to_json, write_whole

_WARM_UP_PASSES = 2


class ProfiledBench(Bench):
    """Measures nothing: shows one pass of each cell to the profiler that runs this process."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._cells = 0

    def measure(self, cell: Cell) -> CellRecord:
        """See `Bench`; cells come in the order that `wall.MARK` counts. The stage alone, without its
        model."""
        self._cells += 1
        return super().measure(dataclasses.replace(cell, model=None))

    def _open_gpu(self) -> Gpu:
        # Ceilings queue work ahead, which a profiler that waits for every kernel does not let them.
        if self._gpu is None:
            self._gpu = Gpu(ceilings_matter=False)
        return self._gpu

    def _sample(
        self,
        cell: Cell,
        known: dict[str, Any],
        stopwatch: Stopwatch,
        watch: Watch,
        inference: Inference | None = None,
    ) -> None:
        if not isinstance(stopwatch, GpuStopwatch):
            raise CellError("Only lookups on a GPU can be profiled.")
        for _ in range(_WARM_UP_PASSES):
            stopwatch.walk(contextlib.nullcontext)
        nothing = torch.zeros(1, device="cuda")
        order = torch.zeros(1, device="cuda", dtype=torch.int32)
        mark = Kernel(ceilings.PTX, wall.MARK)
        with _watched():
            mark.launch(self._cells, 32, [nothing, order, 0, nothing])
        stopwatch.walk(_watched)
        known["status"], known["message"] = "ok", ""


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """The profiler looks at what the GPU does from here to the end, and at nothing before or after it."""
    runtime = torch.cuda.cudart()
    torch.cuda.synchronize()
    runtime.cudaProfilerStart()
    yield
    torch.cuda.synchronize()
    runtime.cudaProfilerStop()


def main(order: wall.Order) -> int:
    """Shows the cells that are named to the profiler."""
    bench = ProfiledBench(order.root)
    for cell_id in order.ids:
        print(wall.announce(cell_id), flush=True)
        cell = load(Cell, order.cells / wall.file_of(cell_id))
        write_whole(order.output / wall.file_of(cell_id), to_json(bench.measure(cell)))
    return 0


if __name__ == "__main__":
    given = wall.parse(wall.PROFILED, __doc__)
    ending.at_deadline(given.deadline_s)
    sys.exit(main(given))
