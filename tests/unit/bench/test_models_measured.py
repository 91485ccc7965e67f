"""Models whose tables differ, on the CPU: batches, bags, traffic, the check, peers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.bench import batch, check, design
from harness.bench.batch import Batch
from harness.bench.cell import Bench
from harness.bench.failures import CellError
from harness.bench.tables import TableStore
from harness.groups import TableGroup
from harness.records import PYTORCH, Cell, Dataset
from harness.traces import replay
from harness.traces.stretches import Stretches
from harness.workload import summary

GROUPS = (
    TableGroup(50, 8, pooling=3, count=2, places="0,3"),
    TableGroup(3, 4, places="1"),
    TableGroup(900, 16, pooling=5, bags="normal", deviation=4.0, longest=12, coverage=0.6, places="2"),
    TableGroup(20, 12, features=2, pooling=2, zipf_s=1.1, zipf_q=2.0, places="4-5"),
)
"""Features of 8, 4, 16, 8, 12 and 12 columns, in this order."""
COLUMNS = 60


@pytest.fixture
def models_cell(cell: Callable[..., Cell]) -> Callable[..., Cell]:
    def make(**changes: Any) -> Cell:
        return cell(
            **{**summary(GROUPS), "groups": GROUPS, "design": "stock", "toolchain": PYTORCH, **changes}
        )

    return make


@pytest.fixture
def made(models_cell: Callable[..., Cell]) -> Callable[..., Batch]:
    def make(number: int = 0, **changes: Any) -> Batch:
        cell = models_cell(**changes)
        stored = TableStore().get(cell.workload, cell.seed)
        return batch.make(cell, Stretches.read(cell, Path()), stored, number)

    return make


def test_every_table_is_of_its_own_size(made: Callable[..., Batch]) -> None:
    found = made()
    shapes = [tuple(table.shape) for table in found.weights]
    assert shapes == [(50, 8), (3, 4), (900, 16), (50, 8), (20, 12), (20, 12)]
    assert found.weights[4] is found.weights[5], "two features look it up"
    assert found.weights[0] is not found.weights[3]
    assert [len(indices) for indices in found.indices[:2]] == [96, 32]
    for indices, table in zip(found.indices, found.weights, strict=True):
        assert 0 <= int(indices.min()) <= int(indices.max()) < len(table)


def test_every_feature_has_bags_of_its_own(made: Callable[..., Batch]) -> None:
    first, second = made(0), made(1)
    lengths = [
        torch.diff(one.starts(2), append=torch.tensor([len(one.indices[2])])) for one in (first, second)
    ]
    assert sorted(lengths[0].tolist()) == list(GROUPS[2].lengths(32)) == sorted(lengths[1].tolist())
    assert lengths[0].tolist() != lengths[1].tolist()
    assert (lengths[0] == 0).sum() == 32 - 19


def test_all_tables_together_are_the_tables_one_by_one(made: Callable[..., Batch]) -> None:
    found = made(weighted=True)
    asked = found.asked
    assert len(asked.offsets) == 6 * 32 + 1
    assert int(asked.offsets[-1]) == len(asked.indices) == found.work.all_lookups
    assert asked.sample_weights is not None
    for table in range(6):
        begin = int(asked.offsets[32 * table])
        own = slice(begin, begin + len(found.indices[table]))
        assert torch.equal(asked.indices[own], found.indices[table])
        starts = asked.offsets[32 * table : 32 * (table + 1)] - begin
        assert torch.equal(starts, found.starts(table))


def test_batches_joined_are_those_batches(made: Callable[..., Batch]) -> None:
    one, other = made(0), made(1)
    both = batch.joined([one, other])
    for table in range(6):
        apart = torch.cat([one.lookup(table), other.lookup(table)])
        assert torch.allclose(both.lookup(table), apart)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_every_output_of_every_table_is_compared(
    models_cell: Callable[..., Cell], tmp_path: Path, dtype: str, mode: str
) -> None:
    record = Bench(tmp_path).measure(models_cell(dtype=dtype, mode=mode))
    assert (record.status, record.message) == ("ok", "")
    assert record.check is not None
    # Two batches, and the first table in ragged bags.
    assert record.check.elements == (2 * COLUMNS + 8) * 32
    assert len(record.samples["kernel_us"]) == 6 * len(record.samples["stage_us"])


@pytest.mark.parametrize("dataset", ["own", "mixed", "skewed", "one_item", "low"])
def test_any_traffic_fits_tables_of_any_size(
    models_cell: Callable[..., Cell], tmp_path: Path, dataset: str
) -> None:
    record = Bench(tmp_path).measure(models_cell(dataset=Dataset(dataset)))
    assert (record.status, record.message) == ("ok", "")
    assert 0 < record.facts["distinct_share"] <= 1


def test_own_traffic_is_that_of_the_tables_that_have_it(models_cell: Callable[..., Cell]) -> None:
    cell = models_cell(dataset=Dataset("own"), batch=5000)
    traces = replay.read_traces(cell, Path())
    assert traces[4] is traces[5]
    law = (np.arange(1, 21) + 2.0) ** -1.1
    assert np.bincount(traces[4], minlength=20) / len(traces[4]) == pytest.approx(law / law.sum(), abs=0.01)
    assert np.bincount(traces[1]) / len(traces[1]) == pytest.approx([1 / 3] * 3, abs=0.01)


def test_a_call_for_all_tables_gets_each_of_its_own_width(made: Callable[..., Batch]) -> None:
    found = check.run(made(), None, lambda given: [lambda: design._all_tables(given)])
    assert found.passed, found.worst
    # The last table, too, in ragged bags.
    assert found.elements == (COLUMNS + 8 + 12) * 32


@pytest.mark.parametrize(
    ("column", "place"),
    [
        (8, "table 1, bag 5, column 0: "),
        (27, "table 2, bag 5, column 15: "),
        (59, "table 5, bag 5, column 11: "),
    ],
)
def test_a_wrong_element_is_told_by_table_and_column(
    made: Callable[..., Batch], column: int, place: str
) -> None:
    def wrong(given: Batch) -> torch.Tensor:
        output = design._all_tables(given)
        output[5, column] += 1
        return output

    found = check.run(made(), None, lambda given: [lambda: wrong(given)])
    assert not found.passed
    assert found.worst.startswith(place)


def test_a_model_that_does_not_fit_says_what_would(models_cell: Callable[..., Cell]) -> None:
    big = (TableGroup(10**9, 128), TableGroup(10, 8))
    work = models_cell(**summary(big), groups=big).workload
    with pytest.raises(CellError, match=r"model\.max_rows = 16777216 would fit"):
        batch.check_memory(work, False, lambda asked: 0, 10 * 10**9)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_fbgemm_looks_up_a_model(
    models_cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    pytest.importorskip("fbgemm_gpu")
    folder = Path(__file__).resolve().parents[3] / "opt_designs" / "fbgemm"
    monkeypatch.setenv("HARNESS_PEER", str(folder))
    record = Bench(tmp_path).measure(models_cell(design="fbgemm", dtype=dtype, dataset=Dataset("own")))
    assert (record.status, record.message) == ("ok", "")
    assert record.check is not None
    assert record.check.elements == (2 * COLUMNS + 8 + 12) * 32


def test_quantised_tables_of_one_width(models_cell: Callable[..., Cell], tmp_path: Path) -> None:
    alike = tuple(TableGroup(rows, 16, pooling=2) for rows in (5, 300))
    cell = models_cell(**summary(alike), groups=alike, dtype="int8")
    stored = TableStore().get(cell.workload, cell.seed)
    found = batch.make(cell, Stretches.read(cell, tmp_path), stored)
    assert check.run(found, None, lambda given: [lambda: design._all_tables(given)]).passed
