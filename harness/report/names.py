"""Variants, runs and machines as people call them. Labels are made here and nowhere read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from harness.analysis.figures import Figure, Value
from harness.analysis.report import Report, Run
from harness.analysis.sweeps import Sweep
from harness.records import PYTORCH, STOCK, Variant, Workload
from harness.report import libraries, units

BASELINE = "baseline"
"""The paper's."""
OWN = "as the experiment has it"
"""Names the point around which everything of a sweep is varied."""


def contestant(report: Report, run: Run, variant: Variant) -> str:
    """A variant's name where several runs stand together, and the run's name where two runs have it."""
    shared = sum(variant in other.variants for other in report.runs) > 1
    name = libraries.called(run, variant)
    return f"{name} ({run.name})" if shared else name


def work(one: Workload) -> str:
    """One batch's lookups, in words that need no context."""
    how = {"sum": "summed", "mean": "averaged"}[one.mode]
    if one.groups:
        return f"{tables(one)}, {how}, {one.index_dtype} row numbers"
    bags = f"{one.pooling:,} rows" if one.bags == "fixed" else f"about {one.pooling:,} rows, ragged,"
    weighted = "weighted and " if one.weighted else ""
    return (
        f"{units.count(one.tables, 'table')} of {one.rows:,} rows × {one.dim} {one.dtype}, in each "
        f"{units.count(one.batch, 'bag')} of {bags} {weighted}{how}, {one.index_dtype} row numbers"
    )


def per_table(run: Run, metric: str, figure: Figure | None) -> Figure | None:
    """A time of the embedding, for one table and batch: that of the stage divided by its tables, so that one
    unit stands everywhere. Times of whole inferences stay those of a batch."""
    return figure and of_one_table(run.protocol.workload, metric, figure)


def of_one_table(work: Workload, metric: str, figure: Figure) -> Figure:
    """The same, by the work that it is of."""
    tables = work.tables
    if metric != "stage_us":
        return figure
    low, high = (None if bound is None else bound / tables for bound in (figure.low, figure.high))
    processes = [value / tables for value in figure.processes]
    return dataclasses.replace(figure, value=figure.value / tables, low=low, high=high, processes=processes)


def unit(metric: str) -> str:
    """Of a time by a metric as it is shown, for a column's head."""
    return "µs per batch" if metric.startswith("e2e") else "µs per table"


def unit_as_measured(metric: str) -> str:
    """Of a time as records have it: that of the stage is not divided by its tables."""
    return "µs per batch" if metric == "stage_us" else unit(metric)


def called(run: Run, variant: Variant) -> str:
    """A variant that others are compared with, as readers know it: "PyTorch", "FBGEMM v1", "paper's
    baseline@12.1"."""
    if variant.design == STOCK:
        return libraries.name(STOCK)
    return f"paper's {variant.label}" if variant.design == BASELINE else libraries.called(run, variant)


def without_toolchain(variant: Variant) -> str:
    """A variant's label without its compiler."""
    return dataclasses.replace(variant, toolchain=PYTORCH).label


def labels(variants: Iterable[Variant]) -> str:
    """As commands take them, for example "optmt@12.1, stock"."""
    return ", ".join(variant.label for variant in variants)


def status(run: Run, variant: Variant, dataset: str) -> str:
    """What stands in place of a figure that was not measured."""
    recorded = [cell.status for cell in run.cells_at(variant, dataset) if cell.record]
    return recorded[0] if recorded else "not run"


def where(run: Run) -> str:
    """The hardware that the run's records name."""
    if not run.environment["device"]:
        return "a machine that no record names"
    return _either(run.environment["cpu" if run.environment["device"] == ["cpu"] else "gpu"])


def software(run: Run) -> str:
    """What the run's records were made with; empty where no record says."""
    seen = run.environment
    if not seen["device"]:
        return ""
    torch = f"PyTorch {_either(seen['torch'])}"
    return torch if run.on_cpu else f"driver {_either(seen['driver'])}, {torch}, CUDA {_either(seen['cuda'])}"


def gpus(runs: Iterable[Run]) -> list[str]:
    """The GPUs that the records name."""
    return list(dict.fromkeys(str(gpu) for run in runs for gpu in run.environment["gpu"] if gpu))


def key(swept: str) -> str:
    """A key of a sweep: "batch", "pinned rows"."""
    return swept.partition(".")[2].replace("_", " ")


def value(set_: Value) -> str:
    """What a sweep sets, for example "500,000", "true"."""
    return f"{set_:,}" if type(set_) is int else str(set_).lower()


def settings(set_: Mapping[str, Value]) -> str:
    """What is set, for example "rows 500,000, tables 1"."""
    return ", ".join(f"{key(name)} {value(one)}" for name, one in set_.items())


def point(sweep: Sweep, label: str) -> str:
    """A point of a sweep as people say it."""
    return settings(sweep.points[label]) or OWN


def done(run: Run) -> str:
    """What was asked of which GPU, for what leaves the page."""
    return f"{work(run.protocol.workload)}, on {where(run)}"


def tables(work: Workload) -> str:
    """A workload's tables and bags: "12 tables of 500,000 rows × 128 float32; batch 2,048, 150 rows per
    bag"."""
    if not work.groups:
        shape = f"{units.count(work.tables, 'table')} of {work.rows:,} rows × {work.dim} {work.dtype}"
        return f"{shape}; batch {work.batch:,}, {work.pooling} rows per bag"
    rows = sorted(group.rows for group in work.groups)
    shared = f" for {work.tables:,} features" if work.tables > work.stored_tables else ""
    cut = f" (larger ones cut down to {work.max_rows:,})" if work.max_rows else ""
    dims = "–".join(dict.fromkeys(map(str, (work.dims[0], work.dims[-1]))))
    return (
        f"{work.model}: {units.count(work.stored_tables, 'table')}{shared} of {rows[0]:,} to {rows[-1]:,} "
        f"rows{cut} × {dims} {work.dtype}; batch {work.batch:,}, "
        f"{work.all_lookups / work.batch:,.0f} rows per sample"
    )


def _either(values: Sequence[object]) -> str:
    return " or ".join(str(value) or "unnamed" for value in values)


def short_commit(commit: str) -> str:
    """For example "5f4dd20", "5f4dd20 with changes"; empty where it is not known."""
    digits, blank, rest = commit.partition(" ")
    return f"{digits[:7]}{blank}{rest}"
