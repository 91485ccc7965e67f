"""Queues work ahead of the GPU, so that what events measure on it is work and not the host's launching."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from harness.bench.failures import CellError

DEPTH = 384
"""Commands (launches and events) to queue ahead. The driver's queue holds about a thousand; a full one would
make the host wait for the spin to end, whatever its length."""

Pair = tuple[torch.cuda.Event, torch.cuda.Event]
"""Round what is timed."""

_LEAST_US = 0.001
"""A sample is at least this: a time still, where the jitter of the events would leave nothing of it."""
_FIRST_CYCLES = 200_000
_ATTEMPTS = 14
"""Doublings of the spin: from about 0.1 ms to 2 s."""


def event() -> torch.cuda.Event:
    """An event that takes the time."""
    return torch.cuda.Event(enable_timing=True)


def elapsed_us(pair: Pair) -> float:
    """Time between two events that have come to pass."""
    return float(pair[0].elapsed_time(pair[1])) * 1e3


def net_us(pair: Pair, overhead_us: float) -> float:
    """The same less what the two events themselves add."""
    return max(_LEAST_US, elapsed_us(pair) - overhead_us)


class Queue:
    """Holds the GPU back with a spinning kernel while the host queues what is to be timed."""

    def __init__(self) -> None:
        self.repeated = 0
        """How many blocks were taken again because the GPU had begun before they were queued."""
        self._cycles = _FIRST_CYCLES
        self._released = event()
        self._last = event()

    def run(
        self, steps: Sequence[Callable[[], None]], commands: int, before: Callable[[], None] | None = None
    ) -> None:
        """Queues `steps`, of about `commands` commands each, behind the spin, and waits until all are done.

        That the GPU stood still meanwhile is not hoped for but asked: the event behind the spin must not
        have come to pass. If it has, launch latency may be in the block, which is not what it claims to
        measure: it is taken again behind a longer spin, and counted. That is decided before any time is read,
        so no sample is dropped for what it says. Of a block too long for the queue the first `DEPTH` commands
        must have been ahead, and the GPU must still have had work when the last was queued.
        `before` runs on an idle GPU, ahead of the spin.
        """
        ahead = min(len(steps), max(1, DEPTH // commands))
        for _ in range(_ATTEMPTS):
            torch.cuda.synchronize()
            if before is not None:
                before()
            torch.cuda._sleep(self._cycles)
            self._released.record()
            for step in steps[:ahead]:
                step()
            hidden = not self._released.query()
            for step in steps[ahead:]:
                step()
            self._last.record()
            if ahead < len(steps):
                hidden = hidden and not self._last.query()
            torch.cuda.synchronize()
            if hidden:
                return
            self._cycles *= 2
            self.repeated += 1
        raise CellError(
            "The launches could not be queued ahead of the GPU, so their latency would have been measured:"
            " unset CUDA_LAUNCH_BLOCKING if it is set; for a model of hundreds of tables measure what takes"
            " them all in one launch.",
        )
