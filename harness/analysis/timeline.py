"""What `harness.analysis.over_time` finds: the one value that page, terminal and JSON of a history show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.analysis.comparable import Difference
from harness.analysis.figures import Figure
from harness.analysis.stats import Estimate
from harness.records import Variant, Workload

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Moment:
    """A run, as a point in time."""

    run: str
    """Its short name."""
    began: str
    """UTC, of its first record."""
    commit: str
    """Of the program that measured; empty: unknown. Of several that of each."""
    gpu: str
    """The CPU where it ran on none."""
    board: str
    """The GPU's UUID."""
    driver: str
    torch: str


@dataclass(frozen=True)
class Point:
    """A variant on a dataset in one run."""

    run: str
    variant: Variant
    dataset: str
    time: Figure
    """µs; of the stage for all tables."""
    since_first: Estimate
    """Times as fast as in the first run of its setting that measured it; 1 there."""
    doubt: str
    """Why nothing is concluded from it; empty where it can speak."""


@dataclass(frozen=True)
class Change:
    """A variant on a dataset became faster or slower."""

    variant: Variant
    dataset: str
    before: str
    after: str
    """Names of the runs."""
    verdict: Literal["faster", "slower"]
    speed: Estimate
    """Times as fast as before; 95 %."""
    creeping: bool
    """Whether no single step was found on the way, and `before` and `after` are first and last."""
    differences: list[Difference]
    """What is known to differ between the two runs of it."""


@dataclass(frozen=True)
class Setting:
    """Runs that measured the same thing, the earliest first."""

    workload: Workload
    metric: str
    """What times and changes are by."""
    moments: list[Moment]
    variants: list[Variant]
    datasets: list[str]
    points: list[Point]
    """By variant, then dataset, then time."""
    changes: list[Change]
    """The latest first."""
    apart: list[Difference]
    """What keeps its first run out of the setting before; of the first setting nothing."""


@dataclass(frozen=True)
class LeftOut:
    """A run that has no place in it."""

    run: str
    why: str


@dataclass(frozen=True)
class History:
    """All of it."""

    experiment: str
    title: str
    """Of the latest run."""
    threshold: float
    """Changes below it are not told of, for example 0.01."""
    settings: list[Setting]
    """That of the latest run first."""
    left_out: list[LeftOut]

    @property
    def runs(self) -> int:
        """How many are in it."""
        return sum(len(setting.moments) for setting in self.settings)


def as_json(found: History) -> dict[str, Any]:
    """The same as JSON-ready data, variants by their labels; `schema_version` grows when a key changes its
    meaning."""
    every = dataclasses.asdict(found)
    for setting, raw in zip(found.settings, every["settings"], strict=True):
        raw["variants"] = [variant.label for variant in setting.variants]
        told: list[tuple[Sequence[Point | Change], str]] = [
            (setting.points, "points"),
            (setting.changes, "changes"),
        ]
        for items, name in told:
            for item, raw_item in zip(items, raw[name], strict=True):
                raw_item["variant"] = item.variant.label
    return {"schema_version": SCHEMA_VERSION, **every}
