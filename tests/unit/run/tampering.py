"""A run whose records are honest, and what somebody may change in its folder afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harness.bench.timing import relative_interval
from harness.records import Cell, CellRecord, load, to_json
from harness.traces import demand
from tests.pretended_runner import good_record, leave_record

SECONDS = itertools.count()
"""Cells are measured one after the other."""


def measure(cell: Cell, output: Path) -> None:
    """A record whose facts are those of its samples and its trace."""
    made = good_record(cell)
    kernel, stage = made.samples["kernel_us"], made.samples["stage_us"]
    calls = len(kernel) // len(stage)
    per_pass = [sum(kernel[at : at + calls]) for at in range(0, len(kernel), calls)]
    asked = demand.of(cell, output.parent)
    facts = {
        "accesses": asked.accesses,
        "distinct_rows": asked.distinct_rows,
        "passes": float(len(stage)),
        "relative_interval": max(relative_interval(values) for values in (per_pass, stage)),
    }
    began = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=2 * next(SECONDS))
    ended = began + timedelta(seconds=2)
    leave_record(cell, output, facts=facts, started_at=began.isoformat(), finished_at=ended.isoformat())


def first_record(root: Path) -> Path:
    return sorted(root.glob("cells/*/record.json"))[0]


def change(path: Path, **changes: Any) -> None:
    path.write_text(to_json(replace(load(CellRecord, path), **changes)), encoding="utf-8")


def samples(root: Path) -> None:
    path = first_record(root)
    record = load(CellRecord, path)
    half = [value / 2 if n % 2 else value for n, value in enumerate(record.samples["kernel_us"])]
    change(path, samples=record.samples | {"kernel_us": half})


def passes(root: Path) -> None:
    path = first_record(root)
    record = load(CellRecord, path)
    change(path, samples={name: values[:-2] for name, values in record.samples.items()})


def check(root: Path) -> None:
    change(first_record(root), check=None)


def times(root: Path) -> None:
    change(first_record(root), finished_at="1999-01-01T00:00:00Z")


def no_time_zone(root: Path) -> None:
    """Which cannot be told from any other time."""
    change(first_record(root), started_at="2026-01-01T00:00:00")


def no_times(root: Path) -> None:
    change(first_record(root), started_at="", finished_at="")


def ended_after_the_next_began(root: Path) -> None:
    measured_first = min(root.glob("cells/*/record.json"), key=lambda path: load(CellRecord, path).started_at)
    change(measured_first, finished_at="2999-01-01T00:00:00Z")


def errs(root: Path) -> None:
    path = first_record(root)
    found = load(CellRecord, path).check
    assert found is not None
    change(path, check=replace(found, max_error=1.5))


def nothing_compared(root: Path) -> None:
    path = first_record(root)
    found = load(CellRecord, path).check
    assert found is not None
    change(path, check=replace(found, elements=0))


def failed_with_samples(root: Path) -> None:
    change(first_record(root), status="failed", message="It was not.")


def failed_for_no_reason(root: Path) -> None:
    change(first_record(root), status="failed", samples={})


def throttled_beyond_its_passes(root: Path) -> None:
    change(first_record(root), throttled_passes=[10**6])


def interval_of_nothing(root: Path) -> None:
    path = first_record(root)
    change(path, facts=load(CellRecord, path).facts | {"relative_interval": 0.0})


def sources_that_differ(root: Path) -> None:
    """Among records of one design, of which none may hide another."""
    for path, digit in zip(sorted(root.glob("cells/baseline*/record.json")), "012", strict=False):
        kernel = load(CellRecord, path).kernel
        assert kernel is not None
        change(path, kernel=replace(kernel, name="baseline", source_hash=digit * 64))


def on_gpu(root: Path, **changes: Any) -> None:
    """Changes a record, which then says that it was made on a GPU."""
    record = load(CellRecord, first_record(root))
    assert record.environment is not None
    change(first_record(root), environment=replace(record.environment, device="cuda"), **changes)


def kernels_longer_than_their_stage(root: Path) -> None:
    record = load(CellRecord, first_record(root))
    shorter = [value / 100 for value in record.samples["stage_us"]]
    on_gpu(root, samples=record.samples | {"stage_us": shorter})


def another_kernel(root: Path) -> None:
    kernel = load(CellRecord, first_record(root)).kernel
    assert kernel is not None
    on_gpu(root, kernel=replace(kernel, name="vectorized"))


def facts(root: Path) -> None:
    path = first_record(root)
    record = load(CellRecord, path)
    change(path, facts=record.facts | {"distinct_rows": record.facts["distinct_rows"] + 1})


def asked_for(root: Path) -> None:
    """Twice the distinct rows, which makes the limit twice as long and its share twice as high."""
    path = root / demand.FILE
    told = load(demand.Datasets, path)
    twice = [replace(one, batch_distinct_rows=2 * one.batch_distinct_rows) for one in told.datasets]
    path.write_text(to_json(replace(told, datasets=twice)), encoding="utf-8")


def curve(root: Path) -> None:
    path = root / demand.FILE
    told = load(demand.Datasets, path)
    lower = [replace(one, misses=[(size, rows / 2) for size, rows in one.misses]) for one in told.datasets]
    path.write_text(to_json(replace(told, datasets=lower)), encoding="utf-8")


def no_demand(root: Path) -> None:
    (root / demand.FILE).write_text("{", encoding="utf-8")


def another_cell_s_record(root: Path) -> None:
    first, second, *_ = sorted(root.glob("cells/*/record.json"))
    first.write_bytes(second.read_bytes())


def another_cell(root: Path) -> None:
    path = sorted(root.glob("cells/*/cell.json"))[0]
    path.write_text(to_json(replace(load(Cell, path), seed=99)), encoding="utf-8")


def unplanned(root: Path) -> None:
    (root / "cells" / "more").mkdir()


def experiment_s_seed(root: Path) -> None:
    path = root / "experiment.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("seed = 1", "seed = 2"), encoding="utf-8")


TAMPERED: list[tuple[Callable[[Path], None], str]] = [
    (samples, "samples"),
    (passes, "samples"),
    (check, "outputs"),
    (times, "times"),
    (no_time_zone, "times"),
    (no_times, "times"),
    (ended_after_the_next_began, "times"),
    (errs, "outputs"),
    (nothing_compared, "outputs"),
    (failed_with_samples, "outputs"),
    (failed_for_no_reason, "outputs"),
    (another_kernel, "outputs"),
    (throttled_beyond_its_passes, "samples"),
    (interval_of_nothing, "samples"),
    (kernels_longer_than_their_stage, "samples"),
    (sources_that_differ, "sources"),
    (facts, "traces"),
    (asked_for, "limits"),
    (curve, "limits"),
    (no_demand, "looked up"),
    (another_cell_s_record, "cells"),
    (another_cell, "cells"),
    (unplanned, "cells"),
    (experiment_s_seed, "plan"),
]
"""What is changed, and the question whose answer finds it."""
