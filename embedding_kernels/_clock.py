"""Takes the time of passes: one pass looks one sample batch up in one group of tables."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from embedding_kernels import _operators
from embedding_kernels.plan import Gpu, gpu_of

Timed = Callable[[], Any]
"""Looks up; gives what is to be kept alive meanwhile."""
Pass = Callable[[], Timed]
"""Makes arguments as a request would bring them, which is not timed, and gives what is."""
_FIRST_CYCLES = 200_000
_ATTEMPTS = 14
"""Doublings of the spin: from about 0.1 ms to 2 s."""
_AHEAD = 64
"""Replays that are queued at once, far fewer than the driver has room for."""


@dataclass(frozen=True, eq=False)
class Passes:
    """Those of one contender."""

    label: str
    """What is looked up how."""
    of_batch: Sequence[Pass]
    """By the number of the batch, among those that come here."""


class Clock(Protocol):
    """What `tune` asks for times; its own is `GpuClock`."""

    gpu: Gpu
    l2_bytes: int
    multiprocessors: int

    @property
    def crowded_clocks(self) -> int:
        """What follows from the GPU's clock and memory; see `EmbeddingTables.use_limits`."""

    def eager_us(self, passes: Passes, turns: Sequence[int]) -> list[float]:
        """Of each pass, by the number of its batch: from the call until the GPU is done."""

    def capture(self, passes: Passes) -> Any:
        """Each pass as a CUDA graph; RuntimeError where that cannot be."""

    def graph_us(self, captured: Any, turns: Sequence[int]) -> list[float]:
        """Of each pass, replayed with the GPU kept busy."""


class GpuClock:
    """The wall clock for eager passes, events behind a spin for graphs."""

    def __init__(self, device: torch.device) -> None:
        self.gpu = gpu_of(device)
        found = torch.cuda.get_device_properties(device)
        self.l2_bytes = int(found.L2_cache_size)
        self.multiprocessors = int(found.multi_processor_count)
        self._device = device
        self._cycles = _FIRST_CYCLES

    @property
    def crowded_clocks(self) -> int:
        """See `Clock`."""
        return _operators.crowded_clocks(self._device.index)

    def eager_us(self, passes: Passes, turns: Sequence[int]) -> list[float]:
        """See `Clock`."""
        took = []
        for turn in turns:
            call = passes.of_batch[turn]()
            torch.cuda.synchronize(self._device)
            begin = time.perf_counter_ns()
            output = call()
            torch.cuda.synchronize(self._device)
            took.append((time.perf_counter_ns() - begin) / 1e3)
            del output
        return took

    def capture(self, passes: Passes) -> list[tuple[torch.cuda.CUDAGraph, Any]]:
        """See `Clock`. One runs at a time, so they share their memory."""
        found: list[tuple[torch.cuda.CUDAGraph, Any]] = []
        with torch.cuda.device(self._device):
            for each in passes.of_batch:
                call = each()
                call()  # what is set up at the first call is not for the graph
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=found[0][0].pool() if found else None):
                    output = call()
                found.append((graph, (call, output)))
        return found

    def graph_us(
        self, captured: Sequence[tuple[torch.cuda.CUDAGraph, Any]], turns: Sequence[int]
    ) -> list[float]:
        """See `Clock`. The time of each replay, between events round it."""
        took: list[float] = []
        with torch.cuda.device(self._device):
            for first in range(0, len(turns), _AHEAD):
                took += self._replayed(captured, turns[first : first + _AHEAD])
        return took

    def _replayed(
        self, captured: Sequence[tuple[torch.cuda.CUDAGraph, Any]], turns: Sequence[int]
    ) -> list[float]:
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(turns) + 1)]
        for _ in range(_ATTEMPTS):
            torch.cuda.synchronize()
            torch.cuda._sleep(self._cycles)
            events[0].record()
            for turn, event in zip(turns, events[1:], strict=True):
                captured[turn][0].replay()
                event.record()
            hidden = not events[0].query()
            torch.cuda.synchronize()
            if hidden:
                return [float(begin.elapsed_time(end)) * 1e3 for begin, end in itertools.pairwise(events)]
            # The GPU began before all was queued: launching would have been timed.
            self._cycles *= 2
        raise RuntimeError("replays could not be queued ahead of the GPU; unset CUDA_LAUNCH_BLOCKING")
