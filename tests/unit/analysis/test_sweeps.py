"""What a sweep shows, computed from records whose times are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from harness import experiment
from harness.analysis import frame
from harness.analysis.analyse import analyse
from harness.analysis.figures import Place, speedup
from harness.analysis.report import Run
from harness.analysis.sweeps import Sweep
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.records import Cell, CellRecord, Dataset, Timing, Variant, Workload
from tests import synthetic_run

ARMS = [
    {"design": "baseline", "toolchain": "12.1"},
    {"design": "rpf_optmt", "toolchain": "12.1"},
    {"design": "vectorized", "toolchain": "12.1"},
    {"design": "stock"},
]
BATCH = {"key": "workload.batch", "values": [16, 128, 2048]}
DISTANCE = {"key": "tunables.distance", "values": [1, 2, 4, 8]}
TABLES = {"key": "workload.tables", "values": [1, 2]}
ROWS = {"key": "workload.rows", "values": [1000, 500_000], "hold": {"tables": 1}}


def what(
    folder: Path, *axes: dict[str, Any], arms: list[dict[str, str]] = ARMS, **changes: Any
) -> Experiment:
    raw: dict[str, Any] = {
        "title": "SYNTHETIC",
        "arms": arms,
        "reference": "baseline@12.1",
        "workload": {"tables": 2},
    }
    raw |= {"datasets": ["medium"], "sweep": list(axes)} | changes
    (folder / "e.toml").write_text(tomli_w.dumps(raw), encoding="utf-8")
    return experiment.read(folder / "e.toml")


def time_us(cell: Cell) -> float:
    """100 µs at batch 2048, less in proportion; designs as told here."""
    work = cell.workload
    base = 100.0 * work.batch / 2048
    if cell.design == "rpf_optmt":
        return base / {1: 1.2, 2: 1.5, 4: 2.0, 8: 1.25}[cell.tunables.get("distance", 2)]
    if cell.design == "vectorized":
        return base / (4.0 if work.batch > 100 else 1.5)  # loses to PyTorch where batches are small
    return base / 2 if cell.design == "stock" else base


def record(cell: Cell) -> CellRecord:
    """As `synthetic_run.record`, with the times of `time_us` and half a per cent of noise."""
    made = synthetic_run.record(cell)
    kernel = [value / sum(made.samples["kernel_us"]) for value in made.samples["kernel_us"]]
    samples = {"kernel_us": [value * len(kernel) * time_us(cell) for value in kernel]}
    samples["stage_us"] = [value / 1.01 for value in made.samples["stage_us"]]
    return dataclasses.replace(made, samples=samples)


def derived(folder: Path, made: Experiment, make: Callable[[Cell], CellRecord | None] = record) -> Run:
    return analyse([synthetic_run.write_run(folder / "run", made, make)]).runs[0]


def swept(run: Run) -> Sweep:
    assert run.sweep is not None
    return run.sweep


def cell_of(place: Place) -> Cell:
    """What stands there, as far as its time goes."""
    work = Workload(batch=int(place.settings.get("workload.batch", 2048)), tables=2)
    tunables = (
        {"distance": int(place.settings["tunables.distance"])}
        if "tunables.distance" in place.settings
        else {}
    )
    dataset, timing = Dataset(place.dataset), Timing()
    variant = place.variant
    return Cell("", variant.design, variant.toolchain, dataset, work, timing, 0, 1, tunables, place.point)


BASELINE, RPF = Variant("baseline", "12.1"), Variant("rpf_optmt", "12.1")
VECTORIZED, STOCK = Variant("vectorized", "12.1"), Variant("stock")


def test_the_rest_of_the_report_is_of_the_experiment_s_own_point(tmp_path: Path) -> None:
    run = derived(tmp_path, what(tmp_path, BATCH, DISTANCE, TABLES))
    assert {place.point for place in run.places} == {""}
    points = {*("batch=16", "batch=128", "tables=1", "distance=1", "distance=4", "distance=8")}
    assert {place.point for place in swept(run).places} == points
    assert run.variants == [BASELINE, RPF, VECTORIZED, STOCK]
    ratio = run.figure(RPF, "medium", speedup("kernel_us"))
    assert ratio is not None
    assert ratio.value == pytest.approx(1.5, rel=0.03)
    assert len(ratio.records) == 2 * 3
    assert run.planned == run.measured == len(run.cells) == (4 * 4 + 3) * 3
    assert {cell.point for cell in run.cells} == {"", *points}
    assert run.pins == []
    assert [need.bytes for limit in run.limits for need in limit.needs if need.part == "L1"] == [
        2048 * 150 * 512
    ]


def test_trust_asks_of_every_cell(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord | None:
        if cell.point == "batch=16" and cell.design == "stock":
            return synthetic_run.failed(cell, "oom")
        return None if cell.point == "tables=1" else record(cell)

    run = derived(tmp_path, what(tmp_path, BATCH, TABLES), make)
    (said,) = [finding for finding in run.findings if finding.what == "cells"]
    assert said.detail == "3 oom, 12 not run yet of 48"
    assert said.records == [f"stock-medium-batch=16-r{n}" for n in range(3)]
    (said,) = [finding for finding in run.findings if finding.what == "replicates"]
    assert said.detail == "3 fresh processes per cell"


def test_lines_go_through_the_experiment_s_own_cells(tmp_path: Path) -> None:
    run = derived(tmp_path, what(tmp_path, BATCH, DISTANCE, TABLES, ROWS))
    lines = {(line.key, *line.held.items()): line for line in swept(run).lines}
    assert list(lines) == [
        ("workload.tables",),
        ("workload.rows", ("workload.tables", 1)),
        ("workload.batch",),
        ("tunables.distance",),
    ]
    wanted = {"workload.batch": [16, 128, 2048], "tunables.distance": [1, 2, 4, 8]}
    wanted |= {"workload.tables": [1, 2], "workload.rows": [1000, 500_000]}
    for line in lines.values():
        for curve in line.curves:
            places = [run.place(curve.variant, line.dataset, point) for point in curve.points]
            assert [place and place.settings[line.key] for place in places] == wanted[line.key]
    assert [curve.variant for curve in lines["tunables.distance",].curves] == [RPF]
    assert [curve.variant for curve in lines["workload.batch",].curves] == run.variants
    baseline = lines["workload.batch",].curves[0]
    for point, batch in zip(baseline.points, wanted["workload.batch"], strict=True):
        time = run.figure(BASELINE, "medium", "kernel_us", point)
        assert time is not None
        assert time.estimate.low < time.value < time.estimate.high
        assert time.value == pytest.approx(100 * batch / 2048, rel=0.03)
        assert len(time.records) == 3


def test_speedups_are_over_the_reference_at_the_same_point(tmp_path: Path) -> None:
    run = derived(tmp_path, what(tmp_path, BATCH, DISTANCE))
    seen = set()
    for place in (*run.places, *swept(run).places):
        found = place.figure(speedup("kernel_us"))
        assert found is not None
        cell = cell_of(place)
        theirs = 100.0 * cell.workload.batch / 2048
        assert found.value == pytest.approx(theirs / time_us(cell), rel=0.03)
        at = "" if "distance" in place.point else place.point
        assert f"baseline-12.1-medium{'-' + at if at else ''}-r0" in found.records
        seen.add(place.point)
    assert seen == {"", "batch=16", "batch=128", "distance=1", "distance=4", "distance=8"}


def test_no_speedup_where_the_reference_was_not_measured(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord:
        lost = cell.point == "batch=16" and cell.design == "baseline"
        return synthetic_run.failed(cell, "oom") if lost else record(cell)

    run = derived(tmp_path, what(tmp_path, BATCH), make)
    places = (*run.places, *swept(run).places)
    assert {place.point for place in places if place.figure(speedup("kernel_us")) is None} == {"batch=16"}
    (line,) = swept(run).lines
    assert {curve.variant: len(curve.points) for curve in line.curves} == {
        **{BASELINE: 2, RPF: 3},
        **{VECTORIZED: 3, STOCK: 3},
    }


def test_a_reference_that_has_the_tunable_is_met_at_the_same_value(tmp_path: Path) -> None:
    arms = [ARMS[1], {"design": "combined", "toolchain": "12.1"}]
    run = derived(tmp_path, what(tmp_path, DISTANCE, arms=arms, reference="rpf_optmt@12.1"))
    for place in (*run.places, *swept(run).places):
        if place.variant.design == "combined":
            found = place.figure(speedup("kernel_us"))
            assert found is not None
            expected = time_us(dataclasses.replace(cell_of(place), design="rpf_optmt")) / 100
            assert found.value == pytest.approx(expected, rel=0.03)


def test_the_best_value_of_a_tunable_and_what_it_gains(tmp_path: Path) -> None:
    run = derived(tmp_path, what(tmp_path, BATCH, DISTANCE))
    (best,) = (best for best in swept(run).best if best.metric == "kernel_us")
    assert (best.variant, best.key, best.default) == (RPF, "tunables.distance", 2)
    assert (best.value, best.point) == (4, "distance=4")
    assert best.ties == []
    assert best.gain.value == pytest.approx(2.0 / 1.5, rel=0.03)
    assert best.gain.low > 1


def test_values_that_cannot_be_separated_are_told(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord:
        return record(dataclasses.replace(cell, tunables={"distance": 4}) if cell.tunables else cell)

    def made(cell: Cell) -> CellRecord:
        return dataclasses.replace(make(cell), cell=cell)

    found = swept(derived(tmp_path, what(tmp_path, DISTANCE), made)).best
    (best,) = (best for best in found if best.metric == "kernel_us")
    assert len(best.ties) >= 2


def test_who_wins_where_and_where_a_design_loses_to_pytorch(tmp_path: Path) -> None:
    found = swept(derived(tmp_path, what(tmp_path, BATCH, DISTANCE)))
    winners = {"": VECTORIZED, "batch=128": VECTORIZED, "batch=16": STOCK}
    assert {win.point: win.variant for win in found.wins} == winners
    assert {(win.rivals, tuple(win.ties)) for win in found.wins} == {(3, ())}
    lost = {(one.variant, one.point): one.ratio.value for one in found.beside_peers if one.ratio.high < 1}
    assert lost.pop((VECTORIZED, "batch=16")) == pytest.approx(0.75, rel=0.03)
    assert lost.keys() == {
        (variant, point) for variant in (BASELINE, RPF) for point in ("", "batch=16", "batch=128")
    }
    # Tunables as the experiment has them, so rpf_optmt counts three times, as the others do.
    assert len(found.beside_peers) == 3 * 3
    assert {(one.library, one.peer) for one in found.beside_peers} == {("stock", STOCK)}


def test_a_point_is_what_it_sets(tmp_path: Path) -> None:
    found = swept(derived(tmp_path, what(tmp_path, BATCH, DISTANCE, ROWS, grid=False)))
    assert found.points == {
        "": {},
        **{f"batch={batch}": {"workload.batch": batch} for batch in (16, 128)},
        **{f"distance={distance}": {"tunables.distance": distance} for distance in (1, 4, 8)},
        **{
            f"rows={rows},tables=1": {"workload.rows": rows, "workload.tables": 1} for rows in (1000, 500_000)
        },
    }


def test_points_where_the_cost_of_events_decides_are_told(tmp_path: Path) -> None:
    def made(cell: Cell) -> CellRecord:
        found = record(cell)
        stage = float(np.median(found.samples["kernel_us"]))
        return dataclasses.replace(found, ceilings={"event_overhead_us": stage / (2 if cell.point else 4)})

    run = derived(tmp_path, what(tmp_path, BATCH), made)
    assert sorted(swept(run).events_decide) == ["batch=128", "batch=16"]


def test_on_the_cpu_nobody_wins(tmp_path: Path) -> None:
    made = what(tmp_path, BATCH, workload={"tables": 2, "device": "cpu"})
    found = swept(derived(tmp_path, made))
    assert (found.wins, found.beside_peers) == ([], [])
    assert found.lines


def test_a_run_without_a_sweep_has_none(tmp_path: Path) -> None:
    assert derived(tmp_path, what(tmp_path)).sweep is None


def test_points_without_the_experiment_s_own_are_refused(tmp_path: Path) -> None:
    folder = synthetic_run.write_run(tmp_path / "run", what(tmp_path, BATCH), record)
    (folder / "plan.json").unlink()
    for path in folder.glob("cells/*"):
        if "batch" not in path.name:
            for file in path.iterdir():
                file.unlink()
    with pytest.raises(BadInputError, match="holds a sweep without a cell of its experiment's own workload"):
        frame.load([folder])
