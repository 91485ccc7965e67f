"""What NVIDIA's management library says about the GPU under test, also while it is being measured."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from harness.records import GpuState

T = TypeVar("T")

REASONS = {
    0x01: "idle",
    0x02: "application_clocks",
    0x04: "sw_power_cap",
    0x08: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
    0x100: "display_clocks",
}
"""Why clocks are below their highest, by NVML's bits."""

HELD_BACK = frozenset({"hw_slowdown", "sw_thermal", "hw_thermal", "hw_power_brake"})
"""The reasons that make a pass throttled: the GPU or its host is in distress. Not among them is the software
power cap: boards work at it for hours under ordinary load, and whoever reads the record finds it there."""

PERIOD_S = 0.05


class Nvml:
    """One GPU in NVML. Whatever the driver or a container withholds reads as 0, "" or False."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle

    @classmethod
    def open(cls, uuid: str) -> Nvml | None:
        """The GPU with this UUID ("GPU-..."); None where NVML or the GPU in it is not to be had."""
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
        except pynvml.NVMLError:
            return None

    def _ask(self, question: str, *arguments: Any, default: T) -> T:
        try:
            answer: T = getattr(self._library, question)(self._handle, *arguments)
        except (self._library.NVMLError, AttributeError):  # the latter: this library no longer asks it
            return default
        return answer

    def driver(self) -> str:
        """Version of the driver."""
        return str(self._library.nvmlSystemGetDriverVersion())

    def mig(self) -> bool:
        """Whether the GPU is divided into instances."""
        return bool(self._ask("nvmlDeviceGetMigMode", default=(0, 0))[0])

    def display(self) -> bool:
        """Whether it also draws somebody's screen."""
        return bool(self._ask("nvmlDeviceGetDisplayActive", default=0))

    def processes(self) -> int:
        """Processes on the GPU. A container sees the host's numbers for them, so ours is not told apart."""
        found: set[int] = set()
        for kind in ("Compute", "Graphics"):
            running: list[Any] = self._ask(f"nvmlDeviceGet{kind}RunningProcesses", default=[])
            found |= {process.pid for process in running}
        return len(found)

    def mps(self) -> bool:
        """Whether processes share the GPU through MPS."""
        return bool(self._ask("nvmlDeviceGetMPSComputeRunningProcesses", default=[]))

    def state(self, after_pass: int) -> GpuState:
        """A reading, now."""
        library = self._library
        # One question under two names: drivers before 535 know only the second.
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons", default=0) or self._ask(
            "nvmlDeviceGetCurrentClocksThrottleReasons", default=0
        )
        return GpuState(
            after_pass=after_pass,
            sm_clock_mhz=self._ask("nvmlDeviceGetClockInfo", library.NVML_CLOCK_SM, default=0),
            memory_clock_mhz=self._ask("nvmlDeviceGetClockInfo", library.NVML_CLOCK_MEM, default=0),
            temperature_c=self._ask("nvmlDeviceGetTemperature", library.NVML_TEMPERATURE_GPU, default=0),
            power_w=self._ask("nvmlDeviceGetPowerUsage", default=0) / 1e3,
            throttle_reasons=[name for bit, name in REASONS.items() if bits & bit],
        )


class Watch:
    """Reads the GPU's state before, about every 50 ms during, and after the `with` block, from a thread.

    Without a reader it keeps no readings.
    """

    def __init__(self, read: Callable[[int], GpuState] | None) -> None:
        self._passes = 0
        self.readings: list[GpuState] = []
        self._read = read
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_reading, daemon=True)

    def __enter__(self) -> Watch:
        if self._read is not None:
            self.readings.append(self._read(-1))
            self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._read is not None:
            self._stop.set()
            self._thread.join()
            self.readings.append(self._read(self._passes))

    def count(self, passes: int) -> None:
        """So many passes are in."""
        self._passes = passes

    def _keep_reading(self) -> None:
        assert self._read is not None
        while not self._stop.wait(PERIOD_S):
            self.readings.append(self._read(self._passes))


def throttled_passes(readings: list[GpuState], passes: int, block: int) -> list[int]:
    """The passes next to a reading at which the GPU was held back: those since the reading before it and
    until the reading after it, for it does not say when that began and ended.

    `block`: passes that are sampled at once, of which a reading tells how many were in before."""
    marked: set[int] = set()
    for earlier, later in itertools.pairwise(readings):
        if HELD_BACK & {*earlier.throttle_reasons, *later.throttle_reasons}:
            # All passes in progress at `later` belong to it as well: each has samples throughout its block.
            marked |= set(range(max(0, earlier.after_pass), min(passes, later.after_pass + block)))
    return sorted(marked)
