"""Models whose tables replay traces of their own: the rows and bags that arrive at the operator."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.bench import batch, check, design, hot_rows, rotation
from harness.bench.batch import Batch
from harness.bench.cell import Bench
from harness.bench.failures import CellError
from harness.bench.rotation import Turn
from harness.bench.tables import TableStore
from harness.groups import TableGroup
from harness.records import Cell, Dataset, Timing, Workload
from harness.traces import replay
from harness.traces.stretches import Stretches
from harness.workload import summary
from tests.unit.recorded_traces import (
    ITEM,
    MODEL,
    USER,
    bags_of,
    batches,
    laid_out,
    refused,
    trace,
    with_traces,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the model's traces in it."""
    return with_traces(tmp_path)


def test_batches_are_the_traces_bags_in_order_and_wrap_round(folder: Path) -> None:
    cell, root = laid_out(folder)
    made = batches(cell, root, 5)
    for feature, wanted in enumerate((USER, ITEM)):
        assert [bag for one in made for bag in bags_of(one, feature)] == (3 * wanted)[:15]
    # 7 bags are 2 batches of 3 and a bit.
    stretches = Stretches.read(cell, root)
    assert [stretches.in_trace(feature) for feature in (0, 1)] == [2, 2]


def test_a_trace_shorter_than_a_batch_wraps_round_within_it(folder: Path) -> None:
    cell, root = laid_out(folder, batch=17)
    (made,) = batches(cell, root, 1)
    assert bags_of(made, 0) == (3 * USER)[:17]


def test_all_tables_together_are_asked_for_the_same_bags(folder: Path) -> None:
    cell, root = laid_out(folder)
    for made in batches(cell, root, 3):
        offsets, rows = made.asked.offsets.tolist(), made.asked.indices.tolist()
        found = [rows[begin:end] for begin, end in itertools.pairwise(offsets)]
        assert found == bags_of(made, 0) + bags_of(made, 1)


def test_batches_of_unequal_lookups_are_joined_one_after_the_other(folder: Path) -> None:
    cell, root = laid_out(folder, weighted=True)
    made = batches(cell, root, 4)
    whole = batch.joined(made)
    for feature in (0, 1):
        assert bags_of(whole, feature) == [bag for one in made for bag in bags_of(one, feature)]
        weights = whole.sample_weights[feature]
        assert weights is not None
        assert len(weights) == len(whole.indices[feature])


@pytest.mark.parametrize("bags", ['bags = "own"', "pooling = 2"])
def test_tables_that_share_a_trace_begin_at_places_of_their_own(folder: Path, bags: str) -> None:
    text = MODEL.replace('trace = "deeper/item", bags = "own"', f'trace = "user", count = 2, {bags}')
    cell, root = laid_out(folder, text)
    traces = replay.read_traces(cell, root)
    assert traces[0] is traces[1] is traces[2]
    assert len(list((root / "traces").iterdir())) == 2
    (made,) = batches(cell, root, 1)
    rows = [row for bag in USER for row in bag]
    if "pooling" in bags:
        assert [made.indices[n].tolist() for n in (1, 2)] == [(2 * rows)[at : at + 6] for at in (3, 6)]
    else:
        assert [bags_of(made, n) for n in range(3)] == [(2 * USER)[at : at + 3] for at in (0, 2, 4)]


def test_bags_of_a_fixed_length_are_laid_over_a_trace_without_any(tmp_path: Path) -> None:
    trace(tmp_path / "user", USER, 10, own=False)
    text = MODEL.replace('"user", bags = "own"', '"user", pooling = 2').replace(
        '    { rows = 20, dim = 4, trace = "deeper/item", bags = "own" },\n', ""
    )
    cell, root = laid_out(tmp_path, text)
    first, second = batches(cell, root, 2)
    assert bags_of(first, 0) == [[3, 1], [4, 1], [5, 9]]
    assert bags_of(second, 0) == [[2, 6], [5, 3], [1, 4]]
    assert "bags: " in refused(tmp_path, text.replace("pooling = 2", 'bags = "own"'))


def test_own_bags_hold_another_datasets_rows(folder: Path) -> None:
    cell, root = laid_out(folder, name="random")
    first, second = batches(cell, root, 2)
    assert [len(bag) for one in (first, second) for bag in bags_of(one, 0)] == [2, 0, 1, 3, 2, 0]
    (synthetic, _) = replay.read_traces(cell, root)
    asked = torch.cat([first.indices[0], second.indices[0]]).tolist()
    assert asked == synthetic[:8].tolist()


@given(
    bags=st.lists(st.lists(st.integers(0, 99), max_size=5), min_size=1, max_size=12).filter(any),
    size=st.integers(1, 9),
    number=st.integers(0, 5),
    several=st.integers(1, 3),
)
def test_no_access_is_both_looked_up_and_left_out(
    bags: list[list[int]], size: int, number: int, several: int
) -> None:
    group = TableGroup(
        100, 4, trace="x", trace_sha256="0" * 64, bags="own", rows_per_own_bag=sum(map(len, bags)) / len(bags)
    )
    work = Workload(**{**summary((group,)), "groups": (group,), "batch": size, "device": "cpu"})  # type: ignore[arg-type]
    cell = Cell("a", "stock", "pytorch", Dataset("own"), work, Timing(), 0, 1)
    rows = np.arange(sum(map(len, bags)))  # each access tells its place
    offsets = np.concatenate([[0], np.cumsum([len(bag) for bag in bags])])
    stretches = Stretches(cell, [rows], {0: offsets})
    taken, left = stretches.rows(0, number, several), stretches.rest(0, number, several)
    apart = [stretches.rows(0, one) for one in range(number, number + several)]
    assert taken.tolist() == np.concatenate(apart).tolist()
    assert len(taken) == stretches.count(0, number, several)
    assert not set(taken.tolist()) & set(left.tolist())
    assert set(taken.tolist()) | set(left.tolist()) == set(rows.tolist())
    assert stretches.lengths(0, number).sum() == len(apart[0])


def test_own_bags_over_other_rows_repeat_when_the_rows_do(folder: Path) -> None:
    """And not when the bags do: under "random" the rows are another trace's."""
    cell, root = laid_out(folder)
    other = dataclasses.replace(cell, dataset=Dataset("random"))
    stretches = Stretches(other, [np.arange(80)] * 2, replay.read_bags(cell, root))
    lookups = [feature.group.lookups(3) for feature in cell.workload.features]
    assert [stretches.in_trace(feature) for feature in (0, 1)] == [80 // each for each in lookups]


def test_rows_to_pin_are_of_what_no_batch_takes(folder: Path) -> None:
    cell, root = laid_out(folder, batch=2)
    made, stretches = batches(cell, root, 2), Stretches.read(cell, root)
    chosen = hot_rows.choose(cell, stretches, made, 3)
    # Bags 4 to 6 are left: of the first [2, 6], [], [5], of the second [14], [15, 16, 17], [18].
    assert [[rows.tolist() for rows in one] for one in chosen] == [[[2, 5, 6], [14, 15, 16]]] * 2
    assert hot_rows.held_bytes(cell, stretches, 2, 3) == 8 * 2 * 3


def test_as_many_batches_take_turns_as_empty_l2_and_a_short_trace_is_told(folder: Path) -> None:
    cell, root = laid_out(folder)
    stretches = Stretches.read(cell, root)
    found = rotation.plan(cell, stretches, 2000)
    assert found.batches > 2
    assert found.facts["bytes_until_trace_repeats"] < found.facts["bytes_between_turns"]
    # Between two turns of a batch that is repeated every second pass: one other batch, and the outputs.
    between = rotation.touched_bytes(cell.workload, stretches, 2)
    assert between == 5 * 32 + 4 * 16 + cell.workload.all_lookups * 8 + 6 * 8 + 3 * 12 * 4


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_call_for_all_tables_gets_the_bags_of_each(folder: Path, dtype: str) -> None:
    cell, root = laid_out(folder, dtype=dtype)
    stretches, stored = Stretches.read(cell, root), TableStore().get(cell.workload, cell.seed)
    made = [batch.make(cell, stretches, stored, number) for number in range(4)]

    def bind(given: Batch) -> list[batch.Lookup]:
        return [lambda: design._all_tables(given)]

    found = check.run(made[0], None, bind)
    others = check.run_others(made, [Turn(bind(one)) for one in made])
    assert check.worst_of([found, *others]).passed
    wrong = Turn([lambda: design._all_tables(made[1])])
    assert not check.worst_of(check.run_others([made[0], made[2]], [wrong, wrong])).passed


def test_fbgemm_looks_up_batches_of_unequal_lookups(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fbgemm_gpu")
    peer = Path(__file__).resolve().parents[3] / "opt_designs" / "fbgemm"
    monkeypatch.setenv("HARNESS_PEER", str(peer))
    cell, root = laid_out(folder)
    record = Bench(root).measure(dataclasses.replace(cell, design="fbgemm", timing=Timing(max_seconds=0.05)))
    assert (record.status, record.message) == ("ok", "")


def test_too_little_memory_offers_no_cut(folder: Path) -> None:
    cell, _ = laid_out(folder)
    with pytest.raises(CellError, match="its tables replay traces and cannot be cut down"):
        batch.check_memory(cell.workload, False, lambda asked: 0, 10)
