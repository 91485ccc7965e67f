"""That nothing is timed which the GPU began before it was queued, on a pretended GPU with its own clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from harness.bench import queue
from harness.bench.failures import CellError
from harness.bench.queue import DEPTH, Queue


class PretendedGpu:
    """Runs commands one after the other from when they are queued; queueing takes the host time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.busy_until = 0.0
        self.spins: list[int] = []

    def sleep(self, cycles: int) -> None:
        self.spins.append(cycles)
        self.command(cycles / 1000)

    def command(self, takes: float, to_queue: float = 1.0) -> None:
        self.now += to_queue
        self.busy_until = max(self.now, self.busy_until) + takes

    def synchronize(self) -> None:
        self.now = max(self.now, self.busy_until)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> PretendedGpu:
    pretended = PretendedGpu()

    class Event:
        def record(self) -> None:
            pretended.command(0.0)
            self.at = pretended.busy_until

        def query(self) -> bool:
            return self.at <= pretended.now

    monkeypatch.setattr(queue, "event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", pretended.sleep)
    monkeypatch.setattr(torch.cuda, "synchronize", pretended.synchronize)
    return pretended


def steps(gpu: PretendedGpu, count: int, takes: float, to_queue: float) -> list[Callable[[], None]]:
    return [lambda: gpu.command(takes, to_queue)] * count


def test_the_spin_grows_until_all_is_queued_behind_it(gpu: PretendedGpu) -> None:
    held = Queue()
    held.run(steps(gpu, 100, takes=50.0, to_queue=30.0), commands=3)
    assert held.repeated > 0
    assert gpu.spins == [gpu.spins[0] * 2**n for n in range(held.repeated + 1)]
    assert gpu.spins[-1] / 1000 >= 100 * 30.0
    before = held.repeated
    held.run(steps(gpu, 100, takes=50.0, to_queue=30.0), commands=3)
    assert held.repeated == before


def test_a_block_that_is_queued_in_time_is_not_repeated(gpu: PretendedGpu) -> None:
    held = Queue()
    held.run(steps(gpu, 10, takes=1.0, to_queue=1.0), commands=3)
    assert held.repeated == 0
    assert len(gpu.spins) == 1


def test_launches_that_wait_for_the_gpu_are_refused(gpu: PretendedGpu) -> None:
    def blocking() -> None:
        gpu.command(1.0)
        gpu.synchronize()

    with pytest.raises(CellError, match="CUDA_LAUNCH_BLOCKING"):
        Queue().run([blocking] * 3, commands=3)


def test_of_a_long_block_the_beginning_must_be_ahead_and_the_end_not_late(gpu: PretendedGpu) -> None:
    slow_kernels = Queue()
    slow_kernels.run(steps(gpu, 3 * DEPTH, takes=10.0, to_queue=2.0), commands=1)
    assert gpu.spins[-1] / 1000 < 3 * DEPTH * 2.0, "need not hold back the whole block"
    fast_kernels = Queue()
    fast_kernels.run(steps(gpu, 3 * DEPTH, takes=0.1, to_queue=2.0), commands=1)
    assert gpu.spins[-1] / 1000 >= 2 * DEPTH * 2.0, "the host would have fallen behind"


def test_what_comes_before_runs_ahead_of_every_attempt(gpu: PretendedGpu) -> None:
    idle: list[bool] = []
    held = Queue()
    held.run(steps(gpu, 100, 50.0, 30.0), 3, before=lambda: idle.append(gpu.busy_until <= gpu.now))
    assert idle == [True] * (held.repeated + 1)
