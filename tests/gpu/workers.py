"""Several test processes at one GPU, and tests that want it to themselves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def among_others(*, alone: bool, locks: Path | None = None) -> Iterator[None]:
    """Until it is left, one of several at the GPU, or the only one; who waits to be alone lets no other in.

    `locks`: the folder of the two files by which the processes agree.
    """
    folder = locks or Path(tempfile.gettempdir())
    with (
        (folder / f"embedding-harness-gpu-door-{os.getuid()}").open("w") as door,
        (folder / f"embedding-harness-gpu-room-{os.getuid()}").open("w") as room,
    ):
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


@contextlib.contextmanager
def one_by_one(what: str, locks: Path | None = None) -> Iterator[None]:
    """Until it is left, the only process that has `what`. `locks`: see `among_others`."""
    folder = locks or Path(tempfile.gettempdir())
    with (folder / f"embedding-harness-gpu-{what}-{os.getuid()}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
