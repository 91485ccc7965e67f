"""The bench on a real GPU: what it times is what it claims, and one cell leaves nothing to the next."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from harness import patch
from harness.bench import batch, ceilings, design, hot_rows
from harness.bench.batch import Batch, per_table
from harness.bench.cell import Bench
from harness.bench.driver import Kernel
from harness.bench.gpu import Gpu
from harness.bench.l2 import L2
from harness.bench.queue import Queue, elapsed_us, event
from harness.bench.rotation import Order, Turn
from harness.bench.stopwatch import GpuStopwatch
from harness.bench.tables import TableStore
from harness.patch import manifest
from harness.records import Timing, Workload
from harness.traces.replay import Rows
from harness.traces.stretches import Stretches
from tests.gpu.cells import SMALL, Measure, assert_sampled, make_cell

pytestmark = pytest.mark.gpu

PAPERS = Workload()


def made_batch(work: Workload, dataset: str, tmp_path: Path) -> tuple[Batch, Rows]:
    cell = make_cell(work=work, dataset=dataset)
    stretches = Stretches.read(cell, tmp_path)
    with torch.inference_mode():
        return batch.make(cell, stretches, TableStore().get(work, cell.seed)), stretches.traces[0]


@pytest.mark.alone
def test_every_design_is_checked_and_timed(each_design: Path, measure: Measure) -> None:
    record, found = measure(each_design), manifest.read(each_design)
    assert_sampled(record, SMALL, all_tables=found.all_tables)
    kernel = record.kernel
    assert kernel is not None
    assert (kernel.name, kernel.source_hash, kernel.compiler) == (
        found.design,
        found.source_hash,
        found.compiler,
    )
    assert kernel.registers > 0
    major, minor = torch.cuda.get_device_capability()
    assert kernel.arch.startswith(f"sm_{major}")
    assert int(kernel.arch.removeprefix("sm_")) <= 10 * major + minor
    assert ("prepare_us" in record.samples) == found.prepares
    if found.prepares:
        assert len(record.samples["prepare_us"]) == len(record.samples["kernel_us"])
        assert (
            0
            < record.facts["pinned_rows"]
            <= min(found.tunables["pinned_rows"], record.facts["distinct_rows"])
        )
        assert 0.3 < record.facts["pinned_share"] < 1
    sum_of_tables = SMALL.tables * statistics.median(record.samples["kernel_us"])
    assert statistics.median(record.samples["stage_us"]) > 0.5 * sum_of_tables


def test_the_record_says_where_it_was_made(bench: Bench, gpu: Gpu) -> None:
    record = bench.measure(make_cell())
    where = record.environment
    assert where is not None
    assert where.device == "cuda"
    assert where.gpu == torch.cuda.get_device_name()
    assert where.gpu_uuid.startswith(("GPU-", "MIG-"))
    assert where.multiprocessors > 0
    assert where.l2_bytes > 2**20
    assert record.ceilings == gpu.ceilings
    if gpu.nvml is not None:
        assert where.driver[0].isdigit()
        assert record.gpu[0].after_pass == -1
        assert record.gpu[-1].after_pass == record.facts["passes"]
        assert all(state.sm_clock_mhz > 0 and state.power_w > 0 for state in record.gpu)


@pytest.mark.alone
def test_ceilings_are_those_of_a_gpu(gpu: Gpu) -> None:
    found = gpu.ceilings
    assert found["stream_gbps"] > 100
    assert 0.5 < found["random_rows_gbps"] / found["stream_gbps"] < 1.1
    assert found["l2_rows_gbps"] > 1.3 * found["stream_gbps"]
    assert 0 <= found["event_floor_us"] < found["event_overhead_us"] < 5
    for name in ("stream", "random_rows", "l2_rows"):
        assert 1 < found[f"{name}_net_gbps"] / found[f"{name}_gbps"] < 1.1


def profiled_us(work: Callable[[], object], repeats: int) -> float:
    """Median duration of the one kernel in `work`, by the profiler."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the profiler's advice about its own use
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(repeats):
                work()
            torch.cuda.synchronize()
    events = [e for e in profile.events() or [] if e.device_type == DeviceType.CUDA]
    durations = [
        e.time_range.elapsed_us() for e in events if "lookup" in e.name or "embedding" in e.name.lower()
    ]
    assert len(durations) == repeats, sorted({e.name for e in events})
    return float(statistics.median(durations))


@pytest.mark.alone
@pytest.mark.parametrize("dataset", ["one_item", "medium", "random"])
def test_kernel_times_agree_with_the_profiler(
    any_compiled: Path, gpu: Gpu, tmp_path: Path, dataset: str
) -> None:
    made, _ = made_batch(Workload(tables=4), dataset, tmp_path)
    patch.apply(any_compiled)
    with torch.inference_mode():
        overhead_us = gpu.ceilings["event_overhead_us"]
        turns = [Turn(per_table(made))]
        taken = GpuStopwatch(turns, Order(1), 4, gpu.l2, cold=False, overhead_us=overhead_us)
        taken.tables(taken.block)
        ours = statistics.median(taken.tables(taken.block)[0])
        order = iter(list(range(4)) * 25)
        theirs = profiled_us(lambda: made.lookup(next(order)), 100)
    assert abs(ours - theirs) <= max(0.03 * theirs, 1.0), f"events {ours:.2f} µs, profiler {theirs:.2f} µs"


@pytest.mark.alone
@pytest.mark.parametrize("dataset", ["one_item", "random"])
def test_the_time_of_one_launch_for_all_tables_agrees_with_the_profiler(
    all_tables: Path, gpu: Gpu, tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Workload(tables=4)
    made, _ = made_batch(work, dataset, tmp_path)
    monkeypatch.setenv("HARNESS_DESIGN", str(all_tables))
    found = manifest.read(all_tables)
    contestant = design.load(make_cell(f"{found.design}@{found.toolchain}", work=work))
    with torch.inference_mode():
        overhead_us = gpu.ceilings["event_overhead_us"]
        (call,) = calls = contestant.binder(made)(made)
        taken = GpuStopwatch([Turn(calls)], Order(1), 4, gpu.l2, cold=False, overhead_us=overhead_us)
        taken.tables(taken.block)
        ours = 4 * statistics.median(taken.tables(taken.block)[0])
        stage = statistics.median(taken.stages(taken.block))
        theirs = profiled_us(call, 100)
    for which, time_us in (("launch", ours), ("stage", stage)):
        within = abs(time_us - theirs) <= max(0.03 * theirs, 1.0)
        assert within, f"{which}: events {time_us:.2f} µs, profiler {theirs:.2f} µs"


@pytest.mark.alone
def test_launch_latency_is_not_in_the_times(bench: Bench) -> None:
    record = bench.measure(make_cell(work=Workload(tables=4, rows=1000, dim=32, batch=8, pooling=2)))
    assert record.status == "ok", record.message
    # Four launches take the host some 40 µs; the kernels, next to nothing.
    assert statistics.median(record.samples["kernel_us"]) < 10
    assert statistics.median(record.samples["stage_us"]) < 30


@pytest.mark.alone
def test_cold_means_out_of_dram_and_steady_out_of_l2(bench: Bench) -> None:
    fits_l2 = Workload(tables=1, rows=40_000, dim=128, batch=2048, pooling=20)
    medians = {}
    for cache in ("steady", "cold"):
        timing = Timing(cache=cache, max_seconds=1.0)
        record = bench.measure(make_cell(dataset="random", work=fits_l2, timing=timing))
        assert record.status == "ok", record.message
        medians[cache] = statistics.median(record.samples["kernel_us"])
    assert medians["cold"] > 1.15 * medians["steady"]


@pytest.mark.alone
def test_rotating_means_that_no_batch_is_in_l2_from_its_own_last_turn(bench: Bench) -> None:
    """Each batch takes 21 MB of a table of 1 GB, and would stay in L2 if it were looked up again at once."""
    work = Workload(tables=1, rows=2_000_000, dim=128, batch=2048, pooling=20)
    medians = {}
    for cache in ("steady", "rotating"):
        timing = Timing(cache=cache, max_seconds=1.0)
        record = bench.measure(make_cell(dataset="random", work=work, timing=timing))
        assert_sampled(record, work)
        medians[cache] = statistics.median(record.samples["kernel_us"])
    assert record.environment is not None
    assert record.facts["bytes_between_turns"] >= 3 * record.environment.l2_bytes
    assert record.facts["batches"] > 3
    assert medians["rotating"] > 1.15 * medians["steady"]


def timed_us(work: Callable[[], object], before: Callable[[], None]) -> float:
    """Time of `work` on the GPU, once after `before`; both anew where the host was too slow to queue it."""
    begin, end = event(), event()

    def step() -> None:
        begin.record()
        work()
        end.record()

    Queue().run([step], 3, before)
    return elapsed_us((begin, end))


def first_touch_us(data: Tensor, rows: Tensor, before: Callable[[], None], repeats: int = 15) -> float:
    """Median time to read each of these 512-byte rows once, after `before`."""
    kernel, sink = Kernel(ceilings.PTX, "read_rows"), torch.zeros(1, device="cuda")
    # Eight warps of eight rows a block, and so few blocks that a warp waits for its rows again and again: the
    # time is that of latencies, which are far apart in L2 and DRAM however fast the memory is.
    blocks = 32
    order = rows[: len(rows) // 64 * 64].to("cuda", torch.int32)
    read = partial(kernel.launch, blocks, 256, [data, order, len(order), sink])
    return statistics.median(timed_us(read, before) for _ in range(repeats))


@pytest.mark.alone
def test_pins_of_one_cell_do_not_help_the_next(pinning: Path, gpu: Gpu, tmp_path: Path) -> None:
    work = Workload(tables=1, rows=200_000, dim=128, batch=2048, pooling=20)
    made, trace = made_batch(work, "medium", tmp_path)
    hot = hot_rows.hottest(torch.from_numpy(trace), 20_000).to("cuda")
    patch.apply(pinning)
    with torch.inference_mode():

        def pin() -> None:
            gpu.l2.isolate()
            design.prepare(made, [hot], 0)

        def pin_then_flush() -> None:
            pin()
            gpu.l2.flush()

        def pin_then_isolate() -> None:
            pin()
            gpu.l2.isolate()

        never, pinned, flushed, after = (
            first_touch_us(made.weights[0], hot, before)
            for before in (gpu.l2.isolate, pin, pin_then_flush, pin_then_isolate)
        )
    print(f"never {never:.2f}, pinned {pinned:.2f}, then flushed {flushed:.2f}, isolated {after:.2f} µs")
    assert pinned < 0.95 * never, "the pins themselves show no effect, so this test shows nothing"
    assert abs(after - never) <= max(0.03 * never, 0.5), (
        f"never pinned {never:.1f} µs, pinned before {after:.1f} µs"
    )


@pytest.mark.alone
def test_what_does_not_fit_is_said_before_anything_is_allocated(bench: Bench) -> None:
    free, _ = torch.cuda.mem_get_info()
    rows = int(free * 1.1) // (12 * 512)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    record = bench.measure(make_cell(work=Workload(rows=rows)))
    assert record.status == "oom"
    tables_gb = 12 * 512 * rows / 1e9
    assert f"GB of memory, {tables_gb:.2f} GB of them for its tables, and " in record.message
    assert torch.cuda.max_memory_allocated() == before


def test_the_papers_cell_is_measured_as_it_is_by_default(bench: Bench) -> None:
    record = bench.measure(make_cell(work=PAPERS, dataset="random", timing=Timing()))
    assert_sampled(record, PAPERS)
    assert 0 < record.facts["sampling_s"] < record.facts["cell_s"]


@pytest.mark.alone
def test_a_flush_leaves_nothing_in_l2(gpu: Gpu) -> None:
    l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    rows = torch.arange(l2_bytes // 4 // 512)
    data = torch.rand(len(rows), 128, device="cuda")
    warm, flushed = (first_touch_us(data, rows, before) for before in (lambda: None, gpu.l2.isolate))
    print(f"warm {warm:.2f}, flushed {flushed:.2f} µs")
    assert flushed > 1.2 * warm
    assert L2.scratch_bytes(l2_bytes) > 2 * l2_bytes
