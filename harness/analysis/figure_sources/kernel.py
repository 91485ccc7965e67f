"""What the compiler made of each variant's kernel."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis.figures import Figure
from harness.analysis.results import Located, Measured

PLACE = 40


def figures_of(found: Measured) -> Iterator[Located]:
    """Registers, spills and occupancy; nothing of a kernel that nobody looked into."""
    for variant in found.run.variants:
        for dataset in found.run.datasets:
            record = next((r for r in found.run.at(variant, dataset) if r.kernel), None)
            if record is None or record.kernel is None or not record.kernel.registers:
                continue
            kernel, ids = record.kernel, [record.cell.id]
            for figure in (
                Figure("registers", "registers a thread", float(kernel.registers), "", "count", records=ids),
                Figure("spill_bytes", "bytes spilled", float(kernel.spill_bytes), "B", "size", records=ids),
                Figure("occupancy", "theoretical occupancy", kernel.occupancy, "", "share", records=ids),
            ):
                yield variant, dataset, figure
