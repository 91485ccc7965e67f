"""Test processes that share a GPU, told apart here by threads: a lock belongs to who opened its file."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.gpu.workers import among_others


class Visitor(threading.Thread):
    """Enters, says so, and stays until it is told to leave."""

    def __init__(self, locks: Path, *, alone: bool = False) -> None:
        super().__init__(daemon=True)
        self._locks, self._alone = locks, alone
        self.inside, self.leave = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with among_others(alone=self._alone, locks=self._locks):
            self.inside.set()
            self.leave.wait()
            self.inside.clear()


def test_many_are_inside_at_once_and_one_is_inside_alone(tmp_path: Path) -> None:
    first, second = Visitor(tmp_path), Visitor(tmp_path)
    assert first.inside.wait()
    assert second.inside.wait()
    alone = Visitor(tmp_path, alone=True)
    late = Visitor(tmp_path)
    assert not alone.inside.wait(0.2)
    first.leave.set()
    assert not alone.inside.wait(0.2)
    second.leave.set()
    # Of those who waited one is inside; where it is the one that wants to be alone nobody else is.
    while not (alone.inside.is_set() or late.inside.is_set()):
        threading.Event().wait(0.01)
    assert not (alone.inside.is_set() and late.inside.is_set())
    late.leave.set()
    assert alone.inside.wait()
    alone.leave.set()
    for visitor in (first, second, alone, late):
        visitor.join()
