"""How long work says where it is: one small interface, so that no part needs to know about terminals."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told what runs now and how far the work is."""

    def expect(self, steps: int) -> None:
        """The work has this many steps in all."""

    def now(self, what: str) -> None:
        """This runs now."""

    def advance(self, steps: int = 1) -> None:
        """So many steps are done."""

    def say(self, line: str) -> None:
        """A line worth keeping above the moving part."""


class Silent:
    """Progress that nobody watches."""

    def expect(self, steps: int) -> None:
        """Does nothing."""

    def now(self, what: str) -> None:
        """Does nothing."""

    def advance(self, steps: int = 1) -> None:
        """Does nothing."""

    def say(self, line: str) -> None:
        """Does nothing."""
