"""Lengths of bags: in all what the workload says, and of ragged ones as uneven as promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records import Workload
from harness.traces import bags


@given(batch=st.integers(1, 3000), pooling=st.integers(1, 600), seed=st.integers(0, 2**63 - 1))
def test_ragged_bags_hold_pooling_rows_on_average(batch: int, pooling: int, seed: int) -> None:
    lengths = bags.lengths(Workload(batch=batch, pooling=pooling, bags="ragged"), seed)
    assert len(lengths) == batch
    assert lengths.sum() == batch * pooling
    assert lengths.min() >= 0


def test_fixed_bags_are_all_alike() -> None:
    assert bags.lengths(Workload(batch=3, pooling=5), 1).tolist() == [5, 5, 5]


def test_the_papers_batch_in_ragged_bags() -> None:
    lengths = bags.lengths(Workload(bags="ragged"), 1)
    assert 10 <= np.count_nonzero(lengths == 0) <= 20
    assert np.median(lengths) == pytest.approx(150 * (2**0.5 - 1), abs=2)
    assert 9000 < lengths.max() < 10_000
    # Twice as long, a quarter as many: the tail of Zipf's law.
    longer = [np.count_nonzero(lengths > n) for n in (1000, 2000, 4000)]
    assert longer[0] / longer[1] == pytest.approx(3.5, rel=0.2)
    assert longer[1] / longer[2] == pytest.approx(3.7, rel=0.2)


def test_the_seed_orders_the_bags_and_changes_no_length() -> None:
    one, again, other = (bags.lengths(Workload(bags="ragged"), seed) for seed in (1, 1, 2))
    assert one.tolist() == again.tolist()
    assert one.tolist() != other.tolist()
    # Rounding apart, which depends on the order.
    assert np.abs(np.sort(one) - np.sort(other)).max() <= 1
    assert one[:5].tolist() == [104, 21, 106, 13, 31], "the same on every machine and with every NumPy"
