"""What profiles say of each variant on each dataset, and what moved against the reference."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from harness import cell_files, wall
from harness.analysis.figures import Figure, Hint
from harness.analysis.frame import LoadedRun
from harness.cell_files import CellFiles
from harness.errors import BadInputError
from harness.profiles import KernelLaunch, Profile
from harness.records import Cell, Variant

STALL = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio")
_LATENCY = "smsp__average_warp_latency_per_inst_issued.ratio"
_DURATION = "gpu__time_duration.sum"
_MATTERS = 1.1
"""Changes smaller than this factor are not reported."""
OTHER = "other"
WAITING = "long_scoreboard"
"""The stall of warps that wait for data."""


@dataclass(frozen=True)
class Move:
    """One figure of a variant that is not what it is of the reference."""

    name: str
    before: float
    after: float

    @property
    def size(self) -> float:
        """By what factor, whichever way."""
        return abs(math.log(self.after / self.before)) if self.after > 0 < self.before else math.inf


@dataclass(frozen=True)
class Counters:
    """The lookup kernel of a variant on a dataset."""

    variant: Variant
    dataset: str
    kernel: str
    """Its name, without template arguments."""
    figures: list[Figure]
    """Amounts are per table and batch. What the profiler could not tell is absent."""
    stalls: dict[str, float]
    """What the resident warps' time went into; shares by reason, largest first. "selected" is work."""
    beside: dict[str, float]
    """Other kernels of the same pass (the prepare, what PyTorch launches for itself): µs per table."""
    moved: list[Move] = field(default_factory=list)
    """What differs by more than a tenth from the run's reference, the largest first; of figures that may
    explain a time."""

    @functools.cached_property
    def _by_name(self) -> dict[str, Figure]:
        return {figure.name: figure for figure in self.figures}

    def figure(self, name: str) -> Figure | None:
        """None where the profiler could not tell."""
        return self._by_name.get(name)


@dataclass(frozen=True)
class Profiled:
    """The profiles of a run."""

    counters: list[Counters]
    """In the run's order."""
    failed: dict[str, str]
    """Cell → why it has no profile."""
    outdated: list[Variant]
    """Those whose source has changed between profile and record."""
    profiler: str


def find(run: LoadedRun) -> Profiled | None:
    """Everything that was profiled of a run; None where nothing was."""
    whole = run.whole
    cells = sorted([*(record.cell for record in whole.records), *whole.pending], key=lambda cell: cell.id)
    with cell_files.opened(run.folder) as files:
        made = [_read(cell, files) for cell in cells if files.kind(cell.id, wall.PROFILE)]
    if not made:
        return None
    found = {(p.cell.variant, p.cell.dataset.name): counters(p) for p in made if p.launches}
    order = [(variant, dataset) for variant in run.variants for dataset in run.datasets]
    sources = {r.cell.variant: r.kernel.source_hash for r in run.records if r.kernel}
    outdated = {
        p.cell.variant
        for p in made
        if p.kernel and sources.get(p.cell.variant, "") not in ("", p.kernel.source_hash)
    }
    return Profiled(
        counters=[
            dataclasses.replace(found[key], moved=moves(found[key], found.get((run.reference, key[1]))))
            for key in order
            if key in found
        ],
        failed={p.cell.id: p.message for p in made if p.status != "ok"},
        outdated=sorted(outdated, key=lambda variant: variant.label),
        profiler=", ".join(sorted({p.profiler for p in made if p.launches})),
    )


def _read(cell: Cell, files: CellFiles) -> Profile:
    """The profile of a cell; a failed one where the file is not its profile."""
    try:
        profile = cell_files.load(Profile, files, cell.id, wall.PROFILE)
    except BadInputError as error:
        return Profile(cell, "failed", f"Its profile cannot be used: {error}")
    if profile.cell != cell:
        path = files.path(cell.id, wall.PROFILE)
        return Profile(cell, "failed", f"Its profile cannot be used: {path}: is not of this cell.")
    return profile


def counters(profile: Profile) -> Counters:
    """Of the kernel that did the lookups: that called "lookup", or else that which took longest."""
    by_name: dict[str, list[KernelLaunch]] = defaultdict(list)
    for launch in profile.launches:
        by_name[short(launch.name)].append(launch)
    tables = profile.cell.workload.tables
    name = "lookup" if "lookup" in by_name else max(by_name, key=lambda n: _sum(by_name[n], _DURATION) or 0)
    launches = by_name.pop(name)
    return Counters(
        variant=profile.cell.variant,
        dataset=profile.cell.dataset.name,
        kernel=name,
        figures=list(_figures(launches, tables)),
        stalls=_stalls(launches),
        beside={n: us / tables / 1e3 for n, found in by_name.items() if (us := _sum(found, _DURATION))},
    )


_AMOUNTS: tuple[tuple[str, str, str, Hint, float, tuple[str, ...]], ...] = (
    ("us", "time under the profiler", "µs", "time", 1e-3, (_DURATION,)),
    ("instructions", "instructions", "", "millions", 1, ("smsp__inst_executed.sum",)),
    ("l2_bytes", "out of L2", "B", "traffic", 1, ("l1tex__m_xbar2l1tex_read_bytes.sum",)),
    (
        "dram_read_bytes",
        "out of memory",
        "B",
        "traffic",
        1,
        ("dram__bytes_read.sum", "dram__bytes_op_read.sum"),
    ),
    (
        "dram_write_bytes",
        "to memory",
        "B",
        "traffic",
        1,
        ("dram__bytes_write.sum", "dram__bytes_op_write.sum"),
    ),
)
"""Name, title, unit, hint, factor, and the counters that tell it; summed over launches, per table. The time
is that of launches with gaps between them, to read counters by. Instructions are those of warps."""
_MEANS: tuple[tuple[str, str, str, Hint, float, str], ...] = (
    ("clock_mhz", "clock", "MHz", "count", 1e-6, "gpc__cycles_elapsed.avg.per_second"),
    ("registers", "registers", "", "count", 1, "launch__registers_per_thread"),
    ("warps_possible", "warps let in", "", "share", 0.01, "sm__maximum_warps_per_active_cycle_pct"),
    (
        *("warps_resident", "resident warps", "", "share", 0.01),
        "sm__warps_active.avg.pct_of_peak_sustained_active",
    ),
    (
        "issuing",
        "cycles with an instruction",
        "",
        "share",
        0.01,
        "smsp__issue_active.avg.pct_of_peak_sustained_active",
    ),
    ("l1_hits", "L1 hits", "", "share", 0.01, "l1tex__t_sector_hit_rate.pct"),
    ("l2_hits", "L2 hits", "", "share", 0.01, "lts__t_sector_hit_rate.pct"),
    ("dram_busy", "memory busy", "", "share", 0.01, "dram__throughput.avg.pct_of_peak_sustained_elapsed"),
)
"""The same of counters whose mean is told. Warps are those of the most that a multiprocessor holds: let in by
registers, shared memory and blocks, and there on average. Hits are of the sectors asked for; L2's count what
passes between its two halves, too."""


def _figures(launches: Sequence[KernelLaunch], tables: int) -> Iterator[Figure]:
    known: dict[str, float] = {}
    for name, title, unit, hint, factor, counted in _AMOUNTS:
        total = next((sum_ for metric in counted if (sum_ := _sum(launches, metric)) is not None), None)
        if total is not None:
            known[name] = total / tables * factor
            yield Figure(name, title, known[name], unit, hint)
    for name, title, unit, hint, factor, metric in _MEANS:
        if (mean := _mean(launches, metric)) is not None:
            yield Figure(name, title, mean * factor, unit, hint)
    if "dram_read_bytes" in known and known.get("us"):
        rate = known["dram_read_bytes"] / known["us"] / 1e3
        yield Figure("dram_gbps", "rate of reading from memory", rate, "GB/s", "rate")
    if (waiting := _stalls(launches).get(WAITING)) is not None:
        yield Figure("waiting", "time spent waiting for data", waiting, "", "share")


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


MOVERS = (
    "registers",
    "warps_resident",
    "instructions",
    "l1_hits",
    "l2_hits",
    "l2_bytes",
    "dram_read_bytes",
    "dram_busy",
    "waiting",
)
"""Figures that may explain a time."""


def moves(of: Counters, reference: Counters | None) -> list[Move]:
    """What differs by more than a tenth from the reference, the largest first; of the reference itself
    nothing."""
    found = []
    for name in MOVERS if reference else ():
        before, after = (one.figure(name) if one else None for one in (reference, of))
        if before is None or after is None or before.value == after.value:
            continue
        move = Move(name, before.value, after.value)
        if move.size > math.log(_MATTERS):
            found.append(move)
    return sorted(found, key=lambda move: -move.size)
