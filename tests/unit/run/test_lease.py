"""One user at a time, told who the other is; locks end with their holder."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import BadInputError, MachineError
from harness.run import lease

_HOLD = """
import sys
from pathlib import Path
from harness.run import lease
with lease.gpu("GPU-1", Path("/the/other/run"), folder=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds GPU-1."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_the_second_is_told_who_is_first(other: subprocess.Popen[str], tmp_path: Path) -> None:
    try:
        with (
            pytest.raises(MachineError, match=f"process {other.pid}, /the/other/run, since 20.*--wait"),
            lease.gpu("GPU-1", tmp_path / "mine", folder=tmp_path),
        ):
            pass
        with lease.gpu("GPU-2", tmp_path / "mine", folder=tmp_path):
            pass
    finally:
        end(other)


def test_a_killed_holder_holds_nothing(other: subprocess.Popen[str], tmp_path: Path) -> None:
    end(other)
    with lease.gpu("GPU-1", tmp_path / "mine", folder=tmp_path):
        pass


def test_waiting_ends_with_the_other_run(other: subprocess.Popen[str], tmp_path: Path) -> None:
    class EndsTheOther:
        """Hears that we wait; then the other run ends."""

        said = ""

        def say(self, line: str) -> None:
            self.said = line
            end(other)

        def expect(self, steps: int) -> None: ...
        def now(self, what: str) -> None: ...
        def advance(self, steps: int = 1) -> None: ...

    progress = EndsTheOther()
    with lease.gpu("GPU-1", tmp_path / "mine", wait=True, progress=progress, folder=tmp_path):
        assert progress.said.startswith("Waiting for GPU GPU-1")


def test_a_run_folder_has_one_user(tmp_path: Path) -> None:
    said = f"process {os.getpid()}, {tmp_path}, since 20"
    with lease.run_folder(tmp_path), pytest.raises(BadInputError, match=said), lease.run_folder(tmp_path):
        pass
    with lease.run_folder(tmp_path):
        pass


@pytest.mark.parametrize("name", [".lock", ".lock.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_was_planted_in_a_run_folder_is_not_written_through(
    name: str, kind: str, tmp_path: Path
) -> None:
    victim, root = tmp_path / "victim", tmp_path / "run"
    victim.write_text("precious", encoding="utf-8")
    root.mkdir()
    plant(root / name, kind, victim)
    with contextlib.suppress(BadInputError), lease.run_folder(root):
        pass
    assert victim.read_text(encoding="utf-8") == "precious"


def plant(path: Path, kind: str, victim: Path) -> None:
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(victim),
        "dangling link": lambda: path.symlink_to(victim.with_name("made")),
        "second name": lambda: path.hardlink_to(victim),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    make[kind]()


@pytest.mark.parametrize("kind", ["link", "dangling link", "second name", "pipe", "folder"])
def test_a_lock_that_somebody_planted_is_refused_and_harms_nothing(kind: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    victim.chmod(0o600)
    locks = tmp_path / "locks"
    locks.mkdir()
    plant(locks / "embedding-harness-GPU-1.lock", kind, victim)
    with (
        pytest.raises(MachineError, match=r"GPU-1\.lock: cannot serve as the GPU's lock .*it is user "),
        lease.gpu("GPU-1", tmp_path / "mine", folder=locks),
    ):
        pass
    assert victim.read_text(encoding="utf-8") == "precious"
    assert victim.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "made").exists()


def test_a_lock_is_its_makers_and_for_all_to_hold(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with lease.gpu("GPU-1", tmp_path / "mine", folder=tmp_path):
            pass
    finally:
        os.umask(before)
    (lock,) = tmp_path.iterdir()
    assert lock.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be two users")
def test_users_exclude_each_other_and_neither_can_write_the_others_lock(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o001 == 0:  # pytest's own are for their maker alone
            folder.chmod(folder.stat().st_mode | 0o011)
    locks = tmp_path / "locks"
    locks.mkdir()
    locks.chmod(0o1777)
    with lease.gpu("GPU-1", Path("/a/run"), folder=locks):
        pass
    (lock,) = locks.iterdir()
    os.chown(lock, 1234, 1234)  # made by another user, long ago
    before = lock.read_bytes()
    with as_user(4321, locks) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(MachineError, match=f"in use by another run .process {other.pid} of user 4321"),
            lease.gpu("GPU-1", Path("/a/run"), folder=locks),
        ):
            pass
    assert lock.read_bytes() == before


@contextlib.contextmanager
def as_user(number: int, locks: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of another user that holds GPU-1."""
    drop = f"import os; os.setgroups([]); os.setgid({number}); os.setuid({number})\n"
    imports = "from harness.run import lease\n"  # while the checkout may be read
    process = subprocess.Popen(
        [sys.executable, "-c", imports + drop + _HOLD, str(locks)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        end(process)


def test_a_lock_that_was_cleared_away_keeps_nobody_off_and_is_made_again(
    other: subprocess.Popen[str], tmp_path: Path
) -> None:
    class Clears:
        """Hears that we wait; then somebody tidies up, and the other run ends."""

        def say(self, line: str) -> None:
            (tmp_path / "embedding-harness-GPU-1.lock").unlink()
            end(other)

        def expect(self, steps: int) -> None: ...
        def now(self, what: str) -> None: ...
        def advance(self, steps: int = 1) -> None: ...

    with (
        lease.gpu("GPU-1", tmp_path / "mine", wait=True, progress=Clears(), folder=tmp_path),
        pytest.raises(MachineError, match=f"process {os.getpid()}"),
        lease.gpu("GPU-1", tmp_path / "third", folder=tmp_path),
    ):
        pass


def test_locks_lie_where_nobody_can_take_anothers_away(tmp_path: Path) -> None:
    mine, link = tmp_path / "mine", tmp_path / "link"
    mine.mkdir()
    link.symlink_to("/tmp")
    mine.chmod(0o777)
    assert lease.shared_folder((tmp_path / "missing", link, mine, Path("/tmp"))) == Path("/tmp")
    with pytest.raises(MachineError, match="chmod 1777 /tmp"):
        lease.shared_folder((mine, link))
