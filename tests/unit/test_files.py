"""Files in folders that somebody else has had a hand in: nothing is followed, waited for or believed."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import BadInputError
from harness.files import Folder, read_plain, write_whole

MOST = 1000


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(64 * 2**30)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (lambda path: path.symlink_to("/etc/passwd"), "is a link, which is not followed"),
    "a link to itself": (lambda path: path.symlink_to(path), "is a link, which is not followed"),
    "a folder": (Path.mkdir, "is a folder and not a file"),
    "a pipe": (os.mkfifo, "is a pipe and not a file"),
    "a socket": (_socket, "is a socket or a device and not a file"),
    "a device without an end": (lambda path: path.symlink_to("/dev/zero"), "is a link"),
    "a sparse file": (_large, "holds more than the"),
}


@pytest.mark.parametrize("what", ODD)
def test_only_plain_files_are_read(what: str, tmp_path: Path) -> None:
    make, said = ODD[what]
    make(tmp_path / "x")
    with Folder.open(tmp_path) as folder, pytest.raises(BadInputError, match=f"x: {said}"):
        folder.read("x", MOST)


def test_a_device_behind_a_link_that_may_be_followed_is_no_file() -> None:
    with pytest.raises(BadInputError, match="/dev/zero: is a device and not a file"):
        read_plain(Path("/dev/zero"), MOST)


def test_a_size_that_is_a_fairy_tale_is_not_believed() -> None:
    assert os.stat("/proc/self/status").st_size == 0
    with pytest.raises(BadInputError, match="holds more than the"):
        read_plain(Path("/proc/self/status"), 10)


def test_contents_up_to_the_limit_are_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"y" * MOST)
    assert read_plain(tmp_path / "x", MOST) == b"y" * MOST
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_plain(tmp_path / "nothing", MOST)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\0b"])
def test_a_name_never_leads_elsewhere(name: str, tmp_path: Path) -> None:
    with Folder.open(tmp_path) as folder:
        for use in (
            folder.kind,
            folder.remove,
            folder.inner,
            folder.create,
            lambda name: folder.read(name, MOST),
            lambda name: folder.write_whole(name, ""),
        ):
            with pytest.raises(BadInputError, match="is not the name of a file"):
                use(name)


@pytest.mark.parametrize("what", ["a link", "a pipe", "a sparse file"])
def test_what_is_written_replaces_and_never_goes_through(what: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    target = tmp_path / "x"
    if what == "a link":
        target.symlink_to(victim)
    else:
        ODD[what][0](target)
    write_whole(target, "new")
    assert not target.is_symlink()
    assert target.read_text(encoding="utf-8") == "new"
    assert victim.read_text(encoding="utf-8") == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim", "x"]


def test_a_link_in_place_of_a_folder_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with Folder.open(tmp_path) as folder:
        for create in (False, True):
            with pytest.raises(BadInputError, match="link: is a link where a folder belongs"):
                folder.inner("link", create=create)


def test_a_folder_stays_the_one_that_was_opened(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "other").mkdir()
    with Folder.open(tmp_path / "a") as folder:
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").symlink_to(tmp_path / "other")
        folder.write_whole("x", "here")
    assert (tmp_path / "b" / "x").read_text(encoding="utf-8") == "here"
    assert list((tmp_path / "other").iterdir()) == []


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "x", "\ud800")
    assert list(tmp_path.iterdir()) == []


def test_trees_are_removed_however_deep_and_whatever_their_modes(tmp_path: Path) -> None:
    depth = 3000  # beyond Python's recursion and the length of a path
    (tmp_path / "tree").mkdir()
    at = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("file", os.O_CREAT, dir_fd=at))
    os.close(at)
    (tmp_path / "tree" / "shut").mkdir()
    (tmp_path / "tree" / "shut" / "x").symlink_to("/etc")
    (tmp_path / "tree" / "shut").chmod(0)
    (tmp_path / "tree" / b"\xff\n".decode(errors="surrogateescape")).touch()
    with Folder.open(tmp_path) as folder:
        folder.remove("tree")
        folder.remove("tree")  # what is not there is removed
    assert list(tmp_path.iterdir()) == []
    assert Path("/etc/passwd").exists()


def test_a_copy_is_of_the_contents_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "x").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "a" / "x").chmod(0o6777)
    (tmp_path / "a" / "link").symlink_to("x")
    with Folder.open(tmp_path / "a") as source, Folder.open(tmp_path / "b") as target:
        target.copy_in("y", source, "x", MOST)
        with pytest.raises(BadInputError, match="is a link"):
            target.copy_in("z", source, "link", MOST)
        with pytest.raises(BadInputError, match="holds more"):
            target.copy_in("z", source, "x", 3)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["y"]
    mode = (tmp_path / "b" / "y").stat().st_mode
    assert mode & (stat.S_ISUID | stat.S_ISGID | 0o111) == 0


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    threads = [threading.Thread(target=write_whole, args=(tmp_path / "x", str(n) * 10_000)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = (tmp_path / "x").read_text(encoding="utf-8")
    assert text == text[0] * 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
