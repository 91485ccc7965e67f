"""What a check is, and what every check needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from harness.build.instances import Instance
from harness.designs import Design, Launch
from harness.emulator.program import Program, Ran
from harness.errors import BadInputError

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "int4": 0.5}
MULTIPROCESSORS = 3
"""Of the GPU that is pretended."""
STRIDES = "a grid of one block does all the work"
"""Title of the check that a kernel that has to stride over its work does."""


class WrongResultError(BadInputError):
    """A kernel computed something else than it should; the message says where and what."""


@dataclass(frozen=True)
class Check:
    """Something that a kernel has to get right."""

    title: str
    functions: Callable[[Instance], bool]
    """Which instances it is for."""
    run: Callable[[Program, Instance], None]
    """Returns where all is right; otherwise raises WrongResultError or DeviceError."""


def columns(design: Design, instance: Instance, wanted: int) -> int:
    """A number of columns near the wanted one that the instance takes.

    An instance for fast calls gets rows, and parts of rows of results, of whole groups of 16 bytes.
    """
    unit = design.supports.dim_multiple
    if instance.generic is False or (design.all_tables and instance.generic is None):
        for dtype in filter(None, (instance.dtype, instance.output_dtype)):
            unit = math.lcm(unit, int(16 / ITEM_BYTES[dtype]))
    dim = -(-wanted // unit) * unit
    return min(dim, design.supports.max_dim // unit * unit) if design.supports.max_dim else dim


def outside_rows(instance: Instance, rows: int) -> tuple[int, ...]:
    """Indices that are no row: the nearest, the furthest, and those of which 32 bits are a row."""
    if instance.index_dtype == "int32":
        return -1, rows, 2**31 - 1, -(2**31)
    return -1, rows, 2**31 - 1, -(2**31), 2**32, 2**32 + 1, 1 - 2**32, 2**63 - 1, -(2**63)


def launch_of(design: Design, instance: Instance) -> Launch:
    """How this instance is launched."""
    special = {special.kernel: special.launch for special in design.special}
    return special.get(instance.function, design.launch)


def threads_of(design: Design, instance: Instance) -> tuple[int, int]:
    """Threads of a block in x and y."""
    launch = launch_of(design, instance)
    x, y = launch.threads
    return x, {str(dtype): number for dtype, number in launch.threads_y_of.items()}.get(instance.dtype, y)


def strides(design: Design) -> Callable[[Instance], bool]:
    """Which instances are launched in grids that need not cover the work."""

    def of_instance(instance: Instance) -> bool:
        launch = launch_of(design, instance)
        return instance.function != "prepare" and bool(launch.blocks or launch.blocks_per_sm)

    return of_instance


def more_than_a_block(design: Design, instance: Instance) -> int:
    """A number of bags of which not even one for each thread of a block is all."""
    x, y = threads_of(design, instance)
    return x * y + 3


def covering_blocks(launch: Launch, bags: int, dim: int) -> int:
    """As many as cover the work on one table, as harness/patch/plan.h has it."""
    blocks = -(-bags // launch.bags_per_block)
    return blocks * -(-dim // launch.columns_per_block) if launch.columns_per_block else blocks


def expect_refusal(ran: Ran, what: str) -> None:
    """WrongResultError unless an assertion failed; `what` is the clause that says what was let through."""
    if not ran.refused:
        raise WrongResultError(f"{what}, and no assertion fails")
