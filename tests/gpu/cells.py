"""Cells that tests have the bench measure on a GPU, and what their records must hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from harness.records import PYTORCH, Cell, CellRecord, Dataset, Timing, Workload, to_json

SMALL = Workload(tables=3, rows=50_000, dim=128, batch=512, pooling=50)
QUICK = Timing(max_seconds=1.0)
ONCE = Timing(min_passes=8, max_passes=50, max_seconds=0.2)


class Measure(Protocol):
    """Measures a compiled design; keywords as for `make_cell`."""

    def __call__(
        self,
        folder: Path,
        *,
        dataset: str = "medium",
        work: Workload = SMALL,
        timing: Timing = QUICK,
        tunables: dict[str, int] | None = None,
    ) -> CellRecord: ...


def make_cell(
    name: str = "stock",
    *,
    dataset: str = "medium",
    work: Workload = SMALL,
    timing: Timing = QUICK,
    tunables: dict[str, int] | None = None,
) -> Cell:
    """A cell for "design@toolchain", or for PyTorch as it is."""
    named, _, toolchain = name.partition("@")
    return Cell(
        f"{named}-{dataset}",
        named,
        toolchain or PYTORCH,
        Dataset(dataset),
        work,
        timing,
        0,
        5,
        tunables or {},
    )


def assert_sampled(record: CellRecord, work: Workload, *, all_tables: bool = False) -> None:
    """`all_tables`: one call took them all."""
    assert record.status == "ok", record.message + record.log_tail
    passes = int(record.facts["passes"])
    assert passes >= record.cell.timing.min_passes
    assert len(record.samples["kernel_us"]) == passes * (1 if all_tables else work.tables)
    assert len(record.samples["stage_us"]) == passes
    assert record.check is not None
    assert record.check.passed
    # Every table of every batch, and of the first some in ragged bags.
    columns = int(record.facts["batches"]) * work.columns + work.features[0].group.dim
    columns += work.features[-1].group.dim if all_tables else 0
    assert record.check.elements == columns * work.batch
    assert min(record.samples["kernel_us"]) > 0
    json.loads(to_json(record))
