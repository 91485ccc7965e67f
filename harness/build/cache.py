"""Where this program keeps what it can make again, and how a folder gets there whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_dir() -> Path:
    """HARNESS_CACHE_DIR where it is set, otherwise the user's cache folder."""
    if given := os.environ.get("HARNESS_CACHE_DIR"):
        return Path(given).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("embedding-harness")


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by `make` in a scratch folder beside it and renamed into place, unless it exists.

    Safe against other processes that make the same: one of them does, the others wait and use it. Where
    `make` raises, nothing is left behind.
    """
    from filelock import FileLock

    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                scratch.chmod(0o755)  # mkdtemp's is for the owner alone, but images are run by somebody else
                make(scratch)
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder
