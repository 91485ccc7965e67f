"""Reading ptxas' report."""

from __future__ import annotations

import pytest

from harness.build.resources import Resources, from_report
from harness.errors import HarnessError

REPORT = """\
kernel.cuh(3): warning #177-D: variable "x" was declared but never referenced
ptxas info    : 333 bytes gmem
ptxas info    : Compiling entry function '_Z5firstv' for 'sm_80'
ptxas info    : Function properties for _Z5firstv
ptxas         .     40 bytes stack frame, 52 bytes spill stores, 112 bytes spill loads
ptxas info    : Used 42 registers, 2048 bytes smem, 480 bytes cmem[0]
ptxas info    : Compiling entry function '_Z6secondv' for 'sm_90'
ptxas info    : Function properties for _Z6secondv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 50 registers, used 1 barriers
ptxas info    : Compile time = 31.0 ms
"""


def test_every_function_of_a_report() -> None:
    assert from_report(REPORT) == {
        "_Z5firstv": Resources(registers=42, spill_bytes=164, shared_bytes=2048),
        "_Z6secondv": Resources(registers=50, spill_bytes=0, shared_bytes=0),
    }


def test_a_log_without_a_report_is_an_error() -> None:
    with pytest.raises(HarnessError, match="no report of registers"):
        from_report("kernel.cuh(3): warning")
