"""What a sweep shows, computed from records whose times are known."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from harness import experiment
from harness.analysis import frame, limits, pins, results, summary, sweeps, trust
from harness.analysis.sweeps import Swept
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.records import Cell, CellRecord
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


def derived(
    folder: Path, made: Experiment, make: Callable[[Cell], CellRecord | None] = record
) -> results.Results:
    return results.derive(frame.load([synthetic_run.write_run(folder / "run", made, make)]))


def only(found: list[Swept]) -> Swept:
    (swept,) = found
    return swept


def test_the_rest_of_the_report_is_of_the_experiment_s_own_point(tmp_path: Path) -> None:
    found = derived(tmp_path, what(tmp_path, BATCH, DISTANCE, TABLES))
    (run,) = found.loaded.runs
    assert {r.cell.point for r in run.records} == {""}
    assert {r.cell.point for r in run.swept} == {
        *("batch=16", "batch=128", "tables=1", "distance=1", "distance=4", "distance=8")
    }
    assert run.arms == ["baseline@12.1", "rpf_optmt@12.1", "vectorized@12.1", "stock"]
    speedup = found.speedup(run, "rpf_optmt@12.1", "medium", "kernel_us")
    assert speedup is not None
    assert speedup.ratio.value == pytest.approx(1.5, rel=0.03)
    assert len(speedup.records) == 2 * 3
    assert len(found.loaded.records) == len(found.loaded.cells) == (4 * 4 + 3) * 3
    assert set(found.loaded.cells["point"]) == {r.cell.point for r in found.loaded.records}
    assert pins.find(found) == []
    assert {limit.demand.lookups for limit in limits.find(found).limits.values()} == {2048 * 150}


def test_trust_asks_of_every_cell(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord | None:
        if cell.point == "batch=16" and cell.design == "stock":
            return synthetic_run.failed(cell, "oom")
        return None if cell.point == "tables=1" else record(cell)

    found = derived(tmp_path, what(tmp_path, BATCH, TABLES), make)
    (said,) = [finding for finding in trust.examine(found) if finding.what == "cells"]
    assert said.detail == "3 oom, 12 not run yet of 48"
    assert said.records == [f"stock-medium-batch=16-r{n}" for n in range(3)]
    (said,) = [finding for finding in trust.examine(found) if finding.what == "replicates"]
    assert said.detail == "3 fresh processes per cell"


def test_lines_go_through_the_experiment_s_own_cells(tmp_path: Path) -> None:
    swept = only(sweeps.find(derived(tmp_path, what(tmp_path, BATCH, DISTANCE, TABLES, ROWS))))
    lines = {(line.key, *line.held.items()): line for line in swept.lines if line.metric == "kernel_us"}
    assert list(lines) == [
        ("workload.tables",),
        ("workload.rows", ("workload.tables", 1)),
        ("workload.batch",),
        ("tunables.distance",),
    ]
    for line in lines.values():
        wanted = {"workload.batch": [16, 128, 2048], "tunables.distance": [1, 2, 4, 8]}
        wanted |= {"workload.tables": [1, 2], "workload.rows": [1000, 500_000]}
        for places in line.places.values():
            assert [place.value(line.key) for place in places] == wanted[line.key]
    assert list(lines["tunables.distance",].places) == ["rpf_optmt@12.1"]
    assert list(lines["workload.batch",].places) == swept.run.arms
    for place in lines["workload.batch",].places["baseline@12.1"]:
        time = place.measurement.time
        assert time.low < time.value < time.high
        assert time.value == pytest.approx(time_us(place.cell), rel=0.03)
        assert len(place.measurement.records) == 3


def test_speedups_are_over_the_reference_at_the_same_point(tmp_path: Path) -> None:
    swept = only(sweeps.find(derived(tmp_path, what(tmp_path, BATCH, DISTANCE))))
    seen = set()
    for place in swept.places:
        assert place.speedup is not None
        own = time_us(place.cell)
        theirs = 100.0 * place.cell.workload.batch / 2048
        assert place.speedup.ratio.value == pytest.approx(theirs / own, rel=0.03)
        at = "" if "distance" in place.cell.point else place.cell.point
        expected = f"baseline-12.1-medium{'-' + at if at else ''}-r0"
        assert expected in place.speedup.records
        seen.add(place.cell.point)
    assert seen == {"", "batch=16", "batch=128", "distance=1", "distance=4", "distance=8"}


def test_no_speedup_where_the_reference_was_not_measured(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord:
        lost = cell.point == "batch=16" and cell.design == "baseline"
        return synthetic_run.failed(cell, "oom") if lost else record(cell)

    swept = only(sweeps.find(derived(tmp_path, what(tmp_path, BATCH), make)))
    assert {p.cell.point for p in swept.places if p.speedup is None} == {"batch=16"}
    (line,) = (line for line in swept.lines if line.metric == "kernel_us")
    assert len(line.places["baseline@12.1"]) == 2
    assert len(line.places["stock"]) == 3


def test_a_reference_that_has_the_tunable_is_met_at_the_same_value(tmp_path: Path) -> None:
    arms = [ARMS[1], {"design": "combined", "toolchain": "12.1"}]
    made = what(tmp_path, DISTANCE, arms=arms, reference="rpf_optmt@12.1")
    swept = only(sweeps.find(derived(tmp_path, made)))
    for place in (p for p in swept.places if p.cell.design == "combined"):
        assert place.speedup is not None
        expected = time_us(dataclasses.replace(place.cell, design="rpf_optmt")) / 100
        assert place.speedup.ratio.value == pytest.approx(expected, rel=0.03)


def test_the_best_value_of_a_tunable_and_what_it_gains(tmp_path: Path) -> None:
    swept = only(sweeps.find(derived(tmp_path, what(tmp_path, BATCH, DISTANCE))))
    (best,) = (best for best in swept.best if best.metric == "kernel_us")
    assert (best.arm, best.key, best.default) == ("rpf_optmt@12.1", "tunables.distance", 2)
    assert best.best.value(best.key) == 4
    assert best.ties == []
    assert best.gain.value == pytest.approx(2.0 / 1.5, rel=0.03)
    assert best.gain.low > 1
    assert best.gpu == "SYNTHETIC GPU 80GB (no such thing)"


def test_values_that_cannot_be_separated_are_told(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord:
        return record(dataclasses.replace(cell, tunables={"distance": 4}) if cell.tunables else cell)

    def made(cell: Cell) -> CellRecord:
        return dataclasses.replace(make(cell), cell=cell)

    (best,) = (
        b
        for b in only(sweeps.find(derived(tmp_path, what(tmp_path, DISTANCE), made))).best
        if b.metric == "kernel_us"
    )
    assert len(best.ties) >= 2


def test_who_wins_where_and_where_a_design_loses_to_pytorch(tmp_path: Path) -> None:
    swept = only(sweeps.find(derived(tmp_path, what(tmp_path, BATCH, DISTANCE))))
    assert {win.point: win.best.cell.arm for win in swept.wins} == {
        "": "vectorized@12.1",
        "batch=128": "vectorized@12.1",
        "batch=16": "stock",
    }
    assert {(win.rivals, tuple(win.ties)) for win in swept.wins} == {(3, ())}
    lost = {(loss.place.cell.arm, loss.place.cell.point): loss.ratio.value for loss in swept.losses}
    assert lost.pop(("vectorized@12.1", "batch=16")) == pytest.approx(0.75, rel=0.03)
    assert lost.keys() == {
        (arm, point) for arm in ("baseline@12.1", "rpf_optmt@12.1") for point in ("", "batch=16", "batch=128")
    }
    # Tunables as the experiment has them, so rpf_optmt counts three times, as the others do.
    assert len(swept.beside_stock) == 3 * 3


def test_on_the_cpu_nobody_wins(tmp_path: Path) -> None:
    made = what(tmp_path, BATCH, workload={"tables": 2, "device": "cpu"})
    swept = only(sweeps.find(derived(tmp_path, made)))
    assert (swept.wins, swept.losses, swept.beside_stock) == ([], [], [])
    assert swept.lines


def test_a_run_without_a_sweep_has_none(tmp_path: Path) -> None:
    assert sweeps.find(derived(tmp_path, what(tmp_path))) == []


def test_the_summary_tells_it_as_json(tmp_path: Path) -> None:
    found = derived(tmp_path, what(tmp_path, BATCH, DISTANCE))
    told = json.loads(json.dumps(summary.summary(found.loaded, found), allow_nan=False))
    (swept,) = told["sweeps"]
    assert len(swept["points"]) == (4 * 3 + 3)
    (best,) = swept["best"]
    assert (best["value"], best["default"]) == (4, 2)
    assert {"workload.batch": 16, "tunables.distance": 2} in [p["settings"] for p in swept["points"]]
    assert told["runs"][0]["planned"] == told["runs"][0]["measured"] == (4 * 3 + 3) * 3


def test_points_without_the_experiment_s_own_are_refused(tmp_path: Path) -> None:
    folder = synthetic_run.write_run(tmp_path / "run", what(tmp_path, BATCH), record)
    (folder / "plan.json").unlink()
    for path in folder.glob("cells/*"):
        if "batch" not in path.name:
            for file in path.iterdir():
                file.unlink()
    with pytest.raises(BadInputError, match="holds a sweep without a cell of its experiment's own workload"):
        frame.load([folder])
