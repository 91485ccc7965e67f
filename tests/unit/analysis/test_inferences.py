"""Latencies, what an inference consists of, and what it costs to choose hot rows beforehand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from harness.analysis import claims, comparable, frame, results
from harness.analysis.analyse import analyse
from harness.analysis.comparable import Source
from harness.analysis.figure_sources import hot_rows, inference
from harness.analysis.figures import Figure, speedup
from harness.analysis.report import Run
from harness.analysis.results import Measured
from harness.records import Cell, CellRecord, Model, Variant
from tests import synthetic_run as synthetic

BASELINE, L2P, COMBINED = (Variant(name, "12.1") for name in ("baseline", "l2p_optmt", "combined"))
ORACLE = Variant("combined", "12.1", hot_rows="oracle")
ARMS = (BASELINE, L2P, COMBINED, ORACLE)
WHOLE = synthetic.experiment(arms=ARMS, datasets=("medium", "random"), model=Model())


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = synthetic.write_run(tmp_path_factory.mktemp("runs") / "whole", WHOLE)
    return results.measure(frame.load_run(folder))


@pytest.fixture(scope="module")
def run(measured: Measured) -> Run:
    return analyse([measured.run.folder]).runs[0]


def figure(run: Run, variant: Variant, dataset: str, name: str) -> Figure:
    found = run.figure(variant, dataset, name)
    assert found is not None
    return found


def test_percentiles_are_of_every_inference_of_every_process(run: Run, measured: Measured) -> None:
    assert sum(
        place.figure(f"{way}_inferences") is not None for place in run.places for way in inference.WAYS
    )
    records = measured.run.at(COMBINED, "random")
    times = [time for record in records for time in record.samples["e2e_us"]]
    told = {name: figure(run, COMBINED, "random", f"e2e_us_{name}") for name in ("inferences", "per_second")}
    assert told["inferences"].value == len(times) == 3 * 3 * 40
    for percent in inference.PERCENTILES:
        value = figure(run, COMBINED, "random", inference.percentile("e2e_us", percent)).value
        assert value == pytest.approx(np.percentile(times, percent))
    rate = told["per_second"].value
    assert rate == pytest.approx(1e6 / np.mean(times))
    samples = figure(run, COMBINED, "random", "e2e_us_samples_per_second").value
    assert samples == pytest.approx(rate * 2048)
    assert len(told["per_second"].records) == 3
    assert figure(run, COMBINED, "random", "e2e_graph_us_per_second").value > rate


def one_short_process(cell: Cell) -> CellRecord:
    """The first of three processes timed a tenth of what the others did, twice as long."""
    made = synthetic.record(cell)
    samples = {**made.samples, "e2e_us": [200.0] * 20 if cell.replicate == 0 else [100.0] * 200}
    return dataclasses.replace(made, samples=samples)


def test_each_process_counts_for_as_much_as_another(tmp_path: Path) -> None:
    run = analyse([synthetic.write_run(tmp_path / "run", WHOLE, one_short_process)]).runs[0]
    told = [figure(run, COMBINED, "medium", inference.percentile("e2e_us", p)).value for p in (50, 95)]
    assert told == [100, 200]
    rate = figure(run, COMBINED, "medium", "e2e_us_per_second").value
    assert rate == pytest.approx(1e6 / (400 / 3))


def one_short_record(cell: Cell) -> CellRecord:
    made = synthetic.record(cell)
    return dataclasses.replace(made, samples={**made.samples, "e2e_us": [100.0] * 60})


def test_a_percentile_that_too_few_could_show_is_not_told(tmp_path: Path) -> None:
    what = dataclasses.replace(WHOLE, replicates=1)
    run = analyse([synthetic.write_run(tmp_path / "run", what, one_short_record)]).runs[0]
    told = [run.figure(COMBINED, "medium", inference.percentile("e2e_us", p)) for p in (50, 95, 99)]
    assert [one and one.value for one in told] == [100.0, 100.0, None]


def test_an_inference_consists_of_its_parts(run: Run) -> None:
    parts = {name: figure(run, BASELINE, "medium", name).value for name in inference.PARTS}
    whole = {way: figure(run, BASELINE, "medium", way).value for way in inference.WAYS}
    assert parts["bottom_us"] == pytest.approx(20, rel=0.02)
    assert sum(parts.values()) == pytest.approx(whole["e2e_graph_us"], rel=0.02)
    assert whole["e2e_us"] > whole["e2e_graph_us"]


def test_whole_inferences_are_compared_and_stand_beside_the_claim(run: Run, measured: Measured) -> None:
    for way in inference.WAYS:
        found = figure(run, COMBINED, "random", speedup(way)).estimate
        assert 1 < found.low < found.value < figure(run, COMBINED, "random", speedup("stage_us")).value
        assert way in run.ratios
    claim = next(claim for claim in claims.read().claims if claim.id == "end_to_end")
    beside = claims.beside(claim, [measured])
    assert [(one.variant, one.metric) for one in beside] == [
        (variant, metric) for variant in (COMBINED, ORACLE) for metric in inference.WAYS
    ]


def test_passes_are_counted_without_the_inferences_of_each(run: Run) -> None:
    assert {cell.passes for cell in run.cells} == {40}
    assert all("e2e_us" in cell.times for cell in run.cells)


def test_held_out_and_oracle_are_held_against_each_other(run: Run) -> None:
    pinning = dict.fromkeys(place.variant for place in run.places if place.figure(hot_rows.ROWS))
    assert list(pinning) == [L2P, COMBINED, ORACLE]
    shares = [figure(run, variant, "random", hot_rows.SHARE).value for variant in (COMBINED, ORACLE)]
    assert shares == [0.3, 0.9]
    cost = figure(run, COMBINED, "random", hot_rows.COST).estimate
    assert 1 < cost.low < cost.value < 1.2
    of = [figure(run, variant, "random", speedup("total_us")).value for variant in (COMBINED, ORACLE)]
    assert of[0] < of[1]
    assert run.figure(L2P, "random", hot_rows.COST) is None
    assert run.figure(ORACLE, "random", hot_rows.COST) is None


def test_a_record_of_before_hot_rows_were_told_apart_is_in_no_pair(tmp_path: Path) -> None:
    def old(cell: Cell) -> CellRecord:
        made = synthetic.record(cell)
        return dataclasses.replace(made, facts={k: v for k, v in made.facts.items() if k != "pinned_share"})

    what = dataclasses.replace(WHOLE, arms=ARMS[:3], model=None)
    run = analyse([synthetic.write_run(tmp_path / "run", what, old)]).runs[0]
    names = {figure.name for place in run.places for figure in place.figures}
    assert not names & {hot_rows.ROWS, hot_rows.SHARE, hot_rows.COST}
    assert not any("e2e" in name for name in names)


def test_runs_from_before_hot_rows_were_told_apart_are_not_compared_with_later_ones(
    measured: Measured,
) -> None:
    record = measured.run.at(COMBINED, "random")[0]
    before = dataclasses.replace(
        record, facts={name: value for name, value in record.facts.items() if name != "pinned_share"}
    )
    now, then = (Source(one, Path()) for one in (record, before))
    (found,) = comparable.forbidding([then], [now])
    assert str(found) == "hot rows of combined@12.1: of the whole trace against held_out"
    oracle = measured.run.at(ORACLE, "random")[0]
    assert comparable.forbidding([now], [Source(oracle, Path())]) == []


def test_another_model_is_other_work_and_none_at_all_is_not(measured: Measured) -> None:
    record = measured.run.records[0]
    mine, other, none = (
        Source(dataclasses.replace(record, cell=dataclasses.replace(record.cell, model=model)), Path())
        for model in (Model(), Model(top=(1,)), None)
    )
    assert [found.what for found in comparable.forbidding([mine], [other])] == ["model"]
    assert comparable.forbidding([mine], [none]) == []


def test_an_oracle_is_compared_but_never_wins(run: Run, tmp_path: Path) -> None:
    won = run.winner("random", "total_us")
    assert won is not None
    assert won.variant == COMBINED
    times = [figure(run, variant, "random", "total_us").value for variant in (ORACLE, COMBINED)]
    assert times[0] < times[1]
    assert ORACLE not in won.ties
    only = dataclasses.replace(WHOLE, arms=ARMS[-1:], reference=ORACLE.label)
    alone = analyse([synthetic.write_run(tmp_path / "run", only)]).runs[0].winner("random", "total_us")
    assert alone is not None
    assert alone.variant == ORACLE
