"""Takes the time of passes over all tables: call by call, and as one stage. One class per device.

A pass is a call for each table in turn, or one call for all of them, over the batch whose turn it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from harness.bench.batch import Lookup
from harness.bench.l2 import L2
from harness.bench.queue import DEPTH, Pair, Queue, event, net_us
from harness.bench.rotation import Order, Turn

_OTHERS = 4
"""Kernels that a call for all tables may launch beside its lookup; other libraries launch a few."""


class Stopwatch(Protocol):
    """Times in microseconds."""

    block: int
    """Passes that are best taken at once."""
    calls: int
    """How many make a pass."""

    def tables(self, passes: int) -> tuple[list[float], list[float]]:
        """Every call's lookup, per table that it takes, and prepares, pass after pass; the second list is
        empty without prepares."""

    def stages(self, passes: int) -> list[float]:
        """Whole passes over all tables, prepares included."""

    @property
    def repeated(self) -> int:
        """Blocks taken again because launch latency was in them."""


class CpuStopwatch:
    """Calls on the CPU by the wall clock. There is no queue to hide anything in."""

    block = 1
    repeated = 0

    def __init__(self, turns: Sequence[Turn], order: Order, tables: int) -> None:
        self._turns, self._order = turns, order
        self.calls = len(turns[0].calls)
        self._each = tables // self.calls

    def tables(self, passes: int) -> tuple[list[float], list[float]]:
        """See `Stopwatch`."""
        return [_wall_us([call]) / self._each for _ in range(passes) for call in self._next()], []

    def stages(self, passes: int) -> list[float]:
        """See `Stopwatch`."""
        return [_wall_us(self._next()) for _ in range(passes)]

    def _next(self) -> Sequence[Lookup]:
        return self._turns[self._order.next()].calls


def _wall_us(calls: Sequence[Lookup]) -> float:
    begin = time.perf_counter_ns()
    for call in calls:
        call()
    return (time.perf_counter_ns() - begin) / 1e3


class GpuStopwatch:
    """CUDA events round work that was queued ahead.

    `cold`: L2 is flushed and pins are reset before every sample, that is before every call, or every stage.
    Otherwise passes follow one another and each table finds L2 as the others left it.
    `overhead_us`: what the two events themselves add; every sample is that much less than they read.
    """

    def __init__(
        self,
        turns: Sequence[Turn],
        order: Order,
        tables: int,
        l2: L2,
        *,
        cold: bool,
        overhead_us: float,
    ) -> None:
        """`turns`: each a pass over `tables` tables, one call each or one for all."""
        self._turns, self._order, self._l2, self._cold = turns, order, l2, cold
        self._turn = turns[0]
        self.calls = len(self._turn.calls)
        self._prepares_too = self._turn.prepare is not None
        self._overhead_us, self._each = overhead_us, tables // self.calls
        # Events and what their neighbours may launch beside the kernel itself.
        more = _OTHERS if self._each > 1 else 0
        self._table_commands = more + (7 if self._prepares_too else 4)
        self._stage_commands = more + (4 if self._prepares_too else 2)
        # One pass at a time where every sample begins with a flush.
        self.block = 1 if cold else max(1, DEPTH // (self.calls * self._table_commands))
        self._lookups = [(event(), event()) for _ in range(self.block * self.calls)]
        self._prepares = [(event(), event()) for _ in range(self.block * self.calls)]
        self._stages = [(event(), event()) for _ in range(self.block)]
        self._table_queue, self._stage_queue = Queue(), Queue()
        # All outputs of a pass are alive at once, as in a model, and not one buffer that L2 keeps.
        self._outputs: list[Tensor | None] = [None] * self.calls

    @property
    def repeated(self) -> int:
        """See `Stopwatch`."""
        return self._table_queue.repeated + self._stage_queue.repeated

    def tables(self, passes: int) -> tuple[list[float], list[float]]:
        """See `Stopwatch`; at most `block` passes."""
        count = self.calls
        steps = [partial(self._table, slot, slot % count) for slot in range(passes * count)]
        if self._cold:
            for step in steps:
                self._table_queue.run([self._l2.flush, step], self._table_commands, self._l2.reset)
        else:
            self._table_queue.run(steps, self._table_commands)
        prepares = self._prepares[: len(steps)] if self._prepares_too else []
        return self._read(self._lookups[: len(steps)], self._each), self._read(prepares)

    def stages(self, passes: int) -> list[float]:
        """See `Stopwatch`; at most `block` passes."""
        steps = [step for slot in range(passes) for step in self._stage(slot)]
        if self._cold:
            self._stage_queue.run([self._l2.flush, *steps], self._stage_commands, self._l2.reset)
        else:
            self._stage_queue.run(steps, self._stage_commands)
        return self._read(self._stages[:passes])

    def walk(self, watched: Callable[[], AbstractContextManager[None]]) -> None:
        """One pass that takes no time of anything: each sample's work within a context of its own."""
        self._take_turn()
        for call in range(self.calls):
            if self._cold:
                torch.cuda.synchronize()
                self._l2.reset()
                self._l2.flush()
            with watched():
                self._in_stage(call)

    def _read(self, pairs: Sequence[Pair], share: int = 1) -> list[float]:
        return [net_us(pair, self._overhead_us) / share for pair in pairs]

    def _take_turn(self) -> None:
        """Called by what is queued, not where it is made: a block taken again goes on with other batches."""
        self._turn = self._turns[self._order.next()]

    def _table(self, slot: int, call: int) -> None:
        if call == 0:
            self._take_turn()
        if self._turn.prepare is not None:
            begin, end = self._prepares[slot]
            begin.record()
            self._turn.prepare(call)
            end.record()
        begin, end = self._lookups[slot]
        begin.record()
        self._outputs[call] = self._turn.calls[call]()
        end.record()

    def _stage(self, slot: int) -> list[Callable[[], None]]:
        begin, end = self._stages[slot]

        def start() -> None:
            self._take_turn()
            begin.record()

        return [start, *(partial(self._in_stage, call) for call in range(self.calls)), end.record]

    def _in_stage(self, call: int) -> None:
        self._outputs[call] = self._turn.look_up(call)
