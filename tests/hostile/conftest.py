"""Says at the end how many inputs the fuzzers made, and what came of them."""

from __future__ import annotations

import pytest

from tests.hostile import program


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line per kind of input; the processes of pytest-xdist keep theirs to themselves."""
    if not program.TALLIES:
        return
    terminalreporter.section("hostile inputs")
    for kind, tally in program.TALLIES.items():
        ends = ", ".join(f"{count:,} {end}" for end, count in sorted(tally.ends.items()))
        terminalreporter.write_line(
            f"{kind}: {tally.inputs:,} inputs ({ends}), the slowest took {tally.slowest_s:.1f} s"
        )
    total = sum(tally.inputs for tally in program.TALLIES.values())
    terminalreporter.write_line(f"{total:,} inputs; peak {program.peak_bytes() / 2**30:.2f} GiB")
