"""The package's own kernels, run on the CPU from their sources."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from harness.emulator.check import checks_of, usual
from harness.emulator.checking import Check
from harness.emulator.program import Program
from harness.emulator.tables_call import Call
from kernel_wheel import kernels

pytestmark = pytest.mark.compiler

DESIGN = kernels.design("vectorized")
CHECKS = [pytest.param(check, id=check.title) for check in checks_of(DESIGN)]


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Program(DESIGN) as compiled:
        yield compiled


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_of_a_design_for_all_tables(program: Program, check: Check) -> None:
    chosen = [instance for instance in program.instances if check.functions(instance)]
    assert chosen
    for instance in chosen:
        check.run(program, instance)


@pytest.mark.parametrize("wrong", [False, True])
def test_tables_that_differ_in_width_and_in_the_length_of_their_bags(program: Program, wrong: bool) -> None:
    lengths = [[3, 0, 200, 7, 1, 9, 31], [90, 40, 33, 150, 0, 64, 8], [0, 1, 2, 3, 4, 5, 6]]
    for instance in usual(DESIGN, program.instances):
        call = Call(DESIGN, instance, lengths, dims=[32, 128, 288])
        call.modes = [0, 1, 0]
        call.faults = np.zeros((1, 8), np.uint32)
        if wrong:
            call.indices[[5, 240]] = -1, 2**30
            call.offsets[9] = 2**30
        call.run(program, call.grids()[0])
        call.check()
        assert call.faults[0, :2].tolist() == ([2, 2] if wrong else [0, 0])
