"""Sweeps: what points an experiment makes of its axes, for which arms, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from harness import experiment, plan, records
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.records import Cell

RAW: dict[str, Any] = {
    "title": "Mine",
    "arms": [
        {"design": "baseline", "toolchain": "12.1"},
        {"design": "rpf_optmt", "toolchain": "12.1"},
        {"design": "combined", "toolchain": "12.1"},
    ],
    "reference": "baseline@12.1",
    "datasets": ["medium", "random"],
    "replicates": 2,
    "workload": {"tables": 2},
}
BATCH = {"key": "workload.batch", "values": [1, 2048, 16384]}
DISTANCE = {"key": "tunables.distance", "values": [1, 2, 4]}
ROWS = {"key": "workload.rows", "values": [10_000, 500_000], "hold": {"tables": 1}}


def read(folder: Path, *axes: dict[str, Any], overrides: tuple[str, ...] = (), **changes: Any) -> Experiment:
    path = folder / "mine.toml"
    path.write_text(tomli_w.dumps(RAW | {"sweep": list(axes)} | changes), encoding="utf-8")
    return experiment.read(path, overrides)


def cells_of(what: Experiment, arm: str) -> list[Cell]:
    """Of the first replicate on medium, by point."""
    found = [c for c in plan.make(what).cells if c.replicate == 0 and c.dataset.name == "medium"]
    return sorted((c for c in found if c.variant.label == arm), key=lambda cell: cell.point)


def test_one_axis_at_a_time_round_the_experiment_s_own_workload(tmp_path: Path) -> None:
    what = read(tmp_path, BATCH, ROWS)
    base = what.workload
    cells = cells_of(what, "baseline@12.1")
    assert {cell.point: cell.workload for cell in cells} == {
        "": base,
        "batch=1": dataclasses.replace(base, batch=1),
        "batch=16384": dataclasses.replace(base, batch=16384),
        "rows=10000,tables=1": dataclasses.replace(base, rows=10_000, tables=1),
        "rows=500000,tables=1": dataclasses.replace(base, tables=1),
    }
    assert cells[1].id == "baseline-12.1-medium-batch=1-r0"
    assert cells[3].id == "baseline-12.1-medium-rows=10000-tables=1-r0"
    assert cells[0].id == "baseline-12.1-medium-r0"
    assert {cell.swept for cell in cells} == {("workload.batch", "workload.rows", "workload.tables")}


def test_a_tunable_s_axis_is_for_the_arms_that_have_it(tmp_path: Path) -> None:
    what = read(tmp_path, DISTANCE)
    (plain,) = cells_of(what, "baseline@12.1")
    assert (plain.point, plain.tunables, plain.swept) == ("", {}, ())
    for arm in ("rpf_optmt@12.1", "combined@12.1"):
        cells = cells_of(what, arm)
        # The default is 2, which is the arm's own point and measured once.
        assert {cell.point: cell.tunables for cell in cells} == {
            "": {"distance": 2},
            "distance=1": {"distance": 1},
            "distance=4": {"distance": 4},
        }
        assert {cell.id for cell in cells} >= {f"{arm.replace('@', '-')}-medium-distance=4-r0"}


def test_an_arm_takes_only_the_values_it_is_compiled_for(tmp_path: Path) -> None:
    pinned = {"key": "tunables.pinned_rows", "values": [5_000, 60_000]}
    what = read(tmp_path, pinned, grid=False)
    assert [cell.point for cell in cells_of(what, "combined@12.1")] == ["", "pinned_rows=5000"]
    assert [cell.point for cell in cells_of(what, "rpf_optmt@12.1")] == [""]


def test_a_grid_has_every_combination_and_the_base(tmp_path: Path) -> None:
    what = read(tmp_path, {"key": "workload.batch", "values": [1, 16]}, DISTANCE, grid=True)
    assert [cell.point for cell in cells_of(what, "baseline@12.1")] == ["", "batch=1", "batch=16"]
    assert [cell.point for cell in cells_of(what, "rpf_optmt@12.1")] == [
        "",
        *(f"batch={batch},distance={distance}" for batch in (1, 16) for distance in (1, 2, 4)),
    ]


def test_a_plan_without_a_sweep_names_no_points(tmp_path: Path) -> None:
    cells = plan.make(read(tmp_path)).cells
    assert len(cells) == 3 * 2 * 2
    assert {(cell.point, cell.swept) for cell in cells} == {("", ())}
    assert {cell.id for cell in cells if cell.design == "baseline"} == {
        f"baseline-12.1-{name}-r{number}" for name in ("medium", "random") for number in (0, 1)
    }


def test_cells_that_share_tables_are_neighbours_in_a_launch_and_shuffled(tmp_path: Path) -> None:
    what = read(tmp_path, BATCH, ROWS, {"key": "workload.dim", "values": [16, 64, 256]})
    orders = set()
    for launch in plan.make(what).launches:
        assert len(launch.cells) == len({cell.id for cell in launch.cells})
        works = [(c.workload.tables, c.workload.rows, c.workload.dim) for c in launch.cells]
        changes = sum(a != b for a, b in itertools.pairwise(works))
        assert changes == len(set(works)) - 1
        orders.add(tuple(works))
    assert len(orders) > 1


def test_it_is_written_back_and_read_again(tmp_path: Path) -> None:
    what = read(tmp_path, BATCH, DISTANCE, ROWS)
    (tmp_path / "again.toml").write_text(experiment.to_toml(what), encoding="utf-8")
    again = experiment.read(tmp_path / "again.toml")
    assert again == what
    assert records.to_json(plan.make(again)) == records.to_json(plan.make(what))


def test_cells_cross_the_container_s_wall_whole(tmp_path: Path) -> None:
    for cell in cells_of(read(tmp_path, DISTANCE), "combined@12.1"):
        (tmp_path / "cell.json").write_text(records.to_json(cell), encoding="utf-8")
        assert records.load(Cell, tmp_path / "cell.json") == cell
        assert cell.variant.label == "combined@12.1"


def test_a_flag_sets_or_takes_away_a_sweep(tmp_path: Path) -> None:
    given = 'sweep=[{key="workload.batch", values=[1, 16]}]'
    what = read(tmp_path, DISTANCE, overrides=(given, "workload.batch=16"))
    assert [cell.point for cell in cells_of(what, "rpf_optmt@12.1")] == ["", "batch=1"]
    assert read(tmp_path, DISTANCE, overrides=("sweep=[]",)).sweep == ()


def test_any_field_of_the_workload_is_an_axis(tmp_path: Path) -> None:
    axes: list[dict[str, Any]] = [
        {"key": "workload.dtype", "values": ["float32", "float16"]},
        {"key": "workload.weighted", "values": [True]},
    ]
    cells = cells_of(read(tmp_path, *axes), "baseline@12.1")
    assert [cell.point for cell in cells] == ["", "dtype=float16", "weighted=true"]
    assert cells[1].workload.dtype == "float16"
    assert cells[2].workload.weighted


@pytest.mark.parametrize(
    ("axes", "changes", "sentence"),
    [
        ([BATCH | {"key": "batch"}], {}, "sweep.0.key: 'batch' is neither a field of the workload"),
        (
            [BATCH | {"key": "workload.bach"}],
            {},
            "sweep.0.key: there is no workload.bach to sweep; there are",
        ),
        ([BATCH | {"key": "workload.device"}], {}, "sweep.0.key: there is no workload.device to sweep"),
        ([BATCH | {"values": []}], {}, "sweep.0.values: is empty"),
        (
            [BATCH | {"values": [1, "one"]}],
            {},
            "sweep.0.values: batch: should be a whole number (given: 'one')",
        ),
        ([BATCH | {"values": [1.5]}], {}, "sweep.0.values: batch: should be a whole number (given: 1.5)"),
        ([DISTANCE | {"values": [1.5]}], {}, "sweep.0.values: 1.5 is a value of distance that none"),
        ([BATCH | {"values": [10**30]}], {}, f"sweep.0.values: batch: {10**30} is more"),
        (
            [{"key": "tunables.pinned_rows", "values": [2**31]}],
            {},
            "sweep.0.values: 2147483648 is a value of pinned_rows that none",
        ),
        (
            [
                {"key": f"workload.{name}", "values": list(range(1, 1000))}
                for name in ("rows", "batch", "tables")
            ],
            {"grid": True},
            "asks for 11964036000 cells",
        ),
        ([BATCH | {"values": [4, 4]}], {}, "sweep.0.values: 4 is named twice"),
        ([BATCH | {"values": [4, 0]}], {}, "sweep.0.values: batch: 0 is less than 1"),
        ([BATCH | {"value": 4}], {}, "sweep.0.value: is not a known key"),
        ([DISTANCE, BATCH, BATCH], {}, "sweep.2.key: workload.batch is an axis already"),
        ([BATCH | {"hold": {"batch": 2}}], {}, "sweep.0.hold: batch is what the axis varies"),
        ([BATCH | {"hold": {"rose": 2}}], {}, "sweep.0.hold: rose is no field of the workload"),
        (
            [BATCH | {"hold": {"tables": "x"}}],
            {},
            "sweep.0.hold: tables: should be a whole number (given: 'x')",
        ),
        ([ROWS], {"grid": True}, "sweep.0.hold: goes with one axis at a time"),
        ([], {"grid": True}, "grid: there is no sweep whose axes could span one"),
        ([DISTANCE | {"key": "tunables.reach"}], {}, "sweep.0.key: none of the arms has a tunable 'reach'"),
        (
            [DISTANCE | {"values": [2, 5]}],
            {},
            "sweep.0.values: 5 is a value of distance that none of the arms",
        ),
        ([DISTANCE | {"values": ["2"]}], {}, "sweep.0.values: '2' is a value of distance that none"),
        (
            [DISTANCE],
            {"arms": [*RAW["arms"], RAW["arms"][1] | {"tunables": {"distance": 4}}]},
            "sweep.0.key: rpf_optmt@12.1,distance=4 sets distance itself",
        ),
        ([DISTANCE | {"arms": {"stock": [1]}}], {}, "sweep.0.arms: follows from the designs; remove the key"),
    ],
)
def test_one_sentence_names_file_and_key(
    axes: list[dict[str, Any]], changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, *axes, **changes)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.toml'}: {sentence}")


@pytest.mark.parametrize("name", ["distance", "pinned", "shapes"])
def test_ours_take_less_than_four_minutes_on_a_gpu(name: str) -> None:
    what = experiment.read(experiment.find(name))
    made = plan.make(what)
    # As measured on an H100: what a launch takes to start, what a cell takes besides its samples.
    seconds = 4 * len(made.launches) + (0.15 + what.timing.max_seconds) * len(made.cells)
    # Traces of large tables take longer to make.
    seconds += sum(0.15e-6 * cell.workload.rows for cell in made.cells if cell.workload.rows > 10**6)
    assert seconds < 240
    assert len({cell.id for cell in made.cells}) == len(made.cells)


def test_the_shapes_span_what_they_should() -> None:
    works = [cell.workload for cell in plan.make(experiment.read(experiment.find("shapes"))).cells]
    spans = {"batch": (1, 16384), "pooling": (1, 500), "dim": (16, 512), "tables": (1, 250)}
    for field, span in {**spans, "rows": (10_000, 50_000_000)}.items():
        values = [getattr(work, field) for work in works]
        assert (min(values), max(values)) == span
    # A GPU of 80 GB holds the largest tables twice over, for other libraries make copies of their own.
    assert 2 * max(work.table_bytes for work in works) < 60e9


def test_the_example_in_the_docs_is_an_experiment(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    example = text.split("```toml\n")[1].split("```")[0]
    what = read(tmp_path, *tomllib.loads(example)["sweep"])
    assert [axis.key for axis in what.sweep] == ["workload.batch", "workload.rows", "tunables.distance"]
