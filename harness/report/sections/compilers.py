"""What the compiler made of each design, beside its speed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from harness.analysis.figures import speedup
from harness.analysis.report import Report, Run
from harness.records import Variant
from harness.report import blocks, names, occupancy, units
from harness.report.blocks import Cell, Charts, Over, Paragraph, Section, Table

PLACE = 90
TOGETHER = True
_FACTS = ("registers", "spill_bytes", "occupancy")
_WHAT = """A lookup waits for memory most of the time. The more warps a multiprocessor holds, the more loads
are under way; how many it holds follows from the registers that the compiler gives a thread. So a cap on
registers (OptMT) gains where the compiler was generous, and little where it was not."""
_CAPTION = """Registers per thread, bytes spilled, and theoretical occupancy (resident warps ÷ the most a
multiprocessor holds), beside the kernel alone: µs per table, and speedup over the run's reference."""


def page(report: Report) -> Section:
    made = table(report)
    title = "Compilers: registers, resident warps, speed"
    if made is None:
        none = Paragraph("No record carries the facts of a compiled kernel.", "empty")
        return Section("compilers", title, [none], "Compilers")
    told = [Paragraph(sentence) for sentence in story(report)]
    drawn = Charts(occupancy.pair(report), wide=True)
    return Section("compilers", title, [Paragraph(_WHAT), *told, drawn, made], "Compilers")


def table(report: Report) -> Table | None:
    """Every variant with its kernel's facts and its speed by kernel alone; None without any."""
    datasets = list(dict.fromkeys(name for run in report.runs for name in run.datasets))
    rows = []
    for run in report.runs:
        for variant in run.variants:
            if (kernels := run.kernels(variant)) and not run.on_cpu:
                compiler = f"{kernels[0].compiler}, {kernels[0].arch}".strip(", ")
                row = [Cell(names.contestant(report, run, variant), compiler), *_facts(run, variant)]
                rows.append(row + [_speed(run, variant, dataset) for dataset in datasets])
    columns = ["design", "registers", "spills", "occupancy", *datasets]
    return Table(columns, rows, _CAPTION) if rows else None


def _facts(run: Run, variant: Variant) -> list[Cell]:
    """Dashes where nobody looked into the kernel, as into PyTorch's own."""
    for dataset in run.datasets:
        registers, spills, occupied = (run.figure(variant, dataset, name) for name in _FACTS)
        if registers and spills and occupied:
            share = dataclasses.replace(blocks.number(run, occupied), text=f"{occupied.value * 100:.3g} %")
            return [blocks.number(run, registers), blocks.number(run, spills), share]
    return [Cell(units.NONE, kind="number")] * len(_FACTS)


def _speed(run: Run, variant: Variant, dataset: str) -> Cell:
    time, ratio = run.timed(variant, dataset, "kernel_us")
    made = blocks.number(run, time, detail=units.text(ratio) if ratio else "")
    over = Over(run.name, "kernel_us", variant, dataset, at="detail")
    return dataclasses.replace(made, over=over) if time and len(run.variants) > 1 else made


def story(report: Report) -> Iterator[str]:
    """Why OptMT's gain hangs on the compiler, told from the records; nothing where they cannot tell."""
    for run in report.runs:
        capped = dataclasses.replace(run.reference, design="optmt")
        gains = {d: s for d in run.datasets if (s := run.figure(capped, d, speedup("kernel_us")))}
        if run.reference.design != "baseline" or not gains:
            continue
        where, most = max(gains.items(), key=lambda gain: gain[1].value)
        before, after = (
            [run.figure(variant, where, name) for name in _FACTS] for variant in (run.reference, capped)
        )
        if None in before or None in after:
            continue
        compiler = run.kernels(run.reference)[0].compiler
        registers, cap = (units.text(facts[0]) for facts in (before, after) if facts[0])
        resident, raised = (f"{facts[2].value * 100:.3g} %" for facts in (before, after) if facts[2])
        spilled = f", spilling {units.text(after[1])}" if after[1] and after[1].value else ""
        yield (
            f"{compiler} gives the baseline {registers} registers a thread, which lets {resident} of the "
            f"warps be resident; capped at {cap}{spilled}: {raised}. OptMT's best gain is "
            f"{units.text(most)} ({units.interval(most)}), on {where}."
        )
