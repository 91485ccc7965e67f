"""A packed file that somebody else made is not believed: a sentence, or a failed cell, within bounds."""

from __future__ import annotations

import json
import os
import random
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness import cell_files, wall
from harness.analysis import frame
from harness.cli import cli
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.records import CellRecord
from harness.run import campaign, packing, verify
from tests.effort import peak_bytes
from tests.pretended_runner import FakeRunner
from tests.unit.run.packed import first_name, member, patched, rewrite


def harness(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments], catch_exceptions=True)


@pytest.fixture
def run(experiment: Experiment, runner: FakeRunner, tmp_path: Path) -> Path:
    """A packed run."""
    root = campaign.start(experiment, runner, tmp_path / "run")
    packing.pack(root)
    return root


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
    make(run)
    before = sorted(run.parent.iterdir())
    for reader in (frame.load_run, verify.verify, packing.unpack):
        with pytest.raises(BadInputError, match=said):
            reader(run)
    assert said.split("/")[-1][:20] in str(harness("report", run, "--format", "json").exception)
    assert sorted(run.parent.iterdir()) == before
    assert not (run / wall.CELLS).exists()


def test_a_size_that_is_a_lie_costs_that_cell_alone(run: Path) -> None:
    name = first_name(run)
    patched(run, name, 24, struct.pack("<I", 10))
    found = frame.load_run(run)
    (spoilt,) = [record for record in found.records if record.status == "failed"]
    assert spoilt.cell.id == name.split("/")[1]
    assert f"{wall.PACKED}/{name}: is damaged" in spoilt.message


def test_a_record_that_would_fill_memory_is_not_read(run: Path) -> None:
    """What it unfolds to is cut at the size that the list of members tells, and that size is looked at."""
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
    with (run / wall.PACKED).open("wb") as file:
        file.truncate(2**28)
        file.seek(0, os.SEEK_END)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 2**28, 0, 0))
    with pytest.raises(BadInputError, match="is no zip archive: its list of members is too long"):
        frame.load_run(run)


def test_damage_anywhere_is_a_sentence_or_a_failed_cell(run: Path) -> None:
    """A byte or a few changed, cut or put in, at places drawn by seed."""
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
    name = first_name(run)

    def change(told: str, content: bytes) -> bytes:
        if told != name:
            return content
        return json.dumps(json.loads(content) | {"samples": {"kernel_us": "many"}}).encode()

    rewrite(run, change)
    (spoilt,) = [record for record in frame.load_run(run).records if record.status == "failed"]
    assert f"{run / wall.PACKED / name}: samples.kernel_us" in spoilt.message
    assert replace(spoilt, message="") == CellRecord(spoilt.cell, "failed")
