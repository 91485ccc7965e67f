"""Blocks of two models with a clock from here: what is counted, and what is said meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tests.served_package import ek  # noqa: F401

BLOCKS, PASSES, REQUESTS = 3, 4, 2


class Heard:
    """Keeps what is said, and how many steps were done."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps = 0

    def expect(self, steps: int) -> None: ...

    def say(self, line: str) -> None: ...

    def now(self, what: str) -> None:
        self.said.append(what)

    def advance(self, steps: int = 1) -> None:
        self.steps += steps


class Graph:
    """Counts its replays, those of `back_to_back_s`."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


class PretendedClock:
    """Graphs of the first model alone; every pass takes as long as its request's number says."""

    def __init__(self) -> None:
        self.graphs: list[Graph] = []

    def eager_us(self, passes: Any, turns: Sequence[int]) -> list[float]:
        return [100.0 + turn for turn in turns]

    def capture(self, passes: Any) -> list[tuple[Graph, None]]:
        if passes.label == "theirs":
            raise RuntimeError("it waits for the GPU\nand more")
        self.graphs = [Graph() for _ in passes.of_batch]
        return [(graph, None) for graph in self.graphs]

    def graph_us(self, captured: Any, turns: Sequence[int]) -> list[float]:
        return [10.0 + turn for turn in turns]


def test_every_way_is_counted_in_every_block_but_the_first_and_is_told() -> None:
    from kernel_wheel import side_by_side

    asked = [lambda number=number: (torch.ones(8) * number, None) for number in range(REQUESTS)]
    models = {"theirs": Model(), "ours": Model()}
    clock: Any = PretendedClock()
    heard = Heard()
    how = side_by_side.How(BLOCKS, PASSES, 0, 8)
    found = side_by_side.measured(models, asked, how, clock, heard)

    assert found["theirs"].keys() == {"eager", "why_no_graph"}
    assert found["theirs"]["why_no_graph"] == "it waits for the GPU"
    assert found["ours"].keys() == {"eager", "graph"}
    for model, way, first in (("theirs", "eager", 100), ("ours", "eager", 100), ("ours", "graph", 10)):
        times = found[model][way]
        assert len(times["us"]) == BLOCKS * PASSES
        assert set(times["us"]) == {first, first + 1}, "requests take turns"
        assert len(times["rates"]) == BLOCKS
    assert sum(graph.replays for graph in clock.graphs) == (BLOCKS + 1) * PASSES
    assert models["ours"].calls == models["theirs"].calls == (BLOCKS + 1) * PASSES

    assert heard.steps == BLOCKS + 1
    assert heard.said[:2] == [
        "batch 8: theirs, CUDA graphs of 2 requests",
        "batch 8: ours, CUDA graphs of 2 requests",
    ]
    warming = {f"batch 8: {way}, warming up" for way in ("theirs, eager", "ours, eager", "ours, graph")}
    assert set(heard.said[2:5]) == warming
    (told,) = heard.said[5:]
    assert told.startswith("batch 8: 3 blocks of theirs eager, ours eager and graph; about ")


class Model(nn.Module):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, dense: torch.Tensor, features: Any) -> torch.Tensor:
        self.calls += 1
        return dense
