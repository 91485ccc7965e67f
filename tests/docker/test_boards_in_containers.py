"""Boards in name alone, and real containers: one on each at the same time, and none left behind."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from harness import wall
from harness.errors import MachineError
from harness.plan import Plan
from harness.progress import Progress
from harness.run import campaign
from harness.run.attempt import Attempt
from harness.run.docker import DockerRunner
from harness.run.runner import Listener, Outcome, Terms
from tests.docker.test_container_runs import containers, experiment, records
from tests.killing import pretended

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900), pytest.mark.usefixtures("built")]


class Told:
    """Passes on what a launch says, and calls `at_cell` with its board where it announces a cell."""

    def __init__(self, listener: Listener, at_cell: Callable[[], None]) -> None:
        self.neighbours = listener.neighbours
        self._listener = listener
        self._at_cell = at_cell

    def line(self, text: str) -> None:
        self._listener.line(text)
        if wall.announced(text):
            self._at_cell()


class OnBoards(DockerRunner):
    """Containers on the CPU that are said to be on two boards."""

    def __init__(self, root: Path, at_cell: Callable[[Attempt], None]) -> None:
        super().__init__()
        self._pretended = pretended(root, 2)
        self._at_cell = at_cell

    def check(self, plan: Plan, folder: Path, progress: Progress) -> None:
        super().check(plan, folder, progress)
        self.boards = self._pretended

    def run(self, attempt: Attempt, terms: Terms) -> Outcome:
        told = Told(terms.listener, lambda: self._at_cell(attempt))
        return super().run(attempt, dataclasses.replace(terms, listener=told))


def test_containers_of_two_boards_run_side_by_side(client: docker.DockerClient, tmp_path: Path) -> None:
    root, most = tmp_path / "run", list[int]()
    first = threading.Barrier(2, timeout=300)  # breaks where one container waits for the other's end

    def at_cell(attempt: Attempt) -> None:
        if not most:
            first.wait()
            most.append(len(containers(client, root)))

    given = replace(experiment(), replicates=2)
    campaign.start(given, OnBoards(root, at_cell), root)
    assert max(most) == 2
    assert {record.status for record in records(root).values()} == {"ok"}
    assert len(records(root)) == 8
    assert containers(client, root) == []


def test_what_ends_one_board_removes_the_others_container(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    first = threading.Barrier(2, timeout=300)

    def at_cell(attempt: Attempt) -> None:
        first.wait()
        assert attempt.board is not None
        if attempt.board.index == 0:
            raise MachineError("The board fell off the bus.")
        assert attempt.called_off.wait(300)

    given = replace(experiment(), replicates=2)
    given = replace(given, timing=replace(given.timing, max_seconds=600, min_passes=10**8, max_passes=10**9))
    with pytest.raises(MachineError, match=r"fell off the bus; .*--resume"):
        campaign.start(given, OnBoards(root, at_cell), root)
    assert containers(client, root) == []
