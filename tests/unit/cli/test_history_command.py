"""`harness history`: which runs it takes, what it prints and where its page goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from harness.cli import cli
from harness.errors import BadInputError
from tests import synthetic_history as days
from tests import synthetic_run as synthetic


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    days.write(tmp_path / "deep", 1)
    days.write(tmp_path, 2, {"optmt": 1.08})
    synthetic.write_run(tmp_path / "earlier", days.experiment(name="other"), days.on_day(1))
    return tmp_path


def test_the_newest_runs_experiment_is_shown(folder: Path) -> None:
    result = harness("history", "--in", str(folder))
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "2 runs on SYNTHETIC GPU" in said
    assert "times as fast between deep/day-1 (aaaaaaa) and day-2 (bbbbbbb)." in said
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    page = folder / "history-nightly.html"
    assert result.stdout.endswith(f"Page: {page}\n")
    assert "deep/day-1" in page.read_text(encoding="utf-8")


def test_json_writes_no_page(folder: Path) -> None:
    result = harness("history", "other", "--in", str(folder), "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["experiment"], len(told["settings"][0]["moments"])) == ("other", 1)
    assert list(folder.glob("*.html")) == []


def test_without_a_run_of_ones_own_it_is_of_those_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = harness("history", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["settings"]


def test_of_the_runs_under_results_and_those_shipped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "results").mkdir()
    (folder / "day-2").rename(folder / "results/day-2")
    monkeypatch.chdir(folder)
    result = harness("history", "--metric", "kernel_us", "--output", "out/page.html")
    assert result.exit_code == 0, result.output
    assert "One run so far" in result.stdout
    assert (folder / "out/page.html").is_file()
    shipped = harness("history", "modern", "--json")
    assert shipped.exit_code == 0, shipped.output
    moments = [one["run"] for s in json.loads(shipped.stdout)["settings"] for one in s["moments"]]
    assert moments == ["reference/modern"]


def test_bad_input_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    unknown = harness("history", "nightly2", "--in", str(folder)).exception
    assert isinstance(unknown, BadInputError)
    assert str(unknown).endswith("; of others: nightly, other. Did you mean 'nightly'?")
    (tmp_path / "empty").mkdir()
    empty = harness("history", "--in", str(tmp_path / "empty")).exception
    assert isinstance(empty, BadInputError)
    assert "holds no run" in str(empty)
    assert harness("history", "--in", str(tmp_path / "nowhere")).exit_code == 2


def test_experiments_are_completed() -> None:
    complete = ShellComplete(cli, {}, "harness", "_HARNESS_COMPLETE")
    for command in ("history", "run"):
        assert [one.value for one in complete.get_completions([command], "kern")] == ["kernels"]
