"""Latencies and samples per second of models that answer the same requests, in blocks that take turns."""

from __future__ import annotations

import itertools
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from embedding_kernels._clock import Clock, GpuClock, Passes
from embedding_kernels._contest import first_line
from embedding_kernels.plan import Gpu
from harness.progress import Progress


@dataclass(frozen=True)
class How:
    """How much is measured."""

    blocks: int
    passes: int
    seed: int
    batch: int
    """Samples of a pass."""


class CpuClock:
    """The wall clock, eager alone."""

    gpu = Gpu(f"no GPU, {platform.machine()}", "", "")
    l2_bytes = multiprocessors = crowded_clocks = 0

    def eager_us(self, passes: Passes, turns: Sequence[int]) -> list[float]:
        """See `Clock`."""
        return [_wall_us(passes.of_batch[turn]()) for turn in turns]

    def capture(self, passes: Passes) -> Any:
        """See `Clock`."""
        raise RuntimeError("there is no GPU")

    def graph_us(self, captured: Any, turns: Sequence[int]) -> list[float]:
        """See `Clock`."""
        raise RuntimeError("there is no GPU")


def clock_of(device: str) -> Clock:
    """Of the current GPU, or the CPU."""
    return GpuClock(torch.device("cuda", torch.cuda.current_device())) if device == "cuda" else CpuClock()


def measured(
    models: Mapping[str, nn.Module],
    asked: Sequence[Callable[[], tuple[Any, Any]]],
    how: How,
    clock: Clock,
    progress: Progress,
) -> dict[str, Any]:
    """By model and way ("eager", "graph"): percentiles, samples per second, and every sample in microseconds,
    block after block."""
    contestants = []
    for name, model in models.items():
        progress.now(f"batch {how.batch}: {name}, CUDA graphs of {len(asked)} requests")
        contestants.append(_Contestant(name, model, asked, clock))
    order, drawn = itertools.cycle(range(len(asked))), random.Random(how.seed)
    for block in range(-1, how.blocks):  # what a first block costs besides is in none of the times
        ways = [(each, way) for each in contestants for way in each.ways]
        drawn.shuffle(ways)
        begin = time.perf_counter()
        for contestant, way in ways:
            if block < 0:
                progress.now(f"batch {how.batch}: {contestant.name}, {way}, warming up")
            turns = [next(order) for _ in range(how.passes)]
            took = contestant.took_us(way, turns, clock)
            seconds = contestant.back_to_back_s(way, [next(order) for _ in range(how.passes)])
            if block >= 0:
                contestant.samples[way] += took
                contestant.rates[way].append(how.batch * how.passes / seconds)
        if block < 0:
            seconds = (time.perf_counter() - begin) * how.blocks
            told = ", ".join(f"{each.name} {' and '.join(each.ways)}" for each in contestants)
            progress.now(f"batch {how.batch}: {how.blocks} blocks of {told}; about {seconds:.0f} s")
        progress.advance()
    return {each.name: each.summary() for each in contestants}


class _Contestant:
    def __init__(
        self, name: str, model: nn.Module, asked: Sequence[Callable[[], tuple[Any, Any]]], clock: Clock
    ) -> None:
        self.name = name
        self._passes = Passes(name, [partial(_begin, model, request) for request in asked])
        self.ways, self._why_no_graph = ["eager"], ""
        try:
            self._captured = clock.capture(self._passes)
            self.ways.append("graph")
        except RuntimeError as error:
            self._why_no_graph = first_line(error)
        self.samples: dict[str, list[float]] = {way: [] for way in self.ways}
        self.rates: dict[str, list[float]] = {way: [] for way in self.ways}

    def took_us(self, way: str, turns: Sequence[int], clock: Clock) -> list[float]:
        """Of each pass: eager from the call until the GPU is done, as a graph on the GPU."""
        if way == "eager":
            return clock.eager_us(self._passes, turns)
        return clock.graph_us(self._captured, turns)

    def back_to_back_s(self, way: str, turns: Sequence[int]) -> float:
        """Of all these passes, queued one behind the other without waiting."""
        if way == "eager":
            calls = [self._passes.of_batch[turn]() for turn in turns]
        else:
            calls = [self._captured[turn][0].replay for turn in turns]
        _finish()
        begin = time.perf_counter()
        for call in calls:
            call()
        _finish()
        return time.perf_counter() - begin

    def summary(self) -> dict[str, Any]:
        """For the record."""
        found: dict[str, Any] = {way: _summary(self.samples[way], self.rates[way]) for way in self.ways}
        return found if not self._why_no_graph else {**found, "why_no_graph": self._why_no_graph}


def _summary(samples: list[float], rates: list[float]) -> dict[str, Any]:
    cuts = statistics.quantiles(samples, n=100, method="inclusive") if len(samples) > 1 else samples * 99
    return {
        "p50_us": cuts[49],
        "p95_us": cuts[94],
        "p99_us": cuts[98],
        "samples_per_s": statistics.median(rates),
        "us": [round(sample, 2) for sample in samples],
        "rates": [round(rate, 1) for rate in rates],
    }


def _begin(model: nn.Module, request: Callable[[], tuple[Any, Any]]) -> Callable[[], Any]:
    return partial(model, *request())


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _wall_us(call: Callable[[], Any]) -> float:
    begin = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - begin) / 1e3
