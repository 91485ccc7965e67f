"""What was changed in a run's folder is found, and an honest run holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from harness import plan, wall
from harness.cli import cli
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.records import CellRecord, load, to_json
from harness.run import campaign, looked_up, manifest, verify
from harness.traces import demand, replay
from tests.pretended_runner import FakeRunner
from tests.unit.run.tampering import (
    TAMPERED,
    asked_for,
    change,
    ended_after_the_next_began,
    first_record,
    measure,
    on_gpu,
    samples,
    unplanned,
)


@pytest.fixture
def root(experiment: Experiment, runner: FakeRunner, tmp_path: Path) -> Path:
    runner.measure = measure
    return campaign.start(experiment, runner, tmp_path / "run")


def broken(root: Path) -> set[str]:
    return {found.what for found in verify.verify(root) if found.level == "broken"}


def test_an_honest_run_holds(root: Path) -> None:
    found = {one.what: one for one in verify.verify(root)}
    assert {one.what for one in found.values() if one.level == "holds"} == {
        *("plan", "cells", "files", "samples", "outputs", "times", "traces", "limits", "sources"),
    }
    assert found["files"].detail == "27 are those of manifest.json"  # eight cells of three, and three more
    told = load(manifest.Manifest, root / manifest.FILE)
    assert set(told.indices) == {"one_item", "random"}
    assert {"harness/bench", "harness/patch", "harness/traces", "opt_designs/baseline"} <= set(told.sources)


@pytest.mark.parametrize(("tamper", "what"), TAMPERED)
def test_what_was_changed_is_found(root: Path, tamper: Callable[[Path], None], what: str) -> None:
    tamper(root)
    assert what in broken(root)
    if tamper is not unplanned:
        assert "files" in broken(root)
    (root / manifest.FILE).unlink()  # whoever changes a run may have changed that, too
    assert what in broken(root)


def test_a_changed_log_and_a_record_that_is_gone_are_found(root: Path) -> None:
    next(root.glob("cells/*/log.txt")).write_text("all was well\n", encoding="utf-8")
    assert broken(root) == {"files"}
    first_record(root).unlink()
    (found,) = (one for one in verify.verify(root) if one.what == "files")
    assert "record.json: is gone" in found.detail
    assert "log.txt: has changed" in found.detail


def test_a_run_may_travel_without_its_logs(root: Path) -> None:
    for path in root.glob("cells/*/log.txt"):
        path.unlink()
    assert broken(root) == set()


def test_another_generator_of_traces_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = replay.taken
    monkeypatch.setattr(replay, "taken", lambda *args: np.roll(honest(*args), 1))
    (found,) = (one for one in verify.verify(root) if one.level == "broken")
    assert found.what == "traces"
    assert "random: other rows are looked up" in found.detail


def test_kernels_that_fill_little_of_their_stage_are_told(root: Path) -> None:
    samples = load(CellRecord, first_record(root)).samples
    on_gpu(root, samples=samples | {"stage_us": [3 * value for value in samples["stage_us"]]})
    (root / manifest.FILE).unlink()
    path = first_record(root)
    facts = load(CellRecord, path).facts
    change(path, facts={name: value for name, value in facts.items() if name != "relative_interval"})
    (found,) = (one for one in verify.verify(root) if one.what == "samples")
    assert (found.level, "less than 80% of their stage" in found.detail) == ("not known", True)


def test_a_record_that_is_gone_from_a_complete_run_is_a_fault(root: Path) -> None:
    """Though the manifest was made anew without it."""
    path = first_record(root)
    path.unlink()
    name = str(path.relative_to(root))
    told = load(manifest.Manifest, root / manifest.FILE)
    files = {one: digest for one, digest in told.files.items() if one != name}
    (root / manifest.FILE).write_text(to_json(replace(told, files=files)), encoding="utf-8")
    assert broken(root) == {"cells"}
    (root / manifest.FILE).unlink()
    assert broken(root) == set()


@pytest.mark.parametrize(
    ("changes", "what", "level"),
    [
        ({"indices": {}}, "traces", "not known"),
        ({"indices": {"another": "0" * 64}}, "traces", "broken"),
        ({"sources": {}}, "sources", "not known"),
    ],
)
def test_what_a_manifest_does_not_tell_is_told(
    root: Path, changes: dict[str, Any], what: str, level: str
) -> None:
    told = load(manifest.Manifest, root / manifest.FILE)
    (root / manifest.FILE).write_text(to_json(replace(told, **changes)), encoding="utf-8")
    found = [one.level for one in verify.verify(root) if one.what == what]
    assert level in found


def test_a_record_that_does_not_say_what_it_looked_up_is_told(root: Path) -> None:
    path = first_record(root)
    facts = load(CellRecord, path).facts
    change(path, facts={name: value for name, value in facts.items() if name != "accesses"})
    (found,) = (one for one in verify.verify(root) if one.what == "traces")
    assert (found.level, "does not say its accesses" in found.detail) == ("not known", True)


def test_a_cell_that_was_measured_again_later_is_no_fault(root: Path) -> None:
    late = datetime(2027, 1, 1, tzinfo=UTC)
    ended = late + timedelta(seconds=2)
    change(first_record(root), started_at=late.isoformat(), finished_at=ended.isoformat())
    assert broken(root) == {"files"}


def test_cells_of_a_launch_may_overlap_on_different_boards_alone(root: Path) -> None:
    """Over which the workloads of a sweep are spread."""
    ended_after_the_next_began(root)
    assert broken(root) == {"files", "times"}
    path = max(root.glob("cells/*/record.json"), key=lambda path: load(CellRecord, path).finished_at)
    environment = load(CellRecord, path).environment
    assert environment is not None
    change(path, environment=replace(environment, gpu_uuid="GPU-another"))
    assert broken(root) == {"files"}


def test_cells_that_their_launch_left_without_a_record_are_no_fault(root: Path) -> None:
    """Their times are those of the whole launch."""
    launch = next(launch for launch in plan.read(root / wall.PLAN).launches if len(launch.cells) > 1)
    paths = [root / "cells" / cell.id / wall.RECORD for cell in launch.cells]
    began, ended = load(CellRecord, paths[0]).started_at, load(CellRecord, paths[-1]).finished_at
    for path in paths[1:]:
        change(path, status="timeout", message="It was.", samples={}, started_at=began, finished_at=ended)
    assert broken(root) == {"files"}


def test_a_run_in_which_every_cell_failed_is_told_of_no_sample_and_of_todays_sources(
    experiment: Experiment, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.measure = lambda cell, output: None
    found = {one.what: one.level for one in verify.verify(campaign.start(experiment, runner, tmp_path / "r"))}
    assert found["sources"] == "holds"
    assert not {"samples", "outputs"} & found.keys()
    assert "broken" not in found.values()


def test_samples_that_are_all_nothing_are_found(root: Path) -> None:
    found = load(CellRecord, first_record(root)).samples
    change(first_record(root), samples={name: [0.0] * len(values) for name, values in found.items()})
    assert broken(root) == {"files", "samples"}


def test_what_older_sources_asked_for_is_no_fault(root: Path) -> None:
    path = root / manifest.FILE
    told = load(manifest.Manifest, path)
    asked_for(root)
    older = replace(told, sources=told.sources | {"harness/traces": "0" * 64})
    path.write_text(to_json(older), encoding="utf-8")
    (found,) = (one for one in verify.verify(root) if one.what == "limits")
    assert found.level == "not known"
    assert "harness/traces has changed since" in found.detail


def test_a_run_without_its_demand_is_told(root: Path) -> None:
    (root / demand.FILE).unlink()
    (found,) = (one for one in verify.verify(root) if one.what == "limits")
    assert (found.level, "no datasets.json" in found.detail) == ("not known", True)


def test_what_is_too_much_to_make_anew_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looked_up, "_MOST_ACCESSES", 10)
    (found,) = (one for one in verify.verify(root) if one.what == "traces")
    assert found.level == "not known"
    assert "were not compared: " in found.detail
    assert ".;" not in found.detail


def test_sources_that_changed_since_are_told_and_are_no_fault(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_of_folder", lambda folder: "other")
    (found,) = (one for one in verify.verify(root) if one.what == "sources")
    assert (found.level, broken(root)) == ("not known", set())
    assert "harness/bench" in found.detail


def test_records_of_other_sources_than_the_manifest_s_are_found(root: Path) -> None:
    path = next(path for path in sorted(root.glob("cells/*/record.json")) if "baseline" in str(path))
    record = load(CellRecord, path)
    assert record.kernel is not None
    change(path, kernel=replace(record.kernel, name="baseline", source_hash="0123456789abcdef"))
    assert "sources" in broken(root)


def test_a_damaged_manifest_is_a_finding(root: Path) -> None:
    (root / manifest.FILE).write_text('{"files": 3}', encoding="utf-8")
    assert "manifest" in broken(root)


def test_the_manifest_is_of_the_complete_run(root: Path, runner: FakeRunner) -> None:
    before = (root / manifest.FILE).read_bytes()
    gone = first_record(root)
    gone.unlink()
    campaign.resume(root, runner)
    assert gone.exists()
    assert broken(root) == set()
    (root / manifest.FILE).unlink()  # killed between the last record and the manifest
    campaign.resume(root, runner)
    assert broken(root) == set()
    assert json.loads(before)["indices"] == json.loads((root / manifest.FILE).read_bytes())["indices"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"is not the folder of a run to verify \(it has no plan\.json\)"):
        verify.verify(tmp_path)


def test_the_command_marks_what_is_broken_and_ends_with_3(root: Path) -> None:
    ended = CliRunner().invoke(cli, ["verify", str(root)])
    assert ended.exit_code == 0, ended.output
    assert "✓ traces: of 2 datasets, made anew, are those that were measured" in ended.output
    samples(root)
    ended = CliRunner().invoke(cli, ["verify", str(root), "--json"])
    assert ended.exit_code == 3
    told = json.loads(ended.output)[str(root)]
    assert {one["what"] for one in told if one["level"] == "broken"} == {"files", "samples"}


@pytest.fixture
def library(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package's shared library as it is installed here, of whose hash every record of `root` tells."""
    file = tmp_path / "installed" / "madeup" / "inner" / "lookup.so"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"a library")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    tell(root, {"madeup/inner/lookup.so": hashlib.sha256(b"a library").hexdigest()})
    return file


def tell(root: Path, libraries: dict[str, str], among: slice = slice(None)) -> None:
    for path in sorted(root.glob("cells/*/record.json"))[among]:
        kernel = load(CellRecord, path).kernel
        assert kernel is not None
        change(path, kernel=replace(kernel, libraries=libraries))


def on_libraries(root: Path) -> list[tuple[str, str]]:
    return [(one.level, one.detail) for one in verify.verify(root) if one.what == "libraries"]


def test_libraries_that_are_installed_here_are_compared(root: Path, library: Path) -> None:
    assert on_libraries(root) == [("holds", "1 of others are those that are installed here")]
    library.write_bytes(b"a newer build")
    assert on_libraries(root) == [("not known", "are of another build here: madeup/inner/lookup.so")]
    library.unlink()
    assert on_libraries(root) == [("not known", "are not installed here: madeup/inner/lookup.so")]


def test_records_that_tell_of_two_builds_of_a_library_are_found(root: Path, library: Path) -> None:
    tell(root, {"madeup/inner/lookup.so": "0" * 64}, slice(1))
    assert on_libraries(root) == [
        ("broken", "records tell of different builds: madeup/inner/lookup.so"),
    ]
    assert library.is_file()


@pytest.mark.parametrize(
    "name", ["", "madeup", "../x/y.so", "madeup/../../y.so", "/etc/passwd", "no_such/y.so"]
)
def test_what_a_record_calls_a_library_leads_nowhere_else(root: Path, library: Path, name: str) -> None:
    tell(root, {name: "0" * 64})
    assert on_libraries(root) == [("not known", f"are not installed here: {name}")]
    assert library.is_file()


def test_runs_without_libraries_are_asked_nothing_of_them(root: Path) -> None:
    assert on_libraries(root) == []
