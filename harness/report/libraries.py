"""What other libraries and their paths are called."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.report import Run
from harness.records import STOCK, Variant
from harness.report import names


def name(design: str) -> str:
    """A library by the design that stands for it."""
    return {STOCK: "PyTorch", "fbgemm": "FBGEMM"}.get(design, design)


def path(fastest: Variant, ties: Sequence[Variant]) -> str:
    """The fastest path of a library, and those that cannot be told from it."""
    tied = f" (tied with {names.labels(ties)})" if ties else ""
    return f"{fastest.label}{tied}"


def designs(run: Run) -> list[str]:
    """The libraries that the run measured by its headline."""
    return list(dict.fromkeys(peer.design for peer in run.peers if peer.metric == run.headline))
