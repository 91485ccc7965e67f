"""What stands first, whoever prints it: the verdict, the work that it is about, and what the names mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from harness.analysis.report import Named, Report, Run
from harness.analysis.work import wherever_traces_lie
from harness.records import PYTORCH, STOCK, Variant
from harness.report import libraries, names, units, verdict
from harness.report.blocks import Block, Cell, Paragraph, Source, Strong, Table

_PAPER = ("one_item", "high", "medium", "low", "random")
_ALONE = {"one_item": "one row only", "random": "rows drawn uniformly"}
_OTHERS = {
    "skewed": "a few rows come back often, as in much traffic",
    "mixed": "the others' traces, table by table in turn",
    "own": "each table's own traffic",
}
_NAMED = 3
"""So many runs of other work are named, more are counted."""
_MARKS = {"good": "✓", "note": "!", "bad": "✕"}


def blocks(report: Report) -> Iterator[Block]:
    """For terminal and Markdown."""
    found = verdict.of(report)
    if found:
        use = "Use " if found.use else "Fastest here: "
        yield Paragraph([use, Strong(found.variant.label), f": {found.sentence}"])
    yield Paragraph(f"Work: {work(report)}")
    if told := unfinished(report):
        yield Paragraph(told)
    yield Paragraph(terms(report))


def work(report: Report) -> str:
    """What was asked of which GPU, in a line: of the runs that the verdict rests on, or of the first."""
    found = verdict.of(report)
    run = found.runs[0] if found else report.runs[0]
    asked = wherever_traces_lie(run.protocol.workload)
    others = [one.name for one in report.runs if wherever_traces_lie(one.protocol.workload) != asked]
    named = ", ".join(others) if len(others) <= _NAMED else units.count(len(others), "run")
    rest = f" Of other work: {named}." if others else ""
    if found and (lost := verdict.lost_elsewhere(report)):
        rest += f" {libraries.called(run, found.variant)} is slower in {', '.join(lost)}."
    return f"{names.work(run.protocol.workload)}, on {names.where(run)}.{rest}"


def unfinished(report: Report) -> str:
    """What is missing of the runs that the verdict rests on, where several stand on the page; of one alone
    the first screen lists its findings."""
    found = verdict.of(report)
    runs = found.runs if found and len(report.runs) > 1 else []
    return " ".join(filter(None, map(_unfinished, runs)))


def _unfinished(run: Run) -> str:
    lacking = missing(run, lambda variant: variant.label)
    return f"{run.name} is not finished: {lacking}." if lacking else ""


def missing(run: Run, called: Callable[[Variant], str]) -> str:
    """How many cells of a run have no record, and whose they are, without a stop; empty where all have."""
    gaps = [cell.variant for cell in run.cells if not cell.record]
    if not gaps:
        return ""
    begun = {cell.variant for cell in run.cells if cell.record}
    told = f"{len(gaps):,} of {run.planned:,} cells are missing"
    for share, there in (("some", True), ("all", False)):
        whose = [called(one) for one in run.variants if one in gaps and (one in begun) == there]
        told += f", {share} of {' and '.join(whose)}" if whose else ""
    return told


def terms(report: Report) -> str:
    """What names on the page mean, in a line or two; of those alone that stand on it."""
    variants = {variant for run in report.runs for variant in run.variants}
    compilers = sorted({variant.toolchain for variant in variants} - {PYTORCH})
    told = []
    if compilers:
        named = ", ".join(f"@{compiler}" for compiler in compilers)
        told.append(f"{named}: compiled by NVIDIA's NVRTC {' or '.join(compilers)}")
    if any(variant.design == "baseline" for variant in variants):
        told.append("baseline: the paper's, the loop of PyTorch 2.1")
    if any(variant.design == STOCK and variant.toolchain == PYTORCH for variant in variants):
        told.append("stock: PyTorch's own kernel, as installed")
    told += _values([one for run in report.runs for one in run.named])
    told += _datasets({name for run in report.runs for name in run.datasets})
    if any(run.prepares for run in report.runs):
        told.append("pinning: hot rows are put into L2 before each lookup; its time counts")
    return "; ".join(told) + "." if told else ""


def _values(found: Sequence[Named]) -> Iterator[str]:
    """What values of tunables mean, of all runs together."""
    meant: dict[tuple[str, str], dict[int, str]] = {}
    for one in found:
        meant.setdefault((one.design, one.tunable), {}).update(zip(one.values, one.names, strict=True))
    for (design, tunable), values in meant.items():
        set_ = ", ".join(f"{tunable}={value}" for value in sorted(values))
        yield f"{set_}: {libraries.name(design)}'s {', '.join(values[one] for one in sorted(values))}"


def _datasets(found: set[str]) -> Iterator[str]:
    """What their names mean; of the paper's together, where there are several."""
    paper = [name for name in _PAPER if name in found]
    if len(paper) > 1:
        rest = "how often rows come back, from one row only (one_item) to rows at random"
        yield f"{paper[0]} to {paper[-1]}: {rest}"
    elif paper:
        yield f"{paper[0]}: {_ALONE.get(paper[0], 'rows that come back as in the paper')}"
    yield from (f"{name}: {meaning}" for name, meaning in _OTHERS.items() if name in found)


def short_matrix(report: Report) -> Table:
    """The same for a terminal: speedup and design alone, in one line."""
    made = matrix(report)
    rows = [[row[0], *(Cell(_short(cell), kind=cell.kind) for cell in row[1:])] for row in made.rows]
    caption = f"{made.caption}, marked *"
    return replace(made, rows=rows, caption=caption)


def _short(cell: Cell) -> str:
    design = cell.text.partition("@")[0]
    ratio, _, over = cell.detail.partition(" ")
    if not ratio.endswith("×"):
        return design
    return f"{ratio} {design}{'' if over == 'PyTorch' else '*'}"


def matrix(report: Report) -> Table:
    """Runs × datasets, those first that the verdict rests on: who is fastest in each, and how many times as
    fast as today's PyTorch; where that was not measured, as the run's reference."""
    found = dict.fromkeys(name for run in report.runs for name in run.datasets)
    datasets = [*(name for name in _PAPER if name in found), *(name for name in found if name not in _PAPER)]
    rests = verdict.of(report)
    first = rests.runs if rests else []
    runs = sorted(report.runs, key=lambda run: run not in first)
    several = len({names.where(run) for run in runs}) > 1
    rows = [[_named(run, several), *(_fastest(run, name) for name in datasets)] for run in runs]
    return Table(
        ["run", *datasets],
        rows,
        caption="✓ nothing speaks against the run, ! read with care, ✕ do not cite. Of whole models the "
        "embedding stage counts. The fastest of each run, × PyTorch's own kernel (stock), or, where that was "
        "not measured, × the run's reference",
        title="Every run, by dataset",
        label="The fastest design of every run by dataset, and its speedup.",
        kind="compact",
    )


def _named(run: Run, several: bool) -> Cell:
    """With its machine where there are several."""
    detail = f"{run.title}; {names.where(run)}" if several else run.title
    return Cell(f"{_MARKS[run.verdict]} {run.name}", detail, title=run.title)


def _fastest(run: Run, dataset: str) -> Cell:
    won = run.winner(dataset, run.headline) if dataset in run.datasets else None
    if won is None or not won.rivals:
        return Cell(units.NONE, kind="absent")
    time, ratio = run.timed(won.variant, dataset, run.headline)
    source = Source(run.name, time.records) if time and time.records else None
    name, pytorch = libraries.called(run, won.variant), libraries.name(STOCK)
    if won.variant.design == STOCK:
        return Cell(name, "PyTorch itself", source=source)
    if over := verdict.over_libraries(run, won.variant, dataset, run.headline).get(pytorch):
        return Cell(name, f"{units.ratio(over[0])} {pytorch}", source=source)
    if won.variant == run.reference or ratio is None:
        return Cell(name, "the reference", source=source)
    reference = libraries.called(run, run.reference)
    return Cell(name, f"{units.text(ratio)} {reference}", source=source)
