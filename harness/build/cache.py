"""Where this program keeps what it can make again, and how a folder gets there whole, and is known to be."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.codec import read_json
from harness.errors import BadInputError, MachineError

NO_HOME = "/nonexistent"
"""The home of users who have none, as Debian calls it."""
SEAL = ".seal.json"
"""In every folder of the cache: the size and SHA-256 of each of its files."""
_MOST_SEAL = 2**24


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
    """`folder`, made by `make` in a scratch folder beside it and renamed into place, unless it is there.

    What is there but is not as it was made (a file cut short, one too many, another's) is made again: it may
    be code that is run. Safe against other processes that make the same: one of them does, the others wait
    and use it. Where `make` raises, nothing has changed.
    """
    if is_whole(folder):
        return folder
    with _locked(folder):
        if not is_whole(folder):
            scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                made = scratch / "made"
                made.mkdir()
                made.chmod(0o755)  # for more than the owner, since images are run by somebody else
                make(made)
                (made / SEAL).write_text(json.dumps(_contents(made)), encoding="utf-8")
                if os.path.lexists(folder):
                    folder.rename(scratch / "before")
                made.rename(folder)
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


def is_whole(folder: Path) -> bool:
    """Whether the folder of the cache is there and holds what was put into it, byte by byte."""
    try:
        sealed = read_json(folder / SEAL, most_bytes=_MOST_SEAL)
        # Sizes first: they tell most damage at once, and keep anything endless from being read.
        return bool(sealed == _contents(folder, sealed))
    except (BadInputError, OSError):
        return False


def _contents(folder: Path, expected: object = None) -> dict[str, list[int | str]]:
    """Size and SHA-256 by path of everything in the folder but its seal; the size alone where that is not
    what was expected."""
    found: dict[str, list[int | str]] = {}
    for parent, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            path = Path(parent, name)
            state, key = path.lstat(), str(path.relative_to(folder))
            if stat.S_ISDIR(state.st_mode) or key == SEAL:
                continue
            if not stat.S_ISREG(state.st_mode):
                found[key] = ["not a file"]
                continue
            known = expected.get(key) if isinstance(expected, dict) else [state.st_size]
            found[key] = [state.st_size]
            if isinstance(known, list) and known[:1] == [state.st_size]:
                with path.open("rb") as file:
                    found[key].append(hashlib.file_digest(file, "sha256").hexdigest())
    return found


def _raise(error: OSError) -> None:
    raise error
