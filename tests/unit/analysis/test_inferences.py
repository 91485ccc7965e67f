"""Latencies, what an inference consists of, and what it costs to choose hot rows beforehand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from harness.analysis import claims, comparable, frame, hot_rows, inference, results, summary
from harness.analysis.comparable import Source
from harness.analysis.results import Results
from harness.experiment import Arm
from harness.records import Cell, CellRecord, Model
from tests import synthetic_run as synthetic

ARMS = (
    Arm("baseline", "12.1"),
    Arm("l2p_optmt", "12.1"),
    Arm("combined", "12.1"),
    Arm("combined", "12.1", hot_rows="oracle"),
)
WHOLE = synthetic.experiment(arms=ARMS, datasets=("medium", "random"), model=Model())


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = synthetic.write_run(tmp_path_factory.mktemp("runs") / "whole", WHOLE)
    return results.derive(frame.load([folder]))


def test_percentiles_are_of_every_inference_of_every_process(derived: Results) -> None:
    found = {(one.arm, one.dataset, one.metric): one for one in inference.latencies(derived)}
    assert len(found) == 4 * 2 * 2
    eager = found["combined@12.1", "random", "e2e_us"]
    times = [
        time
        for record in derived.loaded.records
        if (record.cell.arm, record.cell.dataset.name) == ("combined@12.1", "random")
        for time in record.samples["e2e_us"]
    ]
    assert eager.inferences == len(times) == 3 * 3 * 40
    assert eager.percentiles == {f"p{p}": pytest.approx(np.percentile(times, p)) for p in (50, 95, 99)}
    assert eager.per_second == pytest.approx(1e6 / np.mean(times))
    assert eager.samples_per_second == pytest.approx(eager.per_second * 2048)
    assert len(eager.records) == 3
    assert found["combined@12.1", "random", "e2e_graph_us"].per_second > eager.per_second


def one_short_record(cell: Cell) -> CellRecord:
    made = synthetic.record(cell)
    return dataclasses.replace(made, samples={**made.samples, "e2e_us": [100.0] * 60})


def test_a_percentile_that_too_few_could_show_is_not_told(tmp_path: Path) -> None:
    what = dataclasses.replace(WHOLE, replicates=1)
    derived = results.derive(frame.load([synthetic.write_run(tmp_path / "run", what, one_short_record)]))
    eager = next(one for one in inference.latencies(derived) if one.metric == "e2e_us")
    assert eager.percentiles == {"p50": 100.0, "p95": 100.0, "p99": None}


def test_an_inference_is_split_into_its_parts_in_order(derived: Results) -> None:
    found = {(one.arm, one.dataset): one for one in inference.splits(derived)}
    split = found["baseline@12.1", "medium"]
    assert list(split.parts) == ["bottom_us", "stage_us", "interaction_us", "top_us"]
    assert split.parts["bottom_us"] == pytest.approx(20, rel=0.02)
    assert sum(split.parts.values()) == pytest.approx(split.whole["e2e_graph_us"], rel=0.02)
    assert split.whole["e2e_us"] > split.whole["e2e_graph_us"]


def test_whole_inferences_are_compared_and_stand_beside_the_claim(derived: Results) -> None:
    run = derived.loaded.runs[0]
    for metric in inference.WAYS:
        found = derived.speedup(run, "combined@12.1", "random", metric)
        stage = derived.speedup(run, "combined@12.1", "random", "stage_us")
        assert found is not None
        assert stage is not None
        assert 1 < found.ratio.low < found.ratio.value < stage.ratio.value
    claim = next(claim for claim in claims.read().claims if claim.id == "end_to_end")
    beside = claims.beside(claim, derived)
    assert [(one.arm, one.metric) for one in beside] == [
        (arm, metric) for arm in ("combined@12.1", "combined@12.1,oracle") for metric in inference.WAYS
    ]


def test_passes_are_counted_without_the_inferences_of_each(derived: Results) -> None:
    assert set(derived.loaded.cells["passes"]) == {40}
    assert derived.loaded.cells["e2e_us"].notna().all()


def test_held_out_and_oracle_are_held_against_each_other(derived: Results) -> None:
    found = {(pair.dataset, (pair.held_out or pair.oracle).arm): pair for pair in hot_rows.find(derived)}  # type: ignore[union-attr]
    assert list(found) == [
        ("medium", "l2p_optmt@12.1"),
        ("random", "l2p_optmt@12.1"),
        ("medium", "combined@12.1"),
        ("random", "combined@12.1"),
    ]
    pair = found["random", "combined@12.1"]
    assert pair.held_out is not None
    assert pair.oracle is not None
    assert pair.slower is not None
    assert (pair.held_out.share, pair.oracle.share) == (0.3, 0.9)
    assert (pair.held_out.arm, pair.oracle.arm) == ("combined@12.1", "combined@12.1,oracle")
    assert 1 < pair.slower.low < pair.slower.value < 1.2
    assert pair.oracle.speedups["total_us"].value > pair.held_out.speedups["total_us"].value
    alone = found["random", "l2p_optmt@12.1"]
    assert alone.oracle is None
    assert alone.slower is None


def test_a_record_of_before_hot_rows_were_told_apart_is_in_no_pair(tmp_path: Path) -> None:
    def old(cell: Cell) -> CellRecord:
        made = synthetic.record(cell)
        return dataclasses.replace(made, facts={k: v for k, v in made.facts.items() if k != "pinned_share"})

    folder = synthetic.write_run(tmp_path / "run", dataclasses.replace(WHOLE, arms=ARMS[:3], model=None), old)
    derived = results.derive(frame.load([folder]))
    assert hot_rows.find(derived) == []
    assert inference.latencies(derived) == []
    assert inference.splits(derived) == []


def test_the_summary_has_them(derived: Results) -> None:
    told = summary.summary(derived.loaded, derived)
    assert len(told["latencies"]) == 16
    assert len(told["splits"]) == 8
    assert {pair["dataset"] for pair in told["hot_rows"]} == {"medium", "random"}
    assert {one["metric"] for one in told["speedups"]} >= {"e2e_us", "e2e_graph_us"}


def test_runs_from_before_hot_rows_were_told_apart_are_not_compared_with_later_ones(derived: Results) -> None:
    record = next(r for r in derived.loaded.records if r.cell.arm == "combined@12.1")
    before = dataclasses.replace(
        record, facts={name: value for name, value in record.facts.items() if name != "pinned_share"}
    )
    now, then = (Source(one, Path()) for one in (record, before))
    (found,) = comparable.forbidding([then], [now])
    assert str(found) == "hot rows of combined@12.1: of the whole trace against held_out"
    oracle = next(r for r in derived.loaded.records if r.cell.arm == "combined@12.1,oracle")
    assert comparable.forbidding([now], [Source(oracle, Path())]) == []


def test_another_model_is_other_work_and_none_at_all_is_not(derived: Results) -> None:
    record = derived.loaded.records[0]
    mine, other, none = (
        Source(dataclasses.replace(record, cell=dataclasses.replace(record.cell, model=model)), Path())
        for model in (Model(), Model(top=(1,)), None)
    )
    assert [found.what for found in comparable.forbidding([mine], [other])] == ["model"]
    assert comparable.forbidding([mine], [none]) == []


def test_an_oracle_is_compared_but_never_wins(derived: Results, tmp_path: Path) -> None:
    run = derived.loaded.runs[0]
    fastest = derived.measurement(run, "combined@12.1,oracle", "random", "total_us")
    won = derived.winner(run, "random")
    assert fastest is not None
    assert won is not None
    assert won.best.arm == "combined@12.1"
    assert fastest.time.value < won.best.time.value
    assert "combined@12.1,oracle" not in won.ties
    only = dataclasses.replace(WHOLE, arms=ARMS[-1:], reference=ARMS[-1].label)
    alone = results.derive(frame.load([synthetic.write_run(tmp_path / "run", only)]))
    assert alone.loaded.runs[0].contenders == ["combined@12.1,oracle"]
