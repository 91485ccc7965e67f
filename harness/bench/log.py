"""The log: lines on stdout, the last of which go into the record of a cell that fails."""

from __future__ import annotations

from collections import deque

_LINES = 60

_tail: deque[str] = deque(maxlen=_LINES)


def say(text: str) -> None:
    """Prints `text` at once (whoever follows the log should not wait for a buffer) and remembers its end."""
    print(text, flush=True)
    _tail.extend(text.splitlines())


def tail() -> str:
    """The last lines said since the cell began."""
    return "\n".join(_tail)


def begin() -> None:
    """A new cell: what was said before belongs to another."""
    _tail.clear()
