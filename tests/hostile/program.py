"""The program as its users call it, in this process, with what it must never do turned into failures.

HARNESS_HOSTILE_EXAMPLES: inputs per kind; `make hostile` asks for many. Without it they are few, and the same
each time.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

import hypothesis
from hypothesis import HealthCheck, Phase

from harness import cli

_EXAMPLES = int(os.environ.get("HARNESS_HOSTILE_EXAMPLES") or 0)
hostile = hypothesis.settings(
    max_examples=_EXAMPLES or 12,
    deadline=None,
    derandomize=not _EXAMPLES,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # what it drew is printed, and making that smaller takes an hour
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
"""How a fuzzer's test is decorated, above `given`."""
MOST_SECONDS = 20.0
MOST_BYTES = 2 * 2**30
ENDS = (0, 2, 3, 4, 5, 6)
"""Exit codes that are answers: 1 is a defect, and 130 somebody at the keyboard."""


@dataclass(frozen=True)
class Answer:
    """What one call came to."""

    code: int
    out: str
    err: str


@dataclass
class Tally:
    """How many inputs of a kind there were, and how they ended."""

    inputs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


TALLIES: dict[str, Tally] = {}
"""By kind; printed at the end of the tests."""


@contextlib.contextmanager
def counted(kind: str) -> Iterator[Counter[str]]:
    """One input of a kind: at most 20 s, and the process below 2 GiB. Say in the counter how it ended."""
    tally = TALLIES.setdefault(kind, Tally())
    with _not_longer_than(MOST_SECONDS):
        yield tally.ends
        left_s, _ = signal.getitimer(signal.ITIMER_REAL)
    tally.inputs += 1
    tally.slowest_s = max(tally.slowest_s, MOST_SECONDS - left_s)
    assert peak_bytes() < MOST_BYTES


def peak_bytes() -> int:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def harness(*arguments: str) -> Answer:
    """Calls the program; whatever it raises but an exit is the test's failure, and so is a wrong end."""
    before, sys.argv = sys.argv, ["harness", *arguments]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    assert code in ENDS, f"harness {arguments}: ended with {code}: {err.getvalue()}"
    assert "Traceback" not in err.getvalue()
    if code == 2:
        assert err.getvalue().strip(), "a refusal says why"
    return Answer(int(code), out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _not_longer_than(seconds: float) -> Iterator[None]:
    def hang(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(
        3 * seconds, exit=True
    )  # where no Python runs that could be interrupted
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
