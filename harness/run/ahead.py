"""A runner for a machine that lays a run out and has others measure it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import MachineError
from harness.plan import Plan
from harness.progress import Progress
from harness.run.attempt import Attempt
from harness.run.gpu import Gpu
from harness.run.runner import Outcome, Terms


class Ahead:
    """Measures nothing, so it asks nothing of this machine."""

    boards: Sequence[Gpu] = ()

    def check(self, plan: Plan, folder: Path, progress: Progress) -> None:
        """What is wanted is wanted where the run is measured."""

    def clear(self, root: Path, progress: Progress) -> None:
        """Nothing of it runs on this machine."""

    @contextlib.contextmanager
    def hold(self, root: Path, progress: Progress) -> Iterator[None]:
        """Nothing is held here."""
        yield

    def run(self, attempt: Attempt, terms: Terms) -> Outcome:
        """Never asked for."""
        raise MachineError("This run is measured by jobs of Slurm's, not here.")
