"""The first screen of the page: who is fastest where, what to use, and whether to believe it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.figures import speedup
from harness.analysis.report import Report, Run
from harness.analysis.results import Winner
from harness.records import PYTORCH
from harness.report import libraries, names, shares, units, verdict
from harness.report.blocks import Cell, Over, Source
from harness.report.charts import Chart
from harness.report.sections import speedups

VERDICTS = {
    "good": "Nothing speaks against these figures.",
    "note": "Read with care: see the points marked !.",
    "bad": "Do not cite before the points marked ✕ are mended.",
}


@dataclass(frozen=True)
class Beside:
    """How many times as fast as something else a winner is."""

    text: str
    unless: str
    """The variant that, taken as reference, makes it say the same as the card's speedup; empty for none."""


@dataclass(frozen=True)
class Card:
    """The winner on one dataset."""

    dataset: str
    variant: str
    speedup: Cell
    over: list[Beside]
    """How many times as fast as each other library and the paper's baseline it is."""
    time: str
    remarks: list[str]


def title(report: Report) -> str:
    """Of the page."""
    return report.runs[0].title if len(report.runs) == 1 else f"{len(report.runs)} runs side by side"


def tab(report: Report) -> str:
    """Of the browser's tab: the title, and on which GPU."""
    on = ", ".join(names.gpus(report.runs))
    return f"{title(report)}{f', on {on}' if on else ''}"


def picture(report: Report) -> Chart | None:
    """What stands beside the cards; None where there is nothing to draw."""
    return speedups.picture(report.runs[0]) if len(report.runs) == 1 else None


def references(run: Run) -> list[str]:
    """Variants that the reader may take as reference: the run's own, and whatever was measured."""
    return [
        variant.label
        for variant in run.variants
        if variant == run.reference or any(run.figure(variant, d, run.compared[0]) for d in run.datasets)
    ]


def cards(run: Run) -> list[Card]:
    """The winner on every dataset with two variants to compare."""
    won = [w for dataset in run.datasets if (w := run.winner(dataset, run.compared[0])) and w.rivals]
    return [_card(run, winner) for winner in won]


def _card(run: Run, won: Winner) -> Card:
    time, ratio = run.timed(won.variant, won.dataset, won.metric)
    shown = ratio or time
    return Card(
        dataset=won.dataset,
        variant=libraries.called(run, won.variant),
        speedup=Cell(
            units.text(ratio),
            units.interval(ratio) if ratio and won.variant != run.reference else "",
            source=Source(run.name, shown.records) if shown else None,
            over=Over(run.name, won.metric, won.variant, won.dataset),
        ),
        over=list(_beside(run, won)),
        time=f"{units.text(names.per_table(run, won.metric, time))} {names.unit(won.metric)}",
        remarks=_remarks(run, won),
    )


def _beside(run: Run, won: Winner) -> Iterator[Beside]:
    over_libraries = verdict.over_libraries(run, won.variant, won.dataset, won.metric)
    for design in libraries.designs(run):
        peer, library = run.peer(design, won.dataset, won.metric), libraries.name(design)
        if peer and library in over_libraries:
            yield Beside(f"{units.ratio(over_libraries[library][0])} {library}", peer.variant.label)
    baselines = (variant for variant in run.variants if variant.design == names.BASELINE)
    paper = min(baselines, key=lambda variant: variant.toolchain, default=None)
    if paper is None or paper == won.variant:
        return
    if over := verdict.over(run, paper, won.variant, won.dataset, won.metric):
        yield Beside(f"{units.ratio(over[0])} {names.called(run, paper)}", paper.label)


def _remarks(run: Run, won: Winner) -> list[str]:
    remarks = list(_paths(run, won))
    if run.figure(won.variant, won.dataset, "limit_share"):
        remarks.append(f"{shares.text(run, won.variant, won.dataset)} of the limit")
    if won.ties:
        remarks.append(f"not separable from {names.labels(won.ties)}")
    if any(cell.kernel and cell.kernel.name == PYTORCH for cell in run.cells_at(won.variant, won.dataset)):
        remarks.append("PyTorch's own kernel")
    if won.variant == run.reference:
        remarks.append("nothing beats the reference")
    alone = run.winner(won.dataset, "kernel_us")
    if alone is not None and alone.variant != won.variant:
        ratio = run.figure(alone.variant, won.dataset, speedup("kernel_us"))
        at = f" at {units.text(ratio)}" if ratio else ""
        remarks.append(f"by kernel alone: {alone.variant.label}{at}")
    return remarks


def _paths(run: Run, won: Winner) -> Iterator[str]:
    """By which of its paths each library is meant, where several were measured."""
    for design in libraries.designs(run):
        peer = run.peer(design, won.dataset, won.metric)
        if peer is None or peer.paths < 2:
            continue
        if won.variant.design == design:
            yield f"the fastest of {peer.paths} paths of {libraries.name(design)}"
        else:
            yield f"{libraries.name(design)} by {libraries.short_path(run, peer.variant, peer.ties)}"


def no_winner(run: Run) -> str:
    """Why there are no winners, where there are none."""
    if run.on_cpu:
        return (
            "On the CPU every design runs PyTorch's own operator: no design wins, and differences are noise."
        )
    if not any(cell.record for cell in run.cells if not cell.point):
        return "Nothing has been measured yet."
    return "No dataset has two measured designs to compare."
