"""How many batches take turns: as many as empty L2 between two turns of one, and of which none is silent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench import rotation
from harness.bench.l2 import TIMES_L2
from harness.bench.rotation import Order
from harness.groups import TableGroup
from harness.records import Cell, Dataset, Model, Timing, Workload
from harness.traces.replay import Rows
from harness.traces.stretches import Stretches
from harness.workload import summary

ROTATING = Timing()
ROW_BYTES = 64


def made(cell: Callable[..., Cell], **changes: Any) -> Cell:
    """Two tables whose bags are one row of 64 bytes each."""
    sizes = {"tables": 2, "rows": 1000, "dim": 16, "batch": 10, "pooling": 1}
    return cell(timing=ROTATING, **{**sizes, **changes})


def test_turns_go_round() -> None:
    order = Order(3)
    assert [order.next() for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [Order(1).next() for _ in range(2)] == [0, 0]


@pytest.mark.parametrize("cache", ["steady", "cold"])
def test_one_batch_is_repeated_where_that_is_asked_for(
    cell: Callable[..., Cell], cache: Literal["steady", "cold"]
) -> None:
    one = dataclasses.replace(made(cell), timing=Timing(cache=cache))
    assert rotation.least_batches(one) == 1
    assert rotation.plan(one, Stretches(one, [np.arange(100)] * 2), 10**6) == (1, {"batches": 1})


def test_two_batches_take_turns_where_each_is_far_larger_than_l2_and_on_a_cpu(
    cell: Callable[..., Cell],
) -> None:
    one, traces = made(cell), [np.arange(1000)] * 2
    assert rotation.least_batches(one) == 2
    found = rotation.plan(one, Stretches(one, traces), 100)
    assert found.batches == found.facts["batches"] == 2
    assert rotation.plan(one, Stretches(one, traces), None) == (2, {"batches": 2})


def touched(work: Workload, traces: list[Rows], turns: int) -> float:
    one = Cell("a", "stock", "", Dataset("mine", "mine.npy"), work, ROTATING, 0, 1)
    return rotation.touched_bytes(work, Stretches(one, traces), turns)


def walked_bytes(work: Workload, traces: list[Rows], turns: int) -> float:
    """What lies between two turns of batch 0, access by access: all tables of the passes between."""
    rows = {
        (table, int(traces[table][(table * len(traces[table]) // work.tables + at) % len(traces[table])]))
        for table in range(work.tables)
        for at in range(work.lookups, turns * work.lookups)
    }
    asked = (turns - 1) * work.tables * (8 * work.lookups + 8 * work.batch)
    return len(rows) * work.row_bytes + asked + work.tables * work.output_bytes


@given(
    length=st.integers(30, 400),
    distinct=st.integers(1, 200),
    turns=st.integers(2, 6),
    tables=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_what_is_touched_between_two_turns_is_never_overstated(
    length: int, distinct: int, turns: int, tables: int, seed: int
) -> None:
    trace = np.random.default_rng(seed).integers(0, distinct, length)
    work = Workload(tables=tables, rows=1000, dim=16, batch=5, pooling=2, device="cpu")
    counted = touched(work, [trace] * tables, turns)
    through = tables * len(np.unique(trace)) * work.row_bytes
    walked = walked_bytes(work, [trace] * tables, turns)
    if tables == 1:
        assert counted == walked
    else:
        assert walked <= counted <= walked + through
    assert touched(work, [trace] * tables, turns + 1) > counted


@given(
    length=st.integers(1, 60),
    other_length=st.integers(1, 60),
    distinct=st.integers(1, 40),
    turns=st.integers(2, 6),
    seed=st.integers(0, 99),
)
def test_a_row_that_several_features_look_up_is_counted_once(
    length: int, other_length: int, distinct: int, turns: int, seed: int
) -> None:
    groups = (
        TableGroup(100, 16, features=2, pooling=2),
        TableGroup(100, 16, features=3, pooling=1),
        TableGroup(100, 8, pooling=3),
    )
    work = Workload(**{**summary(groups), "groups": groups, "batch": 4, "device": "cpu"})  # type: ignore[arg-type]
    draws = np.random.default_rng(seed)
    one, other = (draws.integers(0, distinct, size) for size in (length, other_length))
    traces = [one, one, other, one, other, other]
    cell = Cell("a", "stock", "", Dataset("mine", "mine.npy"), work, ROTATING, 0, 1)
    stretches = Stretches(cell, traces)
    rows = {
        (feature.table, int(row)): work.row_bytes_of(feature.group.dim)
        for place, feature in enumerate(work.features)
        for row in stretches.rows(place, 1, turns - 1)
    }
    asked = (turns - 1) * (work.all_lookups * 8 + 6 * 4 * 8)
    walked = sum(rows.values()) + asked + work.all_output_bytes
    through = sum(
        len({int(row) for place in places for row in traces[place]}) * row_bytes
        for places, row_bytes in (((0, 1), 64), ((2, 3, 4), 64), ((5,), 32))
    )
    assert walked <= rotation.touched_bytes(work, stretches, turns) <= walked + through


def test_two_features_of_one_table_touch_what_one_does(cell: Callable[..., Cell]) -> None:
    """Where they look up the same few rows; two tables touch twice as many."""
    found = []
    for group in (TableGroup(100, 16, pooling=5, features=2), TableGroup(100, 16, pooling=5, count=2)):
        groups = (group,)
        work = Workload(**{**summary(groups), "groups": groups, "batch": 10, "device": "cpu"})  # type: ignore[arg-type]
        one = dataclasses.replace(made(cell), workload=work)
        stretches = Stretches(one, [np.arange(100) % 7] * 2)
        found.append(rotation.touched_bytes(work, stretches, 3))
    assert found[1] - found[0] == 7 * ROW_BYTES


def test_as_many_take_turns_as_empty_l2_and_not_twice_as_many(cell: Callable[..., Cell]) -> None:
    one, traces, l2_bytes = made(cell), [np.arange(1000)] * 2, 5000
    found = rotation.plan(one, Stretches(one, traces), l2_bytes)
    assert found.facts["bytes_between_turns"] >= TIMES_L2 * l2_bytes
    fewer = 1 + (found.batches - 1) // 2
    assert touched(one.workload, traces, fewer) < TIMES_L2 * l2_bytes
    # Of every batch but one: rows, indices, offsets; and the outputs of a pass.
    each = 2 * 10 * (ROW_BYTES + 8 + 8)
    assert found.facts["bytes_between_turns"] == (found.batches - 1) * each + 2 * 10 * ROW_BYTES
    assert found.facts["bytes_until_trace_repeats"] == found.facts["bytes_between_turns"]


def test_rows_that_batches_share_are_counted_once(cell: Callable[..., Cell]) -> None:
    one, hot = made(cell), [np.tile(np.arange(10), 100)] * 2
    found = rotation.plan(one, Stretches(one, hot), 5000)
    rows = 2 * 10 * ROW_BYTES
    assert found.facts["bytes_between_turns"] == (found.batches - 1) * 2 * 10 * 16 + rows + rows
    assert found.batches > rotation.plan(one, Stretches(one, [np.arange(1000)] * 2), 5000).batches


def test_a_trace_that_wraps_round_too_soon_is_told(cell: Callable[..., Cell]) -> None:
    """The trace holds three batches: after three passes the same accesses come again."""
    one, traces = made(cell), [np.arange(30)] * 2
    found = rotation.plan(one, Stretches(one, traces), 5000)
    assert found.batches > 3
    assert found.facts["bytes_between_turns"] >= TIMES_L2 * 5000
    assert found.facts["bytes_until_trace_repeats"] == touched(one.workload, traces, 3)
    # Of less than a batch not even one pass lies between: the other table alone does.
    short = rotation.plan(one, Stretches(one, [np.arange(5)] * 2), 5000)
    assert short.facts["bytes_until_trace_repeats"] == 5 * ROW_BYTES + 10 * 16 + 2 * 10 * ROW_BYTES


def test_there_are_not_more_than_can_be_made(
    cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "MOST", 20)
    monkeypatch.setattr(rotation, "MOST_IN_A_MODEL", 10)
    traces = [np.zeros(1000, dtype=np.int64)] * 2
    one = made(cell)
    inside, stretches = dataclasses.replace(one, model=Model()), Stretches(one, traces)
    assert rotation.plan(inside, stretches, 10**6).batches == 10
    found = rotation.plan(one, stretches, 10**6)
    assert found.batches == 20
    assert found.facts["bytes_between_turns"] < 10**6
