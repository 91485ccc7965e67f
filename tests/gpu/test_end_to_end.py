"""Whole inferences on a real GPU: a graph does what the eager run does, pins and all, within its memory."""

from __future__ import annotations

import dataclasses
import gc
import statistics
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from harness import patch
from harness.bench import batch, check, design, dlrm, hot_rows, model_check
from harness.bench.batch import Batch, Prepare, per_table
from harness.bench.cell import Bench
from harness.bench.dlrm import Dlrm
from harness.bench.gpu import Gpu
from harness.bench.inference import PARTS, Forward, GpuInference
from harness.bench.rotation import Order, Turn
from harness.bench.tables import TableStore
from harness.patch import manifest
from harness.records import PYTORCH, Cell, CellRecord, Dataset, Model, Timing, Workload
from harness.traces.stretches import Stretches

pytestmark = pytest.mark.gpu

MODEL = Model()
SMALL = Workload(tables=4, rows=50_000, dim=128, batch=512, pooling=50)
BATCHES = 3
ONCE = Timing(min_passes=10, max_passes=40, max_seconds=0.3)


def cell_of(
    name: str = "stock", work: Workload = SMALL, dataset: str = "medium", model: Model = MODEL
) -> Cell:
    """A cell for "design@toolchain", or for PyTorch as it is."""
    named, _, toolchain = name.partition("@")
    return Cell(named, named, toolchain or PYTORCH, Dataset(dataset), work, ONCE, 0, 5, model=model)


def inference_of(gpu: Gpu, tmp_path: Path, *, pins: bool = False) -> tuple[GpuInference, list[Batch]]:
    """Small batches in their model, through whatever design is applied; with pins before every lookup."""
    one = cell_of()
    stretches = Stretches.read(one, tmp_path)
    tables = TableStore().get(SMALL, 5)
    batches = [batch.make(one, stretches, tables, number) for number in range(BATCHES)]
    prepares: list[Prepare | None] = [None] * BATCHES
    if pins:
        hot = hot_rows.choose(one, stretches, batches, 4000)
        prepares = [partial(design.prepare, *chosen) for chosen in zip(batches, hot, strict=True)]
    turns = [Turn(per_table(made), prepare) for made, prepare in zip(batches, prepares, strict=True)]
    dense = dlrm.dense_features(MODEL, SMALL, 5)
    forward = Forward(Dlrm(MODEL, SMALL, 5), dense, turns, Order(BATCHES))
    overhead_us = gpu.ceilings["event_overhead_us"]
    return GpuInference(forward, gpu.l2, cold=False, overhead_us=overhead_us), batches


def assert_measured(record: CellRecord) -> None:
    assert record.status == "ok", record.message + record.log_tail
    passes = int(record.facts["passes"])
    counts = {name: len(record.samples[name]) for name in ("e2e_us", "e2e_graph_us", *PARTS)}
    assert counts == {"e2e_us": 3 * passes, "e2e_graph_us": 3 * passes, **dict.fromkeys(PARTS, passes)}
    assert record.facts["allow_tf32"] == float(torch.backends.cuda.matmul.allow_tf32)
    median = {name: statistics.median(values) for name, values in record.samples.items()}
    assert min(min(values) for values in record.samples.values()) > 0
    assert median["e2e_graph_us"] < median["e2e_us"]
    parts = median["stage_us"] + sum(median[name] for name in PARTS)
    assert 0.6 < median["e2e_graph_us"] / parts < 1.5, median


@pytest.mark.alone
def test_every_design_is_measured_in_the_model(
    each_design: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DESIGN", str(each_design))
    found = manifest.read(each_design)
    record = bench.measure(cell_of(f"{found.design}@{found.toolchain}"))
    assert_measured(record)
    assert record.check is not None
    # Tables, ragged bags, and logits and outputs of both ways of running.
    assert record.check.elements >= (SMALL.tables + 1) * SMALL.batch * SMALL.dim + 4 * SMALL.batch


@pytest.mark.alone
@pytest.mark.parametrize("dataset", ["one_item", "random"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_pytorch_as_it_is_passes_in_every_type(bench: Bench, dtype: str, dataset: str) -> None:
    work = dataclasses.replace(SMALL, dtype=dtype, pooling=150)  # type: ignore[arg-type]
    assert_measured(bench.measure(cell_of(work=work, dataset=dataset)))


@pytest.fixture
def tf32() -> Iterator[None]:
    """Switched on, as a user may."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.alone
@pytest.mark.usefixtures("tf32")
def test_tf32_passes_and_is_told(bench: Bench) -> None:
    record = bench.measure(cell_of())
    assert_measured(record)
    assert record.facts["allow_tf32"] == 1.0


def test_the_graph_gives_what_the_eager_run_gives(any_compiled: Path, gpu: Gpu, tmp_path: Path) -> None:
    patch.apply(any_compiled)
    with torch.inference_mode():
        inference, _ = inference_of(gpu, tmp_path)
        found = []
        # Backwards, and one twice: the graphs share their memory.
        for number in (2, 1, 1, 0):
            eager, graph = inference.predictions(number).values()
            assert eager.probabilities.isfinite().all()
            assert torch.allclose(eager.logits, graph.logits, rtol=1e-5, atol=1e-5)
            assert torch.allclose(eager.probabilities, graph.probabilities, rtol=1e-5, atol=1e-6)
            assert len(torch.unique(graph.logits)) > SMALL.batch // 2
            found.append(graph.logits)
        assert torch.equal(found[1], found[2])
        assert not torch.allclose(found[0], found[1], rtol=1e-3)


def test_the_graph_reads_its_inputs_anew(gpu: Gpu, tmp_path: Path) -> None:
    with torch.inference_mode():
        inference, batches = inference_of(gpu, tmp_path)
        before = inference.predictions(1)["CUDA graph"].logits
        batches[1].weights[0].mul_(2)
        eager, after = inference.predictions(1).values()
        assert not torch.allclose(before, after.logits, rtol=1e-3)
        assert torch.allclose(eager.logits, after.logits, rtol=1e-5, atol=1e-5)


def kernels(work: Callable[[], object]) -> list[str]:
    """Names of what ran on the GPU, by the profiler."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the profiler's advice about its own use
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            work()
            torch.cuda.synchronize()
    return [event.name for event in profile.events() or [] if event.device_type == DeviceType.CUDA]


def test_pins_are_renewed_inside_every_inference(pinning: Path, gpu: Gpu, tmp_path: Path) -> None:
    patch.apply(pinning)
    with torch.inference_mode():
        inference, _ = inference_of(gpu, tmp_path, pins=True)
        for way in (inference._forward, inference._replay):
            # Twice: the pins of one inference are not those of the next.
            ran = kernels(lambda: (way(), way()))  # noqa: B023
            for part in ("prepare", "lookup"):
                assert sum(part in name for name in ran) == 2 * SMALL.tables, (way, ran)


def test_a_wrong_model_is_invalid(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Dlrm.interaction
    monkeypatch.setattr(Dlrm, "interaction", lambda self, bottom, pooled: right(self, bottom, pooled[::-1]))
    record = bench.measure(cell_of())
    assert record.status == "invalid"
    assert "logits of the model" in record.message
    assert record.samples == {}


@pytest.mark.alone
def test_a_model_that_does_not_fit_is_refused_before_anything_is_allocated(bench: Bench) -> None:
    free, _ = torch.cuda.mem_get_info()
    wide = dataclasses.replace(MODEL, top=(int(free * 1.1) // 4 // 1000, 1000, 1))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    record = bench.measure(cell_of(model=wide))
    assert record.status == "oom"
    assert "GB of memory, 0.10 GB of them for its tables, and" in record.message
    assert torch.cuda.max_memory_allocated() == before


@pytest.mark.parametrize("tables", [4, 60])
def test_a_cell_takes_no_more_memory_than_is_said(bench: Bench, tables: int) -> None:
    work = dataclasses.replace(SMALL, tables=tables)
    bench._tables.drop()
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    record = bench.measure(cell_of(work=work))
    assert record.status == "ok", record.message
    batches = int(record.facts["batches"])
    said = work.table_bytes + batch._batch_bytes(work, batches) + dlrm.model_bytes(MODEL, work)
    said += max(check.scratch_bytes(work, batches), model_check.scratch_bytes(work))
    assert torch.cuda.max_memory_allocated() - before <= said


def test_a_cell_gives_back_what_its_model_took(bench: Bench) -> None:
    left = []
    for _ in range(3):
        assert bench.measure(cell_of()).status == "ok"
        gc.collect()
        torch.cuda.empty_cache()
        left.append(torch.cuda.memory_reserved())
    assert left[2] <= left[0]


@pytest.mark.alone
def test_launching_is_in_the_eager_times_and_not_in_the_graphs(bench: Bench) -> None:
    work = Workload(tables=8, rows=1000, dim=32, batch=8, pooling=2)
    record = bench.measure(cell_of(work=work, model=Model(bottom=(32, 32))))
    assert record.status == "ok", record.message
    whole = {name: statistics.median(record.samples[name]) for name in ("e2e_us", "e2e_graph_us")}
    assert whole["e2e_graph_us"] < 0.7 * whole["e2e_us"], whole
