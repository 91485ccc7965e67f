"""Whole cells on the CPU: what the record says, and that it says which device it was."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from harness import patch
from harness.bench import batch, design, dlrm, rotation, tables, timing
from harness.bench.batch import Batch
from harness.bench.cell import Bench
from harness.bench.tables import TableStore
from harness.bench.timing import Sampled
from harness.records import VALUES_WITHIN, Cell, CellRecord, Dataset, GpuState, Model, load, to_json
from harness.traces import replay, synth
from harness.traces.stretches import Stretches


def test_a_cpu_cell_is_measured_and_says_so(
    cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_RUNNER", "docker")
    monkeypatch.setenv("HARNESS_IMAGE", "embedding-harness/baseline:12.1")
    monkeypatch.setenv("HARNESS_GIT_COMMIT", "c0ffee")
    monkeypatch.setenv("HARNESS_GIT_DIRTY", "1")
    monkeypatch.setenv("HARNESS_HOSTNAME", "lab")
    record = Bench(tmp_path).measure(cell())
    assert (record.status, record.message, record.log_tail) == ("ok", "", "")
    passes = int(record.facts["passes"])
    assert 8 <= passes <= 12
    assert len(record.samples["kernel_us"]) == 3 * passes
    assert len(record.samples["stage_us"]) == passes
    assert record.check is not None
    # Each table of both batches, and one in ragged bags.
    assert record.check.elements == (2 * 3 + 1) * 32 * 16
    assert record.facts["batches"] == 2
    where = record.environment
    assert where is not None
    assert (where.device, where.gpu, where.runner, where.git_commit) == ("cpu", "", "docker", "c0ffee")
    assert (where.image, where.git_dirty, where.hostname) == ("embedding-harness/baseline:12.1", True, "lab")
    assert where.torch == torch.__version__
    assert record.kernel is not None
    assert (record.kernel.name, record.kernel.arch) == ("pytorch", "cpu")
    assert record.ceilings == {}
    assert record.facts["accesses"] == synth.period_length("medium", 2000)
    assert record.facts["distinct_share"] == record.facts["distinct_rows"] / 2000
    assert record.facts["values_within"] == VALUES_WITHIN
    assert 0 < record.facts["sampling_s"] < record.facts["cell_s"]
    assert datetime.fromisoformat(record.started_at) <= datetime.fromisoformat(record.finished_at)
    (tmp_path / "record.json").write_text(to_json(record), encoding="utf-8")
    assert load(CellRecord, tmp_path / "record.json") == record


MODEL = Model(5, (12, 16), (8, 1))


def test_a_model_is_measured_whole_and_in_parts(cell: Callable[..., Cell], tmp_path: Path) -> None:
    record = Bench(tmp_path).measure(cell(model=MODEL))
    assert (record.status, record.message) == ("ok", "")
    passes = int(record.facts["passes"])
    counts = {name: len(values) for name, values in record.samples.items()}
    parts = dict.fromkeys(("bottom_us", "interaction_us", "top_us"), passes)
    assert counts == {"kernel_us": 3 * passes, "stage_us": passes, "e2e_us": 3 * passes, **parts}
    assert record.check is not None
    assert record.check.elements == (2 * 3 + 1) * 32 * 16 + 2 * 2 * 32
    (tmp_path / "record.json").write_text(to_json(record), encoding="utf-8")
    assert load(CellRecord, tmp_path / "record.json") == record


def test_a_wrong_model_is_invalid_and_not_timed(
    cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_the_features_before(self: dlrm.Dlrm, bottom: Tensor, pooled: Sequence[Tensor]) -> Tensor:
        return right(self, bottom, [pooled[-1], *pooled[:-1]])

    right = dlrm.Dlrm.interaction
    monkeypatch.setattr(dlrm.Dlrm, "interaction", of_the_features_before)
    monkeypatch.setattr(timing, "sample", lambda *_: pytest.fail("a wrong model was timed"))
    record = Bench(tmp_path).measure(cell(model=MODEL))
    assert record.status == "invalid"
    assert "logits of the model, eager, bag " in record.message
    assert record.samples == {}


def test_a_model_that_does_not_fit_is_refused_before_anything_is_made(
    cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables.TableStore, "get", lambda *_: pytest.fail("memory was taken"))
    monkeypatch.setattr(dlrm, "Dlrm", lambda *_: pytest.fail("memory was taken"))
    monkeypatch.setattr("harness.bench.environment.free_host_bytes", lambda: 10**9)
    wide = dataclasses.replace(MODEL, top=(10**6, 10**3, 1))
    record = Bench(tmp_path).measure(cell(model=wide))
    assert record.status == "oom"
    assert re.search(r"needs 4\.\d\d GB of memory, 0\.00 GB of them for its tables", record.message)


def test_a_wrong_kernel_is_invalid_and_not_timed(
    cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgets_the_last_bag(self: Batch, table: int) -> Tensor:
        output = right(self, table).clone()
        output[-1] = 0
        return output

    right = Batch.lookup
    monkeypatch.setattr(Batch, "lookup", forgets_the_last_bag)
    monkeypatch.setattr(timing, "sample", lambda *_: pytest.fail("a wrong kernel was timed"))
    record = Bench(tmp_path).measure(cell())
    assert record.status == "invalid"
    assert "bag 31, column " in record.message
    assert "got 0.0, expected " in record.message
    assert record.check is not None
    assert not record.check.passed
    assert record.samples == {}


def test_a_kernel_that_is_wrong_for_a_later_batch_is_invalid(
    cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(self: Batch, table: int) -> Tensor:
        """Gives one bag of the batch that it was first called with, whatever the batch."""
        output = right(self, table).clone()
        if table == 1:
            output[5] = first.setdefault("bag", output[5])
        return output

    first: dict[str, Tensor] = {}
    right = Batch.lookup
    monkeypatch.setattr(Batch, "lookup", stale)
    record = Bench(tmp_path).measure(cell())
    assert record.status == "invalid"
    assert "table 1, batch 1, bag 5, column " in record.message
    first.clear()
    one = cell()
    repeated = dataclasses.replace(one, timing=dataclasses.replace(one.timing, cache="steady"))
    record = Bench(tmp_path).measure(repeated)
    assert (record.status, record.facts["batches"]) == ("ok", 1)


def test_however_many_batches_take_turns_each_is_checked_in_its_model_too(
    cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "plan", lambda *_: rotation.Plan(7, {"batches": 7}))
    record = Bench(tmp_path).measure(cell(model=MODEL, bags="ragged"))
    assert (record.status, record.facts["batches"]) == ("ok", 7)
    assert record.check is not None
    assert record.check.elements == (7 * 3 + 1) * 32 * 16 + 7 * 2 * 32

    def wrong_for_one(self: dlrm.Dlrm, bottom: Tensor, pooled: Sequence[Tensor]) -> Tensor:
        seen.append(pooled[0])
        output = right(self, bottom, pooled)
        if len(seen) == 4:
            output = output + 1
        return output

    seen: list[Tensor] = []
    right = dlrm.Dlrm.interaction
    monkeypatch.setattr(dlrm.Dlrm, "interaction", wrong_for_one)
    record = Bench(tmp_path).measure(cell(model=MODEL))
    assert record.status == "invalid"
    assert "logits of the model, eager, batch 3, bag " in record.message


def test_a_trace_file_of_the_run_is_replayed(cell: Callable[..., Cell], tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    np.save(tmp_path / "traces" / "mine.npy", np.array([3, 1, 4, 1, 5], dtype=np.int32))
    record = Bench(tmp_path).measure(cell(dataset=Dataset("mine", "traces/mine.npy", "mine.txt")))
    assert record.status == "ok"
    assert (record.facts["accesses"], record.facts["distinct_rows"]) == (5, 4)
    assert record.facts["batch_distinct_rows"] == 4


def test_facts_of_mixed_are_those_of_its_tables_on_average(cell: Callable[..., Cell], tmp_path: Path) -> None:
    mixed = cell(dataset=Dataset("mixed"), tables=3)
    record = Bench(tmp_path).measure(mixed)
    assert record.status == "ok"
    traces = replay.read_traces(mixed, tmp_path)
    assert [len(np.unique(trace)) for trace in traces] == [81, 410, 924]
    assert record.facts["distinct_rows"] == (81 + 410 + 924) / 3
    assert record.facts["accesses"] == sum(map(len, traces)) / 3


def test_each_table_is_prepared_with_its_own_hot_rows(
    cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cell(tables=2, batch=1, pooling=2)
    made = batch.make(one, Stretches(one, [np.arange(2)] * 2), TableStore().get(one.workload, 7))
    given: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(patch, "prepare", lambda table, rows: given.append((table, rows)))
    hot = [torch.tensor([1]), torch.tensor([2])]
    for table in (1, 0):
        design.prepare(made, hot, table)
    assert [(table is made.weights[n], rows) for n, (table, rows) in zip((1, 0), given, strict=True)] == [
        (True, hot[1]),
        (True, hot[0]),
    ]


@pytest.mark.parametrize(("hot_passes", "status"), [(4, "ok"), (5, "inconclusive")])
def test_more_than_a_fifth_of_throttled_passes_is_inconclusive_and_keeps_its_samples(
    cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hot_passes: int, status: str
) -> None:
    readings = [GpuState(0, 1, 1, 90, 1, []), GpuState(hot_passes - 1, 1, 1, 90, 1, ["hw_thermal"])]
    samples = {"kernel_us": [1.0] * 60, "stage_us": [3.0] * 20}
    monkeypatch.setattr("harness.bench.cell.Watch", lambda read: _Hot(readings))
    monkeypatch.setattr(timing, "sample", lambda *_: Sampled(samples, 20, 0.1, 0.001, "narrow", 2))
    record = Bench(tmp_path).measure(cell())
    assert record.throttled_passes == list(range(hot_passes))
    assert record.status == status
    assert record.samples == samples
    assert record.gpu == readings
    assert record.facts["repeated_blocks"] == 2
    assert ("hw_thermal" in record.message) == (status == "inconclusive")


class _Hot:
    def __init__(self, readings: list[GpuState]) -> None:
        self.readings = readings

    def __enter__(self) -> _Hot:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def count(self, passes: int) -> None:
        pass


def test_cells_of_one_workload_share_their_tables(cell: Callable[..., Cell], tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.measure(cell())
    held = bench._tables.get(cell().workload, 7)
    bench.measure(cell(dataset=Dataset("random")))
    assert bench._tables.get(cell().workload, 7) is held
