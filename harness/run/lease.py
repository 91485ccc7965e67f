"""One user at a time: of a GPU by all runs on this machine, of a run's folder by all processes.

The locks are the operating system's, so they end with the process that holds them, however it ends.

A GPU's lock has to be found by every user and may be spoilt by none. So it lies in a folder where everybody
may make files and nobody may take another's away (root's, with the sticky bit): /run/lock, or where that is
none, /tmp. A lock on a file takes no right to write it, so the file stays its maker's own. Whoever opens it
follows no link, waits for no pipe, and turns away what is no plain file with a single name. All that a
stranger can do there is to hold the lock, as anybody may who uses the GPU."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import BadInputError, MachineError
from harness.files import Folder, read_plain, write_whole
from harness.progress import Progress, Silent

_SHARED = (Path("/run/lock"), Path("/tmp"))
_ROOT = (0, 65534)
"""The owners of system folders; the latter stands for root within some user namespaces."""
_RUN_LOCK, _RUN_HOLDER = ".lock", ".lock.json"
_MOST_WORDS = 2**16


def shared_folder(candidates: tuple[Path, ...] = _SHARED) -> Path:
    """Where locks of all users lie: the same answer for each of them. MachineError where there is no such
    place."""
    for folder in candidates:
        with contextlib.suppress(OSError):
            found = os.lstat(folder)
            if stat.S_ISDIR(found.st_mode) and found.st_uid in _ROOT and found.st_mode & 0o1777 == 0o1777:
                return folder
    raise MachineError(
        f"None of {', '.join(map(str, candidates))} is a folder of root's where everybody may make files "
        "(mode 1777), so runs of several users could not keep off each other's GPU; mend /tmp with `chmod "
        "1777 /tmp`."
    )


@contextlib.contextmanager
def gpu(
    uuid: str,
    root: Path,
    *,
    wait: bool = False,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Iterator[None]:
    """Holds the GPU for the run in `root`.

    Where another run holds it: MachineError saying who, or with `wait` a wait until it is free.
    """
    path = (folder or shared_folder()) / f"embedding-harness-{re.sub(r'[^A-Za-z0-9-]', '_', uuid)}.lock"
    while True:
        lock = _opened(path)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held = f"in use by another run ({_holder_of(lock)})"
                if not wait:
                    raise MachineError(f"GPU {uuid} is {held}; with --wait, wait for it.") from None
                (progress or Silent()).say(f"Waiting for GPU {uuid}, {held}.")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_at(path, lock):
                continue  # Somebody cleared the file away; a lock on it excludes nobody any more.
            _leave_word(lock, root)
            yield
            return
        finally:
            os.close(lock)


def _opened(path: Path) -> int:
    """The lock file, made where it is missing; MachineError where it is something else."""
    while True:
        try:
            lock = _open(path)
        except FileExistsError:
            continue  # another run made it in the same moment
        except OSError as error:
            raise _spoilt(path, error.strerror or "cannot be opened") from error
        found = os.fstat(lock)
        if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
            return lock
        os.close(lock)
        raise _spoilt(path, "is no plain file of its own")


def _open(path: Path) -> int:
    try:
        own = os.lstat(path).st_uid == os.geteuid()
    except FileNotFoundError:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.fchmod(lock, 0o644)  # for everybody to lock, whatever the umask
        return lock
    # Only a file of our own is opened for writing, to say in it who we are.
    return os.open(path, (os.O_RDWR if own else os.O_RDONLY) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _spoilt(path: Path, why: str) -> MachineError:
    with contextlib.suppress(OSError):
        why += f"; it is {_user(os.lstat(path).st_uid)}'s"
    return MachineError(
        f"{path}: cannot serve as the GPU's lock ({why}); remove it, or ask its owner or root to."
    )


def _is_at(path: Path, lock: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.lstat(path), os.fstat(lock))
    return False


def _leave_word(lock: int, root: Path) -> None:
    """Says who holds the lock, for the message to whoever comes next; in a file of our own alone."""
    if os.fstat(lock).st_uid == os.geteuid():
        with contextlib.suppress(OSError):  # a file that we made and gave away
            os.ftruncate(lock, 0)
            os.pwrite(lock, _word(root).encode(), 0)


def _word(root: Path) -> str:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "run": str(root), "since": since})


def _holder_of(lock: int) -> str:
    """Who holds a GPU's lock: the process by the kernel's word, the rest by its own where the file is its."""
    number = str(os.fstat(lock).st_ino)
    pid = 0
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[1:2] == ["FLOCK"] and words[-3].rpartition(":")[2] == number:
                pid = int(words[4])
    said = _read_word(os.pread(lock, _MOST_WORDS, 0))
    if said and said.startswith(f"process {pid},"):
        return said
    with contextlib.suppress(OSError):
        return f"process {pid} of {_user(os.stat(f'/proc/{pid}').st_uid)}"
    return said or "a process that cannot be seen from here"


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def _read_word(content: bytes) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        word = json.loads(content)
        run = re.sub(r"[^\x20-\x7e\xa0-\uffff]", "?", str(word["run"]))[:200]
        return f"process {int(word['pid'])}, {run}, since {str(word['since'])[:25]}"
    return ""


@contextlib.contextmanager
def run_folder(root: Path) -> Iterator[None]:
    """Holds a run's folder, making it where it is missing.

    BadInputError where it cannot be written, or saying who has it where another process does.
    """
    lock = FileLock(root / _RUN_LOCK)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with Folder.open(root) as folder:
            for name in (_RUN_LOCK, _RUN_HOLDER):
                if (kind := folder.kind(name)) not in ("", "a file"):
                    raise BadInputError(f"{root / name}: is {kind} where a file belongs; remove it.")
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInputError(f"{root}: is in use by another process ({_holder(root)}).") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BadInputError(f"{root}: is no folder that a run can write to: {error.strerror}.") from error
    try:
        write_whole(root / _RUN_HOLDER, _word(root))
        yield
    finally:
        lock.release()


def _holder(root: Path) -> str:
    with contextlib.suppress(OSError, BadInputError):
        if word := _read_word(read_plain(root / _RUN_HOLDER, _MOST_WORDS, follow=False)):
            return word
    return "it has not said who it is yet"
