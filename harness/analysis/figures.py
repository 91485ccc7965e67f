"""A figure: one number about a variant on a dataset, with all that a printer needs to show it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Literal

from harness.analysis.stats import Estimate
from harness.records import Variant

Value = bool | int | str
"""Of a key that a sweep varies."""
Hint = Literal["time", "ratio", "share", "size", "traffic", "rate", "count", "millions"]
"""How a figure is printed: a time, times as fast, a part of a whole, bytes held or moved, bytes a second, a
number, a large one."""
Verdict = Literal["faster", "slower", "inconclusive"]

HEADLINE = "total_us"
"""What variants are compared by that all launch alike; see `Run.headline`."""
METRICS = {
    "total_us": "prepare + kernel",
    "kernel_us": "kernel alone",
    "stage_us": "embedding stage",
    "prepare_us": "prepare",
    "e2e_us": "whole inference, eager",
    "e2e_graph_us": "whole inference, CUDA graph",
    "bottom_us": "bottom MLP",
    "interaction_us": "interaction",
    "top_us": "top MLP",
}
"""Times, in the order in which they are shown: per table and batch, or for the stage, whole inferences and
their parts per batch."""
COMPARED = ("total_us", "kernel_us", "stage_us", "e2e_us", "e2e_graph_us")
"""Those that variants are compared by."""


def speedup(metric: str) -> str:
    """The name of the figure that tells how many times as fast as the reference a variant is by this
    metric."""
    return f"speedup_{metric}"


@dataclass(frozen=True)
class Figure:
    """One number, and how to show it."""

    name: str
    """For programs."""
    title: str
    """For people."""
    value: float
    unit: str
    """"µs", "B"; empty where there is none."""
    hint: Hint
    low: float | None = None
    """95 % interval; null where the number has none."""
    high: float | None = None
    replicates: int = 0
    """Fresh processes behind the interval; with one it does not know how processes differ. 0: no interval."""
    processes: list[float] = field(default_factory=list)
    """Of a time: the median over passes of every process."""
    records: list[str] = field(default_factory=list)
    """Ids of the cells behind it; of a speedup, those of the reference too."""

    @property
    def estimate(self) -> Estimate:
        """The number with its interval; of a number without one, an interval of no width."""
        low, high = (self.value if bound is None else bound for bound in (self.low, self.high))
        return Estimate(self.value, low, high, self.replicates)

    @property
    def verdict(self) -> Verdict:
        """Of a ratio: whether its interval leaves out 1, and on which side."""
        low, high = self.estimate.low, self.estimate.high
        return "faster" if low > 1 else "slower" if high < 1 else "inconclusive"


def estimated(
    name: str,
    title: str,
    estimate: Estimate,
    unit: str,
    hint: Hint,
    records: list[str],
    processes: list[float] | None = None,
) -> Figure:
    """A figure with an interval."""
    bounds = estimate.low, estimate.high, estimate.replicates
    return Figure(name, title, estimate.value, unit, hint, *bounds, processes or [], records)


@dataclass(frozen=True)
class Spread:
    """Quantiles of every sample of the kernel, µs: of one process, or of all where they are many."""

    processes: int
    samples: int
    least: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    most: float


@dataclass(frozen=True)
class Place:
    """A variant on a dataset, at the experiment's own workload and tunables or at another point of its
    sweep."""

    variant: Variant
    dataset: str
    point: str
    """For example "batch=16"; empty: the experiment's own."""
    settings: dict[str, Value]
    """Key → value, of what the sweep varies; empty where there is none."""
    figures: list[Figure]
    spreads: list[Spread]
    """Of the kernel's samples, process after process; empty at other points of a sweep."""

    @functools.cached_property
    def _by_name(self) -> dict[str, Figure]:
        return {figure.name: figure for figure in self.figures}

    def figure(self, name: str) -> Figure | None:
        """None where it was not measured, or is not known."""
        return self._by_name.get(name)
