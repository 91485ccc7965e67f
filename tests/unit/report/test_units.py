"""Figures are rounded so that they never say more, or less, than was measured."""

from __future__ import annotations

import pytest

from harness.analysis.figures import Figure, Hint
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
    assert [units.within(part) for part in (0.027, 0.0005, 0.0004)] == ["±2.7", "±0.1", "±<0.1"]


def test_the_interval_of_a_time_has_a_width() -> None:
    spans = [units.us_span(Estimate(low, low, high, 3)) for low, high in ((14.46, 14.54), (2458.2, 2458.4))]
    assert spans == ["14.46–14.54", "2,458.2–2,458.4"]


@pytest.mark.parametrize(
    ("hint", "value", "shown"),
    [
        ("time", 1234.5, "1,234"),
        ("time", 12.345, "12.3"),
        ("ratio", 1.754, "1.75×"),
        ("share", 0.392, "39 %"),
        ("size", 2**21, "2 MiB"),
        ("traffic", 25.4e6, "25 MB"),
        ("rate", 3100.0, "3.10 TB/s"),
        ("count", 60_000.0, "60,000"),
        ("millions", 7.9e5, "0.79 M"),
    ],
)
def test_a_figure_is_shown_by_its_hint(hint: Hint, value: float, shown: str) -> None:
    figure = Figure("name", "title", value, "", hint)
    assert units.text(figure) == shown
    assert units.interval(figure) == ""
    assert units.half_width(figure) is None


def test_intervals_are_shown_as_their_figures_are() -> None:
    made = [Figure("n", "t", 0.5, "", hint, 0.4, 0.6, 3) for hint in ("time", "ratio", "share")]
    assert [units.interval(figure) for figure in made] == ["0.40–0.60", "0.40–0.60", "40 %–60 %"]
    assert units.text(None) == units.NONE
