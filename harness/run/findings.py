"""What `harness verify` answers: one question about a run, and how the answer is worded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CLOSE = 1e-6
"""Relative: what is computed twice from the same numbers."""


@dataclass(frozen=True)
class Finding:
    """The answer to one question."""

    level: Literal["holds", "not known", "broken"]
    what: str
    detail: str


def listed(found: Sequence[str], most: int = 5) -> str:
    """The first few in a line, and how many more there are."""
    more = f"; and {len(found) - most} more" if len(found) > most else ""
    return "; ".join(found[:most]) + more
