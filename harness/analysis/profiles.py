"""What profiles say of each arm on each dataset, and what moved against the reference."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import profiles, records
from harness.analysis.frame import Run
from harness.errors import BadInputError
from harness.profiles import KernelLaunch, Profile
from harness.records import Cell

STALL = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio")
_LATENCY = "smsp__average_warp_latency_per_inst_issued.ratio"
_DURATION = "gpu__time_duration.sum"
_MATTERS = 1.1
"""A change by less than this factor is not worth a word."""
OTHER = "other"


@dataclass(frozen=True)
class Figures:
    """The lookup kernel of an arm on a dataset. Amounts are per table and batch; None: the profiler could not
    tell."""

    __pydantic_config__ = {"use_attribute_docstrings": True}  # noqa: RUF012, read by pydantic for the schema
    run: str
    arm: str
    dataset: str
    kernel: str
    """Its name, without template arguments."""
    us: float | None
    """Under the profiler, where launches follow one another with gaps; a time to read counters by."""
    clock_mhz: float | None
    registers: float | None
    warps_possible: float | None
    """Of those that a multiprocessor holds, how many registers, shared memory and blocks let in; 0 to 1."""
    warps_resident: float | None
    """How many of them there were, on average over its time."""
    issuing: float | None
    """Share of cycles in which a scheduler issued an instruction."""
    instructions: float | None
    """Of warps."""
    l1_hits: float | None
    l2_hits: float | None
    """Share of sectors asked for that were there. L2's counts what passes between its two halves, too."""
    l2_bytes: float | None
    """From L2 to the multiprocessors."""
    dram_read_bytes: float | None
    dram_write_bytes: float | None
    dram_gbps: float | None
    """Read from memory per time."""
    dram_busy: float | None
    """Share of the memory's peak rate."""
    stalls: dict[str, float]
    """What the resident warps' time went into; shares by reason, largest first. "selected" is work."""
    beside: dict[str, float]
    """Other kernels of the same pass (the prepare, what PyTorch launches for itself): µs per table."""


@dataclass(frozen=True)
class Profiled:
    """The profiles of a run."""

    figures: dict[tuple[str, str], Figures]
    """By arm and dataset, in the run's order."""
    failed: list[Profile]
    outdated: list[str]
    """Arms whose source has changed between profile and record."""
    profiler: str


def find(run: Run) -> Profiled:
    """Everything that was profiled of a run; no figures where nothing was."""
    whole = run.whole
    cells = sorted([*(record.cell for record in whole.records), *whole.pending], key=lambda cell: cell.id)
    made = [
        _read(cell, path) for cell in cells if os.path.lexists(path := profiles.path_of(run.folder, cell))
    ]
    found = {(p.cell.arm, p.cell.dataset.name): figures(p, run.name) for p in made if p.launches}
    order = [(arm, dataset) for arm in run.arms for dataset in run.datasets]
    sources = {r.cell.arm: r.kernel.source_hash for r in run.records if r.kernel}
    outdated = {
        p.cell.arm for p in made if p.kernel and sources.get(p.cell.arm, "") not in ("", p.kernel.source_hash)
    }
    return Profiled(
        figures={key: found[key] for key in order if key in found},
        failed=[p for p in made if p.status != "ok"],
        outdated=sorted(outdated),
        profiler=", ".join(sorted({p.profiler for p in made if p.launches})),
    )


def _read(cell: Cell, path: Path) -> Profile:
    """The profile of a cell; a failed one where the file is none of it."""
    try:
        profile = records.load(Profile, path)
    except BadInputError as error:
        return Profile(cell, "failed", f"Its profile cannot be used: {error}")
    if profile.cell != cell:
        return Profile(cell, "failed", f"Its profile cannot be used: {path}: is not of this cell.")
    return profile


def figures(profile: Profile, run: str) -> Figures:
    """Figures of the kernel that did the lookups: that called "lookup", or else that which took longest."""
    by_name: dict[str, list[KernelLaunch]] = defaultdict(list)
    for launch in profile.launches:
        by_name[short(launch.name)].append(launch)
    tables = profile.cell.workload.tables
    name = "lookup" if "lookup" in by_name else max(by_name, key=lambda n: _sum(by_name[n], _DURATION) or 0)
    launches = by_name.pop(name)

    def amount(metric: str, scale: float = 1.0) -> float | None:
        total = _sum(launches, metric)
        return None if total is None else total / tables * scale

    def share(metric: str) -> float | None:
        value = _mean(launches, metric)
        return None if value is None else value / 100

    clock = _mean(launches, "gpc__cycles_elapsed.avg.per_second")
    us = amount(_DURATION, 1e-3)
    read = _first(amount("dram__bytes_read.sum"), amount("dram__bytes_op_read.sum"))
    return Figures(
        run=run,
        arm=profile.cell.arm,
        dataset=profile.cell.dataset.name,
        kernel=name,
        us=us,
        clock_mhz=clock and clock / 1e6,
        registers=_mean(launches, "launch__registers_per_thread"),
        warps_possible=share("sm__maximum_warps_per_active_cycle_pct"),
        warps_resident=share("sm__warps_active.avg.pct_of_peak_sustained_active"),
        issuing=share("smsp__issue_active.avg.pct_of_peak_sustained_active"),
        instructions=amount("smsp__inst_executed.sum"),
        l1_hits=share("l1tex__t_sector_hit_rate.pct"),
        l2_hits=share("lts__t_sector_hit_rate.pct"),
        l2_bytes=amount("l1tex__m_xbar2l1tex_read_bytes.sum"),
        dram_read_bytes=read,
        dram_write_bytes=_first(amount("dram__bytes_write.sum"), amount("dram__bytes_op_write.sum")),
        dram_gbps=read / us / 1e3 if read is not None and us else None,
        dram_busy=share("dram__throughput.avg.pct_of_peak_sustained_elapsed"),
        stalls=_stalls(launches),
        beside={n: us / tables / 1e3 for n, found in by_name.items() if (us := _sum(found, _DURATION))},
    )


def short(name: str) -> str:
    """A kernel's name without return type, namespaces, template arguments and parameters."""
    bare = name
    while (inner := re.sub(r"<[^<>()]*>|\([^<>()]*\)", "", bare)) != bare:
        bare = inner
    words = bare.split("::")[-1].split()
    return words[-1] if words else name


def _stalls(launches: Sequence[KernelLaunch]) -> dict[str, float]:
    reasons = {m[1]: name for launch in launches for name in launch.metrics if (m := STALL.fullmatch(name))}
    warps = {reason: _mean(launches, metric) or 0.0 for reason, metric in reasons.items()}
    listed = sum(warps.values())
    if not listed:
        return {}
    whole = max(_mean(launches, _LATENCY) or 0.0, listed)
    shares = dict(sorted(((r, w / whole) for r, w in warps.items()), key=lambda item: -item[1]))
    rest = 1 - listed / whole
    return shares | ({OTHER: rest} if rest > 0.005 else {})


def _sum(launches: Iterable[KernelLaunch], metric: str) -> float | None:
    values = [launch.metrics[metric] for launch in launches if metric in launch.metrics]
    return math.fsum(values) if values else None


def _mean(launches: Sequence[KernelLaunch], metric: str) -> float | None:
    """Over the launches that have it, each weighed by its time."""
    having = [launch for launch in launches if metric in launch.metrics]
    weights = [launch.metrics.get(_DURATION, 1.0) for launch in having]
    if not having or not sum(weights):
        return None
    weighed = (w * launch.metrics[metric] for w, launch in zip(weights, having, strict=True))
    return math.fsum(weighed) / sum(weights)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


@dataclass(frozen=True)
class Move:
    """One figure of an arm that is not what it is of the reference."""

    name: str
    before: float
    after: float

    @property
    def size(self) -> float:
        """By what factor, whichever way."""
        return abs(math.log(self.after / self.before)) if self.after > 0 < self.before else math.inf


MOVERS = (
    "registers",
    "warps_resident",
    "instructions",
    "l1_hits",
    "l2_hits",
    "l2_bytes",
    "dram_read_bytes",
    "dram_busy",
    "long_scoreboard",
)
"""Figures that may explain a time; a stall's by its reason."""


def moves(of: Figures, reference: Figures) -> list[Move]:
    """What differs by more than a tenth from the reference, the largest first."""
    found = []
    for name in MOVERS:
        before, after = _figure(reference, name), _figure(of, name)
        if before is None or after is None or before == after:
            continue
        move = Move(name, before, after)
        if move.size > math.log(_MATTERS):
            found.append(move)
    return sorted(found, key=lambda move: -move.size)


def _figure(of: Figures, name: str) -> float | None:
    value: float | None = getattr(of, name) if hasattr(of, name) else of.stalls.get(name)
    return value
