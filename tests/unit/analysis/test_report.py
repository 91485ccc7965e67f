"""The report is one value: JSON is it and nothing else, printers take it alone, and its schema is today's."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from harness import wall
from harness.analysis import frame, report
from harness.analysis.analyse import analyse
from harness.analysis.report import Report
from harness.cli.shared import REFERENCE_DIR, as_text
from harness.profiles import KernelLaunch, Profile
from harness.records import Cell, CellRecord, to_json
from harness.report import markdown, page
from tests import synthetic_run as synthetic
from tests.unit.analysis import test_sweeps

REPORT = Path(page.__file__).parent


def told(found: Report) -> str:
    """As the command writes it."""
    return as_text(dataclasses.asdict(found))


def assert_one_value(found: Report) -> None:
    """JSON read back is the same value, and no printer makes anything else of it."""
    again = TypeAdapter(Report).validate_json(told(found))
    assert again == found
    assert markdown.of(again) == markdown.of(found)
    assert page.html(again).split("<footer>")[0] == page.html(found).split("<footer>")[0]


def test_the_committed_schema_is_what_the_program_would_write() -> None:
    # After a change of the report: python -m harness.analysis.report
    assert report.SCHEMA_FILE.read_text(encoding="utf-8") == report.schema()


def test_keys_are_described() -> None:
    kinds = json.loads(report.schema())["$defs"]
    assert "µs" in kinds["Figure"]["properties"]["unit"]["description"]
    assert kinds["Workload"]["properties"]["pooling"]["description"]
    assert kinds["Variant"]["properties"]["toolchain"]["description"]


def test_a_failed_and_a_profiled_run(tmp_path: Path) -> None:
    root = synthetic.write_run(
        tmp_path / "run",
        synthetic.experiment(stock=True),
        lambda cell: synthetic.failed(cell) if cell.dataset.name == "low" else synthetic.record(cell),
    )
    record = frame.load_run(root).records[0]
    launch = KernelLaunch("lookup", "", "", {"gpu__time_duration.sum": 1e5})
    (root / wall.CELLS / record.cell.id / wall.PROFILE).write_text(
        to_json(Profile(record.cell, "ok", launches=[launch])), "utf-8"
    )
    found = analyse([root])
    assert found.runs[0].profile
    assert_one_value(found)


def test_a_sweep(tmp_path: Path) -> None:
    what = test_sweeps.what(tmp_path, test_sweeps.BATCH, test_sweeps.DISTANCE)
    found = analyse([synthetic.write_run(tmp_path / "run", what, test_sweeps.record)])
    assert found.runs[0].sweep
    assert_one_value(found)


def test_the_runs_that_ship_with_the_project() -> None:
    found = analyse(sorted(path.parent for path in REFERENCE_DIR.glob("*/*/plan.json")))
    assert any(run.pins for run in found.runs)
    assert_one_value(found)


def test_another_version_is_not_taken_for_this(tmp_path: Path) -> None:
    found = analyse([synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))])
    with pytest.raises(ValidationError, match="schema_version"):
        TypeAdapter(Report).validate_python(dataclasses.asdict(found) | {"schema_version": 2})


READS = ("frame", "analyse", "comparable", "history", "results", "stats")
"""Modules of the analysis that read folders or compute; types stand in them too."""


@pytest.mark.parametrize("path", sorted(REPORT.rglob("*.py")), ids=lambda path: str(path.relative_to(REPORT)))
def test_printers_know_the_result_of_the_analysis_alone(path: Path) -> None:
    """From where something is read or computed they take types, and nothing that does either."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("harness"):
            continue
        names = {alias.name for alias in node.names}
        assert node.module not in ("harness.plan", "harness.profiles", "harness.traces"), ast.unparse(node)
        if node.module == "harness.analysis":
            assert not names & set(READS), ast.unparse(node)
        elif str(node.module).removeprefix("harness.analysis.") in READS:
            assert all(name[0].isupper() for name in names), ast.unparse(node)
            assert not names & {"LoadedRun", "Measured", "Measurement", "Sampled"}, ast.unparse(node)
        elif node.module == "harness.records":
            assert not names & {"Cell", "CellRecord", "load"}, ast.unparse(node)


@pytest.mark.parametrize("name", ["distinct_share", "hotness"])
def test_the_share_of_distinct_rows_is_read_under_its_older_name_too(tmp_path: Path, name: str) -> None:
    def made(cell: Cell) -> CellRecord:
        found = synthetic.record(cell)
        return dataclasses.replace(found, facts=found.facts | {name: 0.125})

    (run,) = analyse([synthetic.write_run(tmp_path / "run", synthetic.experiment(), made)]).runs
    assert {trace.distinct_share for trace in run.traces} == {0.125}
