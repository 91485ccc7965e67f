"""Runs over time: what each folder holds, in a line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.analysis import frame
from harness.analysis.frame import LoadedRun, passes
from harness.errors import BadInputError
from harness.records import MEASURED, PYTORCH, Variant, Workload
from harness.text import clean, readable

ONE_ROW = "one_item"
"""Where a table's lookups are all of one row, a kernel's time may hang on that one address."""


@dataclass(frozen=True)
class Best:
    """The largest speedup of a run, from medians alone; the report has its interval. That on one row alone
    only where nothing else was measured."""

    arm: str
    """The label of the variant."""
    dataset: str
    ratio: float


@dataclass(frozen=True)
class Line:
    """One run."""

    folder: str
    experiment: str
    began: str
    """UTC, of its first record; empty where there is none."""
    gpu: str
    """The CPU where it ran on none."""
    driver: str
    toolchains: list[str]
    measured: int
    failed: int
    pending: int
    reference: str
    best: Best | None
    """None where nothing but the reference was measured, and on the CPU, where all arms are alike."""
    broken: str = ""
    """Why the folder cannot be read; everything else is empty then."""


def line(folder: Path) -> Line:
    """One run, whatever state it is in."""
    try:
        run = frame.load_run(folder)
    except BadInputError as error:
        return Line(readable(folder), "", "", "", "", [], 0, 0, 0, "", None, str(error))
    whole = run.whole
    cells = [*(record.cell for record in whole.records), *whole.pending]
    seen = [record.environment for record in whole.records if record.environment]
    measured = sum(record.status in MEASURED for record in whole.records)
    return Line(
        folder=readable(folder),
        experiment=run.title,
        began=run.began,
        gpu=either(environment.gpu or environment.cpu for environment in seen),
        driver=either(environment.driver for environment in seen),
        toolchains=sorted({cell.toolchain for cell in cells}, key=lambda name: (name == PYTORCH, name)),
        measured=measured,
        failed=len(whole.records) - measured,
        pending=len(whole.pending),
        reference=run.reference.label,
        best=None if run.on_cpu else _best(run),
    )


def either(values: Iterable[str]) -> str:
    """Each that is known, once."""
    return " or ".join(dict.fromkeys(value for value in values if value))


def _best(run: LoadedRun) -> Best | None:
    """By prepare + kernel; by the stage where an arm takes all tables in one launch."""
    metric = "stage_us" if any(map(frame.single_launch, run.records)) else "total_us"
    medians: dict[tuple[Variant, str], list[float]] = {}
    for record in run.records:
        series = passes(record).get(metric) if record.status in MEASURED else None
        if series is not None:
            place = (record.cell.variant, record.cell.dataset.name)
            medians.setdefault(place, []).append(float(np.median(series)))
    times = {place: float(np.exp(np.mean(np.log(values)))) for place, values in medians.items()}
    ratios = [
        Best(variant.label, dataset, times[run.reference, dataset] / time)
        for (variant, dataset), time in times.items()
        if variant != run.reference and (run.reference, dataset) in times
    ]
    # A lookup of one row alone hangs on that row's address: its gain stands for a run that has nothing else.
    usual = [best for best in ratios if best.dataset != ONE_ROW] or ratios
    return max(usual, key=lambda best: best.ratio, default=None)


def nearest(folder: Path, others: Iterable[Path]) -> Path:
    """The run among `others` that is of the same work as the run in `folder`.

    That is the one whose folder is called after the run's experiment; or else the one that measured the same
    workload with most of the run's arms, two at least. Runs with another cache protocol are considered only
    where there is no other. Where several are left, that on the run's own GPU.
    BadInputError where this leads to none, or to more than one.
    """
    own, experiment = frame.load_run(folder), experiment_of(folder)
    loaded = [frame.load_run(other) for other in others]
    known = [run for run in loaded if _cache(run) == _cache(own)] or loaded
    found = [run for run in known if run.folder.name == experiment]
    if not found:
        shared = [len({*run.variants} & {*own.variants}) if _work(run) == _work(own) else 0 for run in known]
        most = max(2, *shared)
        found = [run for run, count in zip(known, shared, strict=True) if count == most]
    here = [run for run in found if _gpus(run) == _gpus(own)] if len(found) > 1 else found
    if len(here) == 1:
        return here[0].folder
    choice = ", ".join(str(run.folder) for run in found or loaded)
    if found:
        raise BadInputError(
            f"{folder}: several of our runs are as near to this one of experiment {experiment!r}; name the "
            f"one that is meant: {choice}."
        )
    raise BadInputError(
        f"{folder}: none of our runs is of experiment {experiment!r}, or of its workload with two of its "
        f"arms; to set it beside another, name that: {choice}."
    )


def experiment_of(folder: Path) -> str:
    """The name of the experiment that a run is of; its folder's where nothing says. BadInputError where its
    file cannot be read."""
    raw = frame.raw_experiment(folder)
    return clean(folder.resolve().name if raw is None else str(raw.get("name", "")))


def _work(run: LoadedRun) -> Workload:
    return (run.records[0].cell if run.records else run.pending[0]).workload


def _cache(run: LoadedRun) -> str:
    return (run.records[0].cell if run.records else run.pending[0]).timing.cache


def _gpus(run: LoadedRun) -> set[str]:
    return {record.environment.gpu for record in run.records if record.environment}
