"""Packed runs where something went wrong beside them: other programs, kills, full disks, readers."""

from __future__ import annotations

import errno
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from harness import cell_files, wall
from harness.analysis import frame
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.files import Folder
from harness.run import campaign, packing, verify
from tests.pretended_runner import FakeRunner
from tests.unit.run.packed import first_name, member, rewrite
from tests.unit.run.test_packing import files_of


@pytest.fixture
def run(experiment: Experiment, runner: FakeRunner, tmp_path: Path) -> Path:
    """A finished run, with its manifest."""
    return campaign.start(experiment, runner, tmp_path / "run")


def test_folders_of_other_programs_archives_are_passed_over(run: Path) -> None:
    """What `zip -r cells.zip cells` makes."""
    before = files_of(run)
    packing.pack(run)
    cell = first_name(run).split("/")[1]
    folders = [(member(f"{name}/", stat.S_IFDIR | 0o755), b"") for name in ("cells", f"cells/{cell}")]
    rewrite(run, lambda _, content: content, *folders)
    assert len(frame.load_run(run).records) == 8
    packing.unpack(run)
    assert files_of(run) == before


def test_what_is_in_the_packed_file_alone_is_never_overlooked(run: Path) -> None:
    """Somebody has ended `unzip` half way: the folder would count, and look as if little was measured."""
    packing.pack(run)
    name = first_name(run)
    with zipfile.ZipFile(run / wall.PACKED) as archive:
        for one in archive.namelist():
            if one != name:
                archive.extract(one, run)
    before = files_of(run)
    said = rf"has both cells and cells.zip, and {name.removeprefix('cells/')} is in cells.zip alone"
    for step in (
        frame.load_run,
        verify.verify,
        packing.pack,
        lambda root: campaign.resume(root, FakeRunner()),
    ):
        with pytest.raises(BadInputError, match=said):
            step(run)
    with pytest.raises(BadInputError, match=r"is not packed: its cells are not in a cells\.zip alone"):
        packing.unpack(run)
    assert files_of(run) == before


@pytest.mark.parametrize("changed", [False, True])
def test_a_run_that_goes_on_does_not_leave_an_older_copy_beside_it(run: Path, changed: bool) -> None:
    packing.pack(run)
    with zipfile.ZipFile(run / wall.PACKED) as archive:
        archive.extractall(run)  # as it is where `pack` is killed between the two
    log = next((run / wall.CELLS).glob(f"*/{wall.LOG}"))
    if changed:
        log.write_bytes(log.read_bytes() + b"!")
    with campaign.held(run):
        assert (run / wall.PACKED).exists() == changed


def test_a_run_that_is_packed_while_it_is_read_is_not_read_by_half(run: Path) -> None:
    def look() -> None:
        with cell_files.opened(run) as files:
            packing.pack(run)
            assert not files.kind(first_name(run).split("/")[1], wall.RECORD)

    with pytest.raises(BadInputError, match="cells: was packed while it was read; read it again"):
        look()
    assert len(frame.load_run(run).records) == 8


def test_a_log_of_one_line_again_and_again_is_packed_and_read(run: Path) -> None:
    """It packs so far that the reader would take the whole for a bomb."""
    path = next((run / wall.CELLS).glob(f"*/{wall.LOG}"))
    path.write_bytes(b"again\n" * 2**24)
    before = files_of(run)
    packing.pack(run)
    packing.unpack(run)
    assert files_of(run) == before


def test_what_a_killed_or_failed_step_left_is_removed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / f".{wall.PACKED}.0123456789abcdef.part").write_bytes(b"of one that was killed")
    packing.pack(run)
    before = files_of(run)
    assert not [path for path in before if path.name.endswith(".part")]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write_whole", full)
        with pytest.raises(OSError, match="No space left"):
            packing.unpack(run)
    assert files_of(run) == before
    assert not [path for path in run.iterdir() if path.name.startswith(".cells")]


def test_more_files_than_any_run_has_are_not_even_listed(run: Path) -> None:
    packing.pack(run)
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, *[0] * 8, 7, *[0] * 6) + b"cells/a"
    count = 2**19 + 1
    listed = entry * count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count % 2**16, count % 2**16, len(listed), 0, 0)
    (run / wall.PACKED).write_bytes(listed + end)
    with pytest.raises(BadInputError, match="is no zip archive: it lists more than 524,288 files"):
        frame.load_run(run)
