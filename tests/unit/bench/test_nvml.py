"""Readings of the GPU beside the samples, and which passes they mark."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from harness.bench import nvml
from harness.bench.nvml import Nvml, Watch, throttled_passes
from harness.records import GpuState


def reading(after_pass: int, *reasons: str) -> GpuState:
    return GpuState(after_pass, 1980, 2619, 40, 300.0, list(reasons))


def test_passes_on_both_sides_of_a_hot_reading_are_marked() -> None:
    readings = [reading(-1, "idle"), reading(4), reading(8, "sw_thermal"), reading(12), reading(16)]
    assert throttled_passes(readings, 16, 1) == list(range(4, 13))


def test_the_first_reading_counts_from_the_first_pass_and_none_beyond_the_last() -> None:
    assert throttled_passes([reading(-1, "hw_thermal"), reading(3)], 3, 1) == [0, 1, 2]
    assert throttled_passes([reading(-1), reading(0, "hw_power_brake"), reading(0)], 2, 1) == [0]


def test_a_hot_reading_within_a_block_marks_all_of_it() -> None:
    """Its passes are sampled together, and another reading may come before they are in."""
    readings = [reading(8), reading(16), reading(16, "hw_thermal"), reading(16), reading(24), reading(32)]
    assert throttled_passes(readings, 32, 8) == list(range(16, 24))
    readings = [reading(-1), reading(0), reading(16, "hw_thermal"), reading(20)]
    assert throttled_passes(readings, 20, 8) == list(range(20))


@pytest.mark.parametrize(
    "reason", ["idle", "sw_power_cap", "application_clocks", "sync_boost", "display_clocks"]
)
def test_ordinary_limits_mark_nothing(reason: str) -> None:
    assert throttled_passes([reading(-1, reason), reading(5, reason), reading(9, reason)], 9, 4) == []


def test_the_watch_reads_before_during_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "PERIOD_S", 0.001)
    seen: list[int] = []
    during = threading.Event()

    def read(after_pass: int) -> GpuState:
        seen.append(after_pass)
        if after_pass == 5:
            during.set()
        return reading(after_pass)

    with Watch(read) as watch:
        watch.count(5)
        assert during.wait(10)
        watch.count(9)
    assert seen[0] == -1
    assert 5 in seen
    assert seen[-1] == 9
    assert [state.after_pass for state in watch.readings] == seen
    assert threading.active_count() == 1 or not any(t is watch._thread for t in threading.enumerate())


def test_the_watch_without_a_reader_keeps_nothing() -> None:
    with Watch(None) as watch:
        watch.count(3)
    assert watch.readings == []


class Library(SimpleNamespace):
    """Stands in for pynvml on a GPU that tells its temperature and clocks, and withholds the rest."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __getattr__(self, name: str) -> Any:
        def refuse(*arguments: object) -> None:
            raise self.NVMLError(name)

        return refuse


def test_what_the_driver_withholds_reads_as_nothing() -> None:
    library = Library(
        nvmlDeviceGetTemperature=lambda handle, kind: 51,
        nvmlDeviceGetClockInfo=lambda handle, kind: {1: 1980, 2: 2619}[kind],
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x44,
    )
    gpu = Nvml(library, handle=object())
    assert gpu.state(3) == GpuState(3, 1980, 2619, 51, 0.0, ["sw_power_cap", "hw_thermal"])
    assert (gpu.mig(), gpu.mps(), gpu.display(), gpu.processes()) == (False, False, False, 0)


def test_processes_are_counted_once_each() -> None:
    library = Library(
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=1), SimpleNamespace(pid=2)],
        nvmlDeviceGetGraphicsRunningProcesses=lambda handle: [SimpleNamespace(pid=2)],
        nvmlDeviceGetMigMode=lambda handle: [1, 1],
    )
    gpu = Nvml(library, handle=object())
    assert gpu.processes() == 2
    assert gpu.mig()
