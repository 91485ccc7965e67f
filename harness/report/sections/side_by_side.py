"""Two runs beside one another."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis.figures import METRICS
from harness.analysis.report import Report
from harness.analysis.side_by_side import Beside, Pair
from harness.analysis.trust import Finding
from harness.report import blocks, names, units
from harness.report.blocks import Block, Cell, Findings, Group, Heading, Paragraph, Section, Table

PLACE = 20
TOGETHER = True
_WHAT = """The designs that two runs share: time in A ÷ time in B, so above 1 B is faster; below it, the
times. Whatever is known to differ between the two stands under the table; it may be the very thing that is
compared."""
NOT_COMPARED = "Their times were taken with different cache protocols and are not compared."
SAME = "No difference of machine, work, protocol, software or source is known."


def page(report: Report) -> Section | None:
    found = [_of_pair(report, beside) for beside in report.beside]
    title = "Runs side by side"
    return Section("side-by-side", title, [Paragraph(_WHAT), *found], "Side by side") if found else None


def _of_pair(report: Report, beside: Beside) -> Group:
    a, b = _names(report, beside)
    differences = [
        [Cell(one.what), Cell(" and ".join(one.a)), Cell(" and ".join(one.b))] for one in beside.differences
    ]
    apart = Table(["what", "A", "B"], differences, label="What differs", kind="prose")
    return Group(
        [
            Heading(f"A: {a}"),
            Heading(f"B: {b}"),
            *_times(beside),
            apart if differences else Paragraph(SAME),
        ]
    )


def _times(beside: Beside) -> list[Block]:
    if not beside.pairs:
        return [Paragraph(NOT_COMPARED)]
    unit = names.unit_as_measured(beside.metric)
    return [Paragraph(f"{METRICS[beside.metric]}, {unit}", "caption"), _table(beside)]


def _names(report: Report, beside: Beside) -> list[str]:
    """Of both runs, and of the GPUs where they are not the same."""
    runs = [report.run(name) for name in (beside.a, beside.b)]
    told = [" or ".join(sorted(names.gpus([run]))) for run in runs]
    found = []
    for run, gpu in zip(runs, told, strict=True):
        place = f", on {gpu}" if gpu and told[0] != told[1] else ""
        found.append(f"{run.title.removesuffix(f' ({run.name})')} ({run.name}{place})")
    return found


def _table(beside: Beside) -> Table:
    pairs = {(pair.variant, pair.dataset): pair for pair in beside.pairs}
    variants = dict.fromkeys(pair.variant for pair in beside.pairs)
    datasets = list(dict.fromkeys(pair.dataset for pair in beside.pairs))
    rows = [[Cell(v.label), *(_cell(pairs.get((v, dataset))) for dataset in datasets)] for v in variants]
    return Table(["design", *datasets], rows, label="Time in A ÷ time in B")


def _cell(pair: Pair | None) -> Cell:
    if pair is None:
        return blocks.ABSENT
    kind = "faster" if pair.ratio.low > 1 else "slower" if pair.ratio.high < 1 else ""
    times = f"{units.us(pair.a.value)} → {units.us(pair.b.value)} µs"
    return Cell(
        units.ratio(pair.ratio.value),
        times,
        kind=f"number {kind}".strip(),
        title=f"{units.span(pair.ratio)}; speedups {_speedups(pair)}",
    )


def _speedups(pair: Pair) -> str:
    both = (pair.speedup_a, pair.speedup_b)
    return ", ".join(units.NONE if value is None else units.ratio(value) for value in both)


def closing(report: Report) -> Iterator[Block]:
    """A line per variant and dataset, and what differs between the runs."""
    for beside in report.beside:
        a, b = _names(report, beside)
        unit = names.unit_as_measured(beside.metric)
        what = f"{METRICS[beside.metric]}, {unit}; A ÷ B above 1: B is faster."
        title = f"A: {a}; B: {b}"
        yield Heading(title)
        if beside.pairs:
            yield Table(
                ["design", "dataset", "A µs", "B µs", "A ÷ B", "95 % interval", "speedups, A and B"],
                [[Cell(pair.variant.label), Cell(pair.dataset), *_figures(pair)] for pair in beside.pairs],
                title=title,
                caption=f"{what} For verdicts: harness compare A B",
                label=what,
            )
        else:
            yield Paragraph(NOT_COMPARED)
        yield Findings([Finding("note", "differs", str(one)) for one in beside.differences])
        if not beside.differences:
            yield Paragraph(SAME)


def _figures(pair: Pair) -> list[Cell]:
    texts = (
        units.us(pair.a.value),
        units.us(pair.b.value),
        units.ratio(pair.ratio.value),
        units.span(pair.ratio),
        _speedups(pair),
    )
    return [Cell(text, kind="number") for text in texts]
