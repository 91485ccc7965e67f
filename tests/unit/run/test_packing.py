"""A packed run says what it said, to the byte; nothing of it is lost, and nothing is added to it."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness import wall
from harness.analysis import frame
from harness.analysis.analyse import analyse
from harness.cli import cli, shared
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.files import Folder
from harness.profiles import KernelLaunch, Profile
from harness.records import Cell, CellRecord, Variant, to_json
from harness.report import page
from harness.run import campaign, merging, packing, verify
from harness.run.part import Part
from tests import synthetic_run as synthetic
from tests.pretended_runner import FakeRunner
from tests.unit.run.packed import rewrite


def harness(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments], catch_exceptions=True)


def contents(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def files_of(root: Path) -> dict[Path, bytes]:
    """All of a run but what holds its lock."""
    return {path: content for path, content in contents(root).items() if not path.name.startswith(".lock")}


def a_record(cell: Cell) -> CellRecord:
    return synthetic.failed(cell, log="Boom.") if cell.dataset.name == "low" else synthetic.record(cell)


def small() -> Experiment:
    arms = Variant("baseline", "12.1"), Variant("combined", "12.1")
    return synthetic.experiment(arms=arms, datasets=("medium", "low"), replicates=2)


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """A run with all that a report reads of cells: records, a failure, a profile."""
    root = synthetic.write_run(tmp_path / "shown", small(), a_record)
    record = frame.load_run(root).records[0]
    launch = KernelLaunch("lookup", "", "", {"gpu__time_duration.sum": 1e5})
    path = root / wall.CELLS / record.cell.id / wall.PROFILE
    path.write_text(to_json(Profile(record.cell, "ok", launches=[launch])), "utf-8")
    return root


@pytest.fixture
def run(experiment: Experiment, runner: FakeRunner, tmp_path: Path) -> Path:
    """A run that a runner made, with its manifest."""
    return campaign.start(experiment, runner, tmp_path / "run")


def test_every_reader_says_the_same_of_a_packed_run(shown: Path, tmp_path: Path) -> None:
    other = synthetic.write_run(tmp_path / "other", small(), synthetic.record)
    commands = {
        "json": ("report", shown, "--format", "json"),
        "md": ("report", shown, "--format", "md"),
        "csv": ("report", shown, "--format", "csv"),
        "against": ("report", shown, other, "--format", "json"),
        "compare": ("compare", other, shown, "--json"),
        "runs": ("runs", tmp_path, "--json"),
        "verify": ("verify", shown, "--json"),
    }

    def said() -> dict[str, str]:
        return {name: harness(*given).stdout for name, given in commands.items()}

    def html() -> str:
        text = page.html(shared.analysed([shown, other]))
        return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "when it was made", text)

    before = said(), html()
    assert harness("pack", shown).exit_code == 0
    assert not (shown / wall.CELLS).exists()
    assert harness("pack", other).exit_code == 0
    assert (said(), html()) == before
    assert all(before[0].values())
    assert analyse([shown]).runs[0].profile


def test_the_manifest_holds_of_a_packed_run_and_finds_what_was_changed_in_it(run: Path) -> None:
    before = verify.verify(run)
    assert any(one.what == "files" and one.level == "holds" for one in before)
    packing.pack(run)
    assert verify.verify(run) == before
    rewrite(run, lambda name, content: content + b" " if name.endswith(wall.LOG) else content)
    found = {one.what: one for one in verify.verify(run)}["files"]
    assert found.level == "broken"
    assert f"{wall.LOG}: has changed" in found.detail


def test_packed_and_unpacked_again_it_is_what_it_was(run: Path) -> None:
    before = files_of(run)
    first = packing.pack(run).read_bytes()
    assert {path.name for path in files_of(run)} >= {wall.PLAN, wall.EXPERIMENT, wall.PACKED}
    assert packing.unpack(run) == run / wall.CELLS
    assert files_of(run) == before
    for path in (run / wall.CELLS).rglob("*"):
        os.utime(path, (1, 2**30))  # equal cells are an equal file, whenever they were written
    assert packing.pack(run).read_bytes() == first


def test_unzip_gives_the_folder_back(run: Path, tmp_path: Path) -> None:
    before = contents(run / wall.CELLS)
    packing.pack(run)
    with zipfile.ZipFile(run / wall.PACKED) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    assert contents(tmp_path / "out" / wall.CELLS) == before


def test_packed_parts_are_joined_as_others_are(experiment: Experiment, tmp_path: Path) -> None:
    parts = [
        campaign.start(experiment, FakeRunner(), tmp_path / f"part{number}", part=Part(number, 2))
        for number in (1, 2)
    ]
    merging.merge(parts, tmp_path / "before")
    for root in parts:
        packing.pack(root)  # all of its part is measured
    merging.merge(parts, tmp_path / "after")
    assert files_of(tmp_path / "after") == files_of(tmp_path / "before")


def test_nothing_is_added_to_a_packed_run(run: Path, experiment: Experiment) -> None:
    packing.pack(run)
    before = files_of(run)
    for refused in (lambda: campaign.resume(run, FakeRunner()), lambda: campaign.held(run).__enter__()):
        with pytest.raises(BadInputError, match=f"is packed, .*`harness unpack {run}` first"):
            refused()
    with pytest.raises(BadInputError, match="holds a run already"):
        campaign.start(experiment, FakeRunner(), run)
    with pytest.raises(BadInputError, match="is packed already"):
        packing.pack(run)
    assert files_of(run) == before
    (run / wall.PLAN).unlink()
    with pytest.raises(BadInputError, match="holds records of a run whose plan"):
        campaign.start(experiment, FakeRunner(), run)


def test_an_unpacked_run_goes_on(run: Path) -> None:
    before = files_of(run)
    packing.pack(run)
    packing.unpack(run)
    path = next((run / wall.CELLS).glob(f"*/{wall.RECORD}"))
    path.unlink()
    runner = FakeRunner()
    campaign.resume(run, runner)
    assert len(runner.launched) == 1
    assert files_of(run).keys() == before.keys()


def without_a_record(run: Path) -> None:
    next((run / wall.CELLS).glob(f"*/{wall.RECORD}")).unlink()


def with_a_launch(run: Path) -> None:
    (run / wall.LAUNCHES).mkdir()


def with_a_link(run: Path) -> None:
    next((run / wall.CELLS).iterdir()).joinpath("mine").symlink_to("/etc/passwd")


def with_a_folder(run: Path) -> None:
    next((run / wall.CELLS).iterdir()).joinpath("mine").mkdir()


def with_an_odd_name(run: Path) -> None:
    next((run / wall.CELLS).iterdir()).joinpath("a b").touch()


def with_a_file_among_cells(run: Path) -> None:
    (run / wall.CELLS / "notes").touch()


def without_a_plan(run: Path) -> None:
    (run / wall.PLAN).unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_a_record, r"is not finished \(1 of 8 cells have no record\)"),
        (with_a_launch, "is not finished"),
        (with_a_link, "mine: is a link and not a file; remove it"),
        (with_a_folder, "mine: is a folder and not a file; remove it"),
        (with_an_odd_name, "a b: is no file of a cell; remove it"),
        (with_a_file_among_cells, "notes: is a file where a folder belongs"),
        (without_a_plan, "is not the folder of a run"),
    ],
)
def test_what_would_be_lost_is_not_packed(run: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(run)
    before = contents(run / wall.CELLS)
    with pytest.raises(BadInputError, match=said):
        packing.pack(run)
    assert contents(run / wall.CELLS) == before
    assert [path.name for path in run.iterdir() if wall.PACKED in path.name] == []


@pytest.mark.parametrize("step", [packing.pack, packing.unpack])
def test_killed_anywhere_it_is_the_run_that_it_was(
    run: Path, step: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended at its every change of the run's folder, the first to the last."""
    if step is packing.unpack:
        packing.pack(run)
    before = verify.verify(run)
    kept = run.with_name("kept")
    shutil.copytree(run, kept)

    class Killed(BaseException):
        pass

    left = ended = 0

    def counted(change: Callable[..., None]) -> Callable[..., None]:
        def made(*given: Any) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            change(*given)

        return made

    while True:
        left = ended
        with monkeypatch.context() as patch:
            for name in ("rename", "remove", "_empty", "write_whole"):
                patch.setattr(Folder, name, counted(getattr(Folder, name)))
            try:
                step(run)
                break
            except Killed:
                ended += 1
        assert verify.verify(run) == before, ended
        shutil.rmtree(run)
        shutil.copytree(kept, run)
    assert ended > 3
    assert verify.verify(run) == before


def test_a_step_that_was_killed_is_done_by_the_next(run: Path) -> None:
    before = files_of(run)
    packed = packing.pack(run).read_bytes()
    packing.unpack(run)
    (run / wall.PACKED).write_bytes(b"of before it was killed")
    (run / ".cells.packed" / "x").mkdir(parents=True)
    assert verify.verify(run)
    assert packing.pack(run).read_bytes() == packed
    (run / ".cells.unpacked" / "x").mkdir(parents=True)
    packing.unpack(run)
    assert files_of(run) == before


def test_the_commands_say_what_they_did(run: Path) -> None:
    packed = harness("pack", run)
    kib = (run / wall.PACKED).stat().st_size / 1024
    assert f"Packed: {run / wall.PACKED}, {kib:,.1f} KiB" in packed.stdout
    unpacked = harness("unpack", run)
    assert f"Unpacked: {run / wall.CELLS}" in unpacked.stdout
    assert "is not packed" in str(harness("unpack", run).exception)
    assert "is not the folder of a run" in str(harness("pack", run / "nothing").exception)
