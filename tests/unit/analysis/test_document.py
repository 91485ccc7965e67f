"""The JSON report is what its schema says, and the committed schema is today's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from harness import profiles as files
from harness.analysis import document, frame, results, summary
from harness.analysis.document import Report
from harness.cli.shared import REFERENCE_DIR
from harness.profiles import KernelLaunch, Profile
from harness.records import to_json
from tests import synthetic_run as synthetic
from tests.unit.analysis import test_sweeps


def told(*folders: Path) -> Any:
    """The report of these runs as a program reads it."""
    derived = results.derive(frame.load(folders))
    return json.loads(json.dumps(summary.summary(derived.loaded, derived), allow_nan=False))


def assert_described(found: Any) -> None:
    """Nothing is amiss, and nothing is there that the schema does not name: that would be lost on the way."""
    kind = TypeAdapter(Report)
    assert json.loads(kind.dump_json(kind.validate_python(found))) == found


def test_the_committed_schema_is_what_the_program_would_write() -> None:
    # After a change of the report: python -m harness.analysis.document
    assert document.SCHEMA_FILE.read_text(encoding="utf-8") == document.schema()


def test_every_key_is_described() -> None:
    schema = json.loads(document.schema())
    assert "µs" in json.dumps(schema["$defs"]["Time"], ensure_ascii=False)
    assert schema["$defs"]["Figures"]["properties"]["registers"]
    assert schema["$defs"]["Figures"]["properties"]["issuing"]["description"]


def test_a_failed_and_a_profiled_run(tmp_path: Path) -> None:
    root = synthetic.write_run(
        tmp_path / "run",
        synthetic.experiment(stock=True),
        lambda cell: synthetic.failed(cell) if cell.dataset.name == "low" else synthetic.record(cell),
    )
    record = frame.load_run(root).records[0]
    launch = KernelLaunch("lookup", "", "", {"gpu__time_duration.sum": 1e5})
    files.path_of(root, record.cell).write_text(
        to_json(Profile(record.cell, "ok", launches=[launch])), "utf-8"
    )
    found = told(root)
    assert found["profiles"]
    assert_described(found)


def test_a_sweep(tmp_path: Path) -> None:
    what = test_sweeps.what(tmp_path, test_sweeps.BATCH, test_sweeps.DISTANCE)
    found = told(test_sweeps.derived(tmp_path, what).loaded.runs[0].folder)
    assert found["sweeps"][0]["points"]
    assert_described(found)


def test_the_runs_that_ship_with_the_project() -> None:
    found = told(*sorted(path.parent for path in REFERENCE_DIR.glob("*/*/plan.json")))
    assert found["pins"]
    assert_described(found)


def test_another_version_is_not_taken_for_this(tmp_path: Path) -> None:
    found = told(synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1)))
    with pytest.raises(ValidationError, match="schema_version"):
        TypeAdapter(Report).validate_python(found | {"schema_version": 1})
