"""A packed run says what it said, to the byte; and a packed file that somebody else made is not believed."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness import cell_files, wall
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
from tests.effort import peak_bytes
from tests.pretended_runner import FakeRunner


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


# What somebody else may have made.


def rewrite(
    root: Path, change: Callable[[str, bytes], bytes] = lambda _, content: content, *extra: Any
) -> None:
    """The packed file with changed members, and further ones: (ZipInfo or name, content)."""
    with zipfile.ZipFile(root / wall.PACKED) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(root / wall.PACKED, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in held.items():
            archive.writestr(name, change(name, content))
        for member, content in extra:
            archive.writestr(member, content)


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    made.compress_type = zipfile.ZIP_DEFLATED
    return made


def first_name(root: Path) -> str:
    with zipfile.ZipFile(root / wall.PACKED) as archive:
        return next(name for name in archive.namelist() if name.endswith(wall.RECORD))


def patched(root: Path, name: str, at: int, value: bytes) -> None:
    """Changes a member's entry in the archive's list, at so many bytes into it."""
    content = bytearray((root / wall.PACKED).read_bytes())
    entry = content.rindex(name.encode()) - 46
    assert content[entry : entry + 4] == b"PK\1\2"
    content[entry + at : entry + at + len(value)] = value
    (root / wall.PACKED).write_bytes(content)


def outside(root: Path) -> None:
    rewrite(root, lambda _, content: content, (member("../outside"), b"x"))


def absolute(root: Path) -> None:
    rewrite(root, lambda _, content: content, (member("/tmp/outside"), b"x"))


def upwards(root: Path) -> None:
    rewrite(root, lambda _, content: content, (member("cells/../record.json"), b"x"))


def deeper(root: Path) -> None:
    rewrite(root, lambda _, content: content, (member("cells/a/b/record.json"), b"x"))


def hidden(root: Path) -> None:
    rewrite(root, lambda _, content: content, (member("cells/.a/record.json"), b"x"))


def link(root: Path) -> None:
    rewrite(root, lambda _, content: content, (member("cells/a/mine", stat.S_IFLNK | 0o777), b"/etc/passwd"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def twice(root: Path) -> None:
    rewrite(root, lambda _, content: content, (member(first_name(root)), b"{}"))


def encrypted(root: Path) -> None:
    patched(root, first_name(root), 8, struct.pack("<H", 1))


def another_method(root: Path) -> None:
    made = member("cells/a/record.json")
    made.compress_type = zipfile.ZIP_LZMA
    rewrite(root, lambda _, content: content, (made, b"x"))


def bomb(root: Path) -> None:
    rewrite(root, lambda _, content: content, (member("cells/a/mine"), bytes(2**27)))


def no_archive(root: Path) -> None:
    (root / wall.PACKED).write_bytes(b"PK" + bytes(100))


def empty(root: Path) -> None:
    (root / wall.PACKED).write_bytes(b"")


def linked(root: Path) -> None:
    (root / wall.PACKED).rename(root / "elsewhere.zip")
    (root / wall.PACKED).symlink_to("elsewhere.zip")


def pipe(root: Path) -> None:
    (root / wall.PACKED).unlink()
    os.mkfifo(root / wall.PACKED)


def folder(root: Path) -> None:
    (root / wall.PACKED).unlink()
    (root / wall.PACKED).mkdir()


REFUSED = [
    (outside, r"holds '../outside', which is no file of a cell"),
    (absolute, "which is no file of a cell"),
    (upwards, "which is no file of a cell"),
    (deeper, "which is no file of a cell"),
    (hidden, "which is no file of a cell"),
    (link, "which is a link or a device and not a file"),
    (twice, "which is there twice"),
    (encrypted, "which is not packed by deflate"),
    (another_method, "which is not packed by deflate"),
    (bomb, "would unpack to 128 MiB, more than 100 times its size"),
    (no_archive, "cells.zip: is no zip archive"),
    (empty, "cells.zip: is no zip archive"),
    (linked, "cells.zip: is a link, which is not followed here"),
    (pipe, "cells.zip: is a pipe and not a file"),
    (folder, "cells.zip: is a folder and not a file"),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("make", "said"), REFUSED, ids=[make.__name__ for make, _ in REFUSED])
def test_a_packed_file_that_is_none_is_refused_in_a_sentence(
    run: Path, make: Callable[[Path], None], said: str
) -> None:
    packing.pack(run)
    make(run)
    before = sorted(run.parent.iterdir())
    for reader in (frame.load_run, verify.verify, packing.unpack):
        with pytest.raises(BadInputError, match=said):
            reader(run)
    assert said.split("/")[-1][:20] in str(harness("report", run, "--format", "json").exception)
    assert sorted(run.parent.iterdir()) == before
    assert not (run / wall.CELLS).exists()


def test_a_size_that_is_a_lie_costs_that_cell_alone(run: Path) -> None:
    packing.pack(run)
    name = first_name(run)
    patched(run, name, 24, struct.pack("<I", 10))
    found = frame.load_run(run)
    (spoilt,) = [record for record in found.records if record.status == "failed"]
    assert spoilt.cell.id == name.split("/")[1]
    assert f"{wall.PACKED}/{name}: is damaged" in spoilt.message


def test_a_record_that_would_fill_memory_is_not_read(run: Path) -> None:
    """What it unfolds to is cut at the size that the list of members tells, and that size is looked at."""
    packing.pack(run)
    name = first_name(run)
    big = random.Random(1).randbytes(2**21)  # so that the file as a whole is large enough to hold it
    grown = b" " * 2**27 + b"x"
    rewrite(run, lambda told, content: grown if told == name else content, (member("cells/a/mine"), big))
    (spoilt,) = [record for record in frame.load_run(run).records if record.status == "failed"]
    assert "holds more than the 128 MiB that it may" in spoilt.message

    def look() -> None:
        with cell_files.opened(run) as files:
            assert cell_files.record(files, spoilt.cell) == spoilt

    assert peak_bytes(look) < 2**22


def test_a_list_of_members_that_claims_to_be_endless_is_not_read(run: Path) -> None:
    packing.pack(run)
    content = bytearray((run / wall.PACKED).read_bytes())
    with (run / wall.PACKED).open("wb") as file:
        file.write(b"PK\1\2" + bytes(2**28))
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 2**28, 0, 0)
        file.write(end)
    assert content
    with pytest.raises(BadInputError, match="is no zip archive: its list of members is too long"):
        frame.load_run(run)


def test_damage_anywhere_is_a_sentence_or_a_failed_cell(run: Path) -> None:
    """A byte or a few changed, cut or put in, at places drawn by seed."""
    packing.pack(run)
    content, draw = (run / wall.PACKED).read_bytes(), random.Random(0)
    ends = {"refused": 0, "read": 0}
    for _ in range(100):
        spoilt, at = bytearray(content), draw.randrange(len(content))
        if draw.random() < 0.5:  # the list of members is where most goes wrong
            at = draw.randrange(content.index(b"PK\1\2"), len(content))
        length = draw.choice((1, 1, 2, 4, 8))
        spoilt[at : at + draw.choice((length, length, 0))] = draw.randbytes(draw.choice((length, length, 0)))
        (run / wall.PACKED).write_bytes(spoilt)
        try:
            frame.load_run(run)
            verify.verify(run)
            ends["read"] += 1
        except BadInputError:
            ends["refused"] += 1
    assert min(ends.values()) > 10, ends


def test_the_commands_say_what_they_did(run: Path) -> None:
    packed = harness("pack", run)
    assert f"Packed: {run / wall.PACKED}, 0.0 MiB" in packed.stdout
    unpacked = harness("unpack", run)
    assert f"Unpacked: {run / wall.CELLS}" in unpacked.stdout
    assert "is not packed" in str(harness("unpack", run).exception)
    assert "is not the folder of a run" in str(harness("pack", run / "nothing").exception)


def test_a_run_without_cells_has_none(tmp_path: Path) -> None:
    with cell_files.opened(tmp_path) as files:
        assert files.ids() == []
        assert files.names("a") == []
        assert files.kind("a", wall.RECORD) == ""
        with pytest.raises(BadInputError, match="cannot be read: No such file"):
            cell_files.read(files, "a", wall.RECORD)
    with pytest.raises(BadInputError, match="cannot be read"), cell_files.opened(tmp_path / "none"):
        pass
    (tmp_path / wall.CELLS).symlink_to(tmp_path.parent)
    with pytest.raises(BadInputError, match="is a link where a folder belongs"), cell_files.opened(tmp_path):
        pass


def test_a_record_may_be_damaged_in_a_packed_run_too(run: Path) -> None:
    packing.pack(run)
    name = first_name(run)

    def change(told: str, content: bytes) -> bytes:
        if told != name:
            return content
        return json.dumps(json.loads(content) | {"samples": {"kernel_us": "many"}}).encode()

    rewrite(run, change)
    (spoilt,) = [record for record in frame.load_run(run).records if record.status == "failed"]
    assert f"{run / wall.PACKED / name}: samples.kernel_us" in spoilt.message
    assert replace(spoilt, message="") == CellRecord(spoilt.cell, "failed")
