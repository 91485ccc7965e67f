"""Test processes that share a GPU, told apart here by threads: a lock belongs to who opened its file."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from tests.gpu.workers import among_others, one_by_one


class Visitor(threading.Thread):
    """Enters, says so, and stays until it is told to leave."""

    def __init__(self, door: AbstractContextManager[None]) -> None:
        super().__init__(daemon=True)
        self._door = door
        self.inside, self.leave = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with self._door:
            self.inside.set()
            self.leave.wait()
            self.inside.clear()


def test_many_are_inside_at_once_and_one_is_inside_alone(tmp_path: Path) -> None:
    enter = partial(among_others, locks=tmp_path)
    first, second = Visitor(enter(alone=False)), Visitor(enter(alone=False))
    assert first.inside.wait()
    assert second.inside.wait()
    alone = Visitor(enter(alone=True))
    late = Visitor(enter(alone=False))
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


def test_one_has_what_there_is_once_and_others_have_other_things(tmp_path: Path) -> None:
    first, second = (Visitor(one_by_one("memory", tmp_path)) for _ in range(2))
    other = Visitor(one_by_one("other", tmp_path))
    assert other.inside.wait()
    while not (first.inside.is_set() or second.inside.is_set()):
        threading.Event().wait(0.01)
    threading.Event().wait(0.2)
    has, waits = (first, second) if first.inside.is_set() else (second, first)
    assert not waits.inside.is_set()
    has.leave.set()
    assert waits.inside.wait()
    waits.leave.set()
    other.leave.set()
    for visitor in (first, second, other):
        visitor.join()
