"""How far a run can be believed: what a careful reader would ask, answered from its records."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from harness.analysis import sources
from harness.analysis.frame import Run
from harness.analysis.results import Results
from harness.records import MEASURED, PYTORCH, VALUES_WITHIN, CellRecord, Environment

Level = Literal["good", "note", "bad"]
_EXPECTED_TO_DIFFER = ("image",)  # a design has an image of its own
FEW_REPLICATES = 3


@dataclass(frozen=True)
class Finding:
    """One question about a run and its answer."""

    run: str
    level: Level
    """"good", "note" (read with care) or "bad" (do not cite)."""
    what: str
    detail: str
    records: list[str] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class Difference:
    """A field of the environment that is not the same in all records of a run."""

    run: str
    field: str
    values: dict[str, list[str]]
    """Value as text → ids of the cells that saw it."""


def examine(results: Results) -> list[Finding]:
    """Findings on every run, in the order in which a reader would ask."""
    found = []
    for run in (run.whole for run in results.loaded.runs):
        for question in (_device, _cells, _checked, _smaller_rows, _replicates, _throttling, _neighbours):
            found += question(run)
        found += [*_fallbacks(run), *_sources(run)]
        found += [*_commit(run), *_environments(run), *_width(run, results)]
    return found


def verdict(findings: Iterable[Finding]) -> Level:
    """The worst of the findings."""
    levels = {finding.level for finding in findings}
    return "bad" if "bad" in levels else "note" if "note" in levels else "good"


def differences(run: Run) -> list[Difference]:
    """Where the environment was not the same for all records; the image may differ between designs."""
    seen: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in run.records:
        if record.environment is not None:
            for field in dataclasses.fields(Environment):
                value = as_text(getattr(record.environment, field.name))
                if field.name not in _EXPECTED_TO_DIFFER:
                    seen[field.name][value].append(record.cell.id)
    found = [Difference(run.name, name, dict(values)) for name, values in seen.items() if len(values) > 1]
    return found + _differences_within_arms(run)


def as_text(value: object) -> str:
    """A field of the environment as people read it."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _differences_within_arms(run: Run) -> list[Difference]:
    """What may differ between arms, but not between the records of one: image, source, machine code."""
    seen: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in run.records:
        facts = {"image": record.environment.image} if record.environment else {}
        if record.kernel:
            facts |= {"design source": record.kernel.source_hash, "compiler": record.kernel.compiler}
        for name, value in facts.items():
            seen[record.cell.arm, name][value].append(record.cell.id)
    return [
        Difference(run.name, f"{name} of {arm}", dict(values))
        for (arm, name), values in seen.items()
        if len(values) > 1
    ]


def _measured(run: Run) -> list[CellRecord]:
    return [record for record in run.records if record.status in MEASURED]


def _ids(records: Iterable[CellRecord]) -> list[str]:
    return [record.cell.id for record in records]


def _device(run: Run) -> list[Finding]:
    if not run.on_cpu:
        return []
    text = "measured on the CPU, where PyTorch's own operator stands in for designs; not a GPU result"
    return [Finding(run.name, "bad", "CPU", text, _ids(run.records))]


def _cells(run: Run) -> list[Finding]:
    without = [record for record in run.records if record.status not in MEASURED]
    total = len(run.records) + len(run.pending)
    if not without and not run.pending:
        return [Finding(run.name, "good", "cells", f"all {total} measured")]
    counts = Counter(record.status for record in without)
    parts = [f"{count} {status}" for status, count in sorted(counts.items())]
    parts += [f"{len(run.pending)} not run yet"] if run.pending else []
    text = f"{', '.join(parts)} of {total}"
    return [Finding(run.name, "bad" if without else "note", "cells", text, _ids(without))]


def _checked(run: Run) -> list[Finding]:
    measured = _measured(run)
    unchecked = [record for record in measured if record.check is None or not record.check.passed]
    if unchecked:
        text = f"{len(unchecked)} measured cells whose output was not shown to be right"
        return [Finding(run.name, "bad", "outputs", text, _ids(unchecked))]
    text = "compared with a float64 reference before timing, all within rounding"
    return [Finding(run.name, "good", "outputs", text)] if measured else []


def _smaller_rows(run: Run) -> list[Finding]:
    """What a type with fewer bits than float32 costs: a property of the tables, the same for every arm."""
    costs = {
        r.cell.workload.dtype: (
            r.facts["quantisation_error"],
            r.facts["quantisation_error_max"],
            r.facts.get("values_within", VALUES_WITHIN),
        )
        for r in _measured(run)
        if "quantisation_error" in r.facts
    }
    return [
        Finding(
            run.name,
            "good",
            "rows",
            f"{dtype} tables are off the float32 ones by {error:.2g} of their size (root of the mean square),"
            f" at most by {most:.2g}; their values lie in -{within:g}..{within:g}",
        )
        for dtype, (error, most, within) in sorted(costs.items())
    ]


def _replicates(run: Run) -> list[Finding]:
    cells = (record.cell for record in _measured(run))
    counts = Counter((cell.arm, cell.dataset.name, cell.point) for cell in cells)
    if not counts:
        return []
    least, most = min(counts.values()), max(counts.values())
    text = f"{least}" if least == most else f"{least} to {most}"
    text += " fresh processes per cell" if most > 1 else " process per cell"
    if least == 1:
        text += "; where it is one, intervals do not cover process-to-process variation"
    return [Finding(run.name, "good" if least >= FEW_REPLICATES else "note", "replicates", text)]


def _throttling(run: Run) -> list[Finding]:
    inconclusive = [record for record in run.records if record.status == "inconclusive"]
    throttled = [record for record in _measured(run) if record.throttled_passes]
    if inconclusive:
        text = f"{len(inconclusive)} cells inconclusive: too many samples while the GPU held back its clocks"
        return [Finding(run.name, "bad", "throttling", text, _ids(inconclusive))]
    if throttled:
        text = f"some passes of {len(throttled)} cells were taken while the GPU held back its clocks"
        return [Finding(run.name, "note", "throttling", text, _ids(throttled))]
    if any(record.gpu for record in run.records):
        return [Finding(run.name, "good", "throttling", "none seen")]
    if any(record.cell.workload.device == "cuda" for record in _measured(run)):
        return [Finding(run.name, "note", "throttling", "not known: the GPU's clocks were not read")]
    return []


def _neighbours(run: Run) -> list[Finding]:
    busy = [r for r in run.records if r.environment and r.environment.other_processes]
    shared = [r for r in run.records if r.environment and (r.environment.mps or r.environment.display)]
    sliced = [r for r in run.records if r.environment and r.environment.mig]
    found = []
    if busy:
        names = list(dict.fromkeys(name for record in busy for name in record.neighbours))
        who = f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
        text = f"other processes were on the GPU beside {len(busy)} cells{who}"
        found.append(Finding(run.name, "bad", "neighbours", text, _ids(busy)))
    if sliced:
        text = "the GPU was partitioned (MIG); caches and bandwidth are a slice's"
        found.append(Finding(run.name, "note", "partition", text, _ids(sliced)))
    if shared:
        text = "the GPU drew a screen, or was shared through MPS"
        found.append(Finding(run.name, "note", "sharing", text, _ids(shared)))
    return found


def _fallbacks(run: Run) -> list[Finding]:
    fell = [
        record
        for record in _measured(run)
        if record.kernel is not None
        and record.kernel.name == PYTORCH
        and record.cell.toolchain != PYTORCH
        and record.cell.workload.device == "cuda"
    ]
    if not fell:
        return []
    text = f"in {len(fell)} cells PyTorch's own kernel ran in the design's place"
    return [Finding(run.name, "bad", "fallback", text, _ids(fell))]


def _commit(run: Run) -> list[Finding]:
    known = [r for r in run.records if r.environment and r.environment.git_commit]
    if not known:
        return [Finding(run.name, "note", "source", "not known from which commit")] if run.records else []
    dirty = [r for r in known if r.environment and r.environment.git_dirty]
    commits = sorted({r.environment.git_commit[:12] for r in known if r.environment})
    if dirty:
        text = f"{len(dirty)} cells ran with uncommitted changes on top of {', '.join(commits)}"
        return [Finding(run.name, "note", "source", text, _ids(dirty))]
    level: Level = "good" if len(commits) == 1 else "note"
    return [Finding(run.name, level, "source", f"committed, {', '.join(commits)}")]


def _sources(run: Run) -> list[Finding]:
    older = sources.older(run.records)
    if not older:
        return []
    text = f"of older sources: {', '.join(older)} {'has' if len(older) == 1 else 'have'} changed since"
    measured = [record for record in run.records if record.kernel and record.kernel.name in older]
    return [Finding(run.name, "note", "sources", text, _ids(measured))]


def _environments(run: Run) -> list[Finding]:
    found = differences(run)
    if found:
        text = f"differs between launches: {', '.join(d.field for d in found)}"
        return [Finding(run.name, "note", "environment", text)]
    if any(record.environment for record in run.records):
        return [Finding(run.name, "good", "environment", "the same in every launch")]
    return []


def _width(run: Run, results: Results) -> list[Finding]:
    widths = [
        (s.ratio.relative_half_width, s)
        for s in results.speedups.values()
        if s.run == run.name and s.metric == results.headline(run) and s.arm != s.reference
    ]
    if not widths:
        return []
    width, widest = max(widths, key=lambda pair: pair[0])
    text = f"widest interval of a speedup ±{width * 100:.1f} % ({widest.arm} on {widest.dataset})"
    return [Finding(run.name, "good" if width < 0.05 else "note", "precision", text, widest.records)]
