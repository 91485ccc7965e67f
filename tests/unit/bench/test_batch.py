"""Tables and indices are those of the seed and the trace; what does not fit or is wrong is said before."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.bench import batch, dlrm
from harness.bench import cell as cell_measured
from harness.bench.failures import CellError
from harness.bench.tables import Tables, TableStore
from harness.errors import BadInputError
from harness.records import Cell, Dataset, Model, Workload
from harness.traces import replay, stretches
from harness.traces.bags import lengths
from harness.traces.replay import Rows
from harness.traces.stack import distinct
from harness.traces.stretches import Stretches


def test_tables_come_from_the_seed_and_are_made_once_per_workload(cell: Callable[..., Cell]) -> None:
    one, store = cell(), TableStore()
    first = store.get(one.workload, 7)
    assert store.get(one.workload, 7) is first
    again = TableStore().get(one.workload, 7)
    other = TableStore().get(one.workload, 8)
    assert all(torch.equal(a, b) for a, b in zip(first.weights, again.weights, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first.weights, other.weights, strict=True))
    assert not torch.equal(first.weights[0], first.weights[1])


def test_table_values_use_their_whole_mantissa(cell: Callable[..., Cell]) -> None:
    table = TableStore().get(cell().workload, 7).weights[0]
    lowest_bits = table.view(torch.int32) & 0xF
    assert len(torch.unique(lowest_bits)) == 16
    assert 0.29 < float(table.abs().max()) <= 0.3
    assert len(torch.unique(table)) > 0.9 * table.numel()


def test_every_table_replays_the_trace_from_its_own_start_and_wraps(cell: Callable[..., Cell]) -> None:
    one = cell(tables=3, batch=4, pooling=5)
    trace = np.arange(30) + 100
    made = batch.make(one, Stretches(one, [trace] * 3), TableStore().get(one.workload, 7))
    assert made.indices[0].tolist() == list(range(100, 120))
    assert made.indices[1].tolist() == list(range(110, 130))
    assert made.indices[2].tolist() == [*range(120, 130), *range(100, 110)]
    assert made.offsets.tolist() == [0, 5, 10, 15]


def test_each_batch_goes_on_where_the_one_before_it_ends(cell: Callable[..., Cell]) -> None:
    one = cell(tables=2, batch=4, pooling=3, weighted=True, bags="ragged")
    found, tables = Stretches(one, [np.arange(30) + 100] * 2), TableStore().get(one.workload, 7)
    first, second, third = (batch.make(one, found, tables, number) for number in range(3))
    assert first.indices[1].tolist() == list(range(115, 127))
    assert second.indices[0].tolist() == list(range(112, 124))
    assert second.indices[1].tolist() == [*range(127, 130), *range(100, 109)]
    assert third.indices[0].tolist() == [*range(124, 130), *range(100, 106)]
    scales = [made.sample_weights[0] for made in (first, second)]
    assert scales[0] is not None
    assert scales[1] is not None
    assert not torch.equal(scales[0], scales[1])
    many = cell(batch=64, bags="ragged").workload
    orders = [lengths(many, 7, number).tolist() for number in range(3)]
    assert orders[0] == lengths(many, 7).tolist()
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("weighted", [False, True])
def test_batches_are_joined_bag_after_bag(cell: Callable[..., Cell], weighted: bool) -> None:
    one = cell(tables=2, batch=4, pooling=3, weighted=weighted, bags="ragged", index_dtype="int32")
    trace, tables = np.arange(30) + 100, TableStore().get(one.workload, 7)
    apart = [batch.make(one, Stretches(one, [trace] * 2), tables, number) for number in range(3)]
    whole = batch.joined(apart)
    assert whole.work.batch == 12
    for table in range(2):
        assert torch.allclose(whole.lookup(table), torch.cat([made.lookup(table) for made in apart]))
    assert batch.joined(apart[:1]) is apart[0]


def test_what_is_asked_of_all_tables_is_what_is_asked_of_each_in_turn(cell: Callable[..., Cell]) -> None:
    one = cell(
        tables=3, batch=4, pooling=5, bags="ragged", weighted=True, dtype="float16", index_dtype="int32"
    )
    made = batch.make(one, Stretches(one, [np.arange(30)] * 3), TableStore().get(one.workload, 7))
    asked = made.asked
    assert asked.indices.dtype == asked.offsets.dtype == torch.int32
    assert asked.sample_weights is not None
    assert asked.sample_weights.dtype == torch.float32
    ends = [*made.offsets.tolist()[1:], 20]
    bounds = asked.offsets.tolist()
    assert bounds[-1] == 60
    for table in range(3):
        for bag, (begin, end) in enumerate(zip(made.offsets.tolist(), ends, strict=True)):
            whole = slice(bounds[4 * table + bag], bounds[4 * table + bag + 1])
            assert torch.equal(asked.indices[whole], made.indices[table][begin:end])
            scales = made.sample_weights[table]
            assert scales is not None
            assert torch.equal(asked.sample_weights[whole], scales[begin:end].float())


@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes_are_the_workloads(cell: Callable[..., Cell], dtype: str, index_dtype: str) -> None:
    one = cell(dtype=dtype, index_dtype=index_dtype, weighted=True)
    made = batch.make(one, Stretches(one, [np.arange(50)] * 3), TableStore().get(one.workload, 7))
    assert made.indices[0].dtype == made.offsets.dtype == getattr(torch, index_dtype)
    assert made.sample_weights[0] is not None
    assert made.sample_weights[0].dtype == made.lookup(0).dtype == getattr(torch, dtype)


def test_the_synthetic_trace_has_the_published_distinct_share(
    cell: Callable[..., Cell], tmp_path: Path
) -> None:
    trace = replay.read_traces(cell(rows=10_000), tmp_path)[0]
    assert len(np.unique(trace)) / 10_000 == pytest.approx(0.205, abs=0.002)


# Of the indices of the paper's workload, seed 1: what every kept record was measured on.
INDICES = {
    "one_item": "9576272ece966b05",
    "high": "6ffaf5e40e5f5b44",
    "medium": "4691fe5207ce39af",
    "low": "c19adfe14d65def9",
    "random": "51af628b3929c7f5",
}


@pytest.mark.parametrize("dataset", INDICES)
def test_a_datasets_indices_stay_those_of_the_kept_records(
    cell: Callable[..., Cell], tmp_path: Path, dataset: str
) -> None:
    one = dataclasses.replace(cell(dataset=Dataset(dataset), seed=1), workload=Workload(device="cpu"))
    digest = hashlib.sha256()
    for indices in batch.make(one, Stretches.read(one, tmp_path), Tables([])).indices:
        digest.update(indices.numpy().astype("<i8").data)
    assert digest.hexdigest()[:16] == INDICES[dataset]


def test_the_tables_of_mixed_are_of_several_traces(cell: Callable[..., Cell], tmp_path: Path) -> None:
    mixed = cell(dataset=Dataset("mixed"), tables=6, batch=50, pooling=10)
    traces = replay.read_traces(mixed, tmp_path)
    made = batch.make(mixed, Stretches(mixed, traces), TableStore().get(mixed.workload, 7)).indices
    for table, name in enumerate(["high", "medium", "low", "random", "high", "medium"]):
        alone = dataclasses.replace(mixed, dataset=Dataset(name))
        trace = replay.read_traces(alone, tmp_path)[0]
        assert np.array_equal(traces[table], trace)
        begin = table * len(trace) // 6
        assert made[table].tolist() == np.roll(trace, -begin)[:500].tolist()


def test_what_is_found_of_a_trace_is_worked_out_once_for_the_tables_that_share_it(
    cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, other = np.array([4, 4, 2]), np.array([7, 7, 7, 9, 8])
    seen: list[Rows] = []

    def noted(trace: Rows) -> object:
        seen.append(trace)
        return distinct(trace)

    monkeypatch.setattr(stretches, "distinct", noted)
    found = Stretches(cell(), [shared, other, shared])
    assert [found.distinct_rows, found.distinct_rows] == [[2, 3, 2]] * 2
    assert [id(trace) for trace in seen] == [id(shared), id(other)]


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (np.array([1, 2, 2000]), "access 3: row 2000 is outside the table .0 to 1999."),
        (np.array([-1, 2]), "access 1: row -1 is negative"),
        (np.array([0.5]), "holds no one-dimensional array of integers"),
        (np.array([], dtype=np.int64), "is empty"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_trace_file_is_named_with_the_place(
    cell: Callable[..., Cell], tmp_path: Path, stored: np.ndarray | None, said: str
) -> None:
    if stored is not None:
        np.save(tmp_path / "mine.npy", stored)
    with pytest.raises(BadInputError, match=rf"^mine\.npy: .*{said}"):
        replay.read_traces(cell(dataset=Dataset("mine", "mine.npy")), tmp_path)


def test_too_little_memory_is_said_with_both_numbers(cell: Callable[..., Cell]) -> None:
    work = cell(tables=12, rows=500_000, dim=128).workload
    with pytest.raises(CellError) as raised:
        batch.check_memory(work, tables_held=False, more_bytes=no_more, free_bytes=10**9)
    assert raised.value.status == "oom"
    assert re.fullmatch(
        r"The workload needs 3\.\d\d GB of memory, 3\.07 GB of them for its tables,"
        r" and 1\.00 GB are free on the host: workload\.tables = 3 would fit\.",
        str(raised.value),
    )
    batch.check_memory(work, tables_held=True, more_bytes=no_more, free_bytes=10**9)
    # Row numbers of a batch are there twice, and offsets more than once: 71 kB.
    with pytest.raises(CellError, match=r"needs 4\.49 GB of memory"):
        batch.check_memory(work, True, no_more, 10**9, batches=20_000)


def no_more(work: Workload) -> int:
    return 0


@pytest.mark.parametrize("free_gb", [5, 30, 62, 64])
def test_the_number_of_tables_that_fit_is_the_largest(free_gb: int) -> None:
    """Of 250 tables of the paper's, 64 GB, inside the model."""
    work, model = Workload(tables=250), Model()

    def fits(tables: int) -> bool:
        asked = dataclasses.replace(work, tables=tables)
        try:
            batch.check_memory(asked, False, partial(dlrm.model_bytes, model), free_gb * 10**9)
        except CellError as error:
            said = re.search(r"64\.00 GB of them .* workload\.tables = (\d+) would fit", str(error))
            assert tables != 250 or (said and int(said[1]) == most)
            return False
        return True

    most = max(tables for tables in range(1, 250) if fits(tables))
    assert not fits(250)


def test_where_not_even_one_table_fits_the_remedy_is_another() -> None:
    with pytest.raises(CellError, match=r"use fewer rows, columns or bags\.$"):
        batch.check_memory(Workload(), False, no_more, 10**8)


def test_batch_distinct_rows_is_the_mean_over_tables(cell: Callable[..., Cell]) -> None:
    one = cell(tables=2, batch=1, pooling=4)
    trace = np.array([1, 1, 1, 1, 2, 3, 4, 5])
    facts = cell_measured._looked_up(one.workload, Stretches(one, [trace] * 2))
    assert facts["batch_distinct_rows"] == 2.5
