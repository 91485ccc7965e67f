"""What is timed, in which order and between which events, on a pretended GPU that writes it down."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.bench import batch, stopwatch
from harness.bench.batch import Batch
from harness.bench.stopwatch import CpuStopwatch, GpuStopwatch
from harness.records import Cell
from harness.traces import replay


class Diary:
    """Events, lookups and prepares in the order in which they are queued; the time is the place in it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


@dataclasses.dataclass(frozen=True)
class Noted(Batch):
    """A batch that writes its lookups down."""

    diary: Diary = dataclasses.field(default_factory=Diary)

    def lookup(self, table: int) -> Tensor:
        self.diary.note(f"lookup {table}")
        return torch.zeros(1)


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
def watch(cell: Callable[..., Cell], diary: Diary) -> Callable[..., GpuStopwatch]:
    """A stopwatch over two tables."""

    def make(*, cold: bool, prepares: bool, overhead_us: float = 0.0) -> GpuStopwatch:
        made = Noted(cell(tables=2).workload, [], [], torch.empty(0), [], diary)
        prepare = (lambda table: diary.note(f"prepare {table}")) if prepares else None
        l2 = NotedL2(diary)
        return GpuStopwatch(made, prepare, l2, cold=cold, overhead_us=overhead_us)  # type: ignore[arg-type]

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


def test_a_stage_is_all_tables_between_two_events(watch: Callable[..., GpuStopwatch], diary: Diary) -> None:
    stages = watch(cold=False, prepares=True).stages(2)
    one = ["event", "prepare 0", "lookup 0", "prepare 1", "lookup 1", "event"]
    assert diary.lines == ["spin", *one, *one]
    assert stages == [5e3, 5e3]


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


def test_the_cpu_is_timed_call_by_call(
    cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0, 1000)
    calls: list[int] = []
    monkeypatch.setattr(stopwatch.time, "perf_counter_ns", lambda: next(clock))
    monkeypatch.setattr(Batch, "lookup", lambda self, table: calls.append(table))
    one = cell()
    traces = replay.read_traces(one, tmp_path)
    taken = CpuStopwatch(batch.make(one, traces, batch.Tables().get(one.workload, one.seed)))
    assert taken.tables(2) == ([1.0] * 6, [])
    assert calls == [0, 1, 2, 0, 1, 2]
    assert taken.stages(2) == [1.0, 1.0], "the clock is read before and after a stage, not between its tables"
    assert calls == [0, 1, 2] * 4
