"""`plan.json`: which lookup serves each group of a model's tables the fastest, as `tune` measured it.

A group is what is looked up together: the tables of one module that `optimize` swaps. The file is these
dataclasses as JSON; docs/tuning.md says what each field means.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from embedding_kernels import _strict
from embedding_kernels._layout import USUAL, Limits
from embedding_kernels._strict import PlanError

__all__ = ["Candidate", "Choice", "Gpu", "Group", "Interval", "Plan", "PlanError", "Protocol", "TableShape"]

SCHEMA_VERSION: Literal[1] = 1
Kernel = Literal["fused", "vectorized", "own"]
RowType = Literal["unchanged", "float32", "float16", "bfloat16", "int8", "int4"]


@dataclass(frozen=True)
class TableShape:
    """So many tables after each other that are alike; one that several features look up counts for each."""

    count: int
    rows: int
    dim: int
    """Columns."""
    row_type: Literal["float32", "float16", "bfloat16", "int8", "int4"]
    mode: Literal["sum", "mean", "max"]

    def __str__(self) -> str:
        """For sentences."""
        many = f"{self.count} tables" if self.count != 1 else "1 table"
        return f"{many} of {self.rows} rows x {self.dim} {self.row_type} ({self.mode})"


@dataclass(frozen=True)
class Interval:
    """A median with its interval, in microseconds for one batch through the group."""

    median: float
    low: float
    high: float

    def problem(self) -> str:
        """What is wrong with it, beginning with a field; empty where nothing is."""
        return "" if self.low <= self.median <= self.high else "median: lies outside low and high"


@dataclass(frozen=True)
class Choice:
    """How a group is looked up."""

    kernel: Kernel
    """"own": the module's own lookup; it is not swapped."""
    row_type: RowType
    """What the rows are converted to, which changes numbers; or "unchanged"."""
    few_rows: int | None = None
    """Of "fused", see `EmbeddingTables.use_limits`; null: the usual."""
    many_bags: int | None = None
    crowded_clocks: int | None = None

    @property
    def limits(self) -> Limits:
        """Those of "fused"."""
        return Limits(self.few_rows, self.many_bags, self.crowded_clocks)

    def problem(self) -> str:
        """What is wrong with it, beginning with a field; empty where nothing is."""
        for field, known in (("kernel", Kernel), ("row_type", RowType)):
            if getattr(self, field) not in get_args(known):
                return f"{field}: is none of {', '.join(get_args(known))}"
        if self.kernel == "own" and self.row_type != "unchanged":
            return 'row_type: is "unchanged" where a module keeps its own lookup'
        if self.kernel != "fused" and self.limits != USUAL:
            return 'few_rows, many_bags, crowded_clocks: are of "fused" alone'
        return self.limits.problem()

    def __str__(self) -> str:
        """For example "fused", or "fused few_rows=48, float16 rows"."""
        limits = self.limits._asdict()
        moved = "".join(f" {name}={limit}" for name, limit in limits.items() if limit is not None)
        return f"{self.kernel}{moved}" + ("" if self.row_type == "unchanged" else f", {self.row_type} rows")


@dataclass(frozen=True)
class Candidate:
    """A choice that was measured, or why it was not."""

    choice: Choice
    eager_us: Interval | None
    """From the call until the GPU is done, the host's part included; null: not measured."""
    graph_us: Interval | None
    """On the GPU, replayed as a CUDA graph; null: not measured."""
    change: float
    """Largest difference from the sums of the rows as they were, as a share of the largest such sum."""
    why_not: str
    """Why times are null; empty where none is."""


@dataclass(frozen=True)
class Group:
    """Tables that are looked up together."""

    path: str
    """Of the module within the model that was tuned; empty: the model itself."""
    kind: str
    """Its class."""
    tables: tuple[TableShape, ...]
    """In order. By these, and only among equal ones by the path, a group of another model is recognised."""
    lookups: float
    """Rows that a sample batch looks up, on average."""
    choice: Choice
    not_told_apart: tuple[Choice, ...]
    """Measured too, and neither faster nor slower than the choice as far as can be told."""
    candidates: tuple[Candidate, ...]
    """All that were tried; none where the sample batches did not come here."""

    def problem(self) -> str:
        """What is wrong with it, beginning with a field; empty where nothing is."""
        if not self.tables:
            return "tables: is empty"
        known = {each.choice for each in self.candidates if each.eager_us or each.graph_us}
        if self.candidates and self.choice not in known:
            return "choice: is none of the candidates that have times"
        return "" if set(self.not_told_apart) <= known else "not_told_apart: names what is no candidate"

    def took(self, by: Literal["eager", "graph"]) -> Interval | None:
        """The choice's time; None where it was not measured."""
        chosen = next((each for each in self.candidates if each.choice == self.choice), None)
        if chosen is None:
            return None
        return chosen.eager_us if by == "eager" else chosen.graph_us


@dataclass(frozen=True)
class Gpu:
    """What was measured on."""

    name: str
    capability: str
    """"9.0"."""
    driver: str
    """As nvidia-smi says it, or the driver's CUDA version where it cannot be had."""


@dataclass(frozen=True)
class Protocol:
    """How it was measured; see docs/tuning.md."""

    decided_by: Literal["eager", "graph"]
    batches: int
    """Sample batches that took turns."""
    bytes_between_turns: int
    """Touched, at the least, between two turns of a batch, by the group and the rows where that is the
    least."""
    l2_bytes: int
    """Of the GPU's L2 cache; where three times that is more than `bytes_between_turns`, some rows were found
    in L2 that a server's passes would not find there."""
    blocks: int
    passes: int
    """Of each candidate in each block."""
    seed: int


@dataclass(frozen=True)
class Plan:
    """What `tune` found, and `optimize` applies."""

    schema_version: Literal[1]
    package_version: str
    """Of embedding_kernels."""
    torch_version: str
    tuned_at: str
    """UTC, ISO 8601."""
    gpu: Gpu
    protocol: Protocol
    groups: tuple[Group, ...]

    def problem(self) -> str:
        """What is wrong with it, beginning with a field; empty where nothing is."""
        by = self.protocol.decided_by
        for number, group in enumerate(self.groups):
            if group.candidates and group.took(by) is None:
                return f"groups[{number}].choice: has no time by which it was decided ({by})"
        return ""

    def __str__(self) -> str:
        """A line for each group."""
        return "\n".join(_line(group, self.protocol.decided_by) for group in self.groups)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes plan.json, whole or not at all. OSError where it cannot be written."""
        target = Path(path)
        scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            scratch.write_text(self.to_json(), encoding="utf-8")
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)

    def to_json(self) -> str:
        """The text of plan.json."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Reads plan.json. PlanError, one sentence with file and field, for what is none."""
        return _strict.read(cls, Path(path), newest=SCHEMA_VERSION)

    def differences(self, device: torch.device) -> str:
        """Why its times do not hold on this device, as the end of a sentence; empty where they do."""
        if device.type == "meta":
            return ""
        if device.type != "cuda":
            return f"it was tuned on {self.gpu.name}, and the tables are on the {device.type}"
        here = gpu_of(device)
        if (self.gpu.name, self.gpu.capability) != (here.name, here.capability):
            return f"it was tuned on {self.gpu.name}, and this is {here.name}"
        return ""

    def group_for(self, tables: Sequence[TableShape], path: str) -> Group | None:
        """The group of these tables; of several that are alike the one at this path, or the first."""
        alike = [group for group in self.groups if group.tables == tuple(tables)]
        return next((group for group in alike if group.path == path), alike[0] if alike else None)


def gpu_of(device: torch.device) -> Gpu:
    """The GPU as plans call it."""
    found = torch.cuda.get_device_properties(device)
    return Gpu(found.name, f"{found.major}.{found.minor}", _driver())


def _driver() -> str:
    """What the kernel module says of itself, which takes no further package."""
    try:
        first = Path("/sys/module/nvidia/version").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        version: int = torch._C._cuda_getDriverVersion()  # type: ignore[attr-defined]
        return f"of CUDA {version // 1000}.{version % 1000 // 10}"
    return first.strip()


def collapsed(tables: Iterable[TableShape]) -> tuple[TableShape, ...]:
    """The same tables, neighbours that are alike counted together."""
    found: list[TableShape] = []
    for table in tables:
        if found and dataclasses.replace(found[-1], count=table.count) == table:
            found[-1] = dataclasses.replace(table, count=found[-1].count + table.count)
        else:
            found.append(table)
    return tuple(found)


def _line(group: Group, by: Literal["eager", "graph"]) -> str:
    where = group.path or "the model itself"
    took = group.took(by)
    if took is None:
        return f"{where} ({group.kind}): {group.choice}; the sample batches did not look up here"
    same = "".join(f"; cannot be told apart: {other}" for other in group.not_told_apart)
    us = f"{took.median:.1f} µs ({took.low:.1f} to {took.high:.1f})"
    return f"{where} ({group.kind}): {group.choice}, {us}{same}"
