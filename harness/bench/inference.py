"""Times whole inferences: the embedding stage inside its model, of the batch whose turn it is. One class per
device.

Eager, by the wall clock of a host that waits for the end: launching is part of what its user waits for. As a
CUDA graph, and part by part, by events round work that was queued ahead: launching is not in these.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from harness.bench.dlrm import Dlrm, Prediction
from harness.bench.failures import CellError
from harness.bench.l2 import L2
from harness.bench.queue import DEPTH, Pair, Queue, event, net_us
from harness.bench.rotation import Order, Turn

PER_PASS = 3
"""Inferences of either kind in a pass, for percentiles need more samples than a median does."""
PARTS = ("bottom_us", "interaction_us", "top_us")
_GRAPHS_AHEAD = 16
"""Graphs that are queued at once."""
_PART_COMMANDS = 11
"""Launches and events of the bottom MLP, of the interaction or of the top MLP."""

Samples = dict[str, list[float]]


class Inference(Protocol):
    """Samples by metric, in microseconds."""

    @property
    def repeated(self) -> int:
        """Blocks taken again because launch latency was in them."""

    def predictions(self, number: int) -> dict[str, Prediction]:
        """What the model gives for a batch, by each way of running it that is timed."""

    def sample(self, passes: int) -> Samples:
        """`e2e_us` and, on a GPU, `e2e_graph_us`, `PER_PASS` a pass each; one a pass of each of `PARTS`."""


@dataclass(frozen=True)
class Forward:
    """One inference, whole or in steps."""

    dlrm: Dlrm
    dense: Tensor
    """[batch, dense features]; the same for every batch of lookups."""
    turns: Sequence[Turn]
    """The embedding stage; where a design pins, each call renews its pins first."""
    order: Order

    @property
    def calls(self) -> int:
        """Of the embedding stage."""
        return len(self.turns[0].calls)

    def __call__(self) -> Prediction:
        """The whole of it, of the batch whose turn it is."""
        return self.of(self.order.next())

    def of(self, number: int) -> Prediction:
        """The whole of it, of this batch."""
        turn = self.turns[number]
        lookups = [partial(turn.look_up, call) for call in range(self.calls)]
        prediction: Prediction = self.dlrm(self.dense, lookups)
        return prediction

    def steps(
        self, around: Callable[[str, Callable[[], None]], Callable[[], None]]
    ) -> list[Callable[[], None]]:
        """The same, step by step in order; `around` wraps those of `PARTS`, by name. Whose turn it is shows
        when the first step runs."""
        held: dict[str, Tensor] = {}
        pooled: list[Tensor] = []
        turn = self.turns[0]

        def bottom() -> None:
            nonlocal turn
            turn = self.turns[self.order.next()]
            held["bottom"] = self.dlrm.bottom(self.dense)

        def look_up(call: int) -> None:
            pooled.append(turn.look_up(call))

        def interaction() -> None:
            held["entering"] = self.dlrm.interaction(held["bottom"], pooled)

        def top() -> None:
            self.dlrm.top(held["entering"]).sigmoid()
            # Given back at once, as by a whole inference: the next one queued takes the same memory.
            held.clear()
            pooled.clear()

        stage = [partial(look_up, call) for call in range(self.calls)]
        named = [around(name, step) for name, step in zip(PARTS, (bottom, interaction, top), strict=True)]
        return [named[0], *stage, *named[1:]]


class CpuInference:
    """By the wall clock, eager only."""

    repeated = 0

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def predictions(self, number: int) -> dict[str, Prediction]:
        """See `Inference`."""
        return {"eager": self._forward.of(number)}

    def sample(self, passes: int) -> Samples:
        """See `Inference`."""
        samples: Samples = {"e2e_us": [], **{name: [] for name in PARTS}}

        def timed(name: str, step: Callable[[], object]) -> None:
            begin = time.perf_counter_ns()
            step()
            samples[name].append((time.perf_counter_ns() - begin) / 1e3)

        for _ in range(passes):
            for _ in range(PER_PASS):
                timed("e2e_us", self._forward)
            for step in self._forward.steps(lambda name, part: partial(timed, name, part)):
                step()
        return samples


class GpuInference:
    """`cold`: L2 is flushed and pins are reset before every inference; otherwise they follow one another.
    `overhead_us`: what two events add to what they surround; taken off every sample that events took."""

    def __init__(self, forward: Forward, l2: L2, *, cold: bool, overhead_us: float) -> None:
        """Captures the inference of each batch as a CUDA graph, pins and all."""
        self._forward, self._l2, self._cold, self._overhead_us = forward, l2, cold, overhead_us
        self._queue = Queue()
        tables = forward.calls
        # Two for each table's lookup and two for a pin before it, at most.
        commands, steps = 4 * tables + len(PARTS) * _PART_COMMANDS, tables + len(PARTS)
        self._step_commands = -(-commands // steps)
        self._forwards_ahead = 1 if cold else max(1, DEPTH // commands)
        self._graphs_ahead = 1 if cold else _GRAPHS_AHEAD
        forward.of(0)  # what is set up at the first call must not be captured
        torch.cuda.synchronize()
        # One runs at a time, and each writes what it reads: they can do with the same memory.
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._captured: list[Prediction] = []
        try:
            for number in range(len(forward.turns)):
                graph = torch.cuda.CUDAGraph()
                pool = self._graphs[0].pool() if self._graphs else None
                with torch.cuda.graph(graph, pool=pool):
                    captured = forward.of(number)
                self._graphs.append(graph)
                self._captured.append(captured)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            said = next(iter(str(error).strip().splitlines()), "")
            raise CellError(f"The inference cannot be captured as a CUDA graph: {said}") from error

    @property
    def repeated(self) -> int:
        """See `Inference`."""
        return self._queue.repeated

    def predictions(self, number: int) -> dict[str, Prediction]:
        """See `Inference`."""
        eager, captured = self._forward.of(number), self._captured[number]
        for output in captured:
            output.fill_(torch.nan)  # whatever is right in them afterwards, the graph has put there
        self._graphs[number].replay()
        torch.cuda.synchronize()
        return {"eager": eager, "CUDA graph": Prediction(*(output.clone() for output in captured))}

    def sample(self, passes: int) -> Samples:
        """See `Inference`."""
        samples = {
            "e2e_us": [self._eager_us() for _ in range(passes * PER_PASS)],
            "e2e_graph_us": [
                taken
                for count in _blocks(passes * PER_PASS, self._graphs_ahead)
                for taken in self._graphs_us(count)
            ],
            **{name: [] for name in PARTS},
        }
        for count in _blocks(passes, self._forwards_ahead):
            for name, taken in self._parts_us(count).items():
                samples[name] += taken
        return samples

    def _eager_us(self) -> float:
        if self._cold:
            self._l2.isolate()
        number = self._forward.order.next()
        torch.cuda.synchronize()
        begin = time.perf_counter_ns()
        self._forward.of(number)
        torch.cuda.synchronize()
        return (time.perf_counter_ns() - begin) / 1e3

    def _graphs_us(self, count: int) -> list[float]:
        pairs = [(event(), event()) for _ in range(count)]
        self._run([partial(_between, pair, self._replay) for pair in pairs], 3)
        return self._read(pairs)

    def _replay(self) -> None:
        self._graphs[self._forward.order.next()].replay()

    def _parts_us(self, count: int) -> Samples:
        pairs = {name: [(event(), event()) for _ in range(count)] for name in PARTS}
        steps: list[Callable[[], None]] = []
        for slot in range(count):
            around = partial(_around, {name: taken[slot] for name, taken in pairs.items()})
            steps += self._forward.steps(around)
        self._run(steps, self._step_commands)
        return {name: self._read(taken) for name, taken in pairs.items()}

    def _run(self, steps: list[Callable[[], None]], commands: int) -> None:
        if self._cold:
            self._queue.run([self._l2.flush, *steps], commands, self._l2.reset)
        else:
            self._queue.run(steps, commands)

    def _read(self, pairs: Sequence[Pair]) -> list[float]:
        return [net_us(pair, self._overhead_us) for pair in pairs]


def _around(pairs: Mapping[str, Pair], name: str, part: Callable[[], None]) -> Callable[[], None]:
    return partial(_between, pairs[name], part)


def _between(pair: Pair, work: Callable[[], None]) -> None:
    begin, end = pair
    begin.record()
    work()
    end.record()


def _blocks(count: int, most: int) -> list[int]:
    """So many in blocks of at most `most`."""
    return [min(most, count - done) for done in range(0, count, most)]
