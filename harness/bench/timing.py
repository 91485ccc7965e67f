"""How many passes: enough for the median to be known closely, within limits. No sample is ever dropped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.bench.inference import Inference
from harness.bench.stopwatch import Stopwatch
from harness.records import MOST_SAMPLES, Timing

_PLATEAU_SHRINK = 0.9
"""Four times the passes should halve the interval; one that stays above this share of itself stands still."""

_BESIDE_CALLS = 16
"""The most samples of a pass beside each call's lookup and prepare: stage, inferences, their parts."""


@dataclass(frozen=True)
class Sampled:
    """What was sampled, and why it ended."""

    samples: dict[str, list[float]]
    passes: int
    seconds: float
    interval: float
    """The wider relative interval of the two that the rule looks at, at the end."""
    ended: str
    """"narrow", "plateau" (more passes no longer help), "passes" or "seconds"."""
    repeated: int
    """Blocks that were taken again because launch latency was in them; see `queue.Queue.run`."""


def relative_interval(values: Sequence[float]) -> float:
    """Half width of the 95 % interval of the median ÷ the median; infinite below 8 values.

    From order statistics (the binomial distribution of how many values lie below the median), so without an
    assumption on how they are distributed. It takes them as independent, which passes of one process are only
    roughly: good enough to decide when to stop, not for a verdict.
    """
    ordered, n = sorted(values), len(values)
    reach = 1.96 * math.sqrt(n) / 2
    low, high = math.floor(n / 2 - reach), math.ceil(1 + n / 2 + reach)
    if low < 1 or high > n:
        return math.inf
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    width = ordered[high - 1] - ordered[low - 1]
    if width == 0:
        return 0.0
    return width / 2 / median if median > 0 else math.inf


def within_a_record(timing: Timing, calls: int) -> Timing:
    """The same, with passes of so many calls that a record has room for: it holds `MOST_SAMPLES`."""
    most = MOST_SAMPLES // (2 * calls + _BESIDE_CALLS)
    return replace(timing, min_passes=min(timing.min_passes, most), max_passes=min(timing.max_passes, most))


class StopRule:
    """When to stop: the interval is narrow, or stands still, or the limits of `Timing` are reached."""

    def __init__(self, timing: Timing) -> None:
        self.interval = math.inf
        self._timing = timing
        self._next_look = timing.min_passes
        self._next_mark = timing.min_passes
        self._marks: list[float] = []
        """Intervals whenever the passes had doubled."""

    def ended(self, passes: int, seconds: float, *metrics: Sequence[float]) -> str:
        """Why sampling ends here, or "" where it goes on. `metrics`: one value per pass each; all count."""
        last = passes >= self._timing.max_passes
        late = seconds >= self._timing.max_seconds and passes >= self._timing.min_passes
        if passes < self._next_look and not last and not late:
            return ""
        # Each look sorts all values: every few per cent is often enough.
        self._next_look = passes + passes // 32 + 1
        self.interval = max(relative_interval(values) for values in metrics)
        if passes >= self._timing.min_passes and self.interval <= self._timing.relative_interval:
            return "narrow"
        if last or late:
            return "passes" if last else "seconds"
        return "plateau" if self._stands_still(passes) else ""

    def _stands_still(self, passes: int) -> bool:
        """Whether the interval is hardly narrower than with a quarter of the passes. Looked at when passes
        have doubled only: an interval trembles, and one asked often enough seems to stand still some time."""
        if passes < self._next_mark:
            return False
        self._next_mark = 2 * passes
        self._marks.append(self.interval)
        return len(self._marks) > 2 and self.interval > _PLATEAU_SHRINK * self._marks[-3]


def sample(
    stopwatch: Stopwatch,
    timing: Timing,
    on_passes: Callable[[int], None] = lambda passes: None,
    inference: Inference | None = None,
) -> Sampled:
    """Warms up, then samples until the stop rule is met. `on_passes` hears how many passes are in.

    A pass is timed twice over, once call by call and once as a stage; the two sweeps alternate in blocks,
    so drift meets both alike. The rule looks at the lookups of a pass together, and at the stage.

    With `inference`, whole inferences alternate with these, several a pass, and the rule looks at those of
    the CUDA graph too. The eager ones take as many samples as the others need: their spread is the host's.
    """
    timing = within_a_record(timing, stopwatch.calls)
    for done in range(0, timing.warmup_passes, stopwatch.block):
        passes = min(stopwatch.block, timing.warmup_passes - done)
        stopwatch.tables(passes)
        stopwatch.stages(passes)
        if inference is not None:
            inference.sample(passes)
    watched: list[Stopwatch | Inference] = [stopwatch] if inference is None else [stopwatch, inference]
    repeated_in_warmup = sum(one.repeated for one in watched)
    rule, ended, passes = StopRule(timing), "", 0
    lookups: list[float] = []
    prepares: list[float] = []
    stages: list[float] = []
    whole: dict[str, list[float]] = {}
    per_pass: list[float] = []
    calls = stopwatch.calls
    begin = time.monotonic()
    while not ended:
        block = min(stopwatch.block, timing.max_passes - passes)
        new_lookups, new_prepares = stopwatch.tables(block)
        lookups += new_lookups
        prepares += new_prepares
        per_pass += [sum(new_lookups[at : at + calls]) for at in range(0, len(new_lookups), calls)]
        stages += stopwatch.stages(block)
        for name, taken in inference.sample(block).items() if inference is not None else ():
            whole.setdefault(name, []).extend(taken)
        passes += block
        seconds = time.monotonic() - begin
        on_passes(passes)
        graphs = [whole["e2e_graph_us"]] if "e2e_graph_us" in whole else []
        ended = rule.ended(passes, seconds, per_pass, stages, *graphs)
    samples = {"kernel_us": lookups, "stage_us": stages, **whole}
    repeated = sum(one.repeated for one in watched) - repeated_in_warmup
    if prepares:
        samples["prepare_us"] = prepares
    return Sampled(samples, passes, seconds, rule.interval, ended, repeated)
