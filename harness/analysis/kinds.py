"""The kinds of tables in a model, and how the time of a pass is shared out among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.analysis import kind_demand, limits
from harness.analysis.frame import LoadedRun
from harness.analysis.limits import L1_BYTES, Machine
from harness.groups import TableGroup
from harness.records import MEASURED, CellRecord, Variant, Workload
from harness.traces.demand import Demand
from harness.workload import summary


@dataclass(frozen=True)
class KindTime:
    """What a variant with a launch per table takes for the tables of a kind."""

    variant: Variant
    dataset: str
    us: float
    """Of a pass, all of them together: median over passes, geometric mean over processes."""


@dataclass(frozen=True)
class KindDemand:
    """What a batch of a dataset asks of the memory system for the tables of a kind, those of one feature
    standing for all."""

    dataset: str
    distinct_rows: float
    """Of a feature and batch; of a table that several look up, each one's part."""
    hits: float
    """Share of the lookups whose row an LRU cache of 256 KiB, the largest L1 there is, would still hold, bag
    after bag. A model, no limit."""
    hottest_1000: float
    """Share of all lookups of the trace that go to its 1,000 hottest rows."""
    compulsory_bytes: float
    """Of all features, each distinct row, index, sample weight and output once."""
    limit_us: float | None
    """Of all features in a pass, the least time that they take by themselves; None where the GPU's rates are
    not known. Kinds need different parts of the memory system at the same time, so the limit of the whole may
    be less than their sum."""
    part: str
    """What binds there: "memory", "L2" or "L1"; empty where that is not known."""


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
    demands: list[KindDemand]
    """Of datasets that it was worked out for, where the run began."""


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
    demands = _demands(run, work)
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
            demands=asked,
        )
        for group, own, asked in zip(work.groups, times, demands, strict=True)
    ]
    return sorted(found, key=lambda kind: -kind.asked_bytes)


def _demands(run: LoadedRun, work: Workload) -> list[list[KindDemand]]:
    """Of each kind in turn."""
    gpu, cache = limits.machine(run), run.cells[0].timing.cache
    known = kind_demand.read(run.folder)
    found: list[list[KindDemand]] = [[] for _ in work.groups]
    for dataset in run.datasets:
        asked: Sequence[Demand] = known.get(dataset, ())
        if len(asked) == len(work.groups):  # otherwise the file is another run's
            for own, group, one in zip(found, work.groups, asked, strict=True):
                own.append(_demand(alone(work, group), cache, dataset, one, gpu))
    return found


def alone(work: Workload, group: TableGroup) -> Workload:
    """A workload of this kind of the model's tables."""
    tables = (dataclasses.replace(group, places=""),)
    sums: dict[str, Any] = dict(summary(tables))
    return dataclasses.replace(work, groups=tables, **sums)


def _demand(work: Workload, cache: str, dataset: str, asked: Demand, gpu: Machine | None) -> KindDemand:
    streamed = work.asked_bytes + work.output_bytes
    limit = limits.of(work, cache, asked, gpu) if gpu else None
    if limit and not (gpu and gpu.l1_gbps) and limit.binding.part != "memory":
        limit = None
    return KindDemand(
        dataset=dataset,
        distinct_rows=asked.batch_distinct_rows,
        hits=max(0.0, 1 - asked.fetched_rows(L1_BYTES) / max(1, asked.lookups)),
        hottest_1000=dict(asked.coverage).get(1_000, 0.0),
        compulsory_bytes=work.tables * (asked.batch_distinct_rows * asked.row_bytes + streamed),
        limit_us=work.tables * limit.binding.us if limit else None,
        part=limit.binding.part if limit else "",
    )


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
