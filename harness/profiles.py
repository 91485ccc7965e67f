"""What a profiler saw of one cell: `profile.json` beside the cell's record. Plain data, nothing derived."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from harness.bounds import Amount, Range
from harness.records import Cell, Environment, KernelFacts

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class KernelLaunch:
    """One launch of one kernel."""

    name: str
    """As the profiler names it, with template arguments."""
    grid: str
    block: str
    """As the profiler writes them, for example "(256, 1, 1)"."""
    metrics: dict[str, Amount] = field(default_factory=dict)
    """By the profiler's names, in bytes, nanoseconds, hertz and per cent. What it could not tell is absent,
    never zero."""


@dataclass(frozen=True)
class Profile:
    """One pass over the tables of a cell, table after table, as Nsight Compute saw it."""

    cell: Cell
    status: Literal["ok", "failed"]
    message: str = ""
    """Why there are no launches, in one sentence."""
    launches: list[KernelLaunch] = field(default_factory=list)
    """Of prepares and lookups, in order; everything else that PyTorch launched for a lookup among them."""
    kernel: KernelFacts | None = None
    environment: Environment | None = None
    profiler: str = ""
    """For example "Nsight Compute 2025.3.1"."""
    report: str = ""
    """The profiler's own file with these launches, relative to the run's folder; Nsight Compute opens it."""
    profiled_at: str = ""
    schema_version: Annotated[int, Range(1, SCHEMA_VERSION)] = SCHEMA_VERSION
