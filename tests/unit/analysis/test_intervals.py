"""Intervals cover what they say, also where passes of a process resemble each other."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis import stats
from harness.analysis.stats import Series

REPETITIONS = 200


def arm(
    rng: np.random.Generator, replicates: int, *, between: float, wander: float = 0.8, time: float = 100.0
) -> list[Series]:
    """Passes of fresh processes: each process has an effect of its own, its passes follow an AR(1) of 1 %."""
    passes, spread = 60, 0.01
    noise = rng.normal(0, spread * np.sqrt(1 - wander**2), (replicates, passes))
    noise[:, 0] = rng.normal(0, spread, replicates)
    for n in range(1, passes):
        noise[:, n] += wander * noise[:, n - 1]
    return list(time * np.exp(noise + rng.normal(0, between, (replicates, 1))))


def coverage(replicates: int, *, between: float, pooled: bool = False) -> float:
    """Share of repetitions whose interval holds the true speedup, 1.25."""
    rng = np.random.default_rng(11)
    held = 0
    for n in range(REPETITIONS):
        slow = arm(rng, replicates, between=between, time=125.0)
        fast = arm(rng, replicates, between=between, time=100.0)
        if pooled:
            slow, fast = [np.concatenate(slow)], [np.concatenate(fast)]
        found = stats.speedup(stats.sample(slow, f"slow {n}"), stats.sample(fast, f"fast {n}"))
        held += found.low <= 1.25 <= found.high
    return held / REPETITIONS


@pytest.mark.parametrize("replicates", [2, 3, 10])
def test_interval_covers_how_processes_differ(replicates: int) -> None:
    # 200 repetitions know a coverage of 95 % to about ±3 points.
    assert 0.92 <= coverage(replicates, between=0.01) <= 0.995


def test_interval_is_not_too_narrow_where_processes_hardly_differ() -> None:
    assert coverage(3, between=0.001) >= 0.93


def test_pooling_all_passes_would_not_cover() -> None:
    """What the two levels are for; and that the tests above can fail."""
    assert coverage(3, between=0.02, pooled=True) < 0.8


def test_more_replicates_narrow_the_interval() -> None:
    rng = np.random.default_rng(3)
    few, many = (
        np.mean(
            [
                stats.time(stats.sample(arm(rng, count, between=0.01), f"{count}/{n}")).relative_half_width
                for n in range(40)
            ]
        )
        for count in (3, 12)
    )
    assert many < few / 2


def test_single_replicate_says_what_it_does_not_cover() -> None:
    rng = np.random.default_rng(5)
    one, three = arm(rng, 1, between=0.01), arm(rng, 3, between=0.01)
    assert not stats.time(stats.sample(one, "one")).covers_processes
    assert not stats.speedup(stats.sample(three, "three"), stats.sample(one, "one")).covers_processes
    assert stats.time(stats.sample(three, "three")).covers_processes


def test_correlated_passes_count_for_fewer() -> None:
    rng = np.random.default_rng(7)
    widths = {
        wander: np.mean(
            [
                stats.time(
                    stats.sample(arm(rng, 1, between=0, wander=wander), f"{wander}/{n}")
                ).relative_half_width
                for n in range(60)
            ]
        )
        for wander in (0.0, 0.9)
    }
    assert widths[0.9] > 1.5 * widths[0.0]


def test_time_is_the_geometric_mean_of_medians() -> None:
    found = stats.sample([np.array([1.0, 2.0, 90.0]), np.array([8.0, 8.0, 8.0])], "known")
    assert stats.time(found).value == pytest.approx(4.0)
    assert found.medians == pytest.approx([2.0, 8.0])


def test_constant_passes_have_an_interval_of_no_width() -> None:
    found = stats.time(stats.sample([np.full(30, 7.0)] * 3, "constant"))
    assert (found.low, found.value, found.high) == pytest.approx((7.0, 7.0, 7.0))


def test_figures_depend_on_records_and_seed_alone() -> None:
    passes = arm(np.random.default_rng(1), 3, between=0.01)
    first, again = stats.sample(passes, "key", 1), stats.sample(passes, "key", 1)
    assert np.array_equal(first.draws, again.draws)
    assert not np.array_equal(first.draws, stats.sample(passes, "key", 2).draws)


@pytest.mark.parametrize(
    "passes", [[], [np.array([])], [np.array([1.0, 0.0])], [np.array([1.0]), np.array([])]]
)
def test_samples_that_make_no_sense_are_refused(passes: list[Series]) -> None:
    with pytest.raises(ValueError, match="every replicate needs passes"):
        stats.sample(passes, "nonsense")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_passes_still_hold_the_value(count: int) -> None:
    found = stats.time(stats.sample([np.array([3.0, 1.0, 2.0][:count])], "few"))
    assert found.low <= found.value <= found.high


def test_one_odd_pass_does_not_hide_how_processes_differ() -> None:
    """Two processes 5 % apart, one with an outlier of ten times the time: the interval still spans both."""
    calm = np.linspace(0.99, 1.01, 10)
    odd = np.append(calm[:-1], 10.0)
    found = stats.time(stats.sample([100 * calm, 105 * odd], "odd"))
    assert found.low < 100
    assert found.high > 105
