"""One user at a time: of a GPU by all runs on this machine, of a run's folder by all processes.

The locks are the operating system's, so they end with the process that holds them, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import BadInputError, MachineError
from harness.progress import Progress, Silent

GPU_LEASES = Path("/tmp/embedding-harness-gpus")
"""The same for every user and every checkout on the machine, whatever TMPDIR says."""
_RUN_LOCK = ".lock"


@contextlib.contextmanager
def gpu(
    uuid: str, root: Path, *, wait: bool = False, progress: Progress | None = None, folder: Path = GPU_LEASES
) -> Iterator[None]:
    """Holds the GPU for the run in `root`.

    Where another run holds it: MachineError saying who, or with `wait` a wait until it is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Every user may take a lease. No sticky bit: under it Linux refuses to open another user's lock file.
    with contextlib.suppress(PermissionError):
        folder.chmod(0o777)
    path = folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', uuid)}.lock"
    lock = FileLock(path, mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise MachineError(
                f"GPU {uuid} is in use by another run ({_holder(path)}); with --wait, wait for it."
            ) from None
        (progress or Silent()).say(f"Waiting for GPU {uuid}, in use by another run ({_holder(path)}).")
        lock.acquire()
    try:
        _sign(path, root)
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def run_folder(root: Path) -> Iterator[None]:
    """Holds a run's folder, making it where it is missing.

    BadInputError where it cannot be written, or saying who has it where another process does.
    """
    path = root / _RUN_LOCK
    lock = FileLock(path)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInputError(f"{root}: is in use by another process ({_holder(path)}).") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BadInputError(f"{root}: is no folder that a run can write to: {error.strerror}.") from error
    try:
        _sign(path, root)
        yield
    finally:
        lock.release()


def in_use(root: Path) -> bool:
    """Whether a living process holds this run's folder."""
    if not root.is_dir():
        return False
    try:
        with FileLock(root / _RUN_LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # A folder that we may not write is another user's: none of our business.
        return True


def _sign(lock: Path, root: Path) -> None:
    """Leaves word of who holds the lock, for the message to whoever comes next."""
    holder = lock.with_suffix(".json")
    word = {"pid": os.getpid(), "run": str(root), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    holder.unlink(missing_ok=True)  # It may be another user's, which we could not overwrite.
    holder.write_text(json.dumps(word), encoding="utf-8")


def _holder(lock: Path) -> str:
    try:
        word = json.loads(lock.with_suffix(".json").read_text(encoding="utf-8"))
        return f"process {word['pid']}, {word['run']}, since {word['since']}"
    except (OSError, ValueError, KeyError):
        return "it has not said who it is yet"
