"""Groups of tables: bags, places, and what of them does not fit together."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest

from harness import groups
from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.records import Cell, Dataset, Timing, Workload, load, to_json
from harness.workload import summary

WIDE, NARROW = TableGroup(1000, 128, pooling=3), TableGroup(10, 4, count=2, coverage=0.5)


def of(*tables: TableGroup, **more: Any) -> Workload:
    return Workload(**{**summary(tables), "groups": tables, "batch": 8, **more})


def test_normal_bags_are_cut_off_and_otherwise_as_their_distribution() -> None:
    group = TableGroup(10, 4, pooling=50, bags="normal", deviation=10.0, longest=60, coverage=0.25)
    lengths = group.lengths(4000)
    full = [length for length in lengths if length]
    assert len(lengths) == 4000
    assert len(full) == 1000
    assert (min(full) >= 1, max(full)) == (True, 60)
    # A normal distribution that is cut off at one deviation above its mean has its mean 0.288 below.
    assert statistics.fmean(full) == pytest.approx(50 - 2.88, abs=0.3)
    assert group.lookups(4000) == sum(lengths)


def test_one_sided_bags_hold_a_row_at_least() -> None:
    lengths = TableGroup(10, 4, pooling=10, bags="normal", deviation=20.0).lengths(1000)
    assert lengths[0] == 1
    assert lengths[-1] > 60
    assert list(lengths) == sorted(lengths)


@pytest.mark.parametrize("batch", [1, 2, 7, 100])
def test_ragged_bags_hold_the_mean_exactly(batch: int) -> None:
    lengths = TableGroup(10, 4, pooling=5, bags="ragged").lengths(batch)
    assert (len(lengths), sum(lengths)) == (batch, 5 * batch)


def test_rare_features_are_looked_up_all_the_same() -> None:
    assert TableGroup(10, 4, coverage=0.01).lengths(3) == (0, 0, 1)


@pytest.mark.parametrize("text", ["", "0", "0-2,5", "3,5-6,9"])
def test_places_as_text(text: str) -> None:
    assert groups.places(groups.numbers(text)) == text


def test_features_stand_where_their_places_say_and_share_tables() -> None:
    tables = (
        TableGroup(9, 4, count=2, features=2, places="1-2,4-5"),
        TableGroup(7, 8, count=2, places="0,3"),
    )
    found = groups.features(tables)
    assert [feature.group.rows for feature in found] == [7, 9, 9, 7, 9, 9]
    assert [feature.table for feature in found] == [0, 1, 1, 2, 3, 3]
    work = of(*tables)
    assert (work.tables, work.stored_tables, work.columns) == (6, 4, 4 * 4 + 2 * 8)
    assert work.table_bytes == 4 * (2 * 9 * 4 + 2 * 7 * 8)


def test_what_a_model_asks_for_is_summed_up() -> None:
    work = of(WIDE, NARROW)
    assert work.problem() == ""
    assert (work.tables, work.rows, work.dim, work.dims) == (3, 1000, 128, (4, 128))
    assert work.all_lookups == 8 * 3 + 2 * 4
    assert work.all_output_bytes == 8 * (128 + 8) * 4
    assert work.table_bytes == 4 * (128_000 + 80)


def test_equal_tables_are_one_kind_and_are_written_as_ever(tmp_path: Path) -> None:
    work = Workload(tables=3, bags="ragged")
    assert [feature.table for feature in work.features] == [0, 1, 2]
    assert work.kinds == (TableGroup(500_000, 128, 3, pooling=150, bags="ragged"),)
    assert work.all_lookups == 3 * work.lookups
    assert not {"groups", "model", "max_rows"} & set(to_json(work).split('"'))


def test_a_cell_of_a_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    work = of(WIDE, NARROW, model="mine", max_rows=1000)
    cell = Cell("a", "stock", "pytorch", Dataset("random"), work, Timing(), 0, 1)
    (tmp_path / "cell.json").write_text(to_json(cell), encoding="utf-8")
    assert load(Cell, tmp_path / "cell.json") == cell


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (of(WIDE, NARROW, tables=4), "workload.tables: is 4, and follows from the model's tables as 3"),
        (of(WIDE, bags="ragged"), "workload.bags: follow from the model's tables"),
        (of(WIDE, batch=2**27), "workload.batch: 134217728 bags of group 0"),
        (of(WIDE, TableGroup(9, 4, places="0")), "workload.groups: number 1 stands at place 0"),
        (of(TableGroup(9, 4, count=3, places="0,0,1")), "workload.groups: number 0 names place 0 twice"),
        (of(TableGroup(9, 4, places="1")), "workload.groups: leave place 0 empty"),
        (of(TableGroup(9, 4, places="0-999999")), "workload.groups: number 0 needs 1 places"),
        (of(TableGroup(9, 4, places="0;1")), "places: is no list of numbers"),
        (of(TableGroup(9, 4, deviation=1.0)), "bags: deviation and longest are of"),
        (
            of(TableGroup(9, 4, count=9000), TableGroup(9, 4, count=9000), tables=3),
            "workload.groups: look up tables 18,000",
        ),
        (
            of(TableGroup(100, 4, zipf_s=31.3, zipf_q=1e10)),
            "zipf_s: (rows + zipf_q)^-zipf_s is below 10^-280, which is no number any more",
        ),
        (Workload(max_rows=5), "workload.max_rows: cuts down a model's tables, and there is no model; say"),
        (
            of(TableGroup(3, 4, hottest=(0.6, 0.6))),
            "hottest: are as many as there are rows",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, work: Workload, said: str) -> None:
    cell = Cell("a", "stock", "pytorch", Dataset("random"), work, Timing(), 0, 1)
    (tmp_path / "cell.json").write_text(to_json(cell), encoding="utf-8")
    with pytest.raises(BadInputError) as error:
        load(Cell, tmp_path / "cell.json")
    assert said in str(error.value)
