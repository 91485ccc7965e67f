"""The GPU's clock, on pretended CUDA: what it waits for, what it times, what it takes again."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.served_package import clocks


class Cuda:
    """PyTorch's CUDA as far as the clock calls it. Every replay takes 3 µs of the GPU's time."""

    def __init__(self, late: int) -> None:
        """`late`: so many blocks begin before they are queued."""
        self.log: list[str] = []
        self.now_us, self.late, self.slept = 0.0, late, []  # type: ignore[var-annotated]
        cuda = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at_us = cuda.now_us

            def query(self) -> bool:
                cuda.late -= 1
                return cuda.late >= 0

            def elapsed_time(self, other: Any) -> float:
                return float(other.at_us - self.at_us) / 1e3

        class Graph:
            def pool(self) -> int:
                return 7

            def replay(self) -> None:
                cuda.now_us += 3
                cuda.log.append("replay")

        self.Event, self.CUDAGraph = Event, Graph

    def graph(self, graph: Any, pool: Any) -> Any:
        self.log.append(f"capture into {pool}")
        return contextlib.nullcontext()

    def synchronize(self, device: Any = None) -> None:
        self.log.append("wait")

    def sleep(self, cycles: int) -> None:
        self.slept.append(cycles)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Cuda:
    found = Cuda(getattr(request, "param", 0))
    facts = SimpleNamespace(name="NVIDIA TEST", major=9, minor=0, L2_cache_size=50, multi_processor_count=132)
    for name, value in {
        "Event": found.Event,
        "CUDAGraph": found.CUDAGraph,
        "graph": found.graph,
        "synchronize": found.synchronize,
        "_sleep": found.sleep,
        "device": lambda device: contextlib.nullcontext(),
        "get_device_properties": lambda device: facts,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr("embedding_kernels._operators.crowded_clocks", lambda index: 718 + index)
    monkeypatch.setattr("embedding_kernels.plan._driver", lambda: "580.1")
    return found


def passes(cuda: Cuda) -> Any:
    def begin(number: int) -> Any:
        cuda.log.append(f"make {number}")
        return lambda: cuda.log.append(f"look up {number}")

    return clocks.Passes("fused", [lambda n=number: begin(n) for number in range(2)])  # type: ignore[misc]


def test_eager_passes_are_waited_for(cuda: Cuda) -> None:
    clock = clocks.GpuClock(torch.device("cuda", 0))
    assert (clock.l2_bytes, clock.multiprocessors, clock.crowded_clocks) == (50, 132, 718)
    assert (clock.gpu.name, clock.gpu.capability, clock.gpu.driver) == ("NVIDIA TEST", "9.0", "580.1")
    took = clock.eager_us(passes(cuda), [1, 0])
    assert len(took) == 2
    assert min(took) > 0
    each = [["make 1", "wait", "look up 1", "wait"], ["make 0", "wait", "look up 0", "wait"]]
    assert cuda.log == each[0] + each[1]


def test_graphs_are_captured_after_a_first_call_and_share_memory(cuda: Cuda) -> None:
    clock = clocks.GpuClock(torch.device("cuda", 0))
    captured = clock.capture(passes(cuda))
    assert len(captured) == 2
    assert cuda.log[:5] == ["make 0", "look up 0", "wait", "capture into None", "look up 0"]
    assert cuda.log[5:] == ["make 1", "look up 1", "wait", "capture into 7", "look up 1"]


@pytest.mark.parametrize("cuda", [2], indirect=True)
def test_replays_that_were_not_ahead_are_taken_again(cuda: Cuda) -> None:
    clock = clocks.GpuClock(torch.device("cuda", 0))
    captured = clock.capture(passes(cuda))
    turns = [0, 1] * 40
    assert clock.graph_us(captured, turns) == pytest.approx([3.0] * 80)
    assert cuda.slept == [200_000, 400_000, 800_000, 800_000]  # twice in vain, then 64 and 16 replays


@pytest.mark.parametrize("cuda", [99], indirect=True)
def test_replays_that_never_get_ahead_are_refused(cuda: Cuda) -> None:
    clock = clocks.GpuClock(torch.device("cuda", 0))
    with pytest.raises(RuntimeError, match="queued ahead of the GPU; unset CUDA_LAUNCH_BLOCKING"):
        clock.graph_us(clock.capture(passes(cuda)), [0])
