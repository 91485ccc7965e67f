"""Shares of the limit: the figures, and what is written of them."""

from __future__ import annotations

from typing import NamedTuple

from harness.analysis.figures import Figure
from harness.analysis.limits import Limit
from harness.analysis.report import Run
from harness.records import Variant
from harness.report import units

EXPLAINED = "limit, each row once, ÷ prepare + kernel; ✕: beaten"
"""What `text` writes."""


class Shares(NamedTuple):
    """How near a variant comes to the limit of a dataset."""

    limit: Limit
    time: Figure
    """Prepare + kernel."""
    share: Figure
    alone: Figure
    """By kernel alone."""

    @property
    def beats(self) -> bool:
        """Whether it is faster beyond doubt than the limit allows, so that an assumption fails."""
        return self.share.verdict == "faster"


def of(run: Run, variant: Variant, dataset: str) -> Shares | None:
    """None where nothing was measured, no limit is known, or the cost of events decides."""
    limit = run.limit(dataset)
    time, share, alone = (
        run.figure(variant, dataset, name) for name in ("total_us", "limit_share", "limit_share_kernel")
    )
    return Shares(limit, time, share, alone) if limit and time and share and alone else None


def text(run: Run, variant: Variant, dataset: str) -> str:
    """The share of the limit, for example "86 %"; with a cross where it is beaten."""
    found = of(run, variant, dataset)
    return units.NONE if found is None else units.text(found.share) + " ✕" * found.beats
