"""Verdicts: their error rates by simulation, what is refused, what is never concluded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from harness.analysis import compare, frame, stats
from harness.analysis.compare import Outcome, Verdict
from harness.analysis.stats import Estimate, Series
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.records import Cell, CellRecord
from tests import synthetic_run as synthetic

Make = Callable[[Cell], CellRecord | None]
RUNS = 200


def processes(
    rng: np.random.Generator, time: float, *, between: float, within: float = 0.01, replicates: int = 3
) -> list[Series]:
    """Passes of fresh processes: each has an effect of its own, its passes follow an AR(1)."""
    noise = rng.normal(0, 0.6 * within, (replicates, 40))
    for n in range(1, noise.shape[1]):
        noise[:, n] += 0.8 * noise[:, n - 1]
    return list(time * np.exp(noise + rng.normal(0, between, (replicates, 1))))


def verdicts(
    difference: float, *, between: float, within: float = 0.01, datasets: int = 3, corrected: bool = True
) -> list[list[Verdict]]:
    """Of many runs the verdict on each dataset, where B truly takes `difference` longer than A."""
    rng = np.random.default_rng(17)
    found = []
    for number in range(RUNS):
        run = []
        for dataset in range(datasets):
            a, b = (
                stats.sample(
                    processes(rng, time, between=between, within=within), f"{number}/{dataset}/{name}"
                )
                for name, time in (("a", 100.0), ("b", 100.0 * (1 + difference)))
            )
            run.append(compare.contest(a, b, datasets if corrected else 1, compare.THRESHOLD)[2])
        found.append(run)
    return found


def share(found: list[list[Verdict]], *wanted: Verdict) -> float:
    """Of runs with one of these verdicts on any dataset."""
    return sum(any(v in wanted for v in run) for run in found) / len(found)


@pytest.mark.parametrize("between", [0.003, 0.03])
def test_no_difference_is_seldom_called_one(between: float) -> None:
    # With 3 %, most estimates lie beyond the threshold: the corrected interval alone has to hold.
    # 200 runs know a rate of 5 % to about ±3 points.
    assert share(verdicts(0.0, between=between), "faster", "slower") <= 0.08


def test_without_the_correction_more_datasets_cry_wolf_more_often() -> None:
    """What it is for; and that the test above can fail."""
    assert share(verdicts(0.0, between=0.03, datasets=8, corrected=False), "faster", "slower") > 0.09


def test_a_difference_of_the_threshold_is_seldom_called_none() -> None:
    alone = verdicts(0.01, between=0.004, datasets=1)
    assert share(alone, "same") <= 0.05
    assert share(alone, "faster") == 0


def test_differences_that_matter_are_found() -> None:
    assert share(verdicts(0.05, between=0.003, datasets=1), "slower") >= 0.95
    assert share(verdicts(-0.05, between=0.003, datasets=1), "faster") >= 0.95


def test_processes_as_alike_as_a_gpus_tell_two_percent_and_sameness() -> None:
    """Process effects of 0.2 %, as the reference measurements show; judged on three datasets together."""
    found = verdicts(0.02, between=0.002, within=0.002)
    assert share([[v] for run in found for v in run], "slower") >= 0.95
    alike = verdicts(0.0, between=0.001, within=0.002)
    assert share([[v] for run in alike for v in run], "same") >= 0.95


@pytest.mark.parametrize(
    ("value", "low", "high", "corrected", "verdict"),
    [
        (1.020, 1.015, 1.025, (1.001, 1.040), "slower"),
        (1.020, 1.015, 1.025, (0.999, 1.040), "inconclusive"),  # not when asked several times
        (1.005, 1.002, 1.008, (1.001, 1.009), "same"),  # there, but too small to matter
        (1.009, 1.007, 1.011, (1.006, 1.012), "inconclusive"),
        (1.010, 1.008, 1.012, (1.007, 1.013), "slower"),
        (1.000, 0.995, 1.005, (0.980, 1.020), "same"),
        (1.000, 0.985, 1.015, (0.980, 1.020), "inconclusive"),
        (0.980, 0.975, 0.985, (0.970, 0.990), "faster"),
    ],
)
def test_rule(
    value: float, low: float, high: float, corrected: tuple[float, float], verdict: Verdict
) -> None:
    plain, wide = Estimate(value, low, high, 3), Estimate(value, *corrected, 3)
    assert compare.judge(plain, wide, 0.01) == verdict
    mirrored = {"slower": "faster", "faster": "slower"}.get(verdict, verdict)
    turned = [Estimate(1 / e.value, 1 / e.high, 1 / e.low, 3) for e in (plain, wide)]
    assert compare.judge(turned[0], turned[1], 0.01) == mirrored


def test_corrected_interval_is_wider_and_as_told_where_replicates_say_nothing() -> None:
    rng = np.random.default_rng(3)
    a, b = (stats.sample(processes(rng, 100.0, between=0.01), name) for name in "ab")
    plain, corrected, _ = compare.contest(a, b, 5, 0.01)
    assert corrected.low < plain.low < plain.value < plain.high < corrected.high
    assert compare.contest(a, b, 1, 0.01)[1] == plain
    alone = [stats.sample([processes(rng, 100.0, between=0.0, replicates=1)[0]], name) for name in "ab"]
    widths = [np.log(e.high / e.low) for e in compare.contest(alone[0], alone[1], 5, 0.01)[:2]]
    assert widths[1] / widths[0] == pytest.approx(2.5758 / 1.9600, rel=1e-3)  # 99 % against 95 %


# Runs


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., Outcome]:
    """What comes of comparing a quiet run with one whose records `make` writes."""

    def build(make: Make, what: Experiment | None = None, **options: object) -> Outcome:
        both = what or synthetic.experiment(datasets=("medium", "random"))
        synthetic.write_run(tmp_path / "old", both, quiet)
        synthetic.write_run(tmp_path / "new", both, make)
        runs = frame.load([tmp_path / "old", tmp_path / "new"])
        arms = {key: options.pop(key, None) for key in ("arm_a", "arm_b")}
        sides = compare.pairs(runs[0], runs[1], arms["arm_a"], arms["arm_b"])  # type: ignore[arg-type]
        return compare.compare(sides, metrics=["total_us"], **options)  # type: ignore[arg-type]

    return build


def quiet(
    cell: Cell, *, factor: float = 1.0, changed: Callable[[Cell], bool] = lambda cell: True
) -> CellRecord:
    """A record whose processes hardly differ, slower by a factor where `changed`."""
    record = synthetic.record(cell, passes=12)
    centre = float(np.median(record.samples["stage_us"]))
    aim = 1000.0 * (factor if changed(cell) else 1.0) * (1 + 0.0005 * cell.replicate)
    samples = {name: [v * aim / centre for v in values] for name, values in record.samples.items()}
    return dataclasses.replace(record, samples=samples)


def of(outcome: Outcome, arm: str, dataset: str) -> compare.Comparison:
    return next(c for c in outcome.comparisons if (c.b.label, c.dataset) == (arm, dataset))


def test_a_regression_on_one_dataset_is_named(judged: Callable[..., Outcome]) -> None:
    def make(cell: Cell) -> CellRecord:
        hit = (cell.design, cell.dataset.name) == ("combined", "random")
        return quiet(cell, factor=1.05 if hit else 1.0)

    found = judged(make)
    assert found.exit_code == 3
    assert [(c.b.label, c.dataset) for c in found.comparisons if c.verdict == "slower"] == [
        ("combined@12.1", "random")
    ]
    slower = of(found, "combined@12.1", "random")
    assert slower.ratio is not None
    assert slower.ratio.value == pytest.approx(1.05, abs=0.005)
    assert found.level == pytest.approx(1 - 0.05 / 10)  # five arms on two datasets


def test_nothing_changed_passes_and_faster_passes(judged: Callable[..., Outcome]) -> None:
    found = judged(lambda cell: quiet(cell, factor=0.9 if cell.design == "optmt" else 1.0))
    assert found.exit_code == 0
    assert {c.verdict for c in found.comparisons if c.b.design != "optmt"} == {"same"}
    assert of(found, "optmt@12.1", "medium").verdict == "faster"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda r: synthetic.failed(r.cell, "oom"), "of 3 cells of B: 1 oom"),
        (lambda r: None, "of 3 cells of B: 1 pending"),
        (lambda r: dataclasses.replace(r, status="inconclusive"), "of 3 cells of B: 1 inconclusive"),
    ],
)
def test_a_cell_that_cannot_speak_is_never_passed_over(
    judged: Callable[..., Outcome], spoil: Callable[[CellRecord], CellRecord | None], reason: str
) -> None:
    def make(cell: Cell) -> CellRecord | None:
        record = quiet(cell)
        hit = (cell.design, cell.dataset.name, cell.replicate) == ("optmt", "medium", 1)
        return spoil(record) if hit else record

    found = judged(make)
    assert found.exit_code == 4
    assert of(found, "optmt@12.1", "medium").reason == reason
    assert of(found, "optmt@12.1", "random").verdict == "same"


def test_one_process_concludes_nothing(judged: Callable[..., Outcome]) -> None:
    found = judged(
        lambda cell: quiet(cell, factor=2.0), synthetic.experiment(replicates=1, datasets=("medium",))
    )
    assert {c.verdict for c in found.comparisons} == {"inconclusive"}
    assert "one process" in found.comparisons[0].reason


def with_environment(**changes: Any) -> Make:
    def make(cell: Cell) -> CellRecord:
        record = quiet(cell)
        assert record.environment is not None
        return dataclasses.replace(record, environment=dataclasses.replace(record.environment, **changes))

    return make


def with_facts(**facts: float) -> Make:
    return lambda cell: dataclasses.replace(
        record := quiet(cell), facts=record.facts | facts if cell.dataset.name == "medium" else record.facts
    )


def with_cell(change: Callable[[Cell], Cell]) -> Make:
    return lambda cell: dataclasses.replace(quiet(cell), cell=change(cell))


REFUSED = {
    "GPU: ": with_environment(gpu="Another"),
    "GPU's UUID: ": with_environment(gpu_uuid="GPU-1"),
    "driver: 580.00 against 570.1": with_environment(driver="570.1"),
    "mig: no against yes": with_environment(mig=True),
    "workload.batch: 2048 against 64": with_cell(
        lambda c: dataclasses.replace(c, workload=dataclasses.replace(c.workload, batch=64))
    ),
    "timing.min_passes: 30 against 40": with_cell(
        lambda c: dataclasses.replace(c, timing=dataclasses.replace(c.timing, min_passes=40))
    ),
    "seed: 1 against 7": with_cell(lambda c: dataclasses.replace(c, seed=7)),
    "distinct_rows of trace of medium: ": with_facts(distinct_rows=4.0),
    "events' own time taken off: no against yes": lambda cell: dataclasses.replace(
        quiet(cell), ceilings={"event_overhead_us": 3.0}
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_must_be_equal_is_refused_and_said_when_allowed(
    judged: Callable[..., Outcome], tmp_path: Path, what: str
) -> None:
    with pytest.raises(BadInputError, match="--allow-different") as refusal:
        judged(REFUSED[what])
    assert what in str(refusal.value)
    for name in ("old", "new"):
        (tmp_path / name).rename(tmp_path / f"{name}-before")
    found = judged(REFUSED[what], allow_different=True)
    assert [str(d) for d in found.allowed if str(d).startswith(what)]


@pytest.mark.parametrize("cache", ["steady", "cold"])
def test_times_of_different_cache_protocols_are_never_compared(
    judged: Callable[..., Outcome], cache: Literal["steady", "cold"]
) -> None:
    other = with_cell(lambda c: dataclasses.replace(c, timing=dataclasses.replace(c.timing, cache=cache)))
    with pytest.raises(
        BadInputError, match=rf"timing\.cache: rotating against {cache}\. .*--set timing\.cache"
    ):
        judged(other, allow_different=True)


def test_differences_within_one_side_are_refused_too(judged: Callable[..., Outcome]) -> None:
    other = with_environment(gpu_uuid="GPU-1")
    with pytest.raises(BadInputError, match="GPU's UUID"):
        judged(lambda cell: other(cell) if cell.replicate == 2 else quiet(cell))


def test_only_what_is_compared_has_to_be_equal(judged: Callable[..., Outcome]) -> None:
    other = with_environment(driver="570.1")
    found = judged(
        lambda cell: other(cell) if cell.design == "optmt" else quiet(cell),
        arm_a="baseline@12.1",
        arm_b="combined@12.1",
    )
    assert not found.allowed


def test_what_changed_in_a_design_is_said(judged: Callable[..., Outcome]) -> None:
    def make(cell: Cell) -> CellRecord:
        record = quiet(cell)
        assert record.kernel is not None
        return dataclasses.replace(record, kernel=dataclasses.replace(record.kernel, source_hash="f00"))

    found = judged(make, arm_a="combined@12.1")
    assert not found.allowed
    assert any(str(d).startswith("source of combined@12.1: ") for d in found.differences)


@pytest.mark.parametrize(("build", "said"), [("b", True), ("a", False), (None, False)])
def test_another_build_of_a_library_is_said(tmp_path: Path, build: str | None, said: bool) -> None:
    """Where records tell of builds at all: older ones do not."""

    def make(own: str | None) -> Make:
        def made(cell: Cell) -> CellRecord:
            record = quiet(cell)
            assert record.kernel is not None
            libraries = {"fbgemm_gpu/fbgemm.so": own, "fbgemm_gpu/more.so": "c"} if own else {}
            return dataclasses.replace(record, kernel=dataclasses.replace(record.kernel, libraries=libraries))

        return made

    for name, own in (("old", "a"), ("new", build)):
        synthetic.write_run(tmp_path / name, synthetic.experiment(datasets=("medium",)), make(own))
    runs = frame.load([tmp_path / "old", tmp_path / "new"])
    found = compare.compare(compare.pairs(runs[0], runs[1], None, None), metrics=["total_us"])
    assert any(one.what == "build of optmt@12.1" for one in found.differences) == said
    assert not found.allowed


def test_traces_of_one_name_are_held_together_by_content(tmp_path: Path) -> None:
    what = synthetic.experiment(datasets=("mine.txt",))
    for name, rows in (("old", [1, 2, 3]), ("new", [3, 2, 1])):
        synthetic.write_run(tmp_path / name, what, quiet)
        (tmp_path / name / "traces").mkdir()
        np.save(tmp_path / name / "traces" / "mine.npy", np.array(rows))
    runs = frame.load([tmp_path / "old", tmp_path / "new"])
    with pytest.raises(BadInputError, match="file of trace of mine"):
        compare.compare(compare.pairs(runs[0], runs[1], None, None), metrics=["total_us"])


def test_one_run_stands_against_its_reference(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path / "run", synthetic.experiment(), quiet)
    run = frame.load_run(folder)
    sides = compare.pairs(run, run, None, None)
    assert {a.variant for a, _ in sides} == {run.reference}
    assert [b.variant for _, b in sides] == run.variants[1:]
    with pytest.raises(BadInputError, match="no two arms"):
        compare.pairs(run, run, "optmt@12.1", "optmt@12.1")
    arms = (run.reference,)
    alone = frame.load_run(synthetic.write_run(tmp_path / "alone", synthetic.experiment(arms=arms), quiet))
    with pytest.raises(BadInputError, match=r"only baseline@12\.1; name a second run"):
        compare.pairs(alone, alone, None, None)
    with pytest.raises(BadInputError, match=r"has no arm 'nope'; it has: baseline@12\.1"):
        compare.pairs(run, run, "nope", None)


def test_that_one_side_takes_all_tables_in_one_launch_is_said(tmp_path: Path) -> None:
    def fused(cell: Cell) -> CellRecord:
        return synthetic.single_launch(cell) if cell.design == "optmt" else quiet(cell)

    run = frame.load_run(synthetic.write_run(tmp_path / "run", synthetic.experiment(), fused))
    found = compare.compare(compare.pairs(run, run, None, "optmt@12.1"), metrics=["stage_us"])
    said = "a pass: a launch per table against one launch for all tables"
    assert said in [str(difference) for difference in found.differences]


def test_datasets_can_be_chosen_and_must_exist(judged: Callable[..., Outcome], tmp_path: Path) -> None:
    found = judged(quiet, datasets=["random"])
    assert {c.dataset for c in found.comparisons} == {"random"}
    for name in ("old", "new"):
        (tmp_path / name).rename(tmp_path / f"{name}-before")
    with pytest.raises(BadInputError, match="nope: is a dataset of neither run; they have: medium, random"):
        judged(quiet, datasets=["nope"])
