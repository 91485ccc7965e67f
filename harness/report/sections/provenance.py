"""How figures come about and how the runs were made: protocol, ceilings, environment, builds; and whether to
believe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC

from harness.analysis.report import Report, Run
from harness.moments import moment
from harness.records import KernelFacts
from harness.report import names, units
from harness.report.blocks import Block, Cell, Findings, Fold, Heading, Paragraph, Section, Table, Terms

PLACE = 140
TOGETHER = True
CEILINGS = {
    "stream_gbps": "streaming read",
    "random_rows_gbps": "random rows, each read once",
    "l2_rows_gbps": "rows out of L2",
    "stream_net_gbps": "streaming read, all bytes, net of events",
    "random_rows_net_gbps": "random rows, all bytes, net of events",
    "l2_rows_net_gbps": "rows out of L2, all bytes, net of events",
    "event_floor_us": "shortest time the events can tell",
    "event_overhead_us": "what two events add to a kernel's time (taken off every sample)",
}
FEW = 3
"""More different values than these are counted instead of listed."""
_CACHE = {
    "rotating": "rotating: distinct batches take turns, so many that L2 forgets each until its next turn",
    "steady": "steady: tables in turn, L2 as the passes leave it",
    "cold": "cold: L2 flushed and pins reset before every sample",
}
_HOW = """One pass visits every table once. A pass counts as one number: the mean over its tables (or, for the
embedding stage, the whole batch). A process has the median of its passes; a design's time is the geometric
mean over its processes, and a speedup is a ratio of two such times. The interval comes from drawing processes
with replacement, and passes within each, {draws}; passes that resemble their neighbours count for fewer, and
with few processes the interval is widened as Student's t asks. No sample is dropped. Throttled passes are
kept and marked. Intervals for another reference than the experiment's are made from the same draws,
beforehand."""
_METRICS = (
    ("kernel alone", "the lookup kernel of one table and batch"),
    ("prepare", "the kernel that pins hot rows before it, for designs that have one"),
    ("prepare + kernel", "both, pass by pass; the same as the kernel alone where nothing is prepared"),
    ("embedding stage", "all tables of one batch, prepare included"),
)


def brief(report: Report, run: Run) -> Iterator[Block]:
    """What speaks for and against the run."""
    yield Findings(run.findings)


def page(report: Report) -> Section:
    found: list[Block] = []
    for run in report.runs:
        terms = Terms(protocol(run))
        if len(report.runs) > 1:
            found.append(Fold(f"{run.title}: protocol", [terms]))
        else:
            found += [Heading("Protocol"), terms]
    same = "None: every record of a run names the same machine, software and source."
    none = Paragraph("No record carries measured ceilings.", "empty")
    found += [
        Heading("How figures come about"),
        Paragraph(_HOW.format(draws=units.count(report.method.draws, "time"))),
        Terms(_METRICS),
        Heading("Ceilings measured in the same processes"),
        _ceilings(report) or none,
        Heading("Differences of environment between launches"),
        _differences(report) or Paragraph(same),
        Fold("Environment, every field", [_environments(report)]),
        Fold("What each design ran: image, compiler, source, machine code", [_builds(report)]),
    ]
    return Section("provenance", "Provenance", found)


def protocol(run: Run) -> list[tuple[str, str]]:
    """How the run's cells were measured, as name and value."""
    made = run.protocol
    work, timing = made.workload, made.timing
    weights = "per-sample weights" if work.weighted else "no per-sample weights"
    width = f"{timing.relative_interval * 100:g} %"
    shape = f"{names.tables(work)}; {work.index_dtype} indices, {work.mode}, {weights}, on {work.device}"
    sampling = (
        f"{timing.warmup_passes} warm-up passes, then {timing.min_passes} to {timing.max_passes} passes "
        f"until the median's interval is within ±{width} or {timing.max_seconds:g} s are over"
    )
    measured = f"{_moment(made.began)} to {_moment(made.ended)}" if made.began else units.NONE
    return [
        ("workload", shape),
        ("sampling", sampling),
        ("cache", _CACHE[timing.cache]),
        ("replicates", f"{made.replicates}, each in a fresh process, arms in a random order of its own"),
        ("seed", ", ".join(map(str, made.seeds))),
        ("reference", run.reference.label),
        ("measured", measured),
        ("folder", run.folder),
    ]


def _moment(stamp: str) -> str:
    """A record's time of day as people read it; as it stands where it is no time."""
    found = moment(stamp)
    return f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if found else stamp


def _ceilings(report: Report) -> Table | None:
    """What the GPU could do in the same processes: median and range over the run's cells."""
    rows = []
    for run in report.runs:
        known = {one.name: one for one in run.ceilings}
        for one in [*(known[name] for name in CEILINGS if name in known), *run.ceilings]:
            if known.pop(one.name, None) is None:
                continue
            low, middle, high = (
                (f"{value:.2f} µs" if one.name.endswith("_us") else units.gbps(value))
                for value in (one.least, one.median, one.most)
            )
            figures = (middle, f"{low} to {high}", units.count(one.cells, "cell"))
            name = Cell(CEILINGS.get(one.name, one.name), one.name)
            rows.append([name, *(Cell(text, kind="number") for text in figures), Cell(run.name)])
    return Table(["ceiling", "median", "range", "measured in", "run"], rows) if rows else None


def _differences(report: Report) -> Table | None:
    """What was not the same in every launch of a run; None where all was."""
    rows = [
        [
            Cell(difference.field),
            Cell(value or units.NONE),
            Cell(units.count(len(cells), "cell"), title=", ".join(cells), kind="number"),
            Cell(run.name),
        ]
        for run in report.runs
        for difference in run.environment_differences
        for value, cells in difference.values.items()
    ]
    return Table(["field", "value", "seen in", "run"], rows, kind="prose") if rows else None


def _environments(report: Report) -> Table:
    """Every field of the environment, a column per run; where it differs within one, what was seen."""
    rows = []
    for name in report.runs[0].environment:
        row = [Cell(name)]
        for run in report.runs:
            texts = list(dict.fromkeys(_seen(name, value) for value in run.environment[name]))
            shown = " or ".join(texts) if len(texts) <= FEW else f"{len(texts)} values"
            row.append(Cell(shown or units.NONE, title="\n".join(texts) if len(texts) > FEW else ""))
        rows.append(row)
    return Table(["field", *(run.name for run in report.runs)], rows, kind="prose")


def _seen(name: str, value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return units.bytes_(float(value)) if name.endswith("_bytes") else str(value) or units.NONE


def _builds(report: Report) -> Table:
    """Which image, source and machine code each variant ran."""
    rows = []
    for run in report.runs:
        for variant in run.variants:
            kernels = run.kernels(variant)
            rows.append(
                [
                    Cell(names.contestant(report, run, variant)),
                    Cell(_listed(cell.image for cell in run.cells_at(variant))),
                    Cell(_listed(k.compiler for k in kernels), _listed(k.arch for k in kernels)),
                    Cell(_listed(k.source_hash for k in kernels), kind="code"),
                    _machine_code(kernels),
                ]
            )
    columns = ["design", "image", "compiler", "design source", "machine code (SHA-256)"]
    return Table(columns, rows, kind="prose")


def _machine_code(kernels: Sequence[KernelFacts]) -> Cell:
    """Hashes of a design's cubins, or of a library's files."""
    files = list(dict.fromkeys(file for k in kernels for file in sorted(k.libraries.items())))
    if not files:
        return Cell(_listed(k.cubin_sha256[:16] for k in kernels), kind="code")
    texts = [f"{name} {digest[:16]}" for name, digest in files]
    if len(texts) <= FEW:
        return Cell(_listed(texts), kind="code")
    return Cell(f"{len(texts)} shared libraries", title="\n".join(texts), kind="code")


def _listed(values: Iterable[str]) -> str:
    return ", ".join(value for value in dict.fromkeys(values) if value) or units.NONE
