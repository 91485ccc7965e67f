"""Models: files, names, and what becomes of them as experiments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness import experiment, groups, models, plan
from harness.cli import cli
from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.records import CellRecord, Workload, load

TABLES = "{ rows = 50, dim = 8 }, { rows = 9, dim = 4, pooling = 3 }"
MINE = f'title = "Mine"\nsource = "me"\ntables = [{TABLES}]\n'


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_every_model_that_ships_is_one() -> None:
    shapes = {}
    for name in models.names():
        work = models.read(name).example()
        shapes[name] = work.stored_tables, work.columns, work.dims[0], work.dims[-1]
    known = {
        "dlrm_dcnv2": (26, 3328, 128, 128),
        "paper": (12, 1536, 128, 128),
        "recflex_a": (1000, 24780, 4, 128),
        "recflex_c": (800, 24816, 4, 128),
        "youtube": (2, 512, 256, 256),
    }
    assert known.items() <= shapes.items()


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8-sig", ""), ("utf-16", "is not TOML: byte 1 is not UTF-8; save it as UTF-8."), ("utf-8", "")],
)
def test_a_file_as_an_editor_saved_it(mine: Path, encoding: str, said: str) -> None:
    """Some begin UTF-8 with a mark."""
    mine.write_text(MINE, encoding=encoding)
    if not said:
        assert models.read(str(mine)).title == "Mine"
        return
    with pytest.raises(BadInputError, match=said):
        models.read(str(mine))


def test_the_papers_model_is_the_papers_workload() -> None:
    assert experiment.of_designs(["fused"], "13.0", model="paper").workload == Workload()


def test_an_experiment_on_a_model_says_what_it_was_cut_down_to() -> None:
    made = experiment.of_designs(["fused"], "13.0", ["model.max_rows=3_000_000"], "dlrm_dcnv2")
    assert "dlrm_dcnv2, batches of 2048; tables cut down to 3,000,000 rows" in made.title
    assert (made.workload.model, made.workload.max_rows, made.workload.rows) == (
        "dlrm_dcnv2",
        3 * 10**6,
        3 * 10**6,
    )
    assert [group.rows for group in made.workload.groups[:3]] == [3_000_000, 39_060, 17_295]
    assert made.datasets == ("random", "skewed")


def test_a_run_keeps_the_tables_and_not_the_file(tmp_path: Path, mine: Path) -> None:
    made = experiment.of_designs(["stock"], "13.0", model=str(mine))
    copy = tmp_path / "experiment.toml"
    copy.write_text(experiment.to_toml(made), encoding="utf-8")
    mine.unlink()
    assert experiment.read(copy) == made
    assert {cell.workload.model for cell in plan.make(made).cells} == {"mine"}


def test_the_whole_model_is_measured_where_it_is_asked_for() -> None:
    assert experiment.of_designs(["fused"], "13.0", model="dlrm_dcnv2").model is None
    made = experiment.of_designs(["fused"], "13.0", ["model.whole=true"], "dlrm_dcnv2")
    assert made.model is not None
    assert (made.model.bottom, made.model.top) == ((512, 256, 128), (1024, 1024, 512, 256, 1))
    assert (made.model.cross_layers, made.model.cross_rank) == (3, 512)


def test_a_model_of_very_many_tables_is_not_launched_table_by_table() -> None:
    made = experiment.of_designs(["fused", "fbgemm"], "13.0", model="recflex_a")
    assert [arm.label for arm in made.arms] == ["fused@13.0", "fbgemm"]
    assert made.reference == "fused@13.0"


@pytest.mark.parametrize("name", ["dlrm_dcnv2", "dlrm_dcnv2_whole", "recflex_a", "recflex_c"])
def test_experiments_on_models(name: str) -> None:
    made = experiment.read(experiment.find(name))
    assert made.workload.model in (name, "dlrm_dcnv2")
    assert len({cell.id for cell in plan.make(made).cells}) == len(plan.make(made).cells)


def test_the_experiment_on_long_histories_is_of_means() -> None:
    made = experiment.read(experiment.find("youtube"))
    work = made.workload
    assert (work.tables, work.rows, work.dim, work.pooling, work.mode) == (2, 10**6, 256, 50, "mean")
    assert len({cell.id for cell in plan.make(made).cells}) == 5 * 2 * 4 * made.replicates


def test_long_histories_cut_down_run_on_the_cpu_with_every_output_checked(tmp_path: Path) -> None:
    settings = ["workload.device=cpu", "workload.batch=16", "model.max_rows=1000", "replicates=1"]
    settings += ["timing.max_seconds=0.1", "timing.min_passes=3"]
    command = ["run", "--model", "youtube", "--design", "stock", "--local", "--output", str(tmp_path / "run")]
    ran = CliRunner().invoke(cli, [*command, *(part for one in settings for part in ("--set", one))])
    assert ran.exit_code == 0, ran.output
    for dataset in ("random", "skewed"):
        record = load(CellRecord, tmp_path / "run" / "cells" / f"stock-{dataset}-r0" / "record.json")
        assert (record.status, record.cell.workload.mode) == ("ok", "mean")
        assert record.check is not None
        # Two batches of two tables of 256 columns, and the first table in ragged bags.
        assert record.check.elements == 16 * 256 * (2 * 2 + 1)


def test_an_experiments_file_names_a_model_beside_it(tmp_path: Path, mine: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        'title = "X"\nreference = "stock"\narms = [{ design = "stock" }]\n'
        '[model]\nname = "mine.toml"\nmax_rows = 20\n[workload]\ndtype = "float16"\nbatch = 3\n',
        encoding="utf-8",
    )
    made = experiment.read(path)
    assert (made.workload.dtype, made.workload.batch, made.workload.rows) == ("float16", 3, 20)
    assert made.title == "X (tables cut down to 20 rows)"
    assert made.model is None


def test_a_model_beside_the_experiment_is_never_the_one_that_ships(
    tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("paper").write_text(mine.read_text(encoding="utf-8"), encoding="utf-8")
    text = 'title = "X"\nreference = "stock"\narms = [{ design = "stock" }]\nmodel = "./paper"\n'
    Path("x.toml").write_text(text, encoding="utf-8")
    assert experiment.read(Path("x.toml")).workload.tables == models.read("./paper").example().tables == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["workload.tables=4"],
            "workload.tables: is 4, and follows from the tables of mine as 2; leave it to them",
        ),
        (["model.max_rows=x"], "model: max_rows: should be a whole number"),
        (
            ["model.name=nowhere"],
            "nowhere: is neither a model's file nor one of those",
        ),
        (['datasets=["own"]'], "is the traffic of a model's own tables"),
        (["workload.dtype=int8"], "workload.dtype: int8 tables of 4 to 8 columns are not looked up together"),
        (["model.bottom=[8]", "model.top=[1]"], "these have 4 to 8 columns; leave the dense part out"),
        (
            ['sweep=[{key="workload.rows", values=[5]}]'],
            "sweep: workload.rows follows from the tables of mine; say model.max_rows",
        ),
        (['sweep=[{key="workload.groups", values=[5]}]'], "there is no workload.groups to sweep"),
    ],
)
def test_what_does_not_go_with_a_model(mine: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(BadInputError) as error:
        experiment.of_designs(["stock"], "13.0", overrides, str(mine))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "workload.rows=2000",
            "workload.rows: is 2000, and follows from the tables of youtube as 1000000; say model",
        ),
        (
            "workload.dim=8",
            "workload.dim: is 8, and follows from the tables of youtube as 256; leave it to them",
        ),
        (
            'workload.bags="ragged"',
            "workload.bags: is ragged, and follows from the tables of youtube as fixed",
        ),
        ('sweep=[{key="workload.pooling", values=[5]}]', "sweep: workload.pooling follows from the tables"),
    ],
)
def test_tables_that_are_all_alike_are_not_changed_in_silence(override: str, said: str) -> None:
    with pytest.raises(BadInputError) as error:
        experiment.of_designs(["stock"], "13.0", [override], "youtube")
    assert said in str(error.value)
    same = experiment.of_designs(
        ["stock"], "13.0", ["workload.rows=1_000_000", "workload.batch=8"], "youtube"
    )
    assert (same.workload.rows, same.workload.batch) == (1_000_000, 8)


def test_an_experiment_does_not_put_its_own_tables_in_a_models_place() -> None:
    with pytest.raises(BadInputError, match=r"smoke\.toml: workload\.rows: is 2000, and follows .* youtube"):
        experiment.read(experiment.find("smoke"), ["model.name=youtube"])


@pytest.mark.parametrize("key", ["model", "model.name"])
def test_a_model_without_a_name_is_refused(key: str) -> None:
    said = rf"^the command line: {key}: is empty; `harness models` lists those that there are\."
    for nothing in ("", " "):
        with pytest.raises(BadInputError, match=said):
            experiment.read(experiment.find("smoke"), [f'{key}="{nothing}"'])


def test_a_cap_without_a_model_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"model\.max_rows: is of a model's file"):
        experiment.of_designs(["stock"], "13.0", ["model.max_rows=3"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "title: is missing"),
        ('name = "zzz"\n' + MINE, "name: is not a known key; a model is called as its file"),
        (MINE.replace("dim = 8", "dim = 0"), "tables.0.dim: 0 is less than 1"),
        (MINE.replace("pooling", "poling"), "tables.1.poling: is not a known key"),
        (MINE.replace("pooling = 3", "coverage = 0.0"), "tables.1.coverage: is 0"),
        (MINE.replace(TABLES, ""), "tables: is empty"),
        (MINE + 'mode = "none"\n', "mode: "),
    ],
)
def test_a_file_that_is_no_model(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.toml").write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError) as error:
        models.read(str(tmp_path / "bad.toml"))
    assert str(error.value).startswith(f"{tmp_path / 'bad.toml'}: {said}")


def test_single_tables_are_grouped_each_at_its_place() -> None:
    a, b = TableGroup(9, 4), TableGroup(9, 8, features=2)
    found = groups.grouped([a, b, a, a, b])
    assert [(group.count, group.places) for group in found] == [(3, "0,3-4"), (2, "1-2,5-6")]


def test_the_command(mine: Path) -> None:
    run = CliRunner().invoke(cli, ["models", str(mine), "--json"])
    assert run.exit_code == 0, run.output
    (told,) = json.loads(run.output)
    assert (told["tables"], told["columns"], told["lookups_per_sample"]) == (2, 12, 4)
    assert [kind["rows_per_bag"] for kind in told["kinds"]] == [1, 3]
    assert "DLRM-DCNv2" in CliRunner().invoke(cli, ["models"]).output


def test_a_run_on_a_model_from_the_command_to_the_report(mine: Path, tmp_path: Path) -> None:
    settings = ["workload.device=cpu", "workload.batch=16", "model.max_rows=20", "replicates=1"]
    settings += ["timing.max_seconds=0.1", "timing.min_passes=3", 'datasets=["skewed"]']
    command = ["run", "--model", str(mine), "--design", "stock", "--local", "--output", str(tmp_path / "run")]
    ran = CliRunner().invoke(cli, [*command, *(part for one in settings for part in ("--set", one))])
    assert ran.exit_code == 0, ran.output
    assert "mine: 2 tables of 9 to 20 rows (larger ones cut down to 20)" in " ".join(ran.output.split())
    record = load(CellRecord, tmp_path / "run" / "cells" / "stock-skewed-r0" / "record.json")
    assert record.status == "ok"
    assert record.check is not None
    # Two batches of 8 and 4 columns, and the first table in ragged bags.
    assert record.check.elements == 16 * (2 * 12 + 8)
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "tables cut down to 20 rows" in html


def test_no_name_is_called_so() -> None:
    with pytest.raises(BadInputError, match=r"^The model's name is empty; `harness models` lists"):
        models.read(" ")
