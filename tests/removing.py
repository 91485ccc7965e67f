"""Takes away what others may still be writing to."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path


def remove_in_use(folder: Path) -> None:
    """Removes the folder with all that it holds, also what others put there meanwhile."""
    while folder.exists():
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
