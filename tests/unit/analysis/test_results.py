"""Speedups, winners, trust, claims and summary: what follows from records."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import designs
from harness.analysis import claims, frame, results, trust
from harness.analysis.analyse import analyse
from harness.analysis.figures import speedup
from harness.analysis.report import SCHEMA_VERSION, Run
from harness.experiment import Experiment
from harness.records import Cell, CellRecord, Variant, Workload
from tests import effort
from tests import synthetic_run as synthetic

Make = Callable[[Cell], CellRecord | None]
BASELINE, OPTMT = Variant("baseline", "12.1"), Variant("optmt", "12.1")
RPF, COMBINED = Variant("rpf_optmt", "12.1"), Variant("combined", "12.1")


@pytest.fixture
def derived(tmp_path: Path) -> Callable[..., Run]:
    """What is known of a synthetic run; `make` and `what` as in `write_run`."""

    def build(make: Make = synthetic.record, what: Experiment | None = None, name: str = "run") -> Run:
        folder = synthetic.write_run(tmp_path / name, what or synthetic.experiment(), make)
        return analyse([folder], today=designs.source_hashes()).runs[0]

    return build


def scaled(cell: Cell, factor: float) -> CellRecord:
    record = synthetic.record(cell)
    samples = {name: [value * factor for value in values] for name, values in record.samples.items()}
    return dataclasses.replace(record, samples=samples)


def restless(cell: Cell) -> CellRecord:
    """One design's processes differ, those of the others do not."""
    return scaled(cell, 1.0 + 0.2 * cell.replicate * (cell.design == "optmt"))


def findings(run: Run) -> dict[str, trust.Finding]:
    return {finding.what: finding for finding in run.findings}


def time_of(run: Run, variant: Variant, metric: str) -> float:
    """On random, µs."""
    figure = run.figure(variant, "random", metric)
    assert figure is not None
    return figure.value


def test_speedup_is_reference_over_design_and_named_by_records(derived: Callable[..., Run]) -> None:
    run = derived()
    ratio = run.figure(OPTMT, "random", speedup("kernel_us"))
    assert ratio is not None
    assert (ratio.unit, ratio.hint, ratio.replicates) == ("×", "ratio", 3)
    assert ratio.value == pytest.approx(
        time_of(run, BASELINE, "kernel_us") / time_of(run, OPTMT, "kernel_us")
    )
    assert ratio.estimate.low < 1 / 0.6 < ratio.estimate.high
    assert ratio.verdict == "faster"
    assert {name.split("-")[0] for name in ratio.records} == {"optmt", "baseline"}
    assert len(ratio.records) == 6


def test_pin_time_decides_the_winner(derived: Callable[..., Run]) -> None:
    run = derived()
    counted, alone = run.winner("random", "total_us"), run.winner("random", "kernel_us")
    assert counted is not None
    assert alone is not None
    assert counted.variant == RPF
    assert alone.variant == COMBINED


def test_a_launch_for_all_tables_is_held_against_others_by_the_stage(derived: Callable[..., Run]) -> None:
    """Per table its kernel is 1 % slower here; the stage, which holds the others' gaps, is as fast."""

    def fused(cell: Cell) -> CellRecord:
        return synthetic.single_launch(cell) if cell.design == "optmt" else synthetic.record(cell)

    mixed, alike, prepares = derived(fused), derived(name="alike"), ["total_us", "kernel_us"]
    assert mixed.headline == "stage_us"
    assert mixed.compared == ["stage_us", *prepares]
    won = mixed.winner("random", mixed.headline)
    assert won is not None
    assert time_of(mixed, won.variant, "stage_us") > 12 * 100
    assert alike.headline == "total_us"
    assert alike.compared == prepares
    for metric, factor in (("kernel_us", 1.01), ("total_us", 1.01), ("stage_us", 1.0)):
        before, after = (time_of(run, OPTMT, metric) for run in (alike, mixed))
        assert after == pytest.approx(before * factor, rel=1e-3)


def test_variants_that_cannot_be_told_apart_tie(derived: Callable[..., Run]) -> None:
    def equal(cell: Cell) -> CellRecord:
        twin = dataclasses.replace(cell, design="optmt")
        return dataclasses.replace(synthetic.record(twin), cell=cell)

    won = derived(equal, synthetic.experiment(arms=(BASELINE, OPTMT))).winner("random", "total_us")
    assert won is not None
    assert won.ties


def test_failed_reference_leaves_times_without_speedups(derived: Callable[..., Run]) -> None:
    run = derived(
        lambda cell: synthetic.failed(cell) if cell.design == "baseline" else synthetic.record(cell)
    )
    assert run.reference == BASELINE
    assert not [f for place in run.places for f in place.figures if f.name.startswith("speedup")]
    assert run.figure(OPTMT, "random", "total_us") is not None
    assert run.winner("random", "total_us") is not None


def test_cpu_has_no_winner(derived: Callable[..., Run]) -> None:
    run = derived(synthetic.cpu_record, synthetic.experiment(workload=synthetic.CPU, timing=synthetic.QUICK))
    assert run.winners == []
    assert "not a GPU result" in findings(run)["CPU"].detail


def test_clean_run_is_good(derived: Callable[..., Run]) -> None:
    assert derived().verdict == "good"


def test_what_smaller_rows_cost_stands_beside_their_speed(derived: Callable[..., Run]) -> None:
    def smaller(cell: Cell) -> CellRecord:
        made = synthetic.record(cell)
        error = {"quantisation_error": 0.0033, "quantisation_error_max": 0.0035}
        return dataclasses.replace(made, facts=made.facts | error)

    work = Workload(dtype="int8")
    run = derived(smaller, synthetic.experiment(workload=work), "int8")
    assert findings(run)["rows"].detail.startswith("int8 tables are off the float32 ones by 0.0033 of")
    assert {cell.quantisation_error for cell in run.cells} == {0.0033}
    assert run.verdict == "good"
    assert "rows" not in findings(derived(name="float32"))


@pytest.mark.parametrize(
    ("recorded", "said"), [({}, "0.3"), ({"values_within": 0.3}, "0.3"), ({"values_within": 2.0}, "2")]
)
def test_the_values_of_tables_are_said_as_they_are_recorded(
    derived: Callable[..., Run], recorded: dict[str, float], said: str
) -> None:
    def smaller(cell: Cell) -> CellRecord:
        made = synthetic.record(cell)
        error = {"quantisation_error": 0.0033, "quantisation_error_max": 0.0035}
        return dataclasses.replace(made, facts=made.facts | error | recorded)

    found = derived(smaller, synthetic.experiment(workload=Workload(dtype="int8")), "int8")
    assert findings(found)["rows"].detail.endswith(f"; their values lie in -{said}..{said}")


def environment(**changes: Any) -> Make:
    """Records of the second replicate with another environment."""

    def make(cell: Cell) -> CellRecord:
        record = synthetic.record(cell)
        if cell.replicate != 1 or record.environment is None:
            return record
        return dataclasses.replace(record, environment=dataclasses.replace(record.environment, **changes))

    return make


def altered(**changes: Any) -> Make:
    """Records of optmt on random, altered."""

    def make(cell: Cell) -> CellRecord:
        record = synthetic.record(cell)
        special = (cell.design, cell.dataset.name) == ("optmt", "random")
        return dataclasses.replace(record, **changes) if special else record

    return make


def fallen(cell: Cell) -> CellRecord:
    record = synthetic.record(cell)
    assert record.kernel is not None
    return dataclasses.replace(record, kernel=dataclasses.replace(record.kernel, name="pytorch"))


def of_other_sources(cell: Cell) -> CellRecord:
    record = synthetic.record(cell)
    assert record.kernel is not None
    if cell.design not in ("optmt", "combined"):
        return record
    return dataclasses.replace(record, kernel=dataclasses.replace(record.kernel, source_hash="f00"))


def test_a_run_of_older_sources_says_so(derived: Callable[..., Run]) -> None:
    found = findings(derived(of_other_sources))["sources"]
    assert found.detail == "of older sources: combined, optmt have changed since"
    assert {record.partition("-")[0] for record in found.records} == {"combined", "optmt"}
    assert "sources" not in findings(derived(name="of today"))


def test_without_the_designs_of_today_nobody_can_say_what_has_changed(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path / "run", synthetic.experiment(), of_other_sources)
    assert "sources" not in findings(analyse([folder]).runs[0])


@pytest.mark.parametrize(
    ("make", "what", "level"),
    [
        (environment(git_dirty=True), "source", "note"),
        (environment(git_commit="f" * 40), "source", "note"),
        (environment(driver="999"), "environment", "note"),
        (environment(image="another"), "environment", "note"),
        (environment(other_processes=2), "neighbours", "bad"),
        (environment(mig=True), "partition", "note"),
        (environment(mps=True), "sharing", "note"),
        (altered(status="failed", samples={}), "cells", "bad"),
        (altered(status="inconclusive", throttled_passes=[1, 2]), "throttling", "bad"),
        (altered(throttled_passes=[1]), "throttling", "note"),
        (altered(check=None), "outputs", "bad"),
        (lambda cell: synthetic.record(cell) if cell.replicate == 0 else None, "replicates", "note"),
        (lambda cell: synthetic.record(cell) if cell.replicate == 0 else None, "cells", "note"),
        (fallen, "fallback", "bad"),
        (of_other_sources, "sources", "note"),
        (restless, "precision", "note"),
    ],
)
def test_what_makes_a_run_less_trustworthy(
    derived: Callable[..., Run], make: Make, what: str, level: str
) -> None:
    run = derived(make)
    assert findings(run)[what].level == level
    assert run.verdict != "good"


def test_images_may_differ_between_designs_only(derived: Callable[..., Run]) -> None:
    assert not derived().environment_differences
    different = derived(environment(image="another"), name="second")
    assert {d.field for d in different.environment_differences} == {
        f"image of {variant.label}" for variant in synthetic.experiment().arms
    }


def test_claims_stand_beside_the_largest_ratio(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path / "run", synthetic.experiment())
    measured = results.measure(frame.load_run(folder))
    by_id = {claim.id: claim for claim in claims.read().claims}
    ours = {line.metric: line for line in claims.beside(by_id["optmt"], [measured])}
    every = [measured.speedups[OPTMT, name, "kernel_us"] for name in measured.run.datasets]
    assert ours["kernel_us"].ratio.value == max(found.value for found in every)
    slowdown = claims.beside(by_id["locality"], [measured])[0]
    assert slowdown.ratio.value == pytest.approx(270 / 98, rel=0.02)
    assert claims.beside(by_id["end_to_end"], [measured]) == []


def test_the_report_is_json_and_complete(tmp_path: Path) -> None:
    make = altered(status="failed", samples={}, message="broke")
    folder = synthetic.write_run(tmp_path / "run", synthetic.experiment(), make)
    again = json.loads(json.dumps(dataclasses.asdict(analyse([folder])), allow_nan=False))
    assert again["schema_version"] == SCHEMA_VERSION
    (run,) = again["runs"]
    assert len(run["cells"]) == 75
    assert sum(cell["status"] == "failed" for cell in run["cells"]) == 3
    assert all((folder / cell["record"]).is_file() for cell in run["cells"])
    assert run["measured"] == 72
    known = {cell["id"] for cell in run["cells"]}
    figures = [figure for place in run["places"] for figure in place["figures"]]
    assert all(set(figure["records"]) <= known and figure["records"] for figure in figures)


def test_the_work_grows_in_step_with_the_cells(tmp_path: Path) -> None:
    def needed(datasets: int) -> int:
        names = tuple(f"trace{n}" for n in range(datasets))
        what = synthetic.experiment(datasets=names, timing=synthetic.QUICK)
        run = frame.load_run(synthetic.write_run(tmp_path / f"run{datasets}", what))
        return effort.calls(lambda: results.measure(run))

    few, many = needed(5), needed(20)
    assert few < many < 4.2 * few
    assert many < 1_100 * 300, "calls for each of 300 cells"
