"""The commit that this program's own sources are of, as git tells it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_OF_ANOTHER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
"""Set in git's hooks and in some shells, for the repository that is worked on there."""


@dataclass(frozen=True)
class Commit:
    """`name`: its hash; empty where git is not there, refuses, or does not keep these sources."""

    name: str
    dirty: bool
    """Whether anything was changed since."""


def commit_of(source: Path, besides: Path | None = None) -> Commit:
    """The commit of a source file and of everything in its repository; of `besides`, such as the record that
    is being written, it does not matter whether it has changed.

    A file that git does not track there, such as one installed into an environment that lies in somebody's
    repository, is of no commit.
    """
    folder = source.parent
    head = _git(folder, "rev-parse", "--verify", "HEAD")
    changes = _git(folder, "status", "--porcelain", *_all_but(folder, besides))
    if head is None or changes is None or not _git(folder, "ls-files", "--", source.name):
        return Commit("", dirty=False)
    return Commit(head, dirty=bool(changes))


def _all_but(folder: Path, besides: Path | None) -> list[str]:
    """Pathspecs of everything in the repository but this, where it lies in there."""
    top = _git(folder, "rev-parse", "--show-toplevel") if besides else None
    if not top or not besides or not (path := besides.resolve()).is_relative_to(Path(top).resolve()):
        return []
    inside = path.relative_to(Path(top).resolve()).as_posix()
    return ["--", ":(top)", f":(top,exclude,literal){inside}"]


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None where it is not there or fails."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
