"""Short names of runs, listings that fit a terminal, and what is said beside an unknown name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from harness import designs
from harness.cli import cli, shared
from harness.errors import BadInputError
from harness.records import Variant
from tests import synthetic_run as synthetic


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=True)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with runs of one's own and some that ship with the project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shared, "REFERENCE_DIR", tmp_path / "results" / "reference")
    arms = (Variant("baseline", "12.1"), Variant("combined", "12.1"))
    what = synthetic.experiment(arms=arms, datasets=("medium",), replicates=2, name="paper")
    for name in ("mine", "reference/one/kernels", "reference/one/paper", "reference/two/paper"):
        synthetic.write_run(tmp_path / "results" / name, what)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mine", "results/mine"),
        ("results/mine", "results/mine"),
        ("reference/kernels", "results/reference/one/kernels"),
        ("reference/two/paper", "results/reference/two/paper"),
    ],
)
def test_runs_have_short_names(runs: Path, name: str, folder: str) -> None:
    found = shared.find_run(Path(name))
    assert found is not None
    assert found.resolve() == (runs / folder).resolve()
    assert shared.find_run(Path(shared.short_name(found))) == found
    assert harness("report", name, "--json").exit_code == 0
    assert json.loads(harness("compare", name, "--json").stdout)["comparisons"]


@pytest.mark.parametrize(
    "name", ["nowhere", "reference/nothing", "reference", "../mine", "reference/../mine"]
)
def test_other_names_are_no_runs(runs: Path, name: str) -> None:
    assert shared.find_run(Path(name)) is None


def test_a_name_that_two_gpus_have_is_refused(runs: Path) -> None:
    with pytest.raises(BadInputError, match="name one: reference/one/paper, reference/two/paper"):
        shared.find_run(Path("reference/paper"))


def test_a_run_that_is_nearly_called_so_is_named(runs: Path) -> None:
    said = str(harness("report", "reference/kernel").exception)
    assert said.endswith("Did you mean 'reference/kernels'?")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["run", "kernel"], "'kernels'"),
        (["run", "--design", "fusd"], "'fused'"),
        (["run", "kernels", "--dataset", "medum", "--dry-run"], "'medium'"),
        (["compile", "baselin"], "'baseline'"),
        (["run", "kernels", "--set", "workload.tabels=4", "--dry-run"], "'tables'"),
        (["run", "kernels", "--set", "timng.cache=cold", "--dry-run"], "'timing'"),
        (["run", "--design", "fused", "--model", "dlrm_dcn", "--dry-run"], "'dlrm_dcnv2'"),
        (["compare", "reference/nvidia-h100-80gb-hbm3/paper", "--b", "optm@12.1"], "'optmt@12.1'"),
        (["compare", "reference/nvidia-h100-80gb-hbm3/paper", "--dataset", "medum"], "'medium'"),
        (["history", "kernls"], "'kernels'"),
        (["trace", "stats", "medum"], "'medium'"),
    ],
)
def test_what_was_meant_is_said(arguments: list[str], meant: str) -> None:
    assert f"Did you mean {meant}?" in str(harness(*arguments).exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--model", "youtube", "--set", "workload.rows=2000"],
            "workload.rows: is 2000, and follows from the tables of youtube as 1000000; say model.max_rows",
        ),
        (
            ["youtube", "--set", "workload.dim=8"],
            "workload.dim: is 8, and follows from the tables of youtube as 256; leave it to them",
        ),
        (
            ["youtube", "--set", "workload.bags=ragged"],
            "workload.bags: is ragged, and follows from the tables of youtube as fixed; leave it to them",
        ),
        (
            ["smoke", "--set", "model.name=youtube"],
            "smoke.toml: workload.rows: is 2000, and follows from the tables of youtube as 1000000; say",
        ),
    ],
)
def test_nothing_takes_the_place_of_a_models_tables(arguments: list[str], said: str) -> None:
    design = [] if "--model" not in arguments else ["--design", "stock"]
    assert said in str(harness("run", *arguments, *design, "--local", "--dry-run").exception)
    allowed = harness("run", "youtube", "--set", "workload.batch=8", "--local", "--dry-run")
    assert allowed.exit_code == 0


def test_datasets_are_said_once() -> None:
    given = ("run", "smoke", "--local", "--dry-run", "--dataset", "random", "--set")
    said = "--dataset and --set datasets say the same; leave one of them out."
    assert str(harness(*given, 'datasets=["one_item"]').exception) == said
    assert harness(*given, "replicates=2").exception is None


def test_neither_does_what_a_sweep_holds(tmp_path: Path) -> None:
    asked = tmp_path / "held.toml"
    text = """title = "t"
reference = "stock"
arms = [{ design = "stock" }]
[model]
name = "youtube"
[[sweep]]
key = "workload.batch"
values = [8, 16]
hold = { mode = "sum" }
"""
    asked.write_text(text, encoding="utf-8")
    assert harness("run", str(asked), "--local", "--dry-run").exception is None
    for held in ("rows = 2000", "tables = 3", "dim = 8", "pooling = 2", 'bags = "ragged"'):
        asked.write_text(text.replace('mode = "sum"', held), encoding="utf-8")
        said = f"held.toml: sweep.hold: {held.partition(' ')[0]} follows from the tables of youtube; leave it"
        assert said in str(harness("run", str(asked), "--local", "--dry-run").exception)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "workload.max_rows=7",
            "workload.max_rows: is what the tables of youtube say of themselves; say model.",
        ),
        (
            "workload.model=youtube",
            "workload.model: is what the tables of youtube say of themselves; model.name",
        ),
    ],
)
def test_what_a_model_says_of_its_tables_nobody_else_says(asked: str, said: str) -> None:
    assert said in str(harness("run", "youtube", "--set", asked, "--local", "--dry-run").exception)


def test_a_compiler_for_the_arms_of_an_experiment_is_refused() -> None:
    refused = harness("run", "paper", "--toolchain", "13.0", "--dry-run")
    assert refused.exit_code == 2
    assert "--toolchain goes with --design" in refused.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["merge", "mine", "mine", "--output", ""],
        ["run", "smoke", "--local", "--output", ""],
        ["report", "mine", "--output", ""],
        ["report", ""],
        ["trace", "import", "t.txt", "", "--rows", "9"],
        ["trace", "import", "", "t", "--rows", "9"],
    ],
)
def test_an_empty_path_is_not_the_working_directory(arguments: list[str], runs: Path) -> None:
    """It is what a shell makes of a variable that is not set."""
    before = sorted(Path().iterdir())
    refused = harness(*arguments)
    assert refused.exit_code == 2
    assert "is empty" in refused.output
    assert sorted(Path().iterdir()) == before


def test_what_a_part_would_measure_is_told_of_that_part() -> None:
    def cells(*more: str) -> list[str]:
        told = json.loads(harness("run", "smoke", "--local", "--dry-run", "--json", *more).stdout)
        return [*told["cell_ids"], *[""] * (told["cells"] - len(told["cell_ids"]))]

    first, second = cells("--part", "1/2"), cells("--part", "2/2")
    assert first
    assert sorted(first + second) == sorted(cells())
    assert not {*first} & {*second}
    assert (
        "part 2/2 of 2 replicates" in harness("run", "smoke", "--local", "--dry-run", "--part", "2/2").stdout
    )
    for wrong in ("0/2", "2/1", "a/b", "3/3"):
        refused = harness("run", "smoke", "--local", "--dry-run", "--part", wrong)
        assert f"--part {wrong}" in str(refused.exception).replace("'", "")


def test_lists_of_runs_can_be_pasted(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = harness("runs").stdout
    for name in ("mine", "reference/kernels", "reference/one/paper", "reference/two/paper"):
        assert f" {name} " in f" {listed} "
    assert len([line for line in listed.splitlines() if "reference/" in line]) == 3
    assert len(json.loads(harness("runs", "--json").stdout)) == 4


def test_designs_take_a_line_each_and_all_of_one_is_told() -> None:
    lines = harness("designs").stdout.splitlines()
    for name in designs.discover():
        assert (
            len([line for line in lines if line.startswith(f" {name} ") or line.startswith(f"{name} ")]) == 1
        )
    told = harness("designs", "combined").stdout
    assert "Tunable distance = 2" in told
    assert "Register cap: 42" in told


def test_the_shell_completes_runs_and_datasets(runs: Path) -> None:
    complete = ShellComplete(cli, {}, "harness", "_HARNESS_COMPLETE")
    found = [item.value for item in complete.get_completions(["compare"], "ref")]
    assert found == ["reference/kernels", "reference/one/paper", "reference/two/paper"]
    assert "medium" in [item.value for item in complete.get_completions(["run", "paper", "--dataset"], "me")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_that_shell(shell: str) -> None:
    made = harness("completion", shell)
    assert made.exit_code == 0
    assert f"_HARNESS_COMPLETE={shell}_complete" in made.stdout


def test_no_command_is_summed_up_with_dots() -> None:
    listed = harness("--help").stdout.partition("Commands:")[2]
    assert "..." not in listed


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--dry-run"], "leave out --dry-run."),
        (["--set", "seed=2", "--dry-run"], "leave out --set, --dry-run."),
        (["--dataset", "random"], "leave out --dataset."),
    ],
)
def test_resume_names_what_does_not_go_with_it(options: list[str], named: str) -> None:
    ended = CliRunner().invoke(cli, ["run", "--resume", "a-run", *options])
    assert ended.exit_code == 2
    assert named in " ".join(ended.output.split())
