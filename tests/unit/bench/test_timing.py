"""When sampling ends, and that every sample taken is kept."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import pytest
from scipy.stats import binom

from harness.bench.dlrm import Prediction
from harness.bench.timing import relative_interval, sample
from harness.records import Timing


class Scripted:
    """A stopwatch that reads out what `noise` gives."""

    def __init__(self, noise: Callable[[int], float], block: int = 1, prepares: bool = False) -> None:
        self.block, self.repeated, self.calls = block, 0, 2
        self.kept: list[float] = []
        self._noise, self._prepares, self._passes = noise, prepares, itertools.count()

    def tables(self, passes: int) -> tuple[list[float], list[float]]:
        """Two tables a pass."""
        assert passes <= self.block
        lookups = [self._noise(n) for _ in range(passes) for n in [next(self._passes)] * 2]
        self.kept += lookups
        return lookups, [1.0] * len(lookups) if self._prepares else []

    def stages(self, passes: int) -> list[float]:
        """As steady as can be."""
        return [200.0] * passes


def timing(**changes: float) -> Timing:
    limits = {"warmup_passes": 5, "min_passes": 30, "max_passes": 2000, "max_seconds": 60.0}
    return Timing(**{**limits, "relative_interval": 0.005, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [8, 9, 30, 31, 100, 1000])
def test_the_interval_of_the_median_holds_at_least_95_per_cent(n: int) -> None:
    values = [1000.0 + i for i in range(n)]
    half_width = relative_interval(values) * (values[(n - 1) // 2] + values[n // 2]) / 2
    ranks_apart = round(2 * half_width)
    low = (
        n - 1 - ranks_apart
    ) // 2 + 1  # 1-based rank of the lower end; the upper lies symmetric or one beyond
    inside = binom.cdf(low + ranks_apart - 1, n, 0.5) - binom.cdf(low - 1, n, 0.5)
    assert inside >= 0.95
    assert ranks_apart <= 1.96 * math.sqrt(n) + 3


def test_no_interval_from_too_few_values_and_none_needed_for_equal_ones() -> None:
    assert relative_interval([1.0] * 7) == math.inf
    assert relative_interval([1.0] * 30) == 0.0


def test_a_quiet_kernel_ends_at_the_least_number_of_passes() -> None:
    found = sample(Scripted(lambda n: 100.0), timing())
    assert (found.ended, found.passes) == ("narrow", 30)
    assert len(found.samples["kernel_us"]) == 60
    assert len(found.samples["stage_us"]) == 30
    assert "prepare_us" not in found.samples


def test_noise_takes_more_passes_until_the_median_is_known() -> None:
    noise = random.Random(1)
    found = sample(Scripted(lambda n: noise.gauss(100, 3)), timing())
    assert found.ended == "narrow"
    assert 30 < found.passes < 2000
    assert found.interval <= 0.005


def test_no_sample_is_dropped_however_far_off_and_warm_up_is_none() -> None:
    stopwatch = Scripted(lambda n: 1e6 if n % 10 == 3 else 100.0, block=4, prepares=True)
    heard: list[int] = []
    found = sample(stopwatch, timing(max_passes=50, relative_interval=0.0), heard.append)
    warm_up = 5 * 2
    assert found.samples["kernel_us"] == stopwatch.kept[warm_up:]
    assert len(found.samples["prepare_us"]) == len(found.samples["kernel_us"]) == 2 * found.passes
    assert heard[-1] == found.passes


def test_the_limits_hold() -> None:
    noise = random.Random(1)
    most = sample(Scripted(lambda n: noise.uniform(1, 100), block=7), timing(max_passes=50))
    assert (most.ended, most.passes) == ("passes", 50)
    late = sample(Scripted(lambda n: noise.uniform(1, 100)), timing(max_seconds=0.0))
    assert (late.ended, late.passes) == ("seconds", 30)


def test_drift_is_recognised_as_a_plateau() -> None:
    found = sample(Scripted(lambda n: 100.0 + n), timing())
    assert found.ended == "plateau"
    assert found.passes < 1000


def independent(seed: int) -> Callable[[int], float]:
    noise = random.Random(seed)
    return lambda _: noise.gauss(100, 8)


def test_independent_noise_is_no_plateau() -> None:
    ends = []
    for seed in range(40):
        ends.append(sample(Scripted(independent(seed)), timing()).ended)
    assert ends.count("plateau") <= 2


def test_repeats_of_the_warm_up_do_not_count() -> None:
    class Stumbling(Scripted):
        def tables(self, passes: int) -> tuple[list[float], list[float]]:
            self.repeated += 1 if len(self.kept) < 14 else 0  # 5 passes of warm-up, 2 sampled
            return super().tables(passes)

    assert sample(Stumbling(lambda n: 100.0), timing()).repeated == 2


class Inferences:
    """Three eager inferences and three graphs a pass, the latter as `noise` gives them."""

    def __init__(self, noise: Callable[[], float]) -> None:
        self.asked: list[int] = []
        self.repeated = 0
        self._noise = noise

    def predictions(self, number: int) -> dict[str, Prediction]:
        """Never asked for while sampling."""
        raise NotImplementedError

    def sample(self, passes: int) -> dict[str, list[float]]:
        """The eager ones are as unsteady as can be."""
        self.asked.append(passes)
        self.repeated += 1
        graphs = [self._noise() for _ in range(3 * passes)]
        eager = [float(10 ** (n % 5)) for n in range(3 * passes)]
        return {"e2e_us": eager, "e2e_graph_us": graphs, "top_us": [1.0] * passes}


def test_inferences_alternate_with_passes_and_their_graphs_decide_too() -> None:
    steady = Inferences(lambda: 100.0)
    found = sample(Scripted(lambda n: 100.0, block=4), timing(), inference=steady)
    assert (found.ended, found.passes) == ("narrow", 32)
    assert steady.asked == [4, 1, *[4] * 8], "warm-up, then block by block"
    counts = {name: len(values) for name, values in found.samples.items()}
    assert counts == {"kernel_us": 64, "stage_us": 32, "e2e_us": 96, "e2e_graph_us": 96, "top_us": 32}
    assert found.repeated == 8
    noise = random.Random(1)
    unsteady = sample(Scripted(lambda n: 100.0), timing(), inference=Inferences(lambda: noise.gauss(100, 6)))
    assert unsteady.ended == "narrow"
    assert unsteady.passes > 60


def test_sampling_ends_where_a_record_would_be_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.bench.timing.MOST_SAMPLES", 2000)
    endless = timing(min_passes=10**9, max_passes=10**9, relative_interval=0.0)
    found = sample(Scripted(lambda n: 100.0 + n % 7, prepares=True), endless)
    assert found.passes == 2000 // (2 * 2 + 16)
    assert sum(map(len, found.samples.values())) <= 2000
