"""What caches must fetch, against a cache that is carried out step by step."""

from __future__ import annotations

import dataclasses
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis import kind_demand
from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.progress import Silent
from harness.records import Cell, Dataset, Timing, Workload, load, to_json
from harness.traces import bags, demand, replay, synth
from harness.traces.stretches import Stretches
from harness.workload import summary

WORK = Workload(tables=4, rows=2000, dim=16, batch=32, pooling=10)


def cell(dataset: str, work: Workload = WORK, path: str | None = None) -> Cell:
    return Cell(f"x-{dataset}", "stock", "pytorch", Dataset(dataset, path), work, Timing(), 0, 5)


def misses_of_lru(rows: list[int], capacity: int) -> int:
    cache: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for row in rows:
        misses += row not in cache
        cache[row] = None
        cache.move_to_end(row)
        if len(cache) > capacity:
            cache.popitem(last=False)
    return misses


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=80),
    st.lists(st.integers(0, 15), min_size=1, max_size=5),
)
def test_fetches_are_those_of_an_lru_cache(rows: list[int], capacities: list[int]) -> None:
    assert demand.fetched(np.array(rows), capacities) == [misses_of_lru(rows, c) for c in capacities]


def test_a_sample_of_rows_comes_near() -> None:
    rows = synth.synthesize("medium", 100_000, 80_000, 3)
    capacities = [1000, 5000, 10_000, 50_000]
    exact, sampled = demand.fetched(rows, capacities), demand.fetched(rows, capacities, exact_up_to=20_000)
    assert sampled != exact
    assert sampled == pytest.approx(exact, rel=0.04)


@pytest.mark.parametrize("row", range(20))
def test_a_sample_never_fetches_less_than_each_row_once_or_more_than_every_access(row: int) -> None:
    """Also where all accesses go to one row, which is in the sample or is not."""
    found = demand.fetched(np.full(1000, row), [0, 1, 10], exact_up_to=100)
    assert found in ([1, 1, 1], [1000, 10, 10])


@pytest.mark.parametrize("name", synth.NAMES)
def test_a_larger_cache_never_fetches_more(name: str, tmp_path: Path) -> None:
    asked = demand.of(cell(name), tmp_path)
    rows = [count for _, count in asked.misses]
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] == asked.batch_distinct_rows
    assert rows[0] <= asked.lookups
    between = (demand.CACHE_BYTES[0] + demand.CACHE_BYTES[1]) / 2
    assert asked.fetched_rows(between) == rows[1]
    assert asked.fetched_rows(demand.CACHE_BYTES[-1] + 1) == asked.batch_distinct_rows
    shares = [share for _, share in asked.coverage]
    assert shares == sorted(shares)
    assert shares[-1] == 1  # 60,000 rows are more than the table has


def test_it_is_what_the_tables_of_a_batch_look_up(tmp_path: Path) -> None:
    asked = demand.of(cell("medium"), tmp_path)
    trace = replay.read_traces(cell("medium"), tmp_path)[0]
    assert asked.tables == [0, 2]
    begins = [0, 2 * len(trace) // 4]
    doubled = np.concatenate([trace, trace])
    own = [doubled[begin : begin + WORK.lookups] for begin in begins]
    assert asked.batch_distinct_rows == np.mean([len(set(rows.tolist())) for rows in own])
    assert asked.accesses == len(trace)
    assert asked.row_bytes == 64
    capacity = demand.CACHE_BYTES[0] // 64
    assert asked.misses[0][1] == np.mean([misses_of_lru(rows.tolist(), capacity) for rows in own])


def test_tables_of_several_traces_count_alike(tmp_path: Path) -> None:
    parts = [demand.of(cell(name), tmp_path) for name in synth.MIXED]
    mixed = demand.of(cell("mixed"), tmp_path)
    assert mixed.tables == [0, 1, 2, 3]
    assert mixed.distinct_rows == pytest.approx(np.mean([part.distinct_rows for part in parts]))


@pytest.mark.parametrize("bags_are", ["fixed", "ragged", "of_a_model"])
def test_distinct_rows_of_bags_are_those_that_the_bench_replays(tmp_path: Path, bags_are: str) -> None:
    tables = TableGroup(9, 8, pooling=6), TableGroup(40, 8, pooling=5, bags="ragged")
    of_model = {**summary(tables), "groups": tables, "batch": 16}
    plain = {"tables": 2, "rows": 30, "dim": 8, "batch": 16, "pooling": 12, "bags": bags_are}
    one = cell("random", Workload(**(of_model if bags_are == "of_a_model" else plain)))  # type: ignore[arg-type]
    stretches = Stretches.read(one, tmp_path)
    starts = np.broadcast_to(bags.starts(one, stretches), (2, 16))
    counted = [
        sum(len(set(bag)) for bag in np.split(stretches.rows(table, 0), starts[table][1:]))
        for table in (0, 1)
    ]
    assert demand.of(one, tmp_path).bag_rows == pytest.approx(np.mean(counted))
    assert np.mean(counted) < one.workload.lookups


@pytest.mark.parametrize("dataset", ["random", "skewed", "mixed"])
def test_rows_that_features_share_count_once_for_all_of_them(tmp_path: Path, dataset: str) -> None:
    tables = TableGroup(60, 8, count=2, features=3, pooling=2), TableGroup(700, 4, pooling=4)
    work = Workload(**{**summary(tables), "groups": tables, "batch": 16})  # type: ignore[arg-type]
    one = cell(dataset, work)
    stretches = Stretches.read(one, tmp_path)
    touched = {
        (feature.table, int(row)): feature.group.dim * 4
        for place, feature in enumerate(work.features)
        for row in stretches.rows(place, 0)
    }
    asked = demand.of(one, tmp_path)
    # Of the tables of a kind that replay the same trace the first stands for all.
    within = 0.1 if dataset != "mixed" else 0.2
    counted = work.tables * asked.batch_distinct_rows * asked.row_bytes
    assert counted == pytest.approx(sum(touched.values()), rel=within)
    assert counted < 0.9 * sum(
        len(np.unique(stretches.rows(place, 0))) * feature.group.dim * 4
        for place, feature in enumerate(work.features)
    )
    shared, alone = kind_demand.of(one, demand.Curves(one, stretches))
    assert shared.batch_distinct_rows == len({row for table, row in touched if table == 0}) / 3
    assert alone.batch_distinct_rows == len({row for table, row in touched if table == 2})


def test_what_is_told_of_all_tables_and_of_each_kind_is_worked_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = TableGroup(60, 8, count=2, pooling=2), TableGroup(60, 16, count=3, pooling=4), TableGroup(700, 4)
    work = Workload(**{**summary(tables), "groups": tables, "batch": 16})  # type: ignore[arg-type]
    asked: list[str] = []
    for name in ("occurrences", "stack_distances"):
        honest = getattr(demand, name)

        def noted(indices: replay.Rows, name: str = name, honest: Any = honest) -> Any:
            asked.append(name)
            return honest(indices)

        monkeypatch.setattr(demand, name, noted)
    kinds = kind_demand.Collected()
    demand.write([cell("skewed", work)], tmp_path, also=kinds.add)
    kinds.write(tmp_path)
    assert sorted(asked) == ["occurrences"] * 2 + ["stack_distances"] * 3  # by trace, and by kind
    assert len(kind_demand.read(tmp_path)["skewed"]) == 3


def test_a_run_keeps_it_and_reads_it_back(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    np.save(tmp_path / "traces" / "mine.npy", np.arange(100) % 7)
    cells = [cell("random"), cell("mine", path="traces/mine.npy"), cell("random")]
    demand.write(cells, tmp_path)
    found = demand.read(tmp_path)
    assert found == {(one.dataset.name, ""): demand.of(one, tmp_path) for one in cells}
    assert found["mine", ""].batch_distinct_rows == 7
    assert demand.read(tmp_path / "traces") == {}


def at(point: str, batch: int) -> Cell:
    """A cell of a sweep."""
    return dataclasses.replace(cell("random", dataclasses.replace(WORK, batch=batch)), point=point)


def test_of_a_sweep_it_tells_every_workload_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, tuned = cell("random"), dataclasses.replace(cell("random"), point="distance=4")
    cells = [at("batch=3,distance=4", 3), tuned, own, at("batch=3", 3), at("batch=5", 5)]
    demand.write(cells, tmp_path)
    found = demand.read(tmp_path)
    assert list(found) == [("random", ""), ("random", "batch=3"), ("random", "batch=5")]
    for one in (own, at("batch=3", 3), at("batch=5", 5)):
        asked = demand.of(one, tmp_path)
        assert found["random", one.point] == dataclasses.replace(asked, point=one.point)
        assert asked.lookups == one.workload.lookups
    told = Told()
    monkeypatch.setattr(demand, "MOST_ACCESSES", demand._accesses(at("batch=3", 3), tmp_path))
    demand.write([at("batch=3", 3), at("batch=5", 5)], tmp_path, told)
    assert list(demand.read(tmp_path)) == [("random", "batch=3")]
    assert [line.split(":")[0] for line in told.said] == ["random at batch=5"]


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"mine\.npy: cannot be read"):
        demand.of(cell("mine", path="mine.npy"), tmp_path)


class Told(Silent):
    """Progress that remembers."""

    def __init__(self) -> None:
        self.current: list[str] = []
        self.said: list[str] = []

    def now(self, what: str) -> None:
        self.current.append(what)

    def say(self, line: str) -> None:
        self.said.append(line)


def test_work_is_told_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset is left out by what its traces and batches come to, before any of them is made."""
    (tmp_path / "traces").mkdir()
    np.save(tmp_path / "traces" / "long.npy", np.zeros(5000, dtype=np.int64))
    monkeypatch.setattr(demand, "MOST_ACCESSES", 4000)
    told = Told()
    demand.write([cell("random"), cell("mixed"), cell("long", path="traces/long.npy")], tmp_path, told)
    assert list(demand.read(tmp_path)) == [("random", "")]
    assert told.current[0].endswith("of the memory system: 1 of 3, long, 5,320 accesses")
    assert [line.split(":")[0] for line in told.said] == ["long", "mixed"]


def test_a_plan_that_asks_for_anything_is_refused_at_once(tmp_path: Path) -> None:
    """As a report may find it in a folder from elsewhere."""
    for name in ("one_item", "high", "random", "mixed"):
        with pytest.raises(BadInputError, match=f"^{name}: .* accesses are too many"):
            demand.of(cell(name, Workload(tables=10**9, rows=2**28, batch=2, pooling=2)), tmp_path)
        with pytest.raises(BadInputError, match="are too many"):
            demand.of(cell(name, Workload(rows=10, batch=2**40, pooling=2**40)), tmp_path)


def test_a_pipe_in_place_of_a_trace_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.npy")
    with pytest.raises(BadInputError, match=r"^mine\.npy: is no file"):
        demand.of(cell("mine", path="mine.npy"), tmp_path)


@pytest.mark.parametrize("elsewhere", ["/proc/self/pagemap", "traces/../../x.npy"])
def test_no_trace_outside_the_runs_folder_is_read(tmp_path: Path, elsewhere: str) -> None:
    told = demand.Datasets([], {elsewhere: "0"})
    (tmp_path / demand.FILE).write_text(to_json(told), encoding="utf-8")
    demand.check_traces(tmp_path)  # as if it named none; to read the first of these would not end
    with pytest.raises(BadInputError, match="leads out of the run's folder"):
        load(demand.Datasets, tmp_path / demand.FILE)
