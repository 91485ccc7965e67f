"""`harness runs`, `report` in its three formats, and runs beside those that ship with the project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner, Result

from harness.cli import cli, measuring, shared
from harness.records import Variant, Workload
from tests import synthetic_run as synthetic

HOSTILE = "a | b <script>alert(1)</script>"


@pytest.fixture
def run(tmp_path: Path) -> str:
    return write(tmp_path / "mine")


def write(folder: Path, **changes: object) -> str:
    arms = (Variant("baseline", "12.1"), Variant("combined", "12.1"))
    settings = {"arms": arms, "datasets": ("medium",), "replicates": 2, "name": "paper"} | changes
    return str(synthetic.write_run(folder, synthetic.experiment(**settings)))  # type: ignore[arg-type]


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=True)


def test_runs_below_a_folder(run: str, tmp_path: Path) -> None:
    write(tmp_path / "deep" / "other", title=HOSTILE)
    result = harness("runs", str(tmp_path), "--json")
    assert result.exit_code == 0, result.output
    lines = json.loads(result.stdout)
    assert {line["folder"] for line in lines} == {run, str(tmp_path / "deep" / "other")}
    assert all(line["measured"] == 4 for line in lines)
    table = harness("runs", str(tmp_path))
    assert table.exit_code == 0, table.output
    assert "4 ok" in table.stdout


def test_a_folder_without_runs_is_said(tmp_path: Path) -> None:
    result = harness("runs", str(tmp_path))
    assert "holds no run" in str(result.exception)


def test_markdown_keeps_hostile_text_in_its_place(tmp_path: Path) -> None:
    result = harness("report", write(tmp_path / "run", title=HOSTILE), "--format", "md")
    assert result.exit_code == 0, result.output
    assert "<script>" not in result.stdout
    assert "a \\| b \\<script\\>" in result.stdout
    assert "| combined@12.1 | 1." in result.stdout
    assert "on SYNTHETIC GPU" in result.stdout
    assert not (tmp_path / "run" / "report.html").exists()


def test_formats_go_into_the_output(run: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.json"
    assert harness("report", run, "--format", "json", "--output", str(out)).exit_code == 0
    assert json.loads(out.read_text(encoding="utf-8")) == json.loads(harness("report", run, "--json").stdout)


def test_a_run_beside_the_reference(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "REFERENCE_DIR", tmp_path / "reference")
    write(tmp_path / "reference" / "gpu" / "paper")
    result = harness("report", run, "--against", "reference", "--format", "md")
    assert result.exit_code == 0, result.output
    assert "A: SYNTHETIC" in result.stdout
    assert "| combined@12.1 | medium |" in result.stdout
    compared = harness("compare", run, "--against", "reference")
    assert compared.exit_code in (0, 4), compared.output
    assert "B against A" in compared.output or "mine against paper" in compared.output
    itself = harness("report", run, "--against", run)
    assert "is" in str(itself.exception)
    assert "itself" in str(itself.exception)


def test_two_second_runs_are_one_too_many(run: str) -> None:
    assert "or one and --against" in harness("compare", run, run, "--against", run).output


@pytest.mark.parametrize(("device", "hint"), [("cuda", True), ("cpu", False)])
def test_a_run_on_a_gpu_is_pointed_to_ours_and_one_on_the_cpu_is_not(
    device: Literal["cuda", "cpu"], hint: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "mine", workload=Workload(device=device))
    measuring._finish(Path(folder), as_json=False)
    assert ("--against reference" in capsys.readouterr().out) is hint
