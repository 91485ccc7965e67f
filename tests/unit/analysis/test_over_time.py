"""An experiment over time: what is joined, what is called a change, and what is left out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from harness.analysis import compare, frame, over_time, timeline
from harness.analysis.analyse import analyse
from harness.analysis.timeline import History
from harness.errors import BadInputError
from harness.records import Cell, CellRecord, Timing, Variant, Workload
from tests import synthetic_history as days
from tests import synthetic_run as synthetic

OPTMT = Variant("optmt", "12.1")


def found(*runs: Path, threshold: float = compare.THRESHOLD, metric: str = "") -> History:
    folders = {run.name: run for run in runs}
    return over_time.find(folders, "nightly", threshold=threshold, metric=metric)


def test_a_step_is_told_of_with_its_runs_and_what_differs(tmp_path: Path) -> None:
    runs = [days.write(tmp_path, day, {"optmt": 1.08} if day > 2 else None) for day in (1, 2, 3, 4)]
    made = found(*reversed(runs))
    (setting,) = made.settings
    assert [one.run for one in setting.moments] == ["day-1", "day-2", "day-3", "day-4"], "by time, not name"
    assert [one.commit for one in setting.moments] == [letter * 12 for letter in "abcd"]
    assert {(one.variant, one.dataset) for one in setting.changes} == {(OPTMT, "medium"), (OPTMT, "random")}
    for change in setting.changes:
        assert (change.before, change.after, change.verdict) == ("day-2", "day-3", "faster")
        assert change.speed.low <= 1.08 <= change.speed.high
        assert change.speed.value == pytest.approx(1.08, abs=0.01)
        assert [one.what for one in change.differences] == ["commit"]
    assert made.left_out == []


def test_points_are_the_figures_of_the_report(tmp_path: Path) -> None:
    runs = [days.write(tmp_path, day) for day in (1, 2)]
    made = found(*runs).settings[0]
    report = analyse(runs)
    for point in made.points:
        figure = report.run(point.run).figure(point.variant, point.dataset, made.metric)
        assert point.time == figure
    first = [point for point in made.points if point.run == "day-1"]
    assert {point.since_first.value for point in first} == {1.0}


def test_a_step_is_what_compare_calls_one(tmp_path: Path) -> None:
    runs = [days.write(tmp_path, 1), days.write(tmp_path, 2, {"optmt": 1.012, "baseline": 0.985})]
    (setting,) = found(*runs).settings
    loaded = frame.load(runs)
    outcome = compare.compare(
        compare.pairs(loaded[0], loaded[1], None, None), metrics=[setting.metric], allow_different=True
    )
    told = {(one.b, one.dataset, one.verdict) for one in outcome.comparisons}
    assert {(one.variant, one.dataset, one.verdict) for one in setting.changes} == {
        place for place in told if place[2] in ("faster", "slower")
    }
    assert setting.changes


def test_what_creeps_is_told_of_from_first_to_last(tmp_path: Path) -> None:
    runs = [days.write(tmp_path, day, {"optmt": 0.994 ** (day - 1)}) for day in (1, 2, 3, 4, 5)]
    (setting,) = found(*runs).settings
    assert {(one.variant, one.before, one.after) for one in setting.changes} == {(OPTMT, "day-1", "day-5")}
    assert all(one.creeping and one.verdict == "slower" for one in setting.changes)


def test_levels_are_raised_for_all_that_an_added_run_is_held_against(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [days.write(tmp_path, day) for day in (1, 2, 3)]
    contest, told = compare.contest, list[int]()

    def counted(before: Any, after: Any, comparisons: int, threshold: float) -> Any:
        told.append(comparisons)
        return contest(before, after, comparisons, threshold)

    monkeypatch.setattr(compare, "contest", counted)
    found(*runs)
    # Two designs on two datasets: the second day against the first, the third against both.
    assert sorted(told) == [4] * 4 + [8] * 8


def test_nothing_that_is_within_the_threshold(tmp_path: Path) -> None:
    runs = [days.write(tmp_path, 1), days.write(tmp_path, 2, {"optmt": 1.08})]
    assert found(*runs).settings[0].changes
    assert found(*runs, threshold=0.1).settings[0].changes == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"workload": Workload(batch=1024)}, "workload.batch"),
        ({"timing": Timing(cache="cold")}, "timing.cache"),
    ],
)
def test_other_work_and_protocols_are_not_joined(
    changes: dict[str, object], why: str, tmp_path: Path
) -> None:
    runs = [days.write(tmp_path, 1), days.write(tmp_path, 3)]
    other = days.experiment(**changes)
    runs.append(synthetic.write_run(tmp_path / "other", other, days.on_day(2, {"optmt": 2.0})))
    made = found(*runs)
    assert [[one.run for one in setting.moments] for setting in made.settings] == [
        ["day-1", "day-3"],
        ["other"],
    ]
    assert all(not setting.changes for setting in made.settings)
    assert why in [one.what for one in made.settings[1].apart]


def test_another_model_of_gpu_is_not_joined_another_board_and_driver_are(tmp_path: Path) -> None:
    runs = [
        days.write(tmp_path, 1),
        days.write(tmp_path, 2, gpu="ANOTHER"),
        days.write(tmp_path, 3, {"optmt": 1.08}, gpu_uuid="GPU-2", driver="590.00"),
    ]
    here, there = found(*runs).settings
    assert [one.run for one in here.moments] == ["day-1", "day-3"]
    assert [one.run for one in there.moments] == ["day-2"]
    assert [str(one) for one in there.apart] == ["GPU: SYNTHETIC GPU 80GB (no such thing) against ANOTHER"]
    assert {over_time.BOARD, over_time.DRIVER} <= {one.what for one in here.changes[0].differences}


def test_from_a_run_with_failed_cells_nothing_is_concluded(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord:
        record = days.on_day(2, {"optmt": 1.08})(cell)
        return synthetic.failed(cell) if cell.design == "optmt" and cell.replicate == 0 else record

    runs = [days.write(tmp_path, 1), synthetic.write_run(tmp_path / "day-2", days.experiment(), make)]
    (setting,) = found(*runs).settings
    assert setting.changes == []
    doubtful = [point for point in setting.points if point.doubt]
    assert {(point.run, point.variant) for point in doubtful} == {("day-2", OPTMT)}
    assert doubtful[0].doubt == "of 3 cells of this run: 1 failed"


def test_runs_that_have_no_place_are_named_with_the_reason(tmp_path: Path) -> None:
    good = days.write(tmp_path, 1)
    broken = days.write(tmp_path, 2)
    (broken / "plan.json").write_text("{", encoding="utf-8")
    nothing = synthetic.write_run(tmp_path / "nothing", days.experiment(), synthetic.failed)
    undated = synthetic.write_run(
        tmp_path / "undated",
        days.experiment(),
        lambda cell: dataclasses.replace(days.on_day(3)(cell), started_at=""),
    )
    unnamed = days.write(tmp_path, 4)
    (unnamed / "experiment.toml").write_text("name = [", encoding="utf-8")
    other = synthetic.write_run(tmp_path / "other", days.experiment(name="other"), days.on_day(5))
    made = found(good, broken, nothing, undated, unnamed, other)
    whys = {one.run: one.why for one in made.left_out}
    assert set(whys) == {"day-2", "nothing", "undated", "day-4"}
    assert "is not JSON" in whys["day-2"]
    assert whys["nothing"] == "Nothing of it was measured."
    assert "when it began" in whys["undated"]
    assert "is not TOML" in whys["day-4"]
    assert made.runs == 1


def test_what_was_never_measured_is_said(tmp_path: Path) -> None:
    run = days.write(tmp_path, 1)
    with pytest.raises(
        BadInputError, match=r"nightli: of this experiment nothing .* nightly. Did you mean 'nightly'"
    ):
        over_time.find({"one": run}, "nightli")
    with pytest.raises(BadInputError, match="none of its runs measured e2e_us"):
        found(run, metric="e2e_us")


def test_as_json_names_variants_by_their_labels(tmp_path: Path) -> None:
    runs = [days.write(tmp_path, 1), days.write(tmp_path, 2, {"optmt": 1.08})]
    told = timeline.as_json(found(*runs))
    (setting,) = told["settings"]
    assert told["schema_version"] == timeline.SCHEMA_VERSION
    assert setting["variants"] == ["baseline@12.1", "optmt@12.1"]
    assert {point["variant"] for point in setting["points"]} == set(setting["variants"])
    assert {change["variant"] for change in setting["changes"]} == {"optmt@12.1"}
