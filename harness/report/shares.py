"""Bandwidth achieved and shares of the limit: the figures, and what is written of them."""

from __future__ import annotations

from typing import NamedTuple

from harness.analysis.figures import Figure
from harness.analysis.limits import Limit
from harness.analysis.report import Run
from harness.records import Variant
from harness.report import units

ACHIEVED = "bytes that must pass where the limit binds, each once, ÷ prepare + kernel; of peak: the share"
"""Of a design, and beside it of the peak where the limit binds."""


class Shares(NamedTuple):
    """How near a variant comes to the limit of a dataset."""

    limit: Limit
    time: Figure
    """Prepare + kernel."""
    share: Figure
    alone: Figure
    """By kernel alone."""
    achieved: Figure
    """Bytes a second where the limit binds, whose share of the peak there `share` is."""

    @property
    def beats(self) -> bool:
        """Whether it is faster beyond doubt than the limit allows, so that an assumption fails."""
        return self.share.verdict == "faster"


def of(run: Run, variant: Variant, dataset: str) -> Shares | None:
    """None where nothing was measured, no limit is known, or the cost of events decides."""
    limit = run.limit(dataset)
    names = "total_us", "limit_share", "limit_share_kernel", "achieved_gbps"
    time, share, alone, achieved = (run.figure(variant, dataset, name) for name in names)
    if limit is None or time is None or share is None or alone is None or achieved is None:
        return None
    return Shares(limit, time, share, alone, achieved)


def text(run: Run, variant: Variant, dataset: str) -> str:
    """The share of the limit, for example "86 %"; with a cross where it is beaten."""
    found = of(run, variant, dataset)
    return units.NONE if found is None else units.text(found.share) + " ✕" * found.beats


def short(run: Run, variant: Variant, dataset: str) -> tuple[str, str]:
    """The bandwidth where the limit binds, in TB/s, and its share of the peak there: "3.63", "80 % L1"."""
    if (found := of(run, variant, dataset)) is None:
        return units.NONE, units.NONE
    share = f"{text(run, variant, dataset)} {found.limit.binding.part}"
    return f"{found.achieved.value / 1000:.2f}", share
