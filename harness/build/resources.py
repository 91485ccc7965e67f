"""What a kernel takes of the GPU, as ptxas reports it under `--ptxas-options=-v`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import HarnessError


@dataclass(frozen=True)
class Resources:
    """One kernel of one cubin."""

    registers: int
    """Per thread."""
    spill_bytes: int
    """Spill stores plus spill loads, counted in the code, not as executed."""
    shared_bytes: int
    """Static shared memory per block."""


_FUNCTION = re.compile(
    r"Function properties for (?P<symbol>\S+)\s*\n[^\n]*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\s*\n[^\n]*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)"
)
_SHARED = re.compile(r"(\d+) bytes smem")


def from_report(log: str) -> dict[str, Resources]:
    """Resources by mangled kernel name, from a log that holds ptxas' report."""
    found = {}
    for function in _FUNCTION.finditer(log):
        shared = _SHARED.search(function["rest"])
        found[function["symbol"]] = Resources(
            registers=int(function["registers"]),
            spill_bytes=int(function["stores"]) + int(function["loads"]),
            shared_bytes=int(shared[1]) if shared else 0,
        )
    if not found:
        raise HarnessError(f"The compiler's log holds no report of registers:\n{log}")
    return found
