"""Shares of the limit: the figures, and what is written of them."""

from __future__ import annotations

from typing import NamedTuple

from harness.analysis.figures import Figure
from harness.analysis.limits import Limit
from harness.analysis.report import Run
from harness.records import Variant
from harness.report import units

EXPLAINED = (
    "limit of bags in order ÷ prepare + kernel; where that is beaten, in brackets that of rows in any order; "
    "✕: beaten too"
)
"""What `text` writes."""


class Shares(NamedTuple):
    """How near a variant comes to the limit of a dataset."""

    limit: Limit
    time: Figure
    """Prepare + kernel."""
    share: Figure
    """Of the limit of bags in order, as is the next."""
    alone: Figure
    """By kernel alone."""
    any_order: Figure

    @property
    def beats(self) -> bool:
        """Whether it is faster beyond doubt than bags in order allow."""
        return self.share.verdict == "faster"

    @property
    def beats_any_order(self) -> bool:
        """Whether it is faster beyond doubt than any order allows, so that an assumption fails."""
        return self.any_order.verdict == "faster"


def of(run: Run, variant: Variant, dataset: str) -> Shares | None:
    """None where nothing was measured or no limit is known."""
    limit = run.limit(dataset)
    time, share, alone, any_order = (
        run.figure(variant, dataset, name)
        for name in ("total_us", "limit_share", "limit_share_kernel", "limit_share_any_order")
    )
    found = limit and time and share and alone and any_order
    return Shares(limit, time, share, alone, any_order) if found else None  # type: ignore[arg-type]


def text(run: Run, variant: Variant, dataset: str) -> str:
    """The share of the limit of bags in order, for example "86 %".

    Where that is beaten, in brackets that of rows in any order: "108 % (96 %)"; with a cross beyond that.
    """
    found = of(run, variant, dataset)
    if found is None:
        return units.NONE
    first = units.text(found.share)
    if not found.beats:
        return first
    return f"{first} ({units.text(found.any_order)})" + " ✕" * found.beats_any_order
