"""Shares of the limit as text, for the terminal, for Markdown and for the cards of the page."""

from __future__ import annotations

from harness.analysis.frame import Run
from harness.analysis.limits import Limits, Share
from harness.report import units

EXPLAINED = (
    "limit of bags in order ÷ prepare + kernel; where that is beaten, in brackets that of rows in any order; "
    "✕: beaten too"
)
"""What `text` writes."""


def text(share: Share | None) -> str:
    """The share of the limit of bags in order, for example "86 %".

    Where that is beaten, in brackets that of rows in any order: "108 % (96 %)"; with a cross beyond that.
    """
    if share is None:
        return units.NONE
    first = units.share(share.share.value)
    if not share.beats:
        return first
    return f"{first} ({units.share(share.any_order.value)})" + " ✕" * share.beats_any_order


def limit_rows(found: Limits, run: Run) -> list[list[str]]:
    """The least times and what binds, a label and a text per dataset; nothing where no limit is known."""
    known = [found.limits.get((run.name, dataset)) for dataset in run.datasets]
    if not any(known):
        return []
    texts = [
        (
            f"{units.us(limit.binding.us)} µs",
            limit.binding.part,
            f"{units.us(limit.binding_in_any_order.us)} µs",
        )
        if limit
        else (units.NONE,) * 3
        for limit in known
    ]
    labels = ("limit", "bound by", "rows in any order")
    return [[label, *column] for label, column in zip(labels, zip(*texts, strict=True), strict=True)]


def arm_rows(found: Limits, run: Run) -> list[list[str]]:
    """Every arm and its share on each dataset."""
    return [[arm, *(text(found.share(run, arm, d)) for d in run.datasets)] for arm in run.arms]
