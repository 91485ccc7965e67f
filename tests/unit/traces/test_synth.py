"""Synthetic traces against what is known of the published ones, and what they promise for any size."""

from __future__ import annotations

import functools
import hashlib
import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness import experiment
from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.traces import synth
from harness.traces.formats import read_trace
from harness.traces.stats import describe
from tests import effort

DATA = Path(__file__).parents[2] / "data"
PUBLISHED: dict[str, Any] = tomllib.loads((DATA / "published_locality.toml").read_text(encoding="utf-8"))
TOLERANCE = PUBLISHED["tolerance"]
ROWS = PUBLISHED["rows"]


@functools.cache
def made(name: str, seed: int = 1) -> npt.NDArray[np.int64]:
    """One period of a dataset."""
    return synth.synthesize(name, ROWS, synth.period_length(name, ROWS), seed)


def misfits(trace: npt.NDArray[np.int64], facts: dict[str, Any]) -> list[str]:
    """Every published figure that the trace misses by more than its tolerance."""
    found = describe(trace, PUBLISHED["pooling"])
    sizes = np.sort(np.bincount(trace))[::-1].cumsum() / len(trace)
    hit_rate = dict(found.hit_rate)
    median = found.median_stack_distance or 0.0
    batch = len(np.unique(trace[:307_200]))
    offs: dict[str, float] = {
        "distinct_rows": abs(found.distinct_rows / facts["distinct_rows"] - 1)
        / TOLERANCE["distinct_rows_relative"],
        "bag_repeats": abs(found.bag_repeats - facts["bag_repeats"]) / TOLERANCE["bag_repeats"],
        "median_stack_distance": abs(np.log(max(median, 1) / facts["median_stack_distance"]))
        / np.log(TOLERANCE["median_stack_distance_factor"]),
        "distinct_rows_of_a_batch": abs(batch / facts["distinct_rows_of_a_batch"] - 1)
        / TOLERANCE["distinct_rows_of_a_batch_relative"],
    }
    for size, share in facts["coverage"].items():
        offs[f"coverage of {size}"] = abs(sizes[int(size) - 1] - share) / TOLERANCE["coverage"]
    for size, rate in facts["hit_rate"].items():
        offs[f"hit rate at {size}"] = abs(hit_rate[int(size)] - rate) / TOLERANCE["hit_rate"]
    return [f"{name}: {off:.2f} of the tolerance" for name, off in offs.items() if off > 1]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["medium", "low"])
def test_locality_is_the_published_one(name: str, seed: int) -> None:
    assert len(made(name, seed)) == PUBLISHED[name]["accesses"]
    assert misfits(made(name, seed), PUBLISHED[name]) == []


@pytest.mark.parametrize("name", ["medium", "low"])
def test_without_order_the_comparison_fails(name: str) -> None:
    """Popularity alone is not enough, and the comparison notices."""
    shuffled = np.random.default_rng(0).permutation(made(name))
    missed = " ".join(misfits(shuffled, PUBLISHED[name]))
    assert "hit rate at 1000" in missed
    assert "median_stack_distance" in missed
    assert "coverage" not in missed


def test_published_trace_itself() -> None:
    """The figures in tests/data are those of the file, where HARNESS_PUBLISHED_TRACES names its folder."""
    folder = os.environ.get("HARNESS_PUBLISHED_TRACES", "")
    if not folder:
        pytest.skip("HARNESS_PUBLISHED_TRACES does not name a folder with medium_500K.txt")
    real = read_trace(Path(folder) / "medium_500K.txt", ROWS)
    assert len(real) == PUBLISHED["medium"]["accesses"]
    assert misfits(real, PUBLISHED["medium"]) == []
    theirs, ours = describe(real, PUBLISHED["pooling"]), describe(made("medium"), PUBLISHED["pooling"])
    rates = dict(ours.hit_rate)
    worst = max(abs(rate - rates[size]) for size, rate in theirs.hit_rate)
    assert worst < TOLERANCE["hit_rate"]


@pytest.mark.parametrize("name", ["high", "medium", "low", "random"])
def test_the_share_of_distinct_rows_is_the_published_one(name: str) -> None:
    trace = synth.synthesize(name, ROWS, synth.period_length(name, ROWS), 3)
    assert len(np.unique(trace)) / ROWS == pytest.approx(PUBLISHED["distinct_share"][name], abs=0.002)


def test_one_item_is_one_row() -> None:
    trace = synth.synthesize("one_item", ROWS, 1000, 1)
    assert len(np.unique(trace)) / ROWS == PUBLISHED["distinct_share"]["one_item"]


# Of the contents for seed 1, 1,000 rows and 3,000 accesses; another machine or NumPy must give these too.
GOLDEN = {
    "one_item": "ebf673a930b53e57",
    "high": "4bdecd52577b2ba0",
    "medium": "d3e438d059b45b08",
    "low": "0cec21e82765b152",
    "random": "de2cb1c541d4e90e",
    "skewed": "269521033ea7153a",
}


@pytest.mark.parametrize("name", synth.NAMES)
def test_every_machine_makes_the_same(name: str) -> None:
    trace = synth.synthesize(name, 1000, 3000, 1)
    assert hashlib.sha256(trace.astype("<i8").tobytes()).hexdigest()[:16] == GOLDEN[name]


@pytest.mark.parametrize("name", synth.MODELS)
def test_rounding_is_far_from_a_tie(name: str) -> None:
    """Libraries differ in the last bits, about 1e-10 here; no rounding may hang on them."""
    model = synth.MODELS[name]
    for values in (synth._shares(model, model.distinct), synth._gap_quantiles(model)):
        assert np.abs(values - np.floor(values) - 0.5).min() > 1e-7


@pytest.mark.parametrize("name", synth.NAMES)
def test_seed_and_length(name: str) -> None:
    trace = synth.synthesize(name, 2000, 5000, 1)
    assert trace.dtype == np.int64
    assert trace.shape == (5000,)
    assert trace.min() >= 0
    assert trace.max() < 2000
    assert (synth.synthesize(name, 2000, 777, 1) == trace[:777]).all()
    assert (synth.synthesize(name, 2000, 5000, 2) != trace).any()


@pytest.mark.parametrize("name", synth.MODELS)
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100, 12_345])
def test_the_share_of_distinct_rows_holds_for_any_table(name: str, rows: int) -> None:
    period = synth.period_length(name, rows)
    trace = synth.synthesize(name, rows, period, 5)
    assert len(np.unique(trace)) == min(synth.distinct_rows(name, rows), period)


@pytest.mark.parametrize("name", synth.MODELS)
def test_a_longer_trace_goes_on_with_the_same_popularity(name: str) -> None:
    period = synth.period_length(name, 10_000)
    first, second = synth.synthesize(name, 10_000, 2 * period, 1).reshape(2, period)
    assert (np.bincount(first, minlength=10_000) == np.bincount(second, minlength=10_000)).all()
    assert (first != second).any()


def test_skewed_traffic_meets_the_first_rows_as_often_as_it_says() -> None:
    trace = synth.synthesize("skewed", 3_000_000, 200_000, 1)
    for rows in (1, 1000, 1_000_000):
        assert (trace < rows).mean() == pytest.approx((rows / 3_000_000) ** 0.125, abs=0.005)


def test_a_law_as_steep_as_a_model_may_ask_for_is_drawn_as_it_says() -> None:
    assert TableGroup(100, 4, zipf_s=28, zipf_q=9e9).problem() == ""
    seen = np.bincount(synth.zipf(100, 200_000, 3, s=28, q=9e9), minlength=100)
    assert seen == pytest.approx(2000, rel=0.15)  # all rows alike


@pytest.mark.parametrize(("s", "q"), [(1.0, 0.0), (0.7, 3.0), (1.5, 10.0)])
def test_zipfs_law_and_the_hottest_rows(s: float, q: float) -> None:
    trace = synth.zipf(5000, 400_000, 3, s=s, q=q, hottest=(0.25, 0.05))
    seen = np.bincount(trace, minlength=5000) / len(trace)
    law = (np.arange(3, 5001) + q) ** -s
    assert seen[:2] == pytest.approx([0.25, 0.05], abs=0.003)
    assert seen[2:12] == pytest.approx(0.7 * law[:10] / law.sum(), abs=0.003)
    assert trace.max() < 5000


def test_zipfs_law_goes_on_beyond_the_rows_that_are_summed_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = synth.zipf(5000, 400_000, 3, s=1.0, q=5.0)
    monkeypatch.setattr(synth, "_EXACT", 100)
    for part in (whole, synth.zipf(5000, 400_000, 3, s=1.0, q=5.0)):
        law = (np.arange(1, 5001) + 5.0) ** -1
        for rows in (50, 100, 200, 3000):
            assert (part < rows).mean() == pytest.approx(law[:rows].sum() / law.sum(), abs=0.004)


def test_mixed_tables() -> None:
    assert [synth.dataset_of_table("mixed", table) for table in range(5)] == [*synth.MIXED, synth.MIXED[0]]
    assert synth.dataset_of_table("low", 3) == "low"
    assert set(synth.MIXED) <= set(synth.NAMES)


def test_ten_million_accesses_take_no_loop_over_them_and_little_memory() -> None:
    def made() -> object:
        return synth.synthesize("low", ROWS, 10_000_000, 1)

    assert effort.calls(made) < 10_000
    assert effort.peak_bytes(made) < 20 * 10_000_000


@pytest.mark.parametrize(
    ("name", "rows", "accesses", "seed", "said"),
    [
        ("hot", 10, 10, 1, "no synthetic trace 'hot'; known: one_item, high"),
        ("low", 0, 10, 1, "rows 0"),
        ("low", 2**28 + 1, 10, 1, "rows 268435457"),
        ("low", 10, 0, 1, "accesses 0"),
        ("low", 10, 10, -1, "seed -1"),
    ],
)
def test_refuses(name: str, rows: int, accesses: int, seed: int, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        synth.synthesize(name, rows, accesses, seed)


def test_experiments_know_how_many_rows_there_may_be() -> None:
    assert experiment.MOST_SYNTHETIC_ROWS == synth.MOST_ROWS
