"""`harness compare` and `harness selftest` as a gate sees them: exit codes, output, refusals."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import cli, shared
from harness.errors import BadInputError
from harness.records import Cell, CellRecord, Variant
from tests import synthetic_run as synthetic

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a run of two designs on two datasets whose processes hardly differ; returns its folder."""

    def build(name: str, factor: float = 1.0, driver: str = "580.00", processes: int = 3) -> str:
        def make(cell: Cell) -> CellRecord:
            record = synthetic.record(cell, passes=12)
            aim = 100 * (factor if cell.design == "combined" else 1.0) * (1 + 0.0005 * (cell.replicate % 3))
            samples = {
                metric: [aim * (1 + 0.001 * (n % 3)) for n in range(len(values))]
                for metric, values in record.samples.items()
                if metric != "prepare_us"
            }
            assert record.environment is not None
            environment = dataclasses.replace(record.environment, driver=driver)
            return dataclasses.replace(record, samples=samples, environment=environment)

        what = synthetic.experiment(
            arms=(Variant("baseline", "12.1"), Variant("combined", "12.1")),
            datasets=("medium", "random"),
            replicates=processes,
            name="paper",
        )
        return str(synthetic.write_run(tmp_path / name, what, make))

    return build


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=True)


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (0.9, 0), (1.05, 3), (1.0095, 4)])
def test_exit_code_is_the_verdict(write: Write, factor: float, code: int) -> None:
    result = harness("compare", write("old"), write("new", factor))
    assert result.exit_code == code, result.output


def test_json_says_what_the_table_says(write: Write) -> None:
    old, new = write("old"), write("new", 1.05)
    found = json.loads(harness("compare", old, new, "--json", "--metric", "kernel_us").output)
    assert (found["schema_version"], found["verdict"], found["exit_code"]) == (1, "slower", 3)
    slower = [c for c in found["comparisons"] if c["verdict"] == "slower"]
    assert {(c["b"], c["dataset"], c["metric"]) for c in slower} == {
        ("combined@12.1", "medium", "kernel_us"),
        ("combined@12.1", "random", "kernel_us"),
    }
    assert slower[0]["corrected"]["low"] < slower[0]["ratio"]["low"] < 1.05 < slower[0]["ratio"]["high"]
    table = harness("compare", old, new).output
    assert "+5.0" in table
    assert "slower" in table


def test_a_sentence_comes_first_and_all_fits_80_columns(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write("run", 1.25)
    told = " ".join(harness("compare", run, "--dataset", "medium").output.split())
    assert "combined@12.1 is 0.80 ± 0.01 times as fast as baseline@12.1 on medium: slower." in told
    lines = harness("compare", run).output.splitlines()
    assert "combined@12.1 is 0.80 times as fast as baseline@12.1: slower in 2 of 2." in lines
    table = [line for line in lines if line.startswith((" medium", " random"))]
    assert len(table) == 2
    assert max(map(len, table)) <= 80
    both = harness("compare", write("old"), write("new", 0.5)).output
    assert "combined@12.1 of new is 2.00 times as fast as that of old: faster in 2 of 2." in both


def test_threshold_is_the_users(write: Write) -> None:
    old, new = write("old"), write("new", 1.02)
    assert harness("compare", old, new).exit_code == 3
    assert harness("compare", old, new, "--threshold", "3").exit_code == 0
    for wrong in ("-1", "nan", "100"):
        assert harness("compare", old, new, "--threshold", wrong).exit_code == 2


def test_refusal_is_bad_input_and_the_allowance_is_written_down(write: Write) -> None:
    old, new = write("old"), write("new", driver="570.1")
    refused = harness("compare", old, new)
    assert isinstance(refused.exception, BadInputError)
    assert "driver: 580.00 against 570.1" in str(refused.exception)
    for form in (["--format", "md"], ["--format", "table"]):
        allowed = harness("compare", old, new, "--allow-different", *form)
        assert allowed.exit_code == 0
        assert "COMPARED ALTHOUGH DIFFERENT" in allowed.output
    raw = json.loads(harness("compare", old, new, "--allow-different", "--json").output)
    assert raw["allowed"] == [{"what": "driver", "a": ["580.00"], "b": ["570.1"]}]


def test_markdown_is_one_table_whatever_the_names(write: Write) -> None:
    result = harness("compare", write("a|b <x> `c`"), write("new", 1.05), "--format", "md")
    rows = [line for line in result.output.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert len({row.replace(r"\|", "").count("|") for row in rows}) == 1
    assert r"a\|b \<x\> \`c\`" in result.output


def test_designs_of_one_run(write: Write) -> None:
    run = write("run", 1.05)
    assert harness("compare", run).exit_code == 3
    assert harness("compare", run, "--a", "combined@12.1", "--b", "baseline@12.1").exit_code == 0
    missing = harness("compare", run, "--b", "nope")
    assert isinstance(missing.exception, BadInputError)


def test_reference_stands_for_the_shipped_run_of_the_same_experiment(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gpu").mkdir()
    write("gpu/paper")
    write("gpu/modern", 2.0)
    monkeypatch.setattr(shared, "REFERENCE_DIR", tmp_path)
    assert harness("compare", "reference", write("new", 1.05)).exit_code == 3
    (tmp_path / "gpu" / "paper").rename(tmp_path / "gpu" / "other")
    lost = harness("compare", "reference", str(tmp_path / "new"))
    assert isinstance(lost.exception, BadInputError)
    assert "several of our runs are as near to this one of experiment 'paper'" in str(lost.exception)


def test_the_program_itself_ends_with_the_code(write: Write) -> None:
    command = [sys.executable, "-m", "harness.cli", "compare"]
    slower = subprocess.run([*command, write("old"), write("new", 1.05)], check=False, capture_output=True)
    nothing = subprocess.run([*command, "nowhere"], check=False, capture_output=True, text=True)
    assert slower.returncode == 3
    assert nothing.returncode == 2
    assert nothing.stderr.startswith("harness: nowhere: is not the folder of a run (it has no plan.json), ")
    assert nothing.stderr.count("\n") == 1


def test_selftest_of_a_run_that_is_there(write: Write, tmp_path: Path) -> None:
    run = write("run", processes=8)
    result = harness("selftest", "--from", run, "--splits", "20", "--arm", "combined@12.1")
    assert result.exit_code == 0, result.output
    assert "do not cry wolf" in result.output
    found = json.loads((tmp_path / "run" / "selftest.json").read_text(encoding="utf-8"))
    assert found["schema_version"] == 1
    assert [test["arm"] for test in found["tests"]] == ["combined@12.1"]
    injected = {rate["injected"] for rate in found["tests"][0]["rates"]}
    assert injected == {0.0, 0.01, 0.02, 0.05}
    few = harness("selftest", "--from", write("few"))
    assert isinstance(few.exception, BadInputError)
    unknown = harness("selftest", "--from", run, "--arm", "nope")
    assert str(unknown.exception) == "run: has no arm 'nope'; it has: baseline@12.1, combined@12.1."


def test_selftest_refuses_before_it_measures(tmp_path: Path) -> None:
    for wrong in (["--processes", "5"], ["--arm", "combined@12.1"]):
        result = harness("selftest", "--local", "--output", str(tmp_path / "run"), *wrong)
        assert result.exit_code == 2, result.output
    assert not (tmp_path / "run").exists()


def test_selftest_measures_by_the_ordinary_street(tmp_path: Path) -> None:
    """On the CPU, in fresh processes. Its noise decides the verdict, so only the stages are checked."""
    sizes = ("tables=2", "rows=2000", "dim=16", "batch=32", "pooling=10")
    settings = ["workload.device=cpu", "timing.max_seconds=0.1", *(f"workload.{size}" for size in sizes)]
    result = harness(
        *("selftest", "--local", "--design", "stock", "--dataset", "random", "--processes", "4"),
        *("--replicates", "2", "--splits", "5", "--output", str(tmp_path / "run"), "--json"),
        *(part for setting in settings for part in ("--set", setting)),
    )
    assert result.exit_code in (0, 3, 4), result.output
    found = json.loads((tmp_path / "run" / "selftest.json").read_text(encoding="utf-8"))
    assert found["tests"][0]["processes"] == 4
    assert found["tests"][0]["run"] == "run"
    assert len(list((tmp_path / "run").glob("cells/*/record.json"))) == 4
