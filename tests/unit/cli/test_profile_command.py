"""`harness profile` from the command line to the page, with a profiler that is a script and no GPU."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness import designs, wall
from harness.cli import cli
from harness.errors import BadInputError, CellsFailedError, InterruptedRunError, MachineError
from harness.records import Cell, CellRecord, Variant, to_json, write_whole
from harness.run import runner
from harness.run.attempt import Attempt
from harness.run.runner import Outcome, Terms
from tests import synthetic_run as synthetic

RAW = Path(__file__).resolve().parents[2] / "data" / "ncu" / "raw.csv"


class Fake:
    """A runner on whose GPU the profiler sees the launches of tests/data/ncu."""

    fails = False

    def check(self, *_: object) -> None: ...
    def clear(self, *_: object) -> None: ...

    @contextlib.contextmanager
    def hold(self, *_: object) -> Iterator[None]:
        yield

    def run(self, attempt: Attempt, terms: Terms) -> Outcome:
        attempt.sign(wall.Provenance("docker"))
        for cell in attempt.launch.cells:
            record = CellRecord(cell, "failed", "No luck.") if self.fails else CellRecord(cell, "ok")
            write_whole(attempt.output / wall.file_of(cell.id), to_json(record))
        (attempt.output / wall.REPORT).write_text("", encoding="utf-8")
        attempt.over = True
        return Outcome("ended")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    script = tmp_path / "ncu"
    version = 'if [ "$1" = --version ]; then echo "Version 2025.3.1.0"; exit; fi'
    script.write_text(f"#!/bin/sh\n{version}\ncat {RAW}\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("HARNESS_NCU", str(script))
    made = Fake()
    monkeypatch.setattr(runner, "choose", lambda **_: made)
    return made


@pytest.fixture
def run(tmp_path: Path) -> str:
    arms = (Variant("baseline", "12.1"), Variant("combined", "12.1"))
    what = synthetic.experiment(arms=arms, datasets=("medium", "random"), replicates=2)
    return str(synthetic.write_run(tmp_path / "run", what, _of_today))


def _of_today(cell: Cell) -> CellRecord:
    """A record of the sources that are here."""
    record = synthetic.record(cell)
    assert record.kernel is not None
    kernel = dataclasses.replace(record.kernel, source_hash=designs.get(cell.design).source_hash)
    return dataclasses.replace(record, kernel=kernel)


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=True)


@pytest.mark.usefixtures("fake")
def test_a_run_gets_its_profiles_and_the_page_shows_them(run: str) -> None:
    result = harness("profile", run)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "inside the kernels on medium" in result.output
    assert len(list(Path(run).glob("cells/*/profile.json"))) == 4
    page = (Path(run) / "report.html").read_text(encoding="utf-8")
    assert 'id="profile"' in page
    assert "Nsight Compute 2025.3.1.0" in page
    figures = json.loads(harness("profile", run, "--arm", "baseline@12.1", "--json").stdout)
    # All that the run has, not only what was profiled now.
    assert {(one["variant"]["design"], one["dataset"]) for one in figures} == {
        (design, dataset) for design in ("baseline", "combined") for dataset in ("medium", "random")
    }


@pytest.mark.usefixtures("fake")
def test_an_experiment_is_profiled_in_a_run_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "new"
    chosen = ("--set", 'datasets=["medium", "random"]', "--output", str(out))
    result = harness("profile", "--design", "combined", *chosen)
    assert result.exit_code == 0, (result.output, result.exception)
    assert len(list(out.glob("cells/*/profile.json"))) == 6, "baseline, combined and stock"
    assert list(out.glob("cells/*/record.json")) == []
    assert "under the profiler" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("fake")
def test_counters_of_memory_alone_are_shown_and_the_others_are_said_to_be_unknown(run: str) -> None:
    result = harness("profile", run, "--counters", "memory")
    assert result.exit_code == 0, (result.output, result.exception)
    figures = json.loads(harness("profile", run, "--counters", "memory", "--json").stdout)
    names = {figure["name"] for one in figures for figure in one["figures"]}
    assert {"l1_hits", "l2_hits", "l2_bytes", "dram_read_bytes", "registers"} <= names
    assert "waiting" not in names
    assert all(one["stalls"] == {} for one in figures)
    page = (Path(run) / "report.html").read_text(encoding="utf-8")
    assert 'id="profile"' in page
    assert "Where the warps" not in page


@pytest.mark.usefixtures("fake")
def test_an_interruption_tells_the_command_with_its_options(
    run: str, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "run", interrupted)
    result = harness("profile", run, "--local", "--counters", "memory", "--gpu", "1", "--dataset", "medium")
    assert isinstance(result.exception, InterruptedRunError)
    assert str(result.exception) == (
        f"Interrupted; 0 of 2 cells have their profiles. Go on with `harness profile {run} --counters memory "
        "--local --gpu 1 --arm baseline@12.1 --arm combined@12.1 --dataset medium`."
    )


def test_what_was_not_profiled_is_said(run: str, fake: Fake) -> None:
    fake.fails = True
    result = harness("profile", run, "--dataset", "random")
    assert isinstance(result.exception, CellsFailedError)
    assert "2 of 2 cells were not profiled" in str(result.exception)
    assert "No luck." in str(result.exception)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["nothing"], BadInputError, "neither an experiment's file"),
        (["RUN", "--design", "combined"], SystemExit, "or --design"),
        (["RUN", "--set", "workload.tables=1"], SystemExit, "a RUN has its own"),
        (["RUN", "--dataset", "hgih"], BadInputError, "--dataset hgih"),
    ],
)
def test_mistakes(run: str, arguments: list[str], kind: type[BaseException], said: str) -> None:
    result = harness("profile", *(run if word == "RUN" else word for word in arguments))
    assert isinstance(result.exception, kind)
    assert said in result.output + str(result.exception)


def test_without_the_profiler_nothing_begins(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_NCU", "/nowhere")
    assert isinstance(harness("profile", run).exception, MachineError)
