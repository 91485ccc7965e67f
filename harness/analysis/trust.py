"""How far a run can be believed: what a careful reader would ask, answered from its records."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.analysis import beyond_limits, boards, processes, sources
from harness.analysis.differences import differences
from harness.analysis.frame import LoadedRun
from harness.analysis.results import Measured
from harness.groups import OWN_TRAFFIC
from harness.records import (
    MEASURED,
    PYTORCH,
    STOCK,
    VALUES_WITHIN,
    Cell,
    CellRecord,
)

Level = Literal["good", "note", "bad"]
FEW_REPLICATES = 3


@dataclass(frozen=True)
class Finding:
    """One question about a run and its answer."""

    level: Level
    """"good", "note" (read with care) or "bad" (do not cite)."""
    what: str
    detail: str
    records: list[str] = dataclasses.field(default_factory=list)


def examine(measured: Measured, today: Mapping[str, str]) -> list[Finding]:
    """Findings on a run, in the order in which a reader would ask. `today`: see `sources.older`."""
    run = measured.run.whole
    questions = (_device, _reference, _cells, _checked, _smaller_rows, _turns)
    later = (_throttling, _neighbours, _fallbacks)
    found = [finding for question in questions for finding in question(run)]
    found += _replicates(measured)
    found += [finding for question in later for finding in question(run)]
    told = _boards(measured)
    apart = boards.TOLD if told else ()
    found += [*told, *_sources(run, today), *_libraries(run), *_commit(run), *_environments(run, apart)]
    return [*found, *_past_the_limit(measured), *_width(measured)]


def verdict(findings: Iterable[Finding]) -> Level:
    """The worst of the findings."""
    levels = {finding.level for finding in findings}
    return "bad" if "bad" in levels else "note" if "note" in levels else "good"


def _measured(run: LoadedRun) -> list[CellRecord]:
    return [record for record in run.records if record.status in MEASURED]


def _ids(records: Iterable[CellRecord]) -> list[str]:
    return [record.cell.id for record in records]


def _device(run: LoadedRun) -> list[Finding]:
    if not run.on_cpu:
        return []
    text = "measured on the CPU, where PyTorch's own operator stands in for designs; not a GPU result"
    return [Finding("bad", "CPU", text, _ids(run.records))]


def _reference(run: LoadedRun) -> list[Finding]:
    """Whether speedups are against what the run was made to be compared with."""
    if not run.doubted:
        return []
    text = (
        f"{run.doubted}: speedups here are over {run.reference.label}, which may not be the run's own choice"
    )
    return [Finding("note", "reference", text)]


def _cells(run: LoadedRun) -> list[Finding]:
    without = [record for record in run.records if record.status not in MEASURED]
    total = len(run.records) + len(run.pending)
    if not without and not run.pending:
        return [Finding("good", "cells", f"all {total} measured")]
    counts = Counter(record.status for record in without)
    parts = [f"{count} {status}" for status, count in sorted(counts.items())]
    parts += [f"{len(run.pending)} not run yet"] if run.pending else []
    text = f"{', '.join(parts)} of {total}"
    return [Finding("bad" if without else "note", "cells", text, _ids(without))]


def _checked(run: LoadedRun) -> list[Finding]:
    measured = _measured(run)
    unchecked = [record for record in measured if record.check is None or not record.check.passed]
    if unchecked:
        text = f"{len(unchecked)} measured cells whose output was not shown to be right"
        return [Finding("bad", "outputs", text, _ids(unchecked))]
    text = "compared with a float64 reference before timing, all within rounding"
    return [Finding("good", "outputs", text)] if measured else []


def _smaller_rows(run: LoadedRun) -> list[Finding]:
    """What a type with fewer bits than float32 costs: a property of the tables, for every variant."""
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
            "good",
            "rows",
            f"{dtype} tables are off the float32 ones by {error:.2g} of their size (root of the mean square),"
            f" at most by {most:.2g}; their values lie in -{within:g}..{within:g}",
        )
        for dtype, (error, most, within) in sorted(costs.items())
    ]


def _turns(run: LoadedRun) -> list[Finding]:
    """Whether L2 may hold rows of a batch from its own last turn."""
    too_few, too_short = [], []
    for record in _measured(run):
        facts, l2_bytes = record.facts, record.environment.l2_bytes if record.environment else 0
        if facts.get("bytes_between_turns", l2_bytes) < l2_bytes:
            too_few.append(record)
        elif _replays_files(record.cell) and facts.get("bytes_until_trace_repeats", l2_bytes) < l2_bytes:
            too_short.append(record)
    found = []
    if too_few:
        text = f"in {len(too_few)} cells the batches that take turns are too small, and L2 may keep them all"
        found.append(Finding("note", "batches", text, _ids(too_few)))
    if too_short:
        names = ", ".join(dict.fromkeys(record.cell.dataset.name for record in too_short))
        text = (
            f"the trace is too short ({names}): in {len(too_short)} cells it comes round again while L2 may"
            " still hold its rows; with a longer one they may take longer"
        )
        found.append(Finding("note", "batches", text, _ids(too_short)))
    return found


def _replays_files(cell: Cell) -> bool:
    if cell.dataset.path is not None:
        return True
    return cell.dataset.name == OWN_TRAFFIC and any(group.trace for group in cell.workload.groups)


def _replicates(measured: Measured) -> list[Finding]:
    run = measured.run.whole
    cells = (record.cell for record in _measured(run))
    counts = Counter((cell.variant, cell.dataset.name, cell.point) for cell in cells)
    if not counts:
        return []
    least, most = min(counts.values()), max(counts.values())
    text = f"{least}" if least == most else f"{least} to {most}"
    text += " fresh processes per cell" if most > 1 else " process per cell"
    if least == 1:
        text += "; where it is one, nothing finer is claimed than the self-test's processes allow"
    return [Finding("good" if least >= FEW_REPLICATES else "note", "replicates", text + _shared(measured))]


def _shared(measured: Measured) -> str:
    """How far datasets confirm each other, which the same processes measured."""
    levels: dict[str, list[list[float]]] = {}
    for (_, dataset, metric), one in measured.measurements.items():
        if metric == measured.headline and one.sampled.replicates > 1:
            levels.setdefault(dataset, []).append(one.sampled.levels.tolist())
    count, shared = len(levels), processes.shared(levels)
    if count < 2 or not shared:
        return ""
    alone = min(float(count), max(1.0, count / shared))
    said = f"; {count} datasets were measured in the same ones, and are worth {alone:.1f} measured apart"
    return said if alone < count - 0.05 else ""


def _throttling(run: LoadedRun) -> list[Finding]:
    inconclusive = [record for record in run.records if record.status == "inconclusive"]
    throttled = [record for record in _measured(run) if record.throttled_passes]
    if inconclusive:
        text = f"{len(inconclusive)} cells inconclusive: too many samples while the GPU held back its clocks"
        return [Finding("bad", "throttling", text, _ids(inconclusive))]
    if throttled:
        text = f"some passes of {len(throttled)} cells were taken while the GPU held back its clocks"
        return [Finding("note", "throttling", text, _ids(throttled))]
    if any(record.gpu for record in run.records):
        return [Finding("good", "throttling", "none seen")]
    if any(record.cell.workload.device == "cuda" for record in _measured(run)):
        return [Finding("note", "throttling", "not known: the GPU's clocks were not read")]
    return []


def _neighbours(run: LoadedRun) -> list[Finding]:
    busy = [r for r in run.records if r.environment and r.environment.other_processes]
    shared = [r for r in run.records if r.environment and (r.environment.mps or r.environment.display)]
    sliced = [r for r in run.records if r.environment and r.environment.mig]
    found = []
    if busy:
        names = list(dict.fromkeys(name for record in busy for name in record.neighbours))
        who = f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
        text = f"other processes were on the GPU beside {len(busy)} cells{who}"
        found.append(Finding("bad", "neighbours", text, _ids(busy)))
    if sliced:
        text = "the GPU was partitioned (MIG); caches and bandwidth are a slice's"
        found.append(Finding("note", "partition", text, _ids(sliced)))
    if shared:
        text = "the GPU drew a screen, or was shared through MPS"
        found.append(Finding("note", "sharing", text, _ids(shared)))
    return found


def _fallbacks(run: LoadedRun) -> list[Finding]:
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
    return [Finding("bad", "fallback", text, _ids(fell))]


def _commit(run: LoadedRun) -> list[Finding]:
    known = [r for r in run.records if r.environment and r.environment.git_commit]
    if not known:
        return [Finding("note", "source", "not known from which commit")] if run.records else []
    dirty = [r for r in known if r.environment and r.environment.git_dirty]
    commits = sorted({r.environment.git_commit[:12] for r in known if r.environment})
    if dirty:
        text = f"{len(dirty)} cells ran with uncommitted changes on top of {', '.join(commits)}"
        return [Finding("note", "source", text, _ids(dirty))]
    level: Level = "good" if len(commits) == 1 else "note"
    return [Finding(level, "source", f"committed, {', '.join(commits)}")]


def _sources(run: LoadedRun, today: Mapping[str, str]) -> list[Finding]:
    older = sources.older(run.records, today)
    if not older:
        return []
    text = f"of older sources: {', '.join(older)} {'has' if len(older) == 1 else 'have'} changed since"
    measured = [record for record in run.records if record.kernel and record.kernel.name in older]
    return [Finding("note", "sources", text, _ids(measured))]


def _libraries(run: LoadedRun) -> list[Finding]:
    """Whether one build of every other library was measured, by the hashes of what it consists of."""
    of_others = [r for r in _measured(run) if r.cell.toolchain == PYTORCH and r.cell.design != STOCK]
    if not of_others:
        return []
    known = sources.libraries(of_others)
    if differ := [name for name, digests in known.items() if len(digests) > 1]:
        text = f"of another build in some records than in others: {', '.join(differ)}"
        told = [r for r in of_others if r.kernel and any(name in r.kernel.libraries for name in differ)]
        return [Finding("bad", "libraries", text, _ids(told))]
    without = [record for record in of_others if record.kernel is None or not record.kernel.libraries]
    if without:
        names = ", ".join(dict.fromkeys(record.cell.design for record in without))
        text = f"of {names} no record of {len(without)} tells by a hash which shared libraries answered"
        return [Finding("note", "libraries", text, _ids(without))]
    return [Finding("good", "libraries", f"{len(known)} shared ones, the same in every record")]


def _boards(measured: Measured) -> list[Finding]:
    spread = boards.spread(measured.run, measured.levels, measured.headline)
    if spread is None:
        return []
    return [Finding("note" if spread.outlying else "good", "boards", boards.in_words(spread))]


def _environments(run: LoadedRun, apart: Sequence[str]) -> list[Finding]:
    """`apart`: fields that another finding speaks of."""
    found = [difference for difference in differences(run) if difference.field not in apart]
    if found:
        text = f"differs between launches: {', '.join(d.field for d in found)}"
        return [Finding("note", "environment", text)]
    if any(record.environment for record in run.records):
        text = "the same in every launch" + (", boards apart" if apart else "")
        return [Finding("good", "environment", text)]
    return []


def _past_the_limit(measured: Measured) -> list[Finding]:
    """Times that no kernel can have had: the limit is wrong then, or the measurement."""
    told = f"{beyond_limits.MOST * 100:.0f} %"
    beyond = beyond_limits.find(measured)
    if beyond is None:
        return []
    if not beyond:
        return [Finding("good", "limit", f"nothing beyond {told} of it")]
    text = f"faster than any kernel can be, beyond {told} of the limit: {', '.join(beyond)}"
    return [Finding("bad", "limit", text, [cell for ids in beyond.values() for cell in ids])]


def _width(measured: Measured) -> list[Finding]:
    widths = [
        (s.estimate.relative_half_width, variant, dataset, s.records)
        for (variant, dataset, metric), s in measured.speedups.items()
        if metric == measured.headline and variant != measured.run.reference
    ]
    if not widths:
        return []
    width, variant, dataset, ids = max(widths, key=lambda found: found[0])
    text = f"widest interval of a speedup ±{width * 100:.1f} % ({variant.label} on {dataset})"
    return [Finding("good" if width < 0.05 else "note", "precision", text, ids)]
