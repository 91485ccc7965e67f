"""Bags whose lengths were counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from harness import bag_counts, models
from harness.groups import TableGroup
from harness.records import Cell, Dataset, Timing, Workload, load, to_json
from harness.traces import bags
from harness.traces.stretches import Stretches

SOME = some.dictionaries(some.integers(1, 2**20), some.integers(1, 1000), min_size=1, max_size=150)


def of(counts: str, coverage: float = 1.0) -> TableGroup:
    return TableGroup(50, 4, bags="counted", counts=counts, coverage=coverage)


def test_as_many_bags_as_were_counted_have_the_very_lengths() -> None:
    group = of("1:3, 4:2, 90:1")
    assert group.lengths(6) == (1, 1, 1, 4, 4, 90)
    assert group.lengths(12) == (1, 1, 1, 1, 1, 1, 4, 4, 4, 4, 90, 90)
    assert (group.lookups(6), group.problem()) == (101, "")


def test_fewer_bags_have_the_mean_all_the_same() -> None:
    # 101 rows in six bags: half of them are 50.5.
    assert of("1:3, 4:2, 90:1").lengths(3) == (1, 3, 47)
    assert of("1:99,1000:1").lengths(10)[:9] == (1,) * 9


def test_bags_that_are_empty_are_told_by_coverage() -> None:
    assert of("2:5", coverage=0.5).lengths(6) == (0, 0, 0, 2, 2, 2)


@given(SOME, some.integers(1, 300), some.floats(0.01, 1))
def test_any_batch_has_as_many_rows_on_average(found: dict[int, int], batch: int, coverage: float) -> None:
    group = of(bag_counts.text(found), coverage)
    assert group.problem() == ""
    lengths = group.lengths(batch)
    full = [length for length in lengths if length]
    assert list(lengths) == sorted(lengths)
    assert (len(lengths), sum(lengths)) == (batch, group.lookups(batch))
    assert len(full) == min(batch, max(1, round(coverage * batch)))
    mean = sum(length * bags for length, bags in found.items()) / sum(found.values())
    assert sum(lengths) == pytest.approx(len(full) * mean, abs=0.5 + 1e-6 * mean)


@given(SOME)
def test_many_lengths_put_together_are_as_many_bags_and_rows(found: dict[int, int]) -> None:
    told = bag_counts.text(found)
    pairs = [tuple(map(int, part.split(":"))) for part in told.split(",")]
    assert len(pairs) <= 64
    assert sum(bags for _, bags in pairs) == sum(found.values())
    assert sum(n * bags for n, bags in pairs) == sum(n * bags for n, bags in found.items())


@pytest.mark.parametrize(
    ("group", "said"),
    [
        (of(""), "counts: are no list"),
        (of("3"), "counts: are no list"),
        (of("3:1;4:1"), "counts: are no list"),
        (of("3:1,3:2"), "counts: list lengths that do not ascend"),
        (of("0:1"), "counts: list a length that is not from 1"),
        (of("999999999:1"), "counts: list a length that is not from 1"),
        (of("1:0"), "counts: list no bags of a length"),
        (TableGroup(5, 4, pooling=2, bags="counted", counts="1:1"), "pooling: follows from counts"),
        (TableGroup(5, 4, counts="1:1"), "counts: are of bags"),
        (TableGroup(5, 4, bags="counted", counts="1:1", longest=3), "bags: deviation and longest"),
    ],
)
def test_what_counts_no_bags(group: TableGroup, said: str) -> None:
    assert group.problem().startswith(said)


def test_a_model_has_them_and_every_feature_in_an_order_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    table = '{ count = 2, rows = 9, dim = 4, bags = "counted", counts = "1:50, 7:14" }'
    path.write_text(f'title = "Mine"\nsource = "me"\nbatch = 64\ntables = [{table}]\n', encoding="utf-8")
    work = models.read(str(path)).example()
    assert work.groups == (TableGroup(9, 4, 2, bags="counted", counts="1:50, 7:14"),)
    assert (work.pooling, work.all_lookups) == (3, 2 * 148)
    cell = Cell("a", "stock", "pytorch", Dataset("random"), work, Timing(), 0, 1)
    starts = bags.starts(cell, Stretches.read(cell, tmp_path))
    lengths = [np.diff(one, append=148) for one in starts]
    assert [Counter(one.tolist()) for one in lengths] == [Counter({1: 50, 7: 14})] * 2
    assert (lengths[0] != lengths[1]).any()
    record = tmp_path / "work.json"
    record.write_text(to_json(work), encoding="utf-8")
    assert load(Workload, record) == work
