"""How a run was made: protocol, machine, images and sources, traces, and every cell one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np

from harness.analysis.figures import METRICS
from harness.analysis.frame import INFERENCE, LoadedRun, passes, single_launch
from harness.analysis.limits import Limit
from harness.records import (
    MEASURED,
    Cell,
    CellRecord,
    Check,
    Environment,
    KernelFacts,
    Model,
    Timing,
    Variant,
    Workload,
)

PENDING: Literal["pending"] = "pending"
"""Stands for the status of a planned cell that has no record yet."""


@dataclass(frozen=True)
class Protocol:
    """How the run's cells were measured; what cells differ in is told of the first."""

    workload: Workload
    timing: Timing
    model: Model | None
    """The model round the embedding stage; null where the stage is measured alone."""
    tf32: bool | None
    """Whether the model's matrix products round their factors to TF32; null where no record says."""
    replicates: int
    seeds: list[int]
    began: str
    """When the first cell began and when the last did, UTC; empty where nothing was measured."""
    ended: str


@dataclass(frozen=True)
class Ceiling:
    """What the GPU could do in the same processes, by one measure, over the run's cells."""

    name: str
    """As the records have it: `stream_gbps` …"""
    least: float
    median: float
    most: float
    cells: int


@dataclass(frozen=True)
class Trace:
    """The row numbers of one dataset as they ran, on average over the tables where theirs differ; null: not
    known."""

    dataset: str
    origin: str
    accesses: float | None
    distinct_rows: float | None
    distinct_share: float | None
    """Distinct rows ÷ rows of the table."""
    batch_distinct_rows: float | None
    """Distinct rows per table and batch."""
    coverage: list[tuple[float, float]]
    """(n, share of the accesses that go to the n hottest rows); empty where not known."""


@dataclass(frozen=True)
class CellRow:
    """One planned cell, measured or not; null: the record does not say, or there is none yet."""

    id: str
    record: str
    """Path in the run's folder; empty where there is none yet."""
    variant: Variant
    dataset: str
    point: str
    """Of a sweep; empty where nothing is swept."""
    replicate: int
    status: Literal["ok", "inconclusive", "failed", "timeout", "invalid", "oom", "pending"]
    message: str
    log: str
    """The end of the log where the status is not "ok"."""
    times: dict[str, float]
    """By metric the median over passes, µs."""
    passes: int
    samples: int
    throttled_passes: int
    check: Check | None
    quantisation_error: float | None
    """Of tables of a smaller type: how far they are off float32 ones, root of the mean square ÷ that of the
    values."""
    kernel: KernelFacts | None
    single_launch: bool
    """Whether one launch took all tables."""
    image: str
    device: str
    gpu: str
    sm_clock_mhz_min: int | None
    sm_clock_mhz_max: int | None
    temperature_c_max: int | None
    seed: int
    started_at: str

    @property
    def measured(self) -> bool:
        """Whether it carries samples."""
        return self.status in MEASURED


def protocol(run: LoadedRun) -> Protocol:
    """Of the experiment's own cells."""
    first = run.cells[0]
    modelled = next((r for r in run.records if r.cell.model is not None), None)
    tf32 = modelled.facts.get("allow_tf32") if modelled else None
    times = sorted(r.started_at for r in run.records if r.started_at)
    return Protocol(
        workload=first.workload,
        timing=first.timing,
        model=modelled.cell.model if modelled else None,
        tf32=None if tf32 is None else bool(tf32),
        replicates=len({cell.replicate for cell in run.cells}),
        seeds=sorted({cell.seed for cell in run.cells}, key=str),
        began=times[0] if times else "",
        ended=times[-1] if times else "",
    )


def environment(run: LoadedRun) -> dict[str, list[str | int | bool]]:
    """Every field of the environment, and what the run's records have there; one value where all agree."""
    seen = [record.environment for record in run.records if record.environment]
    return {
        field.name: list(dict.fromkeys(getattr(one, field.name) for one in seen))
        for field in dataclasses.fields(Environment)
    }


def ceilings(run: LoadedRun) -> list[Ceiling]:
    """By name."""
    names = sorted({name for record in run.records for name in record.ceilings})
    found = []
    for name in names:
        values = [record.ceilings[name] for record in run.records if name in record.ceilings]
        found.append(Ceiling(name, min(values), median(values), max(values), len(values)))
    return found


def traces(run: LoadedRun, limits: Iterable[Limit]) -> list[Trace]:
    """Of every dataset whose records carry facts of it."""
    coverage = {limit.dataset: limit.coverage for limit in limits}
    found = []
    for name in run.datasets:
        record = next((r for r in run.records if r.cell.dataset.name == name and r.facts), None)
        if record is None:
            continue
        facts, distinct = record.facts, record.facts.get("distinct_rows")
        shared_out = distinct / record.cell.workload.rows if distinct is not None else None
        found.append(
            Trace(
                name,
                record.cell.dataset.origin,
                facts.get("accesses"),
                distinct,
                facts.get("distinct_share", facts.get("hotness", shared_out)),  # the second: in older records
                facts.get("batch_distinct_rows"),
                coverage.get(name, []),
            )
        )
    return found


def cells(run: LoadedRun) -> list[CellRow]:
    """Every cell, swept ones too: by variant, dataset, point, replicate."""
    rows = [_row(record.cell, record) for record in run.whole.records]
    rows += [_row(cell, CellRecord(cell, "failed"), PENDING) for cell in run.whole.pending]
    order: dict[Any, int] = {name: n for n, name in enumerate([*run.variants, *run.datasets])}
    return sorted(rows, key=lambda row: (order[row.variant], order[row.dataset], row.point, row.replicate))


def _row(cell: Cell, record: CellRecord, pending: Literal["pending"] | None = None) -> CellRow:
    series = passes(record) if record.status in MEASURED else {}
    clocks = [state.sm_clock_mhz for state in record.gpu]
    return CellRow(
        id=cell.id,
        record="" if pending else f"cells/{cell.id}/record.json",
        variant=cell.variant,
        dataset=cell.dataset.name,
        point=cell.point,
        replicate=cell.replicate,
        status=pending or record.status,
        message=record.message,
        log=record.log_tail,
        times={name: float(np.median(series[name])) for name in METRICS if name in series},
        passes=max((len(v) for name, v in series.items() if name not in INFERENCE), default=0),
        samples=sum(len(values) for values in record.samples.values()),
        throttled_passes=len(record.throttled_passes),
        check=record.check,
        quantisation_error=record.facts.get("quantisation_error"),
        kernel=record.kernel,
        single_launch=record.status in MEASURED and single_launch(record),
        image=record.environment.image if record.environment else "",
        device=record.environment.device if record.environment else cell.workload.device,
        gpu=record.environment.gpu if record.environment else "",
        sm_clock_mhz_min=min(clocks, default=None),
        sm_clock_mhz_max=max(clocks, default=None),
        temperature_c_max=max((state.temperature_c for state in record.gpu), default=None),
        seed=cell.seed,
        started_at=record.started_at,
    )
