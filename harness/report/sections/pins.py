"""What pinning costs beside what it gains, and how long a pin would have to last."""

from __future__ import annotations

from markupsafe import Markup

from harness.analysis.figures import METRICS
from harness.analysis.report import Report, Run
from harness.records import Variant
from harness.report import blocks, units
from harness.report.blocks import Block, Cell, Fold, Heading, Paragraph, Section, Source, Table
from harness.report.sections import speedups, times

PLACE = 110
_WHAT = """The paper's kernel latency leaves out the kernel that pins. Here both stand: what the lookup gains
once rows are pinned, and what pinning costs."""
_LAST = """Lookups of a table per pin from which on pinning pays: what preparing costs ÷ what a lookup gains
by it, against the same kernel without pinning (same toolchain, registers and spills). Below 1 it pays as
measured. Below each figure stands its {level} interval, then cost ÷ gain."""
_BEYOND = """Every lookup was measured right after a fresh pin. To renew pins less often is beyond what was
measured: it takes for granted that pins outlive the lookups of the other tables, and that later lookups gain
as much as the first."""


def page(report: Report) -> Section | None:
    lasting = blocks.per_run(report, lambda run: [made] if (made := table(run)) else [], level=4)
    if not lasting:
        return None
    return Section(
        "kernel",
        "Kernel alone against prepare + kernel",
        [
            Paragraph(_WHAT),
            *blocks.per_run(report, lambda run: _of_run(run) if run.prepares else []),
            Heading("How long a pin would have to last"),
            Paragraph(_LAST.format(level=f"{report.method.level * 100:.0f} %")),
            Paragraph(_BEYOND, "aside"),
            *lasting,
        ],
        "Pins",
    )


def _of_run(run: Run) -> list[Block]:
    """Speedups by the metrics after the first, and what prepare and the kernel alone take."""
    found: list[Block] = []
    for metric in run.compared[1:] if len(run.variants) > 1 else ():
        over = Markup('Over <span data-reference="{}">{}</span>, by {}').format(
            run.name, run.reference.label, METRICS[metric]
        )
        found += [Heading(over, 4), speedups.table(run, metric)]
    timed = [times.table(run, metric) for metric in ("prepare_us", "kernel_us")]
    return found + [Fold(made.label, [made]) for made in timed if made.rows]


def table(run: Run) -> Table | None:
    """Lookups per pin from which on pinning pays; None where nothing can be said."""
    found = {(pin.variant, pin.dataset): pin for pin in run.pins}
    if not found:
        return None

    def cell(variant: Variant, dataset: str) -> Cell | None:
        pin = found.get((variant, dataset))
        if pin is None:
            return None
        source, cost = Source(run.name, pin.records), units.us(pin.prepare_us)
        if pin.lookups is None:
            return Cell("never", f"{cost} µs, no gain", kind="number", source=source)
        span = f"{pin.lookups.low:.1f}–{pin.lookups.high:.1f}"
        detail = f"{span}; {cost} ÷ {units.us(pin.saved_us)} µs"
        return Cell(f"{pin.lookups.value:.1f}", detail, kind="number", source=source)

    without = {pin.variant: pin.without for pin in run.pins}
    label = f"Lookups per pin from which on pinning pays, {run.title}"
    made = blocks.matrix(run, cell, variants=without, label=label)
    named = [Cell(variant.label, f"against {other.label}") for variant, other in without.items()]
    rows = [[name, *row[1:]] for name, row in zip(named, made.rows, strict=True)]
    return Table(made.columns, rows, label=label)
