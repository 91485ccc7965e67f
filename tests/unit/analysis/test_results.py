"""Speedups, winners, trust, claims and summary: what follows from records."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.analysis import claims, document, frame, results, summary, trust
from harness.analysis.results import Results
from harness.experiment import Arm, Experiment
from harness.records import Cell, CellRecord, Workload
from tests import effort
from tests import synthetic_run as synthetic

Make = Callable[[Cell], CellRecord | None]


@pytest.fixture
def derived(tmp_path: Path) -> Callable[..., Results]:
    """Results of a synthetic run; `make` and `what` as in `write_run`."""

    def build(make: Make = synthetic.record, what: Experiment | None = None, name: str = "run") -> Results:
        folder = synthetic.write_run(tmp_path / name, what or synthetic.experiment(), make)
        return results.derive(frame.load([folder]))

    return build


def scaled(cell: Cell, factor: float) -> CellRecord:
    record = synthetic.record(cell)
    samples = {name: [value * factor for value in values] for name, values in record.samples.items()}
    return dataclasses.replace(record, samples=samples)


def findings(found: Results) -> dict[str, trust.Finding]:
    return {finding.what: finding for finding in trust.examine(found)}


def test_speedup_is_reference_over_design_and_named_by_records(derived: Callable[..., Results]) -> None:
    found = derived()
    run = found.loaded.runs[0]
    ratio = found.speedup(run, "optmt@12.1", "random", "kernel_us")
    slow = found.measurement(run, "baseline@12.1", "random", "kernel_us")
    fast = found.measurement(run, "optmt@12.1", "random", "kernel_us")
    assert ratio is not None
    assert slow is not None
    assert fast is not None
    assert ratio.ratio.value == pytest.approx(slow.time.value / fast.time.value)
    assert ratio.ratio.low < 1 / 0.6 < ratio.ratio.high
    assert ratio.verdict == "faster"
    assert {name.split("-")[0] for name in ratio.records} == {"optmt", "baseline"}
    assert len(ratio.records) == 6


def test_pin_time_decides_the_winner(derived: Callable[..., Results]) -> None:
    found = derived()
    run = found.loaded.runs[0]
    counted, alone = found.winner(run, "random"), found.winner(run, "random", "kernel_us")
    assert counted is not None
    assert alone is not None
    assert counted.best.arm == "rpf_optmt@12.1"
    assert alone.best.arm == "combined@12.1"


def test_a_launch_for_all_tables_is_held_against_others_by_the_stage(derived: Callable[..., Results]) -> None:
    """Per table its kernel is 1 % slower here; the stage, which holds the others' gaps, is as fast."""

    def fused(cell: Cell) -> CellRecord:
        return synthetic.single_launch(cell) if cell.design == "optmt" else synthetic.record(cell)

    mixed, alike, prepares = derived(fused), derived(name="alike"), ["total_us", "kernel_us"]
    run = mixed.loaded.runs[0]
    assert mixed.headline(run) == "stage_us"
    assert mixed.compared(run) == ["stage_us", *prepares]
    won = mixed.winner(run, "random")
    assert won is not None
    assert won.metric == "stage_us"
    assert won.best.time.value > 12 * 100
    assert alike.headline(alike.loaded.runs[0]) == "total_us"
    assert alike.compared(alike.loaded.runs[0]) == prepares
    assert summary.summary(mixed.loaded, mixed)["runs"][0]["headline"] == "stage_us"
    for metric, factor in (("kernel_us", 1.01), ("total_us", 1.01), ("stage_us", 1.0)):
        before, after = (
            found.measurement(found.loaded.runs[0], "optmt@12.1", "random", metric)
            for found in (alike, mixed)
        )
        assert before is not None
        assert after is not None
        assert after.time.value == pytest.approx(before.time.value * factor, rel=1e-3)


def test_arms_that_cannot_be_told_apart_tie(derived: Callable[..., Results]) -> None:
    def equal(cell: Cell) -> CellRecord:
        twin = dataclasses.replace(cell, design="optmt")
        return dataclasses.replace(synthetic.record(twin), cell=cell)

    found = derived(equal, synthetic.experiment(arms=(Arm("baseline", "12.1"), Arm("optmt", "12.1"))))
    won = found.winner(found.loaded.runs[0], "random")
    assert won is not None
    assert won.ties


def test_failed_reference_leaves_times_without_speedups(derived: Callable[..., Results]) -> None:
    found = derived(
        lambda cell: synthetic.failed(cell) if cell.design == "baseline" else synthetic.record(cell)
    )
    run = found.loaded.runs[0]
    assert not found.speedups
    assert found.measurement(run, "optmt@12.1", "random", "total_us") is not None
    won = found.winner(run, "random")
    assert won is not None
    assert won.speedup is None


def test_cpu_has_no_winner(derived: Callable[..., Results]) -> None:
    found = derived(
        synthetic.cpu_record, synthetic.experiment(workload=synthetic.CPU, timing=synthetic.QUICK)
    )
    assert found.winner(found.loaded.runs[0], "random") is None
    assert "not a GPU result" in findings(found)["CPU"].detail


def test_clean_run_is_good(derived: Callable[..., Results]) -> None:
    assert trust.verdict(trust.examine(derived())) == "good"


def test_what_smaller_rows_cost_stands_beside_their_speed(derived: Callable[..., Results]) -> None:
    def smaller(cell: Cell) -> CellRecord:
        made = synthetic.record(cell)
        error = {"quantisation_error": 0.0033, "quantisation_error_max": 0.0035}
        return dataclasses.replace(made, facts=made.facts | error)

    work = Workload(dtype="int8")
    found = derived(smaller, synthetic.experiment(workload=work), "int8")
    assert findings(found)["rows"].detail.startswith("int8 tables are off the float32 ones by 0.0033 of")
    assert set(found.loaded.cells["quantisation_error"]) == {0.0033}
    assert trust.verdict(trust.examine(found)) == "good"
    assert "rows" not in findings(derived(name="float32"))


@pytest.mark.parametrize(
    ("recorded", "said"), [({}, "0.3"), ({"values_within": 0.3}, "0.3"), ({"values_within": 2.0}, "2")]
)
def test_the_values_of_tables_are_said_as_they_are_recorded(
    derived: Callable[..., Results], recorded: dict[str, float], said: str
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


def test_a_run_of_older_sources_says_so(derived: Callable[..., Results]) -> None:
    found = findings(derived(of_other_sources))["sources"]
    assert found.detail == "of older sources: combined, optmt have changed since"
    assert {record.partition("-")[0] for record in found.records} == {"combined", "optmt"}
    assert "sources" not in findings(derived(name="of today"))


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
        (lambda cell: scaled(cell, 1.0 + 0.2 * cell.replicate), "precision", "note"),
    ],
)
def test_what_makes_a_run_less_trustworthy(
    derived: Callable[..., Results], make: Make, what: str, level: str
) -> None:
    found = derived(make)
    assert findings(found)[what].level == level
    assert trust.verdict(trust.examine(found)) != "good"


def test_images_may_differ_between_designs_only(derived: Callable[..., Results]) -> None:
    assert not trust.differences(derived().loaded.runs[0])
    different = derived(environment(image="another"), name="second").loaded.runs[0]
    assert {d.field for d in trust.differences(different)} == {
        f"image of {arm.label}" for arm in synthetic.experiment().arms
    }


def test_claims_stand_beside_the_largest_ratio(derived: Callable[..., Results]) -> None:
    found = derived()
    run = found.loaded.runs[0]
    by_id = {claim.id: claim for claim in claims.read().claims}
    ours = {line.metric: line for line in claims.beside(by_id["optmt"], found)}
    every = [found.speedup(run, "optmt@12.1", name, "kernel_us") for name in run.datasets]
    assert ours["kernel_us"].ratio.value == max(s.ratio.value for s in every if s)
    slowdown = claims.beside(by_id["locality"], found)[0]
    assert slowdown.ratio.value == pytest.approx(270 / 98, rel=0.02)
    assert claims.beside(by_id["end_to_end"], found) == []


def test_summary_is_json_and_complete(derived: Callable[..., Results]) -> None:
    found = derived(altered(status="failed", samples={}, message="broke"))
    made = summary.summary(found.loaded, found)
    again = json.loads(json.dumps(made, allow_nan=False))
    assert again["schema_version"] == document.SCHEMA_VERSION
    assert len(again["cells"]) == 75
    assert sum(cell["status"] == "failed" for cell in again["cells"]) == 3
    assert all((found.loaded.runs[0].folder / cell["record"]).is_file() for cell in again["cells"])
    assert again["runs"][0]["measured"] == 72
    known = {cell["id"] for cell in again["cells"]}
    assert all(set(s["records"]) <= known and s["records"] for s in again["speedups"] + again["times"])


def test_the_work_grows_in_step_with_the_cells(derived: Callable[..., Results]) -> None:
    def needed(datasets: int) -> int:
        names = tuple(f"trace{n}" for n in range(datasets))
        what = synthetic.experiment(datasets=names, timing=synthetic.QUICK)
        found = derived(what=what, name=f"run{datasets}")
        return effort.calls(lambda: results.derive(found.loaded))

    few, many = needed(5), needed(20)
    assert few < many < 4.2 * few
    assert many < 1_000 * 300, "calls for each of 300 cells"
