"""Statistics against a plain LRU stack and plain counting."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import records
from harness.errors import BadInputError
from harness.traces import stats, synth
from harness.traces.charts import charts
from harness.traces.stack import distinct, occurrences, stack_distances
from harness.traces.stats import describe
from tests import effort

TRACES = st.lists(st.integers(0, 12), min_size=1, max_size=80)


def lru_stack(trace: list[int]) -> list[int]:
    """The definition: how deep the row lies in the stack of rows by last access; -1: not in it."""
    stack: list[int] = []
    depths = []
    for row in trace:
        depths.append(stack.index(row) if row in stack else -1)
        if row in stack:
            stack.remove(row)
        stack.insert(0, row)
    return depths


@settings(deadline=None)
@given(TRACES)
def test_stack_distances(trace: list[int]) -> None:
    assert stack_distances(np.array(trace)).tolist() == lru_stack(trace)


@pytest.mark.parametrize("scale", [1, 2**40])
def test_large_row_numbers_take_no_more_memory(scale: int) -> None:
    """Counted by the accesses there are, not by the rows that there might be."""
    trace = np.array([3, 0, 3, 7, 3]) * scale
    rows, counts = occurrences(trace)
    assert (rows.tolist(), counts.tolist()) == ([0, 3 * scale, 7 * scale], [1, 3, 1])
    assert distinct(trace) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats, "_BLOCK", 2)
        found = describe(trace, 2)
    assert (found.distinct_rows, found.hottest_row_accesses) == (3, 3)
    assert found.coverage[0] == (1, 0.6)


@pytest.mark.parametrize("most", [1, 40, 10_000, 2**20, 2**40])
@pytest.mark.parametrize("accesses", [0, 1, 30, 5000])
def test_distinct_rows_are_those_that_occur(accesses: int, most: int) -> None:
    trace = np.random.default_rng(accesses).integers(0, most, accesses)
    assert distinct(trace) == len(set(trace.tolist())) == len(occurrences(trace)[0])


@settings(deadline=None)
@given(trace=TRACES, pooling=st.integers(1, 9))
def test_describe_is_what_counting_gives(trace: list[int], pooling: int) -> None:
    found = describe(np.array(trace), pooling, rows=20)
    counts = sorted(Counter(trace).values(), reverse=True)
    depths = lru_stack(trace)
    again = [depth for depth in depths if depth >= 0]
    bags = [trace[i : i + pooling] for i in range(0, len(trace), pooling)]
    assert (found.accesses, found.distinct_rows, found.bags) == (len(trace), len(counts), len(bags))
    assert found.distinct_share == len(counts) / 20
    assert found.hottest_row_accesses == counts[0]
    assert found.bag_repeats == pytest.approx(sum(len(bag) - len(set(bag)) for bag in bags) / len(trace))
    assert found.median_stack_distance == (np.median(again) if again else None)
    for size, share in found.coverage:
        assert share == pytest.approx(sum(counts[:size]) / len(trace))
    for size, rate in found.hit_rate:
        assert rate == pytest.approx(sum(depth < size for depth in again) / len(trace))
    assert found.coverage[-1][1] == 1
    assert found.hit_rate[-1][1] == pytest.approx(len(again) / len(trace))
    ends = [edge for edge, _ in found.stack_distances[1:]] + [10**9]
    for (edge, number), end in zip(found.stack_distances, ends, strict=True):
        assert number == sum(edge <= depth < end for depth in again)
    assert (found.sampling_rate, found.hit_rate_error) == (1, 0)


def test_ragged_bags() -> None:
    offsets = np.array([0, 0, 3, 4, 7])
    found = describe(np.array([1, 1, 2, 2, 5, 5, 5]), 1, offsets=offsets)
    assert found.bags == 4
    assert found.bag_repeats == 3 / 7


def test_blocks_do_not_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = synth.synthesize("medium", 5000, 4000, 1)
    whole = describe(trace, 150)
    monkeypatch.setattr(stats, "_BLOCK", 400)
    assert describe(trace.astype(np.int32), 150) == whole


@pytest.mark.parametrize("name", ["medium", "low", "random"])
def test_sampling_states_its_error(name: str) -> None:
    """The error is two standard errors: exceeded now and then, by a little."""
    trace = synth.synthesize(name, 100_000, 400_000, 4)
    exact = dict(describe(trace, 150).hit_rate)
    sampled = describe(trace, 150, exact_up_to=50_000)
    assert sampled.sampling_rate == 0.125
    assert 0 < sampled.hit_rate_error < 0.05
    assert len(sampled.hit_rate) >= 5
    worst = max(abs(rate - exact[size]) for size, rate in sampled.hit_rate)
    assert worst < 1.5 * sampled.hit_rate_error
    assert sum(n for _, n in sampled.stack_distances) == len(trace) - sampled.distinct_rows


def test_a_hot_row_does_not_upset_the_sample() -> None:
    """Half of all accesses go to one row, in the sample or not; the hit rates hold."""
    trace = synth.synthesize("random", 20_000, 200_000, 1)
    trace[::2] = 7
    exact = dict(describe(trace, 150).hit_rate)
    sampled = describe(trace, 150, exact_up_to=20_000)
    assert max(abs(rate - exact[size]) for size, rate in sampled.hit_rate) < 0.03


def test_a_million_accesses_take_no_loop_over_them_and_little_memory() -> None:
    trace = synth.synthesize("low", 500_000, 1_000_000, 1)
    assert describe(trace, 150).sampling_rate == 1
    assert effort.calls(lambda: describe(trace, 150)) < 3_000
    assert effort.peak_bytes(lambda: describe(trace, 150)) < 150 * 1_000_000


def test_table_sets_traces_side_by_side() -> None:
    few = describe(np.array([1, 1, 2]), 3, rows=10)
    lines = stats.table({"few": few, "many": describe(synth.synthesize("low", 1000, 5000, 1), 50)})
    assert lines[0] == ["", "few", "many"]
    assert {len(line) for line in lines} == {3}
    assert ["accesses", "3", "5,000"] in lines
    assert ["share of distinct rows", "20.00%", ""] in lines


def test_is_json() -> None:
    assert '"distinct_rows": 2' in records.to_json(describe(np.array([1, 1, 2]), 3))


@pytest.mark.parametrize(
    ("trace", "pooling", "said"),
    [([], 1, "0 accesses"), ([1], 0, "pooling 0"), ([3, -4], 1, "Row -4 is negative")],
)
def test_refuses(trace: list[int], pooling: int, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        describe(np.array(trace, dtype=np.int64), pooling)


def test_charts_show_every_trace() -> None:
    traces = {name: describe(synth.synthesize(name, 1000, 3000, 1), 50) for name in ("medium", "low")}
    drawn = charts(traces).to_dict()
    panels = drawn["hconcat"]
    assert [panel["title"] for panel in panels] == [
        "share of accesses to the hottest rows",
        "hit rate of an LRU cache",
    ]
    points = drawn["datasets"][panels[1]["data"]["name"]]
    assert [p["share"] for p in points if p["trace"] == "low"] == [rate for _, rate in traces["low"].hit_rate]
