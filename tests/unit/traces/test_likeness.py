"""A trace is nearest to the dataset that was made like it."""

from __future__ import annotations

import numpy as np
import pytest

from harness.traces import likeness, synth
from harness.traces.stats import TraceStatistics, describe

ROWS = 50_000


@pytest.fixture(scope="module")
def known() -> dict[str, TraceStatistics]:
    return {name: of(name, 1) for name in synth.NAMES}


def of(name: str, seed: int) -> TraceStatistics:
    return describe(synth.synthesize(name, ROWS, 100_000, seed), 150, rows=ROWS)


@pytest.mark.parametrize("name", synth.NAMES)
def test_another_seed_is_nearest_to_its_own(name: str, known: dict[str, TraceStatistics]) -> None:
    found, apart = likeness.nearest(of(name, 9), known)
    assert found == name
    assert apart < 0.02


def test_distance_is_none_to_itself_and_one_between_the_extremes(known: dict[str, TraceStatistics]) -> None:
    same = describe(np.zeros(100_000, dtype=np.int64), 150)
    new = describe(np.arange(100_000, dtype=np.int64), 150)
    assert likeness.distance(known["medium"], known["medium"]) == 0
    assert likeness.distance(same, new) == pytest.approx(1, abs=0.001)
