"""What a careful reader is told of the batches that took turns."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.analysis import trust
from harness.analysis.analyse import analyse
from harness.analysis.report import Run
from harness.analysis.trust import Finding
from harness.cli import cli
from harness.records import Cell, CellRecord, KernelFacts, Variant
from harness.report import page
from tests import synthetic_run as synthetic

L2 = 50_000_000


def findings(tmp_path: Path, facts: dict[str, float], *, from_a_file: bool = False) -> list[Finding]:
    """Those on the batches of a run whose records hold these facts."""

    def made(cell: Cell) -> CellRecord:
        found = synthetic.record(cell)
        assert found.environment is not None
        environment = dataclasses.replace(found.environment, l2_bytes=L2)
        return dataclasses.replace(found, facts=found.facts | facts, environment=environment)

    what = synthetic.experiment(datasets=("medium",), arms=synthetic.experiment().arms[:1])
    if from_a_file:
        trace = tmp_path / "mine.npy"
        trace.touch()
        what = dataclasses.replace(what, datasets=(str(trace),))
    (run,) = analyse([synthetic.write_run(tmp_path / "run", what, made)]).runs
    return [finding for finding in run.findings if finding.what == "batches"]


def test_records_without_turns_and_with_enough_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    assert findings(tmp_path / "old", {}) == []
    enough = {"batches": 3.0, "bytes_between_turns": 3.0 * L2, "bytes_until_trace_repeats": 2.0 * L2}
    assert findings(tmp_path, enough, from_a_file=True) == []


def test_batches_that_l2_may_keep_are_told(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, {"batches": 4096.0, "bytes_between_turns": L2 - 1.0})
    assert (found.level, len(found.records)) == ("note", 3)
    assert "too small" in found.detail


@pytest.mark.parametrize("from_a_file", [True, False])
def test_a_trace_file_that_is_too_short_is_told_and_a_synthetic_one_has_no_further_rows(
    tmp_path: Path, from_a_file: bool
) -> None:
    facts = {"batches": 9.0, "bytes_between_turns": 3.0 * L2, "bytes_until_trace_repeats": L2 / 2}
    found = findings(tmp_path, facts, from_a_file=from_a_file)
    assert [finding.level for finding in found] == ["note"] * from_a_file
    if from_a_file:
        assert "the trace is too short (mine)" in found[0].detail
        assert trust.verdict(found) == "note"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: path.unlink(), "experiment.toml is gone"),
        (
            lambda path: path.write_text(path.read_text().replace('"optmt@12.1"', '"other@12.1"')),
            "experiment.toml names 'other@12.1', which is none of the run's arms",
        ),
    ],
    ids=["gone", "of other arms"],
)
def test_a_reference_that_the_run_may_not_have_named_is_told(
    tmp_path: Path, change: Callable[[Path], object], why: str
) -> None:
    """Wherever checks are shown."""
    arms = (Variant("optmt", "12.1"), Variant("baseline", "12.1"))
    what = synthetic.experiment(arms=arms, reference="optmt@12.1", datasets=("medium",))
    run = synthetic.write_run(tmp_path / "run", what)
    assert not [one for one in analyse([run]).runs[0].findings if one.what == "reference"]
    change(run / "experiment.toml")
    report = analyse([run])
    (found,) = (one for one in report.runs[0].findings if one.what == "reference")
    said = f"{why}: speedups here are over baseline@12.1, which may not be the run's own choice"
    assert (found.level, found.detail) == ("note", said)
    shown = html.unescape(page.write(report, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert said in shown
    for form in ("html", "md", "json"):  # with the page comes what the terminal shows
        ran = CliRunner().invoke(cli, ["report", str(run), "--format", form])
        assert ran.exit_code == 0
        assert "speedups here are over baseline@12.1" in " ".join(ran.output.split())


LIBRARY = "fbgemm_gpu/lookup.so"


def with_libraries(tmp_path: Path, told: Callable[[Cell], dict[str, str]]) -> Run:
    """A run that measured FBGEMM, whose records tell of these shared libraries."""

    def made(cell: Cell) -> CellRecord:
        found = synthetic.record(cell)
        assert isinstance(found.kernel, KernelFacts)
        libraries = told(cell) if cell.design == "fbgemm" else {}
        return dataclasses.replace(found, kernel=dataclasses.replace(found.kernel, libraries=libraries))

    arms = (synthetic.experiment().arms[0], Variant("stock"), Variant("fbgemm"))
    what = synthetic.experiment(datasets=("medium",), arms=arms)
    return analyse([synthetic.write_run(tmp_path / "run", what, made)]).runs[0]


def test_one_build_of_a_library_in_every_record_speaks_for_the_run(tmp_path: Path) -> None:
    run = with_libraries(tmp_path, lambda cell: {LIBRARY: "a" * 64} | {f"more/{cell.replicate}.so": "b" * 64})
    (found,) = (finding for finding in run.findings if finding.what == "libraries")
    assert (found.level, found.detail) == ("good", "4 shared ones, the same in every record")


def test_another_build_in_some_records_speaks_against_the_figures(tmp_path: Path) -> None:
    run = with_libraries(tmp_path, lambda cell: {LIBRARY: ("a" if cell.replicate else "b") * 64})
    (found,) = (finding for finding in run.findings if finding.what == "libraries")
    assert found.level == "bad"
    assert found.detail == f"of another build in some records than in others: {LIBRARY}"
    assert len(found.records) == 3
    (difference,) = (one for one in run.environment_differences if LIBRARY in one.field)
    assert {value: len(cells) for value, cells in difference.values.items()} == {"a" * 64: 2, "b" * 64: 1}


def test_records_of_a_library_without_hashes_are_read_with_care(tmp_path: Path) -> None:
    run = with_libraries(tmp_path, lambda _: {})
    (found,) = (finding for finding in run.findings if finding.what == "libraries")
    assert (found.level, len(found.records)) == ("note", 3)
    assert "of fbgemm no record of 3 tells by a hash" in found.detail


def test_the_page_shows_the_hashes_of_libraries(tmp_path: Path) -> None:
    with_libraries(tmp_path, lambda _: {LIBRARY: "0123456789abcdef" * 4})
    text = page.write(analyse([tmp_path / "run"]), tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"{LIBRARY} 0123456789abcdef<" in text
