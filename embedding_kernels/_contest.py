"""Times contenders in blocks, each in an order drawn anew, and says which to take."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from embedding_kernels._clock import Clock, Passes
from embedding_kernels._layout import USUAL
from embedding_kernels._statistics import time, told_apart
from embedding_kernels.plan import Candidate, Choice

By = Literal["eager", "graph"]


def first_line(error: BaseException) -> str:
    """What an error says, for a sentence; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@dataclass
class Contender:
    """A choice that is right, or why it is not measured."""

    choice: Choice
    passes: Passes
    change: float = 0.0
    wrong: str = ""
    """Why nothing is timed."""
    uncaptured: str = ""
    """Why it is not timed as a CUDA graph."""
    captured: Any = None
    times: dict[By, list[float]] = field(default_factory=lambda: {"eager": [], "graph": []})
    """In microseconds, the median of each block."""

    def capture(self, clock: Clock) -> None:
        """As CUDA graphs, where that can be."""
        try:
            self.captured = clock.capture(self.passes)
        except RuntimeError as error:
            self.uncaptured = f"It cannot be captured as a CUDA graph: {first_line(error)}"

    def candidate(self) -> Candidate:
        """As plans have it."""
        eager, graph = (time(blocks) if blocks else None for blocks in self.times.values())
        return Candidate(self.choice, eager, graph, self.change, self.wrong or self.uncaptured)


@dataclass(frozen=True)
class Blocks:
    """How much is measured."""

    blocks: int
    passes: int
    """Of each contender in each block."""


def measure(
    contenders: Sequence[Contender],
    how: Blocks,
    clock: Clock,
    order: Iterator[int],
    drawn: random.Random,
) -> None:
    """Times all that are right. `order`: whose turn it is among the batches, of all contenders together, so
    that none is looked up twice in a row. What a first block costs besides is in none of the times."""
    right = [each for each in contenders if not each.wrong]
    for block in range(-1, how.blocks):
        ways: list[tuple[Contender, By]] = [(each, "eager") for each in right]
        ways += [(each, "graph") for each in right if not each.uncaptured]
        drawn.shuffle(ways)
        for contender, by in ways:
            turns = [next(order) for _ in range(how.passes)]
            if by == "eager":
                took = clock.eager_us(contender.passes, turns)
            else:
                took = clock.graph_us(contender.captured, turns)
            if block >= 0:
                contender.times[by].append(statistics.median(took))


def decide(contenders: Sequence[Contender], by: By) -> tuple[Choice, tuple[Choice, ...]]:
    """The fastest, and what cannot be told apart from it. Of those that cannot be told apart the one is taken
    that changes no numbers, then what `optimize` does without a plan, then its kernel, then the fastest.

    RuntimeError where nothing was timed in this way.
    """
    timed = [each for each in contenders if each.times[by]]
    if not timed:
        why = "; ".join(f"{each.choice}: {each.wrong or each.uncaptured}" for each in contenders)
        raise RuntimeError(f"No choice could be timed ({why}).")
    timed.sort(key=lambda each: statistics.median(each.times[by]))

    def same(one: Contender, other: Contender) -> bool:
        return not told_apart(one.times[by], other.times[by], len(timed) - 1)

    equal = [each for each in timed if each is timed[0] or same(timed[0], each)]

    def unusual(each: Contender) -> tuple[bool, bool, bool]:
        choice = each.choice
        return choice.row_type != "unchanged", choice.kernel != "fused", choice.limits != USUAL

    chosen = min(equal, key=unusual)
    others = [each.choice for each in timed if each is not chosen and same(chosen, each)]
    return chosen.choice, tuple(others)
