"""Figures of profiled kernels: amounts per table, shares weighed by time, absent what was not told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness import wall
from harness.analysis import frame, profiles
from harness.plan import make
from harness.profiles import KernelLaunch, Profile
from harness.records import Cell, load, to_json
from harness.run import ncu, profiling
from tests import synthetic_run as synthetic

RAW = Path(__file__).resolve().parents[2] / "data" / "ncu" / "raw.csv"


def raw(number: int) -> list[KernelLaunch]:
    """The launches of the first (a design that prepares) or second cell (PyTorch) of the recorded table."""
    table = RAW.read_text(encoding="utf-8").splitlines()
    return profiling.by_cell(list(ncu.read_csv(table, ncu.METRICS)))[number]


def cell(tables: int = 2) -> Cell:
    first = make(synthetic.experiment()).cells[0]
    return dataclasses.replace(first, workload=dataclasses.replace(first.workload, tables=tables))


def profile(launches: list[KernelLaunch], tables: int = 2) -> Profile:
    return Profile(cell(tables), "ok", launches=launches)


def test_amounts_are_per_table_and_the_prepare_stands_beside() -> None:
    found = profiles.counters(profile(raw(1)))
    assert found.kernel == "lookup"
    told = {figure.name: figure.value for figure in found.figures}
    assert told["us"] == pytest.approx(110)
    assert told["dram_read_bytes"] == pytest.approx(97e6)
    assert told["dram_gbps"] == pytest.approx(97e6 / 110e-6 / 1e9)
    assert told["registers"] == 88
    assert told["warps_possible"] == pytest.approx(0.375)
    assert told["warps_resident"] == pytest.approx(0.3582)
    assert told["clock_mhz"] == pytest.approx(1755.01, rel=1e-4)
    assert told["waiting"] == found.stalls["long_scoreboard"]
    assert found.beside == {"prepare": pytest.approx(19.104)}


def test_one_launch_for_all_tables_is_shared_out_among_them() -> None:
    (launch,) = [x for x in raw(1) if "lookup" in x.name][:1]
    us = profiles.counters(profile([launch], tables=4)).figure("us")
    assert us is not None
    assert us.value == pytest.approx(25)


def test_pytorchs_kernel_is_that_which_took_longest() -> None:
    found = profiles.counters(profile(raw(2)))
    assert found.kernel == "EmbeddingBag_updateOutputKernel_sum_mean"
    assert set(found.beside) == {"vectorized_elementwise_kernel"}


def test_stalls_are_shares_of_the_whole_and_what_is_not_listed_is_other() -> None:
    stalls = profiles.counters(profile(raw(1))).stalls
    assert stalls["long_scoreboard"] == pytest.approx(14 / 17.5)
    assert next(iter(stalls)) == "long_scoreboard"
    assert sum(stalls.values()) == pytest.approx(1)
    assert profiles.OTHER not in stalls
    (launch,) = raw(1)[1:2]
    metrics = {k: v for k, v in launch.metrics.items() if "_wait_" not in k}
    cut = profiles.counters(profile([dataclasses.replace(launch, metrics=metrics)])).stalls
    assert cut[profiles.OTHER] == pytest.approx(1.45 / 17.5)


def test_what_was_not_told_is_nothing() -> None:
    found = profiles.counters(profile([KernelLaunch("lookup", "", "", {"gpu__time_duration.sum": 1e3})]))
    assert [figure.name for figure in found.figures] == ["us"]
    assert found.stalls == {}


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("void lookup<float, long long, 2>(LookupArgs)", "lookup"),
        ("lookup", "lookup"),
        ("void at::native::(anonymous namespace)::Bag<float, std::array<char *, (int)1>>(int, T2)", "Bag"),
        ("void f<(int)3>(void (*)(int))", "f"),
        ("", ""),
    ],
)
def test_short_names(name: str, short: str) -> None:
    assert profiles.short(name) == short


def test_what_moved_most_comes_first_and_trifles_do_not_come() -> None:
    reference = profiles.counters(profile(raw(1)))
    factors = {"registers": 42 / 88, "warps_resident": 1.05, "l1_hits": 0.0, "waiting": 0.25}
    figures = [
        dataclasses.replace(figure, value=figure.value * factors.get(figure.name, 1.0))
        for figure in reference.figures
        if figure.name != "l2_hits"
    ]
    of = dataclasses.replace(reference, figures=figures)
    assert [move.name for move in profiles.moves(of, reference)] == ["l1_hits", "waiting", "registers"]
    assert profiles.moves(of, None) == []


def test_profiles_of_a_run(tmp_path: Path) -> None:
    root = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    cells = [load(Cell, path) for path in sorted(root.glob("cells/*/cell.json"))]
    for one, status in zip(cells[:2], ("ok", "failed"), strict=True):
        made = Profile(one, status, launches=raw(1) if status == "ok" else [], profiler="Nsight Compute 1")  # type: ignore[arg-type]
        (root / wall.CELLS / one.id / wall.PROFILE).write_text(to_json(made), encoding="utf-8")
    found = profiles.find(frame.load_run(root))
    assert found is not None
    (counters,) = found.counters
    assert (counters.variant, counters.dataset) == (cells[0].variant, cells[0].dataset.name)
    assert list(found.failed) == [cells[1].id]
    assert (found.profiler, found.outdated) == ("Nsight Compute 1", [])


def test_what_moved_is_against_the_runs_reference(tmp_path: Path) -> None:
    root = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    fewer = [
        KernelLaunch(x.name, x.grid, x.block, x.metrics | {"launch__registers_per_thread": 42.0})
        for x in raw(1)
    ]
    for record in frame.load_run(root).records:
        if record.cell.dataset.name == "medium":
            made = Profile(record.cell, "ok", launches=raw(1) if record.cell.design == "baseline" else fewer)
            (root / wall.CELLS / record.cell.id / wall.PROFILE).write_text(to_json(made), encoding="utf-8")
    found = profiles.find(frame.load_run(root))
    assert found is not None
    moved = {one.variant.design: [move.name for move in one.moved] for one in found.counters}
    assert moved.pop("baseline") == []
    assert set(map(tuple, moved.values())) == {("registers",)}


def test_a_source_that_changed_since_is_said(tmp_path: Path) -> None:
    root = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    run = frame.load_run(root)
    record = run.records[0]
    assert record.kernel is not None
    kernel = dataclasses.replace(record.kernel, source_hash="another")
    made = Profile(record.cell, "ok", launches=raw(1), kernel=kernel)
    (root / wall.CELLS / record.cell.id / wall.PROFILE).write_text(to_json(made), encoding="utf-8")
    found = profiles.find(run)
    assert found is not None
    assert found.outdated == [record.cell.variant]
