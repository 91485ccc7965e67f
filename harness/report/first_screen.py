"""The first screen of the page: who is fastest where, what to use, and whether to believe it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.figures import speedup
from harness.analysis.report import Report, Run
from harness.analysis.results import Winner
from harness.records import PYTORCH
from harness.report import names, shares, units
from harness.report.blocks import Cell, Over, Source
from harness.report.sections import peers

VERDICTS = {
    "good": "Nothing speaks against these figures.",
    "note": "Read with care: see the points marked !.",
    "bad": "Do not cite before the points marked ✕ are mended.",
}


@dataclass(frozen=True)
class Card:
    """The winner on one dataset."""

    dataset: str
    variant: str
    speedup: Cell
    time: str
    remarks: list[str]


def title(report: Report) -> str:
    """Of the page."""
    return report.runs[0].title if len(report.runs) == 1 else f"{len(report.runs)} runs side by side"


def subtitle(report: Report) -> str:
    """How much was compared."""
    cells = [cell for run in report.runs for cell in run.cells]
    compilers = len({cell.variant.toolchain for cell in cells} - {PYTORCH})
    under = f" under {units.count(compilers, 'compiler')}" if compilers else ""
    runs = f" in {units.count(len(report.runs), 'run')}" if len(report.runs) > 1 else ""
    designs = units.count(len({cell.variant.design for cell in cells}), "design")
    datasets = units.count(len({cell.dataset for cell in cells}), "dataset")
    return f"{designs}{under} on {datasets}{runs}, {units.count(len(cells), 'cell')}"


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
        variant=won.variant.label,
        speedup=Cell(
            units.text(ratio),
            units.interval(ratio) if ratio and won.variant != run.reference else "",
            source=Source(run.name, shown.records) if shown else None,
            over=Over(run.name, won.metric, won.variant, won.dataset),
        ),
        time=f"{units.text(time)} µs",
        remarks=_remarks(run, won),
    )


def _remarks(run: Run, won: Winner) -> list[str]:
    remarks = list(peers.remarks(run, won.variant, won.dataset, won.metric))
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


def no_winner(run: Run) -> str:
    """Why there are no winners, where there are none."""
    if run.on_cpu:
        return (
            "On the CPU every design runs PyTorch's own operator: no design wins, and differences are noise."
        )
    if not any(cell.record for cell in run.cells if not cell.point):
        return "Nothing has been measured yet."
    return "No dataset has two measured designs to compare."
