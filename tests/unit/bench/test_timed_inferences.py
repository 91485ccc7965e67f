"""How inferences are timed, on a pretended GPU that writes down what it is given."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from harness.bench import inference
from harness.bench.dlrm import Prediction
from harness.bench.failures import CellError
from harness.bench.inference import CpuInference, Forward, GpuInference
from harness.bench.rotation import Order, Turn

WHOLE = ["bottom", "lookup 0", "lookup 1", "interaction", "top"]


class NotedModel:
    """Stands for a Dlrm; writes its steps down."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def _note(self, line: str) -> Tensor:
        self._lines.append(line)
        return torch.zeros(2, 1)

    def bottom(self, dense: Tensor) -> Tensor:
        return self._note("bottom")

    def interaction(self, bottom: Tensor, pooled: Sequence[Tensor]) -> Tensor:
        assert len(pooled) == 2
        return self._note("interaction")

    def top(self, entering: Tensor) -> Tensor:
        return self._note("top")

    def __call__(self, dense: Tensor, lookups: Sequence[Callable[[], Tensor]]) -> Prediction:
        logits = self.top(self.interaction(self.bottom(dense), [lookup() for lookup in lookups]))
        return Prediction(logits, logits.sigmoid())


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def forward(lines: list[str]) -> Forward:
    return forward_of(lines, 1)


def forward_of(lines: list[str], batches: int) -> Forward:
    """Lookups of a batch but the first tell which it is."""
    model = NotedModel(lines)
    names = ["", *(f"{number}:" for number in range(1, batches))]
    turns = [Turn([partial(model._note, f"lookup {name}{at}") for at in range(2)]) for name in names]
    return Forward(model, torch.zeros(2, 3), turns, Order(batches))  # type: ignore[arg-type]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A microsecond passes between two looks at it."""
    ticks = itertools.count(0, 1000)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(ticks))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    """Events tell their place among the lines; a graph tells that it is replayed."""

    class Event:
        def record(self) -> None:
            self.at = len(lines)
            lines.append("event")

        def elapsed_time(self, end: Event) -> float:
            return float(end.at - self.at)

    class Queue:
        repeated = 0

        def run(
            self, steps: Sequence[Callable[[], None]], commands: int, before: Callable[[], None] | None = None
        ) -> None:
            if before is not None:
                before()
            lines.append("spin")
            assert len(steps) * commands < 900, "the driver's queue is full"
            for step in steps:
                step()

    class Graph:
        def replay(self) -> None:
            lines.append("replay")

    @contextlib.contextmanager
    def capture(graph: Graph, pool: object) -> Iterator[None]:
        assert pool is None, "the first has no other's memory to share"
        lines.append("capture")
        yield
        lines.append("captured")

    monkeypatch.setattr(inference, "event", Event)
    monkeypatch.setattr(inference, "Queue", Queue)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: lines.append("wait"))


class NotedL2:
    def __init__(self, lines: list[str]) -> None:
        self.flush = lambda: lines.append("flush")
        self.reset = lambda: lines.append("reset")
        self.isolate = lambda: lines.append("isolate")


@pytest.fixture
def gpu(pretended: None, forward: Forward, lines: list[str]) -> Callable[..., GpuInference]:
    def make(*, cold: bool = False, overhead_us: float = 0.0) -> GpuInference:
        made = GpuInference(forward, NotedL2(lines), cold=cold, overhead_us=overhead_us)  # type: ignore[arg-type]
        assert lines == [*WHOLE, "wait", "capture", *WHOLE, "captured"], (
            "nothing is captured at its first call"
        )
        lines.clear()
        return made

    return make


def test_the_steps_are_the_whole(forward: Forward, lines: list[str]) -> None:
    forward()
    assert lines == WHOLE
    lines.clear()
    for _ in range(2):
        steps = forward.steps(lambda name, part: part)
        for step in steps:
            step()
    assert lines == WHOLE * 2


@pytest.mark.usefixtures("clock")
def test_eager_is_launching_and_waiting_graphs_and_parts_are_not(
    gpu: Callable[..., GpuInference], lines: list[str]
) -> None:
    samples = gpu(overhead_us=1.0).sample(2)
    eager = ["wait", *WHOLE, "wait"]
    graph = ["event", "replay", "event"]
    parts = ["event", "bottom", "event", "lookup 0", "lookup 1"]
    parts += ["event", "interaction", "event", "event", "top", "event"]
    assert lines == [*eager * 6, "spin", *graph * 6, "spin", *parts * 2]
    assert samples == {
        "e2e_us": [1.0] * 6,
        "e2e_graph_us": [2e3 - 1] * 6,
        "bottom_us": [2e3 - 1] * 2,
        "interaction_us": [2e3 - 1] * 2,
        "top_us": [2e3 - 1] * 2,
    }


@pytest.mark.usefixtures("pretended")
def test_batches_take_turns_whatever_way_they_are_run(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Graph:
        """Tells at each replay what was captured."""

        captured: Sequence[str] = ()

        def pool(self) -> tuple[int, int]:
            return 7, 0

        def replay(self) -> None:
            lines.extend(self.captured)

    @contextlib.contextmanager
    def capture(graph: Graph, pool: tuple[int, int] | None) -> Iterator[None]:
        pools.append(pool)
        begin = len(lines)
        yield
        graph.captured = lines[begin:]

    pools: list[tuple[int, int] | None] = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    made = GpuInference(forward_of(lines, 4), NotedL2(lines), cold=False, overhead_us=0)  # type: ignore[arg-type]
    assert pools == [None, (7, 0), (7, 0), (7, 0)]
    lines.clear()
    made.sample(2)
    # Six eager, six graphs, two in parts; what each looks up first.
    firsts = [line.split()[1] for line in lines if line.startswith("lookup") and line.endswith("0")]
    assert firsts == (["0", "1:0", "2:0", "3:0"] * 4)[:14]
    seconds = [line.split()[1] for line in lines if line.startswith("lookup") and line.endswith("1")]
    assert seconds == [name.replace("0", "1") if name == "0" else f"{name[:2]}1" for name in firsts]
    lines.clear()
    assert [made.predictions(2).keys()] == [{"eager": 0, "CUDA graph": 0}.keys()]
    assert [line for line in lines if line.startswith("lookup")] == ["lookup 2:0", "lookup 2:1"] * 2


def test_many_passes_are_taken_in_blocks_that_the_queue_holds(
    gpu: Callable[..., GpuInference], lines: list[str]
) -> None:
    samples = gpu().sample(50)
    assert (len(samples["e2e_graph_us"]), len(samples["top_us"])) == (150, 50)
    assert lines.count("spin") > 10
    assert lines.count("replay") == 150


def test_cold_empties_l2_before_every_inference(gpu: Callable[..., GpuInference], lines: list[str]) -> None:
    gpu(cold=True).sample(1)
    assert lines.count("isolate") == 3
    assert lines.count("reset") == lines.count("flush") == 3 + 1
    for place in (at for at, line in enumerate(lines) if line == "flush"):
        assert lines[place - 2 : place] == ["reset", "spin"]
        assert lines[place + 1] == "event"


def test_what_a_graph_does_not_write_is_not_taken_for_its_output(gpu: Callable[..., GpuInference]) -> None:
    eager, graph = gpu().predictions(0).values()
    assert eager.logits.isfinite().all()
    assert graph.logits.isnan().all(), "this graph writes nothing"
    assert graph.probabilities.isnan().all()


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (
            RuntimeError("operation not permitted\nmore"),
            CellError,
            "captured as a CUDA graph: operation not permitted$",
        ),
        (torch.OutOfMemoryError("out of memory"), torch.OutOfMemoryError, "^out of memory$"),
    ],
)
def test_what_cannot_be_captured_says_why(
    gpu: Callable[..., GpuInference],
    monkeypatch: pytest.MonkeyPatch,
    error: RuntimeError,
    raised: type[Exception],
    said: str,
) -> None:
    @contextlib.contextmanager
    def capture(graph: object, pool: object) -> Iterator[None]:
        yield
        raise error

    monkeypatch.setattr(torch.cuda, "graph", capture)
    with pytest.raises(raised, match=said):
        gpu()


@pytest.mark.usefixtures("clock")
def test_on_the_cpu_whole_and_parts_are_timed_by_the_clock(forward: Forward, lines: list[str]) -> None:
    samples = CpuInference(forward).sample(2)
    assert lines == [*WHOLE * 3, *WHOLE] * 2
    parts = {name: [1.0] * 2 for name in ("bottom_us", "interaction_us", "top_us")}
    assert samples == {"e2e_us": [1.0] * 6, **parts}
