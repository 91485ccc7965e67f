"""The self-test finds verdicts that are wrong, and its own figures are right."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from harness.analysis import compare, frame, selftest, stats
from harness.analysis.frame import LoadedRun
from harness.errors import BadInputError
from harness.records import Cell, CellRecord, Variant
from tests import synthetic_run as synthetic

BASELINE = Variant("baseline", "12.1")


def run_of(tmp_path: Path, make: Callable[[Cell], CellRecord | None], processes: int = 12) -> LoadedRun:
    what = synthetic.experiment(arms=(BASELINE,), replicates=processes, datasets=("medium", "random"))
    return frame.load_run(synthetic.write_run(tmp_path / "run", what, make))


def scaled(record: CellRecord, factor: float) -> CellRecord:
    samples = {name: [v * factor for v in values] for name, values in record.samples.items()}
    return dataclasses.replace(record, samples=samples)


def rate(tested: selftest.SelfTest, dataset: str, order: str, injected: float) -> selftest.Rate:
    return next(r for r in tested.rates if (r.dataset, r.order, r.injected) == (dataset, order, injected))


def test_quiet_processes_keep_what_is_promised(tmp_path: Path) -> None:
    tested = selftest.examine(run_of(tmp_path, synthetic.record), BASELINE, splits=60)
    assert selftest.exit_code([tested]) == 0
    assert rate(tested, selftest.ANY, "shuffled", 0.0).rate <= 0.05
    assert rate(tested, "medium", "shuffled", 0.05).rate >= 0.95
    assert (tested.processes, tested.left_out, tested.disjoint) == (12, 0, 2)
    assert {sum(r.verdicts.values()) for r in tested.rates if r.order == "shuffled"} == {60}
    json.dumps(selftest.as_json([tested]), allow_nan=False)


def test_drift_is_seen_between_consecutive_processes_alone(tmp_path: Path) -> None:
    """A machine that slows down by 2 % after the sixth process: two runs, one after the other, differ."""

    def make(cell: Cell) -> CellRecord:
        return scaled(synthetic.record(cell), 1.02 if cell.replicate >= 6 else 1.0)

    tested = selftest.examine(run_of(tmp_path, make), BASELINE, splits=60)
    # Of shuffled splits too, one in 23 has all slow processes on one side.
    drift, chance = (rate(tested, selftest.ANY, order, 0.0).rate for order in ("consecutive", "shuffled"))
    assert drift > 0.1
    assert chance < drift / 2
    assert min(tested.lag_1.values()) > 0.5
    assert selftest.exit_code([tested]) == 3


def test_noise_that_hides_slowdowns_is_told(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord:
        return scaled(synthetic.record(cell), 1 + 0.1 * ((cell.replicate * 7) % 5))

    tested = selftest.examine(run_of(tmp_path, make), BASELINE, splits=60)
    assert tested.misses
    assert selftest.exit_code([tested]) in (3, 4)


def test_statistics_without_processes_would_be_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The self-test's purpose: an interval that takes all passes for independent cries wolf."""
    honest = stats.sample

    def pooled(replicates: list[stats.Series], key: str, seed: int = 0, **_: object) -> stats.Sampled:
        return honest([np.random.default_rng(1).permutation(np.concatenate(replicates))], key, seed)

    def false(run: LoadedRun) -> float:
        tested = selftest.examine(run, BASELINE, splits=60)
        return rate(tested, "medium", "shuffled", 0.0).rate

    effects = np.random.default_rng(4).normal(0, 0.03, 24)
    run = run_of(tmp_path, lambda c: scaled(synthetic.record(c), 1 + effects[c.replicate]), processes=24)
    assert false(run) < 0.1
    monkeypatch.setattr(stats, "sample", pooled)
    assert false(run) > 0.3


def test_injection_is_that_of_longer_samples() -> None:
    rng = np.random.default_rng(1)
    replicates = [np.exp(rng.normal(3, 0.01, 40)) for _ in range(3)]
    injected = selftest.slowed(stats.sample(replicates, "key"), 0.02)
    literal = stats.sample([passes * 1.02 for passes in replicates], "key")
    assert injected.log_time == pytest.approx(literal.log_time)
    assert injected.medians == pytest.approx(literal.medians)
    assert injected.levels == pytest.approx(literal.levels)
    assert injected.within == pytest.approx(literal.within)
    assert injected.between == pytest.approx(literal.between)
    assert injected.within_variance == pytest.approx(literal.within_variance)


def test_no_process_is_on_both_sides() -> None:
    for split in [*selftest._shuffled(12, 3, 200), *selftest._consecutive(12, 3, 500)]:
        assert len({*split[0], *split[1]}) == 6
    assert all(max(a) < min(b) for a, b in selftest._consecutive(12, 3, 500))
    assert len(selftest._consecutive(36, 3, 100)) == 100


def test_processes_with_a_failed_cell_are_left_out_and_counted(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord:
        bad = (cell.replicate, cell.dataset.name) in ((3, "medium"), (7, "random"))
        return synthetic.failed(cell) if bad else synthetic.record(cell)

    tested = selftest.examine(run_of(tmp_path, make), BASELINE, splits=5)
    assert (tested.processes, tested.left_out) == (10, 2)


def test_too_few_processes_are_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path, synthetic.record, processes=5)
    with pytest.raises(BadInputError, match=r"5 processes of baseline@12\.1 .* two sides of 3 need 6"):
        selftest.examine(run, BASELINE)


@pytest.mark.parametrize(("hits", "trials"), [(0, 20), (3, 20), (20, 20), (1, 1)])
def test_binomial_interval_is_the_exact_one(hits: int, trials: int) -> None:
    exact = binomtest(hits, trials).proportion_ci(0.95, method="exact")
    assert selftest.binomial(hits, trials) == pytest.approx((exact.low, exact.high))


def test_threshold_is_that_of_compare() -> None:
    a, b = (stats.sample([np.full(20, time)] * 3, name) for name, time in (("a", 100.0), ("b", 104.0)))
    assert compare.contest(a, b, 1, 0.03)[2] == "slower"
    assert compare.contest(a, b, 1, 0.05)[2] == "same"
