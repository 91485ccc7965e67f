"""How long a pin would have to last to pay: what preparing costs ÷ what one lookup gains by it.

A design that pins is held against the variant of the same run that does the same without pinning. Which that
is, the records tell: the same toolchain, nothing prepared, and a kernel of the same registers, spills and
shared memory. Where none or several fit, nothing is said.

Every lookup was measured right after a pin of its own, tables in turn. So the figure extends what was
measured: it takes for granted that the second and later lookups after a pin gain as much as the first, which
other tables' lookups in between may well undo.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis import stats
from harness.analysis.frame import LoadedRun
from harness.analysis.results import Measured
from harness.records import MEASURED, CellRecord, Variant


@dataclass(frozen=True)
class Pin:
    """What pinning costs and gains one variant on one dataset."""

    variant: Variant
    without: Variant
    """The one that does the same without pinning."""
    dataset: str
    prepare_us: float
    saved_us: float
    """Kernel alone without the pin - with it; negative where the pin does harm."""
    lookups: stats.Estimate | None
    """Lookups of the table per pin from which on it pays; null where no gain is shown. The interval is that
    of the gain; preparing is taken at its typical time."""
    records: list[str]


def find(found: Measured) -> list[Pin]:
    """Every pinning variant that has a counterpart, on every dataset; of no run with a cold cache."""
    run = found.run
    if any(record.cell.timing.cache == "cold" for record in run.records):
        return []
    return [
        pin
        for variant in run.variants
        if (without := counterpart(run, variant))
        for dataset in run.datasets
        if (pin := _pin(found, variant, without, dataset))
    ]


def counterpart(run: LoadedRun, variant: Variant) -> Variant | None:
    """The one that does the same without pinning; None where the records do not single one out."""
    firsts: dict[Variant, CellRecord] = {}
    for record in run.records:
        if record.status in MEASURED and record.kernel is not None:
            firsts.setdefault(record.cell.variant, record)
    pinning = firsts.get(variant)
    if pinning is None or "prepare_us" not in pinning.samples:
        return None
    found = [
        name
        for name, record in firsts.items()
        if "prepare_us" not in record.samples and _build(record) == _build(pinning)
    ]
    return found[0] if len(found) == 1 else None


def _build(record: CellRecord) -> tuple[object, ...]:
    kernel = record.kernel
    assert kernel is not None
    return record.cell.toolchain, kernel.registers, kernel.spill_bytes, kernel.shared_bytes, kernel.arch


def _pin(found: Measured, variant: Variant, without: Variant, dataset: str) -> Pin | None:
    prepare = found.at(variant, dataset, "prepare_us")
    kernel = found.at(variant, dataset, "kernel_us")
    bare = found.at(without, dataset, "kernel_us")
    if prepare is None or kernel is None or bare is None:
        return None
    gain = stats.speedup(bare.sampled, kernel.sampled)

    def lookups(ratio: float) -> float:
        return prepare.time.value / (kernel.time.value * (ratio - 1))

    return Pin(
        variant=variant,
        without=without,
        dataset=dataset,
        prepare_us=prepare.time.value,
        saved_us=bare.time.value - kernel.time.value,
        lookups=stats.Estimate(lookups(gain.value), lookups(gain.high), lookups(gain.low), gain.replicates)
        if gain.low > 1
        else None,
        records=kernel.records + bare.records,
    )
