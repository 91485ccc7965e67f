"""Where this program keeps what it can make again, and how a folder gets there whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.errors import MachineError

NO_HOME = "/nonexistent"
"""The home of users who have none, as Debian calls it."""


def cache_dir() -> Path:
    """HARNESS_CACHE_DIR where it is set, otherwise the user's cache folder; MachineError for a user without a
    home, as a container or a batch system may have."""
    try:
        if given := os.environ.get("HARNESS_CACHE_DIR"):
            folder = Path(given).expanduser().absolute()
        else:
            from platformdirs import user_cache_path

            folder = user_cache_path("embedding-harness")
    except RuntimeError:
        folder = Path(NO_HOME)
    # Older platformdirs give a "~" back that they do not know.
    if not folder.is_absolute() or folder.is_relative_to(NO_HOME):
        raise MachineError(
            "There is no folder to keep compiled kernels in: this user has no home; set HARNESS_CACHE_DIR "
            "(or XDG_CACHE_HOME) to a folder that can be written."
        )
    return folder


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by `make` in a scratch folder beside it and renamed into place, unless it exists.

    Safe against other processes that make the same: one of them does, the others wait and use it. Where
    `make` raises, nothing is left behind.
    """
    if folder.is_dir():
        return folder
    with _locked(folder):
        if not folder.is_dir():
            scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                scratch.chmod(0o755)  # mkdtemp's is for the owner alone, but images are run by somebody else
                make(scratch)
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from filelock import FileLock

    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise MachineError(
            f"{folder.parent}: nothing can be kept here: {error.strerror}; set HARNESS_CACHE_DIR to a folder "
            "that can be written."
        ) from error
    try:
        yield
    finally:
        lock.release()
