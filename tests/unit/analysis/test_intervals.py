"""Intervals cover what they say, also where passes of a process resemble each other."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.analysis import frame, processes, stats
from harness.analysis.processes import ONE, Pool
from harness.analysis.stats import Sampled, Series
from harness.cli.shared import REFERENCE_DIR

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
    assert np.array_equal(first.within, again.within)
    assert not np.array_equal(first.within, stats.sample(passes, "key", 2).within)


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


def levels(rng: np.random.Generator, sd: float, count: int) -> list[float]:
    return [float(level) for level in rng.normal(0, sd, count)]


def test_the_pool_is_the_mean_spread_and_what_blocks_have_in_common_is_no_part_of_the_second() -> None:
    rng = np.random.default_rng(2)
    block = rng.normal(0, 0.03, 50)
    group = [(block + rng.normal(0, 0.01, 50)).tolist() for _ in range(20)]
    found = processes.pool([group, group])
    assert found.beside == pytest.approx(0.01**2, rel=0.1)
    assert found.spread == pytest.approx(np.mean(np.var(group, axis=1, ddof=1)), rel=1e-6)
    assert found.spread > 5 * found.beside
    alone = processes.pool([[levels(rng, 0.01, 400)]])
    assert alone.beside == alone.spread == pytest.approx(0.01**2, rel=0.2)


def test_where_no_process_was_repeated_the_self_test_says_how_much_they_differ() -> None:
    assert processes.pool([[[1.0], [1.1]]]) == ONE


def told(times: list[float], key: str, pool: Pool | None, blocks: list[str]) -> Sampled:
    return stats.sample([np.full(30, time) for time in times], key, pool=pool, blocks=blocks)


BLOCKS = ["b0", "b1", "b2"]


def test_what_a_block_does_to_all_its_variants_says_nothing() -> None:
    slow, fast = [110.0, 111.1, 112.2], [100.0, 101.0, 102.0]
    paired = stats.speedup(told(slow, "s", None, BLOCKS), told(fast, "f", None, BLOCKS))
    apart = stats.speedup(told(slow, "s", None, []), told(fast, "f", None, []))
    assert paired.value == apart.value == pytest.approx(1.1)
    assert paired.relative_half_width < 1e-9
    assert apart.relative_half_width > 0.02


def test_a_spread_too_small_by_chance_is_that_of_the_whole_run() -> None:
    pool = Pool(0.01**2, 0.005**2)
    alike = told([100.0] * 3, "a", pool, BLOCKS)
    assert stats.time(alike).relative_half_width == pytest.approx(0.01 * 2.447 / np.sqrt(3), rel=0.01)
    ratio = stats.speedup(alike, told([100.0] * 3, "b", pool, BLOCKS))
    assert ratio.relative_half_width == pytest.approx(0.005 * np.sqrt(2) * 2.447 / np.sqrt(3), rel=0.01)


def test_a_spread_larger_than_the_run_s_is_not_hidden_by_it() -> None:
    pool = Pool(0.001**2, 0.001**2)
    far = told([95.0, 100.0, 105.0], "a", pool, BLOCKS)
    assert stats.time(far).relative_half_width > 2 * 0.001 * 2.447
    assert stats.time(far).low < 97


def test_single_processes_claim_nothing_finer_than_the_self_test_allows() -> None:
    blocks = ["only"]
    for difference, claimed in ((0.010, False), (0.015, False), (0.02, True)):
        a, b = told([100 * (1 + difference)], "a", ONE, blocks), told([100.0], "b", ONE, blocks)
        found = stats.speedup(a, b)
        assert (found.low > 1) == claimed
        assert not found.covers_processes


def test_that_is_what_the_shipped_self_test_shows() -> None:
    """No two of its processes differ by as much as single processes have to, on any dataset, and no dataset
    has processes that differ more than is granted."""
    (folder,) = REFERENCE_DIR.glob("*/selftest")
    run = frame.load_run(folder)
    (variant,) = run.variants
    a, b = told([100.0], "a", ONE, ["only"]), told([100.0], "b", ONE, ["only"])
    claimed = stats.speedup(a, b).high
    for dataset, metric in itertools.product(run.datasets, ("total_us", "stage_us")):
        times = [float(np.median(frame.passes(record)[metric])) for record in run.at(variant, dataset)]
        assert max(times) / min(times) < claimed
        assert np.std(np.log(times), ddof=1) ** 2 < ONE.spread


def test_autocorrelation_knows_drift_from_noise() -> None:
    rng = np.random.default_rng(5)
    assert abs(processes.autocorrelation(levels(rng, 1, 500))) < 0.1
    assert processes.autocorrelation(np.cumsum(levels(rng, 1, 500)).tolist()) > 0.9
    assert processes.autocorrelation([3.0, 3.0, 3.0]) == 0.0


def test_datasets_of_the_same_processes_are_not_confirmations_of_each_other() -> None:
    rng = np.random.default_rng(6)
    process = np.array(levels(rng, 1, 4000))
    apart = {name: [levels(rng, 1, 4000)] for name in "abcde"}
    assert processes.shared(apart) == pytest.approx(1, abs=0.15)
    assert processes.shared({name: [process.tolist()] for name in "abcde"}) == pytest.approx(5)


def test_the_table_of_coverage_and_power_is_what_the_simulation_gives() -> None:
    script = Path(__file__).resolve().parents[3] / "scripts" / "simulate_intervals.py"
    ended = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr or f"run {script}: docs/measurement.md holds another table"
