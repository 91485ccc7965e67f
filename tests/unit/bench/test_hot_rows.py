"""Rows to pin: held-out ones know nothing of what is timed, and the oracle nothing else."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.bench import batch, hot_rows
from harness.bench.batch import Batch
from harness.bench.failures import CellError
from harness.bench.tables import TableStore
from harness.records import Cell, Dataset, Timing, Workload
from harness.traces.stretches import Stretches


def small(trace: list[int], tables: int, timed: int) -> tuple[Cell, Stretches, list[Batch]]:
    """A cell whose tables replay this trace, `timed` accesses each; two to a bag."""
    work = Workload(tables=tables, rows=10, dim=1, batch=timed // 2, pooling=2, device="cpu")
    one = Cell("a", "combined", "12.1", Dataset("mine", "mine.npy"), work, Timing(), 0, 1)
    stretches = Stretches(one, [np.array(trace)] * tables)
    return one, stretches, [batch.make(one, stretches, TableStore().get(work, 1))]


def as_lists(chosen: list[list[torch.Tensor]]) -> list[list[list[int]]]:
    """By batch and table."""
    return [[rows.tolist() for rows in tables] for tables in chosen]


def test_the_hottest_are_ordered_by_count_then_number_and_all_were_accessed() -> None:
    accesses = torch.tensor([5, 9, 9, 2, 2, 7, 9])
    assert hot_rows.hottest(accesses, 3).tolist() == [9, 2, 5]
    assert hot_rows.hottest(accesses, 100).tolist() == [9, 2, 5, 7]
    assert hot_rows.hottest(accesses.int(), 3).tolist() == [9, 2, 5]


@given(length=st.integers(1, 60), tables=st.integers(1, 7), count=st.integers(1, 80))
def test_no_access_is_both_timed_and_left_out_and_none_is_lost(length: int, tables: int, count: int) -> None:
    work = Workload(tables=tables, rows=length, batch=count, pooling=1, device="cpu")
    one = Cell("a", "combined", "12.1", Dataset("mine", "mine.npy"), work, Timing(), 0, 1)
    stretches = Stretches(one, [np.arange(length)] * tables)  # each access tells its place
    for table in range(tables):
        timed, left = stretches.rows(table, 0).tolist(), stretches.rest(table, 0).tolist()
        assert timed[0] == table * length // tables
        assert not set(timed) & set(left)
        assert len(left) == len(set(left)) == max(0, length - count)
        assert set(timed) | set(left) == set(range(length))


@given(data=st.data(), tables=st.integers(1, 4))
def test_held_out_rows_are_a_function_of_what_is_not_timed(data: st.DataObject, tables: int) -> None:
    """Whatever the batch looks up: with the rest of the trace unchanged the choice stays."""
    length, timed = 40, 20
    trace = data.draw(st.lists(st.integers(0, 9), min_size=length, max_size=length))
    table = data.draw(st.integers(0, tables - 1))
    start = table * length // tables
    changed = list(trace)
    for place in range(start, start + timed):
        changed[place % length] = data.draw(st.integers(0, 9))
    chosen = [
        hot_rows.choose(*small(content, tables, timed), 3)[0][table].tolist() for content in (trace, changed)
    ]
    assert chosen[0] == chosen[1]
    rest = Counter(trace[(start + timed + n) % length] for n in range(length - timed))
    assert chosen[0] == sorted(rest, key=lambda row: (-rest[row], row))[:3]


def test_the_oracle_takes_the_batchs_own_hottest_rows() -> None:
    one, stretches, made = small([1, 1, 2, 3, 3, 3, 4, 4, 4, 4], 1, 6)
    oracle = dataclasses.replace(one, hot_rows="oracle")
    assert as_lists(hot_rows.choose(oracle, stretches, made, 2)) == [[[3, 1]]]
    assert as_lists(hot_rows.choose(one, stretches, made, 2)) == [[[4]]]


def test_facts_tell_how_much_of_what_is_timed_the_pins_meet() -> None:
    one, stretches, made = small([1, 1, 2, 3, 3, 3, 4, 4, 4, 4, 1, 1], 2, 6)
    chosen = hot_rows.choose(one, stretches, made, 1)
    assert as_lists(chosen) == [[[4], [3]]]
    assert hot_rows.facts(made, chosen) == {"pinned_rows": 1.0, "pinned_share": 0.0}
    # Table 0 times 1 1 2 3 3 3, table 1 times 4 4 4 4 1 1.
    assert hot_rows.facts(made, [[torch.tensor([1, 3]), torch.tensor([9])]]) == {
        "pinned_rows": 1.5,
        "pinned_share": (5 / 6 + 0) / 2,
    }


@pytest.mark.parametrize("length", [1, 20, 21])
def test_a_trace_that_leaves_too_little_is_refused_in_a_sentence(length: int) -> None:
    one, stretches, made = small([1] * length, 1, 20)
    with pytest.raises(CellError, match=f"trace has {length} acc.* batch takes 20 .* longer trace"):
        hot_rows.choose(one, stretches, made, 3)
    oracle = dataclasses.replace(one, hot_rows="oracle")
    assert hot_rows.choose(oracle, stretches, made, 3)[0][0].tolist() == [1]
    assert hot_rows.choose(*small([1] * 22, 1, 20), 3)[0][0].tolist() == [1]


def several(trace: list[int], timed: int, batches: int) -> tuple[Cell, Stretches, list[Batch]]:
    """The same with so many batches, of one table."""
    one, stretches, _ = small(trace, 1, timed)
    tables = TableStore().get(one.workload, 1)
    return one, stretches, [batch.make(one, stretches, tables, number) for number in range(batches)]


def test_held_out_rows_are_of_what_no_batch_takes_and_the_same_for_all() -> None:
    one, stretches, made = several([1, 1, 2, 2, 3, 3, 3, 4], 2, 3)
    chosen = hot_rows.choose(one, stretches, made, 1)
    assert as_lists(chosen) == [[[3]]] * 3
    assert chosen[0][0] is chosen[2][0], "they are held once"
    assert hot_rows.held_bytes(one, stretches, 3, 1) == 8
    assert hot_rows.facts(made, chosen) == {"pinned_rows": 1, "pinned_share": pytest.approx(1 / 3)}


def test_where_batches_take_the_whole_trace_each_has_the_rows_that_it_leaves_out_itself() -> None:
    one, stretches, made = several([1, 1, 1, 2, 2, 2], 4, 2)
    # The first takes 1 1 1 2 and leaves 2 2; the second goes on with 2 2 1 1 and leaves 1 2.
    chosen = hot_rows.choose(one, stretches, made, 1)
    assert as_lists(chosen) == [[[2]], [[1]]]
    assert hot_rows.held_bytes(one, stretches, 2, 1) == 16
    assert hot_rows.facts(made, chosen)["pinned_share"] == (1 / 4 + 2 / 4) / 2


def test_the_oracle_knows_each_batch() -> None:
    one, stretches, made = several([1, 1, 2, 3, 3, 4], 3, 2)
    oracle = dataclasses.replace(one, hot_rows="oracle")
    # Bags of two: a batch of three accesses is one of two.
    assert [indices.tolist() for indices in (made[0].indices[0], made[1].indices[0])] == [[1, 1], [2, 3]]
    assert as_lists(hot_rows.choose(oracle, stretches, made, 1)) == [[[1]], [[2]]]
    assert hot_rows.held_bytes(oracle, stretches, 2, 100) == 2 * 8 * 2
