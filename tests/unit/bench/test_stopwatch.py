"""What is timed, in which order and between which events, on a pretended GPU that writes it down."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from harness.bench import stopwatch
from harness.bench.rotation import Order, Turn
from harness.bench.stopwatch import CpuStopwatch, GpuStopwatch


class Diary:
    """Events, lookups and prepares in the order in which they are queued; the time is the place in it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> Diary:
    written = Diary()

    class Event:
        def record(self) -> None:
            self.at = len(written.lines)
            written.note("event")

        def elapsed_time(self, end: Event) -> float:
            return float(end.at - self.at)

    class Queue:
        repeated = 0

        def run(
            self, steps: Sequence[Callable[[], None]], commands: int, before: Callable[[], None] | None = None
        ) -> None:
            if before is not None:
                before()
            written.note("spin")
            for step in steps:
                step()

    monkeypatch.setattr(stopwatch, "event", Event)
    monkeypatch.setattr(stopwatch, "Queue", Queue)
    return written


class NotedL2:
    """Writes flushes and resets down."""

    def __init__(self, diary: Diary) -> None:
        self.flush = lambda: diary.note("flush")
        self.reset = lambda: diary.note("reset")


@pytest.fixture
def watch(diary: Diary) -> Callable[..., GpuStopwatch]:
    """A stopwatch over two tables; lookups and prepares of a batch but the first tell which it is."""

    def lookup(batch: str, call: int) -> Tensor:
        diary.note(f"lookup {batch}{call}")
        return torch.zeros(1)

    def prepare(batch: str, table: int) -> None:
        diary.note(f"prepare {batch}{table}")

    def make(
        *, cold: bool, prepares: bool, overhead_us: float = 0.0, calls: int = 2, batches: int = 1
    ) -> GpuStopwatch:
        turns = [
            Turn([partial(lookup, name, call) for call in range(calls)], partial(prepare, name))
            for name in ["", *(f"{number}:" for number in range(1, batches))]
        ]
        if not prepares:
            turns = [Turn(turn.calls) for turn in turns]
        l2 = NotedL2(diary)
        return GpuStopwatch(turns, Order(batches), 2, l2, cold=cold, overhead_us=overhead_us)  # type: ignore[arg-type]

    return make


def test_steady_takes_tables_in_turn_behind_one_spin(
    watch: Callable[..., GpuStopwatch], diary: Diary
) -> None:
    taken = watch(cold=False, prepares=False)
    assert taken.block > 8
    lookups, prepares = taken.tables(2)
    one_pass = ["event", "lookup 0", "event", "event", "lookup 1", "event"]
    assert diary.lines == ["spin", *one_pass, *one_pass]
    assert lookups == [2e3] * 4
    assert prepares == []


def test_prepare_is_timed_apart_and_right_before_its_lookup(
    watch: Callable[..., GpuStopwatch], diary: Diary
) -> None:
    lookups, prepares = watch(cold=False, prepares=True).tables(1)
    assert diary.lines[:7] == ["spin", "event", "prepare 0", "event", "event", "lookup 0", "event"]
    assert lookups == prepares == [2e3, 2e3]


@pytest.mark.parametrize("prepares", [False, True])
def test_batches_take_turns_pass_after_pass_and_from_one_way_of_timing_to_the_next(
    watch: Callable[..., GpuStopwatch], diary: Diary, prepares: bool
) -> None:
    taken = watch(cold=False, prepares=prepares, batches=3)
    taken.tables(2)
    taken.stages(2)
    taken.tables(1)
    taken.walk(contextlib.nullcontext)
    looked_up = [line.split()[1] for line in diary.lines if line.startswith("lookup")]
    assert looked_up == ["0", "1", "1:0", "1:1", "2:0", "2:1"] * 2
    prepared = [line.split()[1] for line in diary.lines if line.startswith("prepare")]
    assert prepared == (looked_up if prepares else [])


def test_a_block_that_is_taken_again_goes_on_with_the_next_batches(
    watch: Callable[..., GpuStopwatch], diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own were looked up a moment ago: L2 may still have their rows."""

    class Twice:
        repeated = 1

        def run(
            self, steps: Sequence[Callable[[], None]], commands: int, before: Callable[[], None] | None = None
        ) -> None:
            for step in [*steps, *steps]:
                step()

    monkeypatch.setattr(stopwatch, "Queue", Twice)
    taken = watch(cold=False, prepares=False, batches=3, calls=1)
    taken.tables(2)
    taken.stages(1)
    looked_up = [line.split()[1] for line in diary.lines if line.startswith("lookup")]
    assert looked_up == ["0", "1:0", "2:0"] * 2


def test_a_stage_is_all_tables_between_two_events(watch: Callable[..., GpuStopwatch], diary: Diary) -> None:
    stages = watch(cold=False, prepares=True).stages(2)
    one = ["event", "prepare 0", "lookup 0", "prepare 1", "lookup 1", "event"]
    assert diary.lines == ["spin", *one, *one]
    assert stages == [5e3, 5e3]


def test_one_call_for_all_tables_is_a_pass_and_told_per_table(
    watch: Callable[..., GpuStopwatch], diary: Diary
) -> None:
    taken = watch(cold=False, prepares=False, overhead_us=1.0, calls=1)
    assert (taken.calls, taken.block > 8) == (1, True)
    assert taken.tables(3) == ([(2e3 - 1) / 2] * 3, [])
    assert taken.stages(2) == [2e3 - 1] * 2
    assert diary.lines == [
        "spin",
        *["event", "lookup 0", "event"] * 3,
        "spin",
        *["event", "lookup 0", "event"] * 2,
    ]


def test_what_the_events_add_is_taken_off_every_sample(watch: Callable[..., GpuStopwatch]) -> None:
    taken = watch(cold=False, prepares=True, overhead_us=3.0)
    assert taken.tables(1) == ([2e3 - 3] * 2, [2e3 - 3] * 2)
    assert taken.stages(1) == [5e3 - 3]
    # Jitter may let the events take all of a short kernel; what is left is a time still.
    assert all(0 < sample < 1 for sample in watch(cold=False, prepares=False, overhead_us=1e9).stages(2))


def test_cold_resets_and_flushes_before_every_sample(
    watch: Callable[..., GpuStopwatch], diary: Diary
) -> None:
    taken = watch(cold=True, prepares=True)
    assert taken.block == 1
    taken.tables(1)
    table = ["reset", "spin", "flush", "event", "prepare {}", "event", "event", "lookup {}", "event"]
    assert diary.lines == [line.format(t) for t in (0, 1) for line in table]
    diary.lines.clear()
    taken.stages(1)
    assert diary.lines[:4] == ["reset", "spin", "flush", "event"]
    assert diary.lines.count("flush") == 1


def test_the_cpu_is_timed_call_by_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 1000)
    called: list[int] = []

    def lookup(call: int) -> Tensor:
        called.append(call)
        return torch.zeros(1)

    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(clock))
    taken = CpuStopwatch([Turn([partial(lookup, call) for call in range(3)])], Order(1), 3)
    assert taken.tables(2) == ([1.0] * 6, [])
    assert called == [0, 1, 2, 0, 1, 2]
    assert taken.stages(2) == [1.0, 1.0], "the clock is read before and after a stage, not between its tables"
    assert called == [0, 1, 2] * 4
    called.clear()
    two = CpuStopwatch([Turn([partial(lookup, 0)]), Turn([partial(lookup, 1)])], Order(2), 1)
    two.tables(3)
    two.stages(2)
    assert called == [0, 1, 0, 1, 0]
    single = CpuStopwatch([Turn([partial(lookup, 0)])], Order(1), 4)
    assert single.tables(2) == ([0.25, 0.25], [])
    assert single.stages(1) == [1.0]
