"""Every kernel of every design, run on the CPU from its own sources."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import designs
from harness.build.instances import Instance
from harness.emulator.check import checks_of
from harness.emulator.checking import Check
from harness.emulator.lookups import Batch
from harness.emulator.program import Program
from harness.emulator.tables_call import Call

pytestmark = pytest.mark.compiler

Compiled = Callable[[str], Program]
OURS = [design for design in designs.discover().values() if design.compiled]
CHECKS = [
    pytest.param(design.name, check, id=f"{design.name}-{check.title}")
    for design in OURS
    for check in checks_of(design)
]


@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_every_kernel_passes_every_check(program: Compiled, name: str, check: Check) -> None:
    chosen = [instance for instance in program(name).instances if check.functions(instance)]
    assert chosen
    for instance in chosen:
        check.run(program(name), instance)


@pytest.mark.parametrize("name", [design.name for design in OURS])
def test_each_kernel_is_checked_against_all_that_may_be_asked_of_it(name: str) -> None:
    design = designs.get(name)
    titles = [check.title for check in checks_of(design)]
    assert len(set(titles)) == len(titles) >= 7
    assert ("sample weights" in titles) == design.supports.weighted
    assert any("hot row" in title for title in titles) == design.prepares


@pytest.mark.parametrize("name", [design.name for design in OURS])
def test_the_sentence_of_a_refusal_names_what_is_wrong(program: Compiled, name: str) -> None:
    design, instance = designs.get(name), program(name).instances[0]
    for what, sentence in (
        ("index", "every index is a row of"),
        ("offset", "offsets ascend within the indices"),
    ):
        if design.all_tables:
            call = Call(design, instance, [[3, 4, 4]])
            (call.indices if what == "index" else call.offsets)[1] = 2**30
            said = call.run(program(name), call.grids()[0]).refused
        else:
            batch = Batch(design, instance, [3, 4, 4])
            (batch.indices if what == "index" else batch.offsets)[1] = 2**30
            said = batch.run(program(name)).refused
        assert sentence in said


def instance_of(program: Program, **tunables: int) -> Instance:
    """That with float32 and int64."""
    (found,) = (
        i
        for i in program.instances
        if (i.dtype, i.index_dtype) == ("float32", "int64") and i.tunables == tunables
    )
    return found


@pytest.mark.parametrize("distance", designs.get("l1dpf").tunables["distance"].values)
def test_l1_prefetches_every_row_once_and_ahead_of_its_use(program: Compiled, distance: int) -> None:
    compiled = program("l1dpf")
    instance = instance_of(compiled, distance=distance, resident=5)
    batch = Batch(compiled.design, instance, [0, 1, distance, 2 * distance + 1, 3], dim=1)

    def prefetched_rows() -> list[int]:
        ran = batch.run(compiled, threads=(1, 1), blocks=1)
        return [(int(at) - ran.addresses[batch.table_memory]) // 4 for at in ran.prefetched]

    assert prefetched_rows() == batch.indices.tolist()
    # A row that no table has: the thread stops when it would prefetch it, `distance` rows before its turn.
    rows, wrong = batch.indices.tolist(), 1 + 3 * distance
    batch.indices[wrong] = 2**30
    batch.offset2bag[:] = -1
    assert prefetched_rows() == rows[:wrong]
    assert (batch.offset2bag >= 0).tolist() == [n < wrong - distance for n in range(batch.n)]
