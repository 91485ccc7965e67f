"""Figures are rounded so that they never say more, or less, than was measured."""

from __future__ import annotations

import pytest

from harness.analysis.stats import Estimate
from harness.report import units


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (1.742, 1.758, "1.74–1.76"),
        (4.2592, 4.2648, "4.259–4.265"),
        (0.984, 0.998, "0.984–0.998"),  # slower: two decimals would show an interval that holds 1
        (1.002, 1.015, "1.002–1.015"),
        (0.996, 1.004, "0.996–1.004"),
        (0.98, 1.02, "0.98–1.02"),
    ],
)
def test_an_interval_shows_whether_it_holds_one(low: float, high: float, shown: str) -> None:
    assert units.span(Estimate((low + high) / 2, low, high, 3)) == shown


def test_half_an_interval_is_never_shown_as_nothing() -> None:
    assert [units.within(part) for part in (0.027, 0.0005, 0.0004)] == ["±2.7%", "±0.1%", "±<0.1%"]


def test_the_interval_of_a_time_has_a_width() -> None:
    spans = [units.us_span(Estimate(low, low, high, 3)) for low, high in ((14.46, 14.54), (2458.2, 2458.4))]
    assert spans == ["14.46–14.54", "2,458.2–2,458.4"]
