"""By which law rows are looked up: known laws are found again, and what has none is not given one."""

from __future__ import annotations

import numpy as np
import pytest

from harness.imports import popularity
from harness.imports.popularity import Law
from harness.traces import synth


@pytest.mark.parametrize(
    ("rows", "s", "q", "hottest"),
    [(100_000, 1.1, 5.0, ()), (100_000, 0.8, 50.0, (0.3, 0.1)), (2_000_000, 1.05, 100.0, ())],
)
def test_a_law_is_found_again(rows: int, s: float, q: float, hottest: tuple[float, ...]) -> None:
    drawn = synth.zipf(rows, 300_000, 3, s=s, q=q, hottest=hottest)
    found = popularity.measured(drawn, rows, 20_000)
    assert found.zipf_s == pytest.approx(s, rel=0.05)
    assert found.zipf_q == pytest.approx(q, rel=0.5)
    assert found.hottest[: len(hottest)] == pytest.approx(hottest, rel=0.02)


def test_traffic_that_favours_no_row_is_given_no_law() -> None:
    drawn = synth.synthesize("random", 50_000, 100_000, 1)
    assert popularity.measured(drawn, 50_000, 10_000) == Law()


@pytest.mark.parametrize("name", ["high", "medium", "low", "skewed"])
def test_a_batch_looks_up_about_as_many_distinct_rows(name: str) -> None:
    rows, lookups = 50_000, 20_000
    trace = synth.synthesize(name, rows, 2 * synth.period_length(name, rows), 1)
    law = popularity.measured(trace, rows, lookups)
    again = synth.zipf(rows, lookups, 9, s=law.zipf_s, q=law.zipf_q, hottest=law.hottest)
    seen = popularity.distinct(trace, lookups)
    assert len(np.unique(again)) == pytest.approx(seen, rel=0.15)
    assert popularity.expected(law, rows, np.array([lookups]))[0] == pytest.approx(
        len(np.unique(again)), rel=0.02
    )


def test_rows_that_stand_out_are_told_one_by_one() -> None:
    assert popularity.measured(np.full(500, 3), 10, 100) == Law((1.0,))
    drawn = synth.zipf(3, 3000, 3, s=0.0, q=0.0, hottest=(0.7, 0.2))
    assert popularity.measured(drawn, 3, 100).hottest == pytest.approx((0.7,), rel=0.05)


@pytest.mark.parametrize(("accesses", "rows"), [(1, 1), (1, 9), (2, 1), (3, 2**40), (500, 1)])
def test_too_little_to_tell(accesses: int, rows: int) -> None:
    law = popularity.measured(np.zeros(accesses, dtype=np.int64), rows, accesses)
    assert sum(law.hottest) <= 1
    assert np.isfinite([law.zipf_s, law.zipf_q]).all()


def test_of_every_law_that_may_be_found_draws_can_be_made() -> None:
    rows = 2**28
    drawn = synth.zipf(rows, 1000, 1, s=28.0, q=32.0 * rows)
    assert 0 <= drawn.min() <= drawn.max() < rows
    assert len(np.unique(drawn)) > 900
