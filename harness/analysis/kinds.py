"""The kinds of tables in a model, and how the time of a pass is shared out among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.analysis.frame import LoadedRun
from harness.records import MEASURED, CellRecord, Variant, Workload


@dataclass(frozen=True)
class KindTime:
    """What a variant with a launch per table takes for the tables of a kind."""

    variant: Variant
    dataset: str
    us: float
    """Of a pass, all of them together: median over passes, geometric mean over processes."""


@dataclass(frozen=True)
class Kind:
    """Tables of a model that are alike."""

    rows: int
    """Of each."""
    dim: int
    tables: int
    features: int
    """So many look them up."""
    rows_per_bag: float
    """On average, empty bags included."""
    lookups: int
    """Rows per batch, of all features."""
    table_bytes: int
    """Of all tables."""
    asked_bytes: int
    """What those lookups read of rows, if none is read twice at once."""
    times: list[KindTime]
    """Empty where every variant takes all tables in one launch."""


def find(run: LoadedRun) -> list[Kind]:
    """Of the run's model, those that look up most first; none where all its tables are alike."""
    work = run.cells[0].workload
    if not work.groups:
        return []
    times: list[list[KindTime]] = [[] for _ in work.groups]
    for variant in run.variants:
        for dataset in run.datasets:
            for number, us in enumerate(_times(run.at(variant, dataset), work)):
                times[number].append(KindTime(variant, dataset, us))
    found = [
        Kind(
            rows=group.rows,
            dim=group.dim,
            tables=group.count,
            features=group.all_features,
            rows_per_bag=group.lookups(work.batch) / work.batch,
            lookups=(lookups := group.all_features * group.lookups(work.batch)),
            table_bytes=group.count * group.rows * work.stored_row_bytes_of(group.dim),
            asked_bytes=lookups * work.row_bytes_of(group.dim),
            times=own,
        )
        for group, own in zip(work.groups, times, strict=True)
    ]
    return sorted(found, key=lambda kind: -kind.asked_bytes)


def _times(records: list[CellRecord], work: Workload) -> Iterator[float]:
    """Of each kind in turn; nothing where no record tells table from table."""
    kinds = np.array([feature.kind for feature in work.features])
    processes = []
    for record in records:
        samples = np.asarray(record.samples.get("kernel_us", []))
        passes = len(record.samples.get("stage_us", []))
        if record.status in MEASURED and len(samples) == passes * work.tables and passes:
            by_table = samples.reshape(passes, work.tables)
            processes.append(
                [np.median(by_table[:, kinds == kind].sum(axis=1)) for kind in range(len(work.groups))]
            )
    if processes:
        yield from np.exp(np.log(processes).mean(axis=0)).tolist()
