"""What a careful reader is told of the batches that took turns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.analysis import trust
from harness.analysis.analyse import analyse
from harness.analysis.trust import Finding
from harness.records import Cell, CellRecord
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
