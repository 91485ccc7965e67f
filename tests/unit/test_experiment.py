"""What is refused in an experiment's file, by key, before anything starts."""

from __future__ import annotations

import datetime
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from harness import designs, experiment, plan
from harness.errors import BadInputError
from harness.records import Model, Workload
from harness.run import campaign


def raw() -> dict[str, Any]:
    return {
        "title": "Mine",
        "arms": [{"design": "baseline", "toolchain": "12.1"}, {"design": "stock"}],
        "reference": "baseline@12.1",
        "workload": {"tables": 2},
        "timing": {"max_seconds": 1.0},
    }


def read(folder: Path, changed: dict[str, Any]) -> experiment.Experiment:
    path = folder / "mine.toml"
    path.write_text(tomli_w.dumps(changed), encoding="utf-8")
    return experiment.read(path)


def test_a_good_one_is_read_and_written_back(tmp_path: Path) -> None:
    good = read(tmp_path, raw())
    (tmp_path / "again.toml").write_text(experiment.to_toml(good), encoding="utf-8")
    assert experiment.read(tmp_path / "again.toml") == good


@pytest.mark.parametrize(
    ("table", "key", "value", "sentence"),
    [
        ("", "title", " ", "title: is empty; say what is measured"),
        ("", "title", 3, "title: should be a valid string (given: 3)"),
        ("", "arms", [], "arms: is empty"),
        ("", "arms", ["stock"], "arms.0: should be a table"),
        ("", "arms", [{"design": "none"}], "arms.0.design: there is no design 'none'"),
        ("", "arms", [{"design": "optmt"}], "arms.0.toolchain: is missing"),
        (
            "",
            "arms",
            [{"design": "optmt", "toolchain": "9.9"}],
            "arms.0.toolchain: there is no toolchain '9.9'",
        ),
        ("", "arms", [{"design": "stock", "toolchain": "12.1"}], "arms.0.toolchain: stock brings no kernel"),
        ("", "reference", "optmt@12.1", "reference: 'optmt@12.1' is none of the arms"),
        ("", "datasets", "random", "datasets: should be a list (given: 'random')"),
        ("", "datasets", ["no\nfile"], "datasets.0: "),
        ("", "replicates", 0, "replicates: 0 is less than 1"),
        ("", "replicates", 10**20, "replicates: 100000000000000000000 is more than 100000"),
        ("", "replicates", 1.5, "replicates: should be a whole number (given: 1.5)"),
        ("", "seed", 2**63, "seed: 9223372036854775808 is more than"),
        ("", "deadline_s", math.inf, "deadline_s: inf is more than"),
        ("", "deadline_s", math.nan, "deadline_s: is not a number"),
        ("", "schema_version", 2, "schema_version: 2 is newer"),
        ("", "wokload", {}, "wokload: is not a known key"),
        ("", "grid", 1, "grid: should be true or false (given: 1)"),
        ("", "seed", True, "seed: should be a whole number (given: True)"),
        ("", "deadline_s", True, "deadline_s: should be a number (given: True)"),
        ("", "deadline_s", "9", "deadline_s: should be a number (given: '9')"),
        ("", "schema_version", 0, "schema_version: 0 is less than 1"),
        ("", "schema_version", True, "schema_version: should be a whole number (given: True)"),
        ("", "title", "\x1b[2J", "title: holds U+001B, which cannot be shown; remove it"),
        ("", "datasets", ["a\u202eb"], "datasets.0: holds U+202E, which cannot be shown; remove it"),
        ("", "title", datetime.date(2001, 1, 1), "title: 2001-01-01 is a date or time"),
        ("", "arms", [{"design": "stock"}] * 1001, "arms: are 1001, and may be 1000 at most"),
        ("workload", "tables", True, "workload.tables: should be a whole number (given: True)"),
        ("workload", "tables", "2", "workload.tables: should be a whole number (given: '2')"),
        ("workload", "tables", 2.0, "workload.tables: should be a whole number (given: 2.0)"),
        ("workload", "weighted", "true", "workload.weighted: should be true or false (given: 'true')"),
        ("timing", "warmup_passes", 2**31, "timing.warmup_passes: 2147483648 is more than 2147483647"),
        ("", "workload", "a\nb", "workload: should be a table (given: 'a b')"),
        ("workload", "tables", "two", "workload.tables: should be a whole number (given: 'two')"),
        ("workload", "tables", 10**9, "workload.tables: 1000000000 is more than 10000"),
        ("workload", "rows", 10**20, "workload.rows: 100000000000000000000 is more than"),
        ("workload", "batch", 2**22, "workload.batch: 4194304 bags of 150 rows (workload.pooling) are more"),
        (
            "workload",
            "rows",
            2**28 + 1,
            "datasets.0: 'one_item' is made for tables of up to 268,435,456 rows, and workload.rows is",
        ),
        ("workload", "device", "tpu", "workload.device: should be 'cuda' or 'cpu' (given: 'tpu')"),
        (
            "workload",
            "dtype",
            "int8",
            "arms.0.design: baseline does not take dtype int8; it takes: float32, float16.",
        ),
        (
            "workload",
            "dtype",
            "float8",
            "workload.dtype: should be 'float32', 'float16', 'bfloat16', 'int8' or",
        ),
        ("timing", "max_seconds", math.inf, "timing.max_seconds: inf is more than"),
        ("timing", "min_passes", 2, "timing.min_passes: 2 is less than 3"),
        ("timing", "max_passes", 10, "timing.max_passes: 10 is less than 30 (timing.min_passes)"),
    ],
)
def test_one_sentence_names_file_and_key(
    table: str, key: str, value: Any, sentence: str, tmp_path: Path
) -> None:
    changed = raw()
    (changed[table] if table else changed)[key] = value
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, changed)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'mine.toml'}: {sentence}")
    assert "\n" not in said


@pytest.mark.parametrize("name", ["", "../x", "a/b", "/abs", ".hidden", "-x", "a\nb", "x" * 101])
def test_a_name_that_leaves_the_results_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"mine\.toml: name: .* cannot name the run's folder"):
        read(tmp_path, raw() | {"name": name})


@pytest.mark.parametrize("name", ["paper", "Größe 2", "baseline-optmt", "7.b"])
def test_a_run_s_folder_is_one_below_results(name: str, tmp_path: Path) -> None:
    made = campaign.new_folder(tmp_path, read(tmp_path, raw() | {"name": name}))
    assert made.parent == tmp_path
    made.mkdir()


def test_many_designs_still_name_a_folder() -> None:
    names = ["optmt", "rpf_optmt", "l2p_optmt", "combined"] * 10
    assert experiment.of_designs(names, "12.1").name == "optmt-rpf_optmt-l2p_optmt-combined"


@pytest.mark.parametrize(
    ("takes", "work", "sentence"),
    [
        ({"index_dtypes": ("int64",)}, {"index_dtype": "int32"}, "does not take index_dtype int32"),
        ({"modes": ("sum",)}, {"mode": "mean"}, "does not take mode mean; it takes: sum"),
        ({"weighted": False}, {"weighted": True}, "takes no sample weights"),
        ({"max_dim": 64}, {"dim": 65}, "takes at most 64 columns, not 65"),
        ({"dim_multiple": 4}, {"dim": 30}, "takes columns in multiples of 4, not 30"),
        ({}, {"dtype": "int4", "device": "cpu"}, "does not take dtype int4 on the CPU"),
        ({"index_dtypes": ("int64",)}, {"index_dtype": "int32", "device": "cpu"}, ""),
        ({"dtypes": ("int4",)}, {"dtype": "int4"}, ""),
        ({}, {"tables": 7000, "index_dtype": "int32"}, ""),
    ],
)
def test_what_a_design_cannot_do_is_known_before(
    takes: dict[str, Any], work: dict[str, Any], sentence: str
) -> None:
    design = replace(designs.get("baseline"), supports=designs.Supports(**takes))
    found = designs.unsupported(design, Workload(**work))
    assert found.startswith(sentence)
    assert bool(found) == bool(sentence)


def test_all_tables_together_may_be_more_than_int32_numbers() -> None:
    many = Workload(tables=7000, index_dtype="int32")
    assert designs.unsupported(designs.get("fused"), many).startswith("numbers the lookups of all tables")


def test_what_a_design_cannot_do_is_refused_at_any_point_of_a_sweep(tmp_path: Path) -> None:
    axis = {"key": "workload.dtype", "values": ["float16", "int8"]}
    with pytest.raises(BadInputError, match=r"sweep: dtype=int8: baseline@12\.1 does not take dtype int8"):
        read(tmp_path, raw() | {"sweep": [axis]})


def test_sample_weights_of_a_mean_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r'workload\.weighted: sample weights go with mode = "sum" only'):
        read(tmp_path, raw() | {"workload": {"weighted": True, "mode": "mean"}})


def test_an_arm_that_knows_the_hottest_rows_beforehand_is_another_arm(tmp_path: Path) -> None:
    held_out = {"design": "combined", "toolchain": "12.1"}
    arms = [held_out, {**held_out, "hot_rows": "oracle"}, {**held_out, "tunables": {"pinned_rows": 5}}]
    good = read(tmp_path, {**raw(), "arms": arms, "reference": "combined@12.1,oracle"})
    labels = ["combined@12.1", "combined@12.1,oracle", "combined@12.1,pinned_rows=5"]
    assert [arm.label for arm in good.arms] == labels
    cells = plan.make(good).cells
    assert {(cell.variant.label, cell.hot_rows) for cell in cells} == {
        (label, "oracle" if "oracle" in label else "held_out") for label in labels
    }
    assert len({cell.id for cell in cells}) == len(cells)
    (tmp_path / "again.toml").write_text(experiment.to_toml(good), encoding="utf-8")
    assert experiment.read(tmp_path / "again.toml") == good


def test_a_design_that_pins_nothing_takes_no_choice_of_hot_rows(tmp_path: Path) -> None:
    arms = [{"design": "baseline", "toolchain": "12.1", "hot_rows": "oracle"}]
    with pytest.raises(BadInputError, match=r"arms\.0\.hot_rows: baseline pins no rows; remove the key\.$"):
        read(tmp_path, {**raw(), "arms": arms, "reference": "baseline@12.1,oracle"})


def test_a_model_is_read_with_its_defaults_and_written_back(tmp_path: Path) -> None:
    good = read(tmp_path, {**raw(), "model": {"top": [8, 1]}})
    assert good.model == Model(13, (256, 128, 128), (8, 1))
    assert {cell.model for cell in plan.make(good).cells} == {good.model}
    (tmp_path / "again.toml").write_text(experiment.to_toml(good), encoding="utf-8")
    assert experiment.read(tmp_path / "again.toml") == good
    assert read(tmp_path, raw()).model is None


@pytest.mark.parametrize(
    ("model", "more", "sentence"),
    [
        (
            {"bottom": [256, 64]},
            {},
            "model.bottom: its last layer has 64 columns and the tables' rows have 128",
        ),
        ({"bottom": []}, {}, "model.bottom: is empty"),
        ({"top": [8, 0]}, {}, "model.top.1: 0 is less than 1"),
        ({"dense_features": 0}, {}, "model.dense_features: 0 is less than 1"),
        ({"top": [10**12]}, {}, "model.top.0: 1000000000000 is more than"),
        ({"botom": [1]}, {}, "model.botom: is not a known key"),
        ({}, {"sweep": [{"key": "workload.dim", "values": [64]}]}, "sweep: dim=64: model.bottom: its last"),
    ],
)
def test_a_model_that_does_not_fit_its_tables_is_refused(
    model: dict[str, Any], more: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, {**raw(), "model": model, **more})
    assert str(caught.value).startswith(f"{tmp_path / 'mine.toml'}: {sentence}")


@pytest.mark.parametrize(
    "path",
    sorted(p for p in experiment.EXPERIMENTS_DIR.glob("*.toml") if p.stem != "claims"),
    ids=lambda p: p.stem,
)
def test_every_experiment_of_ours_can_be_planned(path: Path) -> None:
    made = experiment.read(path)
    assert plan.make(made).cells


def test_batches_take_turns_but_where_the_paper_is_repeated() -> None:
    paths = (path for path in experiment.EXPERIMENTS_DIR.glob("*.toml") if path.stem != "claims")
    caches = {path.stem: experiment.read(path).timing.cache for path in paths}
    others = {name: cache for name, cache in caches.items() if cache != "rotating"}
    assert others == {"paper": "steady", "modern": "steady"}


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("workload.tables=true", "workload.tables: should be a whole number (given: True)"),
        ("workload.tables=1\nseed = 2", "workload.tables: should be a whole number (given: '1 seed = 2')"),
        ("workload.tables=" + "[" * 3000, "workload.tables: should be a whole number"),
        ("seed=0x" + "f" * 5000, "seed: a number of 20000 bits is out of all bounds"),
        ("seed=" + "9" * 5000, "seed: has 5,000 characters, and may have 4,096"),
        ("title=\udcff", "title: holds U+DCFF, which cannot be shown; remove it"),
        ("a" + ".a" * 5000 + "=1", "a.a.a…: is nested too deeply"),
        ("title.a=1", "--set title.a=1: title is not a table"),
        ("=1", "--set =1: is not of the form KEY=VALUE"),
        (".workload=3", "--set .workload=3: a part of the key is empty; take a dot away."),
        ("workload..batch=3", "--set workload..batch=3: a part of the key is empty"),
        ("workload.=3", "--set workload.=3: a part of the key is empty"),
    ],
)
def test_nonsense_on_the_command_line_is_one_short_sentence(
    assignment: str, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(tomli_w.dumps(raw()), encoding="utf-8")
    with pytest.raises(BadInputError) as caught:
        experiment.read(path, [assignment])
    said = str(caught.value).removeprefix(f"{path}: ")
    assert said.removeprefix("the command line: ").startswith(sentence)
    assert len(said) < 200
    assert "\n" not in said


@pytest.mark.parametrize("name", ["./medium", "./own", "./mixed", "././high"])
def test_a_trace_beside_the_experiment_is_never_the_synthetic_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From whatever folder its file is named, the experiment's own too."""
    (tmp_path / name).write_text("1\n", encoding="utf-8")
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(raw() | {"datasets": [name]}), encoding="utf-8")
    for folder, path in ((tmp_path, "mine.toml"), (tmp_path.parent, f"{tmp_path.name}/mine.toml")):
        monkeypatch.chdir(folder)
        with pytest.raises(
            BadInputError, match=f"is called as the synthetic trace {Path(name).name}; rename"
        ):
            experiment.read(Path(path))


def test_traces_beside_the_experiment_are_found_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clicks").write_text("1\n", encoding="utf-8")
    (tmp_path / "mine.toml").write_text(
        tomli_w.dumps(raw() | {"datasets": ["clicks", "medium"]}), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    assert experiment.read(Path("mine.toml")).datasets == (str(tmp_path / "clicks"), "medium")


def test_values_of_a_sweep_are_bounded(tmp_path: Path) -> None:
    axis = {"key": "workload.batch", "values": list(range(1, 20_000))}
    with pytest.raises(BadInputError, match=r"sweep\.0\.values: are 19999, and may be 10000 at most"):
        read(tmp_path, raw() | {"sweep": [axis]})
    axes = [axis | {"values": [2], "hold": {"rows": rows}} for rows in range(1, 200)]
    with pytest.raises(BadInputError, match=r"sweep: has 199 axes, and may have 100"):
        read(tmp_path, raw() | {"sweep": axes})


def test_what_the_command_line_set_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    read(tmp_path, raw())
    path = tmp_path / "mine.toml"
    for key, of in (("workload.batch", "workload.batch=0"), ("datasets.0", 'datasets=["nowhere"]')):
        with pytest.raises(BadInputError) as caught:
            experiment.read(path, [of])
        assert str(caught.value).startswith(f"the command line: {key}: ")
    path.write_text(tomli_w.dumps(raw() | {"timing": {"max_passes": 50}}), encoding="utf-8")
    for sets, sentence in (
        # What does not fit is another key than what was set.
        (["timing.min_passes=100"], "timing.max_passes: 50 is less than 100"),
        (['arms=[{design="stock"}]'], "reference: 'baseline@12.1' is none of the arms: stock"),
        (["replicates=100000"], "asks for 1000000 cells"),
    ):
        with pytest.raises(BadInputError) as caught:
            experiment.read(path, sets)
        assert str(caught.value).startswith(f"the command line, on top of {path}: {sentence}")
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(raw() | {"seed": -1}), encoding="utf-8")
    for sets in (["workload.batch=4"], ["timing.min_passes=9000"]):
        with pytest.raises(BadInputError) as caught:
            experiment.read(path, sets)
        assert str(caught.value).startswith(f"{path}: seed: ")
