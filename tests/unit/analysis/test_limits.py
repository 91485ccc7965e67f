"""Limits by hand-made figures, and the shares that designs reach of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import plan
from harness.analysis import frame, limits
from harness.analysis.analyse import analyse
from harness.analysis.limits import WELL_PAST_L2, Limit, Machine
from harness.analysis.report import Run
from harness.groups import TableGroup
from harness.records import Cell, CellRecord, Dataset, Timing, Variant, Workload
from harness.report import shares, units
from harness.report.sections import sweeps as section
from harness.sweep import Axis
from harness.traces import demand
from harness.traces.demand import CACHE_BYTES, Demand
from harness.workload import summary
from tests import synthetic_run as synthetic

GPU = Machine(stream_gbps=2000, random_rows_gbps=1000, l2_rows_gbps=4000, l2_bytes=2**20, l1_gbps=10_000)
CACHES = st.sampled_from(["rotating", "steady", "cold"])
WORK = Workload(tables=10, rows=10_000, dim=128, batch=100, pooling=100)


def asked(curve: dict[int, float], distinct: float = 5000) -> Demand:
    return Demand(
        "d", 1.0, 2 * distinct, [], WORK.lookups, 512, [0], distinct, [(k, v) for k, v in curve.items()]
    )


def limit(
    gpu: Machine = GPU, *, work: Workload = WORK, cache: str = "steady", distinct: float = 5000
) -> Limit:
    return limits.of(work, cache, asked({2**18: 9000, 2**20: 8000}, distinct), gpu)


def us(found: Limit) -> dict[str, float]:
    return {need.part: need.us for need in found.needs}


def test_each_part_moves_what_it_must() -> None:
    found = limit()
    streamed = 10_000 * 8 + 100 * 512
    assert {need.part: need.bytes for need in found.needs} == {
        "memory": 5000 * 512 + streamed,
        "L2": 5000 * 512 + streamed,
        "L1": 10_000 * 512,
    }
    assert us(found)["memory"] == pytest.approx((5000 * 512 + streamed) / 2e6)
    assert us(found)["L2"] == pytest.approx((5000 * 512 + streamed) / 4e6)
    assert us(found)["L1"] == pytest.approx(10_000 * 512 / 1e7)
    assert found.binding.part == "memory"
    assert found.compulsory_bytes == 5000 * 512 + streamed
    assert found.past_l2 == 10 * found.compulsory_bytes / 2**20
    assert (found.lru.part, found.lru.bytes) == ("memory", 8000 * 512 + streamed)
    assert found.lru.us == pytest.approx(8000 * 512 / 1e6 + streamed / 2e6)
    assert found.every_lookup.us == pytest.approx((10_000 * 512 + streamed) / 4e6)


def test_a_row_that_a_bag_asks_for_again_is_loaded_once() -> None:
    few = dataclasses.replace(asked({2**18: 9000, 2**20: 8000}), bag_rows=100.0)
    assert us(limits.of(WORK, "steady", few, GPU))["L1"] == pytest.approx(100 * 512 / 1e7)


def test_smaller_indices_and_values_and_sample_weights_count() -> None:
    work = dataclasses.replace(WORK, index_dtype="int32", dtype="float16", weighted=True)
    streamed = 10_000 * (4 + 2) + 100 * 256
    assert limit(work=work).compulsory_bytes == 5000 * 512 + streamed


def test_what_fits_l2_stays_there_unless_it_is_flushed() -> None:
    one = dataclasses.replace(WORK, tables=1)
    large = dataclasses.replace(GPU, l2_bytes=4 * 2**20)
    assert limit(large, work=one).binding.part == "L2"
    assert us(limit(large, work=one))["memory"] == 0
    assert us(limit(large, work=one, cache="cold"))["memory"] > 0
    assert us(limit(large))["memory"] > 0  # ten tables do not fit


def test_of_batches_that_take_turns_rows_stay_where_the_traces_fit() -> None:
    one = dataclasses.replace(WORK, tables=1)
    streamed = 10_000 * 8 + 100 * 512
    both_batches = dataclasses.replace(GPU, l2_bytes=4 * 2**20)  # the trace has 10,000 rows of 512 bytes
    every_row = dataclasses.replace(GPU, l2_bytes=8 * 2**20)
    found = [limit(gpu, work=one, cache="rotating").needs[0].bytes for gpu in (both_batches, every_row)]
    assert found == [5000 * 512 + streamed, streamed]


@given(st.lists(st.integers(2**10, 2**29), min_size=2, max_size=2), CACHES, st.integers(1, 30))
def test_a_larger_l2_never_raises_the_limit(sizes: list[int], cache: str, tables: int) -> None:
    work = dataclasses.replace(WORK, tables=tables)
    curve = asked({size: max(5000.0, 10_000 - size / 2**14) for size in CACHE_BYTES})
    small, large = (
        limits.of(work, cache, curve, dataclasses.replace(GPU, l2_bytes=size)) for size in sorted(sizes)
    )
    assert large.binding.us <= small.binding.us
    assert large.lru.us <= small.lru.us


@given(st.integers(100, 10_000), st.integers(2**10, 2**29), CACHES, st.integers(1, 30))
def test_no_model_of_caches_beats_the_limit(distinct: int, size: int, cache: str, tables: int) -> None:
    work = dataclasses.replace(WORK, tables=tables)
    curve = asked({size: max(distinct, 10_000 - size / 2**14) for size in CACHE_BYTES}, distinct)
    found = limits.of(work, cache, curve, dataclasses.replace(GPU, l2_bytes=size))
    assert found.binding.us <= found.lru.us


def test_without_clocks_the_first_level_says_nothing() -> None:
    assert set(us(limit(dataclasses.replace(GPU, l1_gbps=0)))) == {"memory", "L2"}


OPTMT, COMBINED = Variant("optmt", "12.1"), Variant("combined", "12.1")


def found_in(folder: Path) -> Run:
    return analyse([folder]).runs[0]


def least(run: Run, dataset: str) -> Limit:
    limit = run.limit(dataset)
    assert limit is not None
    return limit


def test_shares_of_a_run(tmp_path: Path) -> None:
    run = found_in(synthetic.write_run(tmp_path / "run", synthetic.experiment()))
    assert run.machine is not None
    assert run.machine.l1_gbps == pytest.approx(132 * 128 * 1.98)
    every = [shares.of(run, place.variant, place.dataset) for place in run.places]
    assert len(every) == 25
    assert not any(found is None or found.beats for found in every)
    found, kernel = shares.of(run, COMBINED, "random"), run.figure(COMBINED, "random", "kernel_us")
    assert found is not None
    assert kernel is not None
    total, limit = found.time.estimate, least(run, "random")
    assert (found.share.value, found.share.low) == (
        limit.binding.us / total.value,
        limit.binding.us / total.high,
    )
    assert found.alone.value == limit.binding.us / kernel.value > found.share.value


@pytest.mark.parametrize(("of_the_limit", "level"), [(1.02, "good"), (1.1, "bad")])
def test_a_design_faster_than_the_limit_is_found(tmp_path: Path, of_the_limit: float, level: str) -> None:
    before = found_in(synthetic.write_run(tmp_path / "run", synthetic.experiment()))
    limit, time = least(before, "low"), before.figure(OPTMT, "low", "total_us")
    assert time is not None
    assert limit.past_l2 > WELL_PAST_L2
    factor = limit.binding.us / of_the_limit / time.value

    def make(cell: Cell) -> CellRecord:
        record = synthetic.record(cell)
        if (cell.design, cell.dataset.name) != ("optmt", "low"):
            return record
        quick = {name: [value * factor for value in values] for name, values in record.samples.items()}
        return dataclasses.replace(record, samples=quick)

    run = found_in(synthetic.write_run(tmp_path / "quick" / "run", synthetic.experiment(), make))
    every = {
        (place.variant, place.dataset): shares.of(run, place.variant, place.dataset) for place in run.places
    }
    assert [place for place, found in every.items() if found and found.beats] == [(OPTMT, "low")]
    (finding,) = (finding for finding in run.findings if finding.what == "limit")
    assert finding.level == level
    if level == "bad":
        assert finding.detail.endswith("beyond 105 % of the limit: optmt@12.1 on low")
        assert len(finding.records) == 3
        assert run.verdict == "bad"


SWEPT = Workload(tables=4, rows=50_000, dim=128, batch=64, pooling=20)


BATCHES = Axis("workload.batch", (64, 128, 256))
DISTANCES = Axis("tunables.distance", (2, 4), arms={"combined@12.1": (2, 2, 4)})


def swept(
    folder: Path,
    make: Callable[[Cell], CellRecord],
    *axes: Axis,
    at: Workload = SWEPT,
    datasets: tuple[str, ...] = ("random",),
    grid: bool = False,
) -> Path:
    """A run whose file tells what is asked at each point, by default of three batch sizes; on a GPU with
    little L2."""

    def made(cell: Cell) -> CellRecord:
        record = make(cell)
        assert record.environment is not None
        return dataclasses.replace(
            record, environment=dataclasses.replace(record.environment, l2_bytes=2**20)
        )

    what = synthetic.experiment(datasets=datasets, workload=at, sweep=axes or (BATCHES,), grid=grid)
    run = synthetic.write_run(folder, what, made)
    demand.write(plan.make(what).cells, run)
    return run


def test_at_every_point_of_a_sweep_the_limit_is_that_of_its_work(tmp_path: Path) -> None:
    run = found_in(swept(tmp_path / "run", synthetic.record))
    assert run.sweep is not None
    assert run.machine is not None
    shown = {}
    for point, batch in {"": 64, "batch=128": 128, "batch=256": 256}.items():
        time = run.figure(OPTMT, "random", "kernel_us", point)
        share = run.figure(OPTMT, "random", "limit_share", point)
        assert time is not None
        assert share is not None
        work = dataclasses.replace(SWEPT, batch=batch)
        cell = Cell("x", "optmt", "12.1", Dataset("random"), work, Timing(), 0, 1)
        alone = limits.of(work, Timing().cache, demand.of(cell, tmp_path), run.machine)
        assert share.value == pytest.approx(alone.binding.us / time.value)
        assert share.records == time.records
        shown[point] = units.text(share)
    assert len(set(shown.values())) > 1
    wins = section._wins(run, run.sweep)
    assert wins is not None
    for row in wins.rows:
        assert " of the limit" in row[1].detail
    assert wins.caption.endswith("of the limit: by prepare + kernel.")


def test_a_design_faster_than_the_limit_at_a_point_is_found(tmp_path: Path) -> None:
    before = found_in(swept(tmp_path / "run", synthetic.record))
    share = before.figure(OPTMT, "random", "limit_share", "batch=256")
    assert share is not None

    def make(cell: Cell) -> CellRecord:
        record = synthetic.record(cell)
        if (cell.design, cell.workload.batch) != ("optmt", 256):
            return record
        quick = {name: [us * share.value / 1.2 for us in values] for name, values in record.samples.items()}
        return dataclasses.replace(record, samples=quick)

    run = found_in(swept(tmp_path / "quick" / "run", make))
    (finding,) = (finding for finding in run.findings if finding.what == "limit")
    assert (finding.level, len(finding.records)) == ("bad", 3)
    assert finding.detail.endswith("beyond 105 % of the limit: optmt@12.1 on random at batch=256")


def test_a_design_faster_than_the_limit_with_a_tunable_is_found(tmp_path: Path) -> None:
    """The workload is then the experiment's own, and so is the limit."""
    long = dataclasses.replace(SWEPT, batch=256)
    before = found_in(swept(tmp_path / "run", synthetic.record, DISTANCES, at=long))
    share = before.figure(COMBINED, "random", "limit_share", "distance=4")
    assert share is not None

    def make(cell: Cell) -> CellRecord:
        record = synthetic.record(cell)
        if cell.point != "distance=4":
            return record
        quick = {name: [us * share.value / 1.2 for us in values] for name, values in record.samples.items()}
        return dataclasses.replace(record, samples=quick)

    run = found_in(swept(tmp_path / "quick" / "run", make, DISTANCES, at=long))
    (finding,) = (finding for finding in run.findings if finding.what == "limit")
    assert finding.detail.endswith("beyond 105 % of the limit: combined@12.1 on random at distance=4")


def test_the_limit_of_a_workload_is_known_where_the_design_failed_that_it_is_told_of(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord:
        record = synthetic.record(cell)
        if cell.point != "batch=128":
            return record
        return dataclasses.replace(record, status="failed", message="No.", samples={})

    run = swept(tmp_path / "run", make, BATCHES, DISTANCES, grid=True)
    assert ("random", "batch=128") in demand.read(run)
    found = found_in(run)
    assert found.figure(OPTMT, "random", "limit_share", "batch=128") is None
    assert found.figure(COMBINED, "random", "limit_share", "batch=128,distance=4") is not None


def test_at_a_point_the_cost_of_events_decides_by_dataset(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord:
        record = synthetic.record(cell)
        if not cell.point:
            return record
        overhead_us = 40 if cell.design == "optmt" else 1  # of about 75 µs and of about 155
        return dataclasses.replace(record, ceilings=record.ceilings | {"event_overhead_us": overhead_us})

    run = found_in(swept(tmp_path / "run", make, datasets=("one_item", "random")))
    assert run.figure(OPTMT, "one_item", "limit_share", "batch=256") is None
    assert run.figure(OPTMT, "random", "limit_share", "batch=256") is not None


def test_rows_of_a_table_that_features_share_stay_in_l2_once() -> None:
    tables = TableGroup(1000, 128, features=4, pooling=8)
    work = Workload(**{**summary((tables,)), "groups": (tables,), "batch": 64})  # type: ignore[arg-type]
    assert work.table_bytes == 512_000
    for l2_bytes, stays in ((500_000, False), (520_000, True)):
        told = asked({2**18: 900, 2**20: 900}, 900)
        gpu = dataclasses.replace(GPU, l2_bytes=l2_bytes)
        found = limits.of(work, "rotating", dataclasses.replace(told, distinct_rows=950), gpu)
        memory = next(need.bytes for need in found.needs if need.part == "memory")
        assert memory == work.asked_bytes + work.output_bytes + (0 if stays else 900 * 512)


def test_what_l2_may_have_kept_is_no_finding(tmp_path: Path) -> None:
    """Three tables touch less than eight times what L2 holds."""

    def quick(cell: Cell) -> CellRecord:
        record = synthetic.record(cell)
        samples = {name: [value / 20 for value in values] for name, values in record.samples.items()}
        return dataclasses.replace(record, samples=samples)

    what = synthetic.experiment(workload=Workload(tables=3), datasets=("random",))
    run = found_in(synthetic.write_run(tmp_path / "run", what, quick))
    assert least(run, "random").past_l2 < WELL_PAST_L2
    assert (found := shares.of(run, OPTMT, "random")) is not None
    assert found.beats
    assert "limit" not in {finding.what for finding in run.findings}


def test_rates_are_net_of_what_events_cost_and_of_all_bytes_that_are_read() -> None:
    (cell, *_) = plan.make(synthetic.experiment()).cells
    record = synthetic.record(cell)
    gross = {"stream_gbps": 3000.0, "random_rows_gbps": 2900.0, "l2_rows_gbps": 7400.0}
    older = dataclasses.replace(record, ceilings=gross | {"event_overhead_us": 3.0})
    found = limits.net_gbps(older)
    taken_us = 2**30 / 3000 / 1e3
    assert found["stream"] == pytest.approx(2**21 * 516 / (taken_us - 3.0) / 1e3)
    newer = dataclasses.replace(
        record, ceilings=gross | {"event_overhead_us": 3.0} | {n.replace("_g", "_net_g"): 5e3 for n in gross}
    )
    assert limits.net_gbps(newer) == {"stream": 5e3, "random_rows": 5e3, "l2_rows": 5e3}
    lacking = dataclasses.replace(record, ceilings={"stream_gbps": 3000.0})
    assert limits.net_gbps(lacking) == {}


@pytest.mark.parametrize(("overhead_us", "told"), [(20.0, True), (80.0, False)])
def test_where_the_cost_of_events_decides_no_share_is_told(
    tmp_path: Path, overhead_us: float, told: bool
) -> None:
    """A launch per table takes some 160 µs on random, one for all of them twelve times as long."""

    def make(cell: Cell) -> CellRecord:
        made = synthetic.single_launch(cell) if cell.design == "combined" else synthetic.record(cell)
        ceilings = {name: gbps for name, gbps in made.ceilings.items() if name.endswith("gbps")}
        return dataclasses.replace(made, ceilings=ceilings | {"event_overhead_us": overhead_us})

    what = synthetic.experiment(datasets=("random",))
    run = found_in(synthetic.write_run(tmp_path / "run", what, make))
    assert (shares.of(run, OPTMT, "random") is not None) == told
    assert (shares.text(run, OPTMT, "random") == units.NONE) != told
    assert shares.of(run, COMBINED, "random") is not None


def test_a_run_without_the_file_is_worked_out_from_its_seed(tmp_path: Path) -> None:
    small = Workload(tables=2, rows=3000, dim=128, batch=64, pooling=20)
    what = synthetic.experiment(workload=small, replicates=1)
    run = synthetic.write_run(tmp_path / "run", what)
    demand.write([record.cell for record in frame.load_run(run).records], run)
    before = found_in(run)
    (run / "datasets.json").unlink()
    after = found_in(run)
    assert len(after.limits) == 5
    assert (after.limits, after.places) == (before.limits, before.places)


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path) -> None:
    what = synthetic.experiment(datasets=("medium",), replicates=1, workload=Workload(rows=2000, batch=32))
    run = synthetic.write_run(tmp_path / "run", what)
    (run / demand.FILE).unlink()
    expected = found_in(run)
    (run / demand.FILE).write_text('{"datasets": [{"dataset": 1e400}]}', encoding="utf-8")
    found = found_in(run)
    assert found.limits == expected.limits
    assert found.limits


def test_a_trace_that_would_take_gigabytes_leaves_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand, "of", lambda cell, root: pytest.fail("was worked out"))
    for name, work in (("rows", Workload(rows=2**28)), ("batch", Workload(batch=2**20, pooling=256))):
        what = synthetic.experiment(datasets=("medium",), replicates=1, workload=work)
        run = synthetic.write_run(tmp_path / name, what)
        (run / demand.FILE).unlink()
        found = found_in(run)
        assert found.limits == []


def test_a_trace_that_is_gone_leaves_no_limit(tmp_path: Path) -> None:
    (tmp_path / "mine.npy").write_bytes(b"")
    datasets = (str(tmp_path / "mine.npy"), "one_item")
    small = Workload(tables=2, rows=3000, dim=128, batch=64, pooling=20)
    what = synthetic.experiment(workload=small, replicates=1, datasets=datasets)
    run = synthetic.write_run(tmp_path / "run", what)
    (run / "datasets.json").unlink()
    assert {limit.dataset for limit in found_in(run).limits} == {"one_item"}


def test_without_clocks_only_memory_is_a_limit(tmp_path: Path) -> None:
    def unseen(cell: Cell) -> CellRecord:
        return dataclasses.replace(synthetic.record(cell), gpu=[])

    found = found_in(synthetic.write_run(tmp_path / "run", synthetic.experiment(), unseen))
    assert "random" in {limit.dataset for limit in found.limits}
    assert {limit.binding.part for limit in found.limits} == {"memory"}


@pytest.mark.parametrize("why", ["on the CPU", "without ceilings"])
def test_no_gpu_no_limit(tmp_path: Path, why: str) -> None:
    def bare(cell: Cell) -> CellRecord:
        return dataclasses.replace(synthetic.record(cell), ceilings={"event_floor_us": 1.0})

    cpu = why == "on the CPU"
    what = synthetic.experiment(workload=synthetic.CPU, replicates=1) if cpu else synthetic.experiment()
    make = synthetic.cpu_record if cpu else bare
    found = found_in(synthetic.write_run(tmp_path / "run", what, make))
    assert (found.machine, found.limits) == (None, [])
    assert not any(place.figure("limit_share") for place in found.places)


def test_the_ceilings_of_a_run_are_medians(tmp_path: Path) -> None:
    run = frame.load_run(synthetic.write_run(tmp_path / "run", synthetic.experiment()))
    gpu = limits.machine(run)
    assert gpu is not None
    rates = [limits.net_gbps(record)["l2_rows"] for record in run.records]
    assert gpu.l2_rows_gbps == np.median(rates)
    assert gpu.l2_bytes == 50 * 2**20
