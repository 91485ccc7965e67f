"""Reads the folders of runs into records and the variants, datasets and titles that go with them."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness import cell_files, decoder, plan, wall
from harness.analysis import processes
from harness.cell_files import CellFiles
from harness.errors import BadInputError
from harness.experiment import dataset_of
from harness.records import PYTORCH, Cell, CellRecord, Variant
from harness.text import clean, meant, quoted, readable
from harness.validation import read_toml

_MOST_TITLE = 500
"""Characters."""
_LEAST_US = 1e-6
"""A pass takes longer, for a clock of a GPU takes a thousand times that."""
Series = NDArray[np.float64]
T = TypeVar("T")
INFERENCE = ("e2e_us", "e2e_graph_us", "bottom_us", "interaction_us", "top_us")
"""Metrics of whole inferences and their parts."""


@dataclass(frozen=True)
class LoadedRun:
    """One run's folder."""

    folder: Path
    name: str
    """The folder's name; unique among the runs that are loaded together."""
    title: str
    reference: Variant
    """What this run's speedups are taken against."""
    variants: list[Variant]
    """In the experiment's order."""
    datasets: list[str]
    """In the experiment's order."""
    records: list[CellRecord]
    """Of the experiment's own workload and tunables; all there are where it sweeps nothing."""
    pending: list[Cell]
    """Planned there, but without a record."""
    swept: list[CellRecord] = field(default_factory=list)
    """Of the other points of a sweep."""
    swept_pending: list[Cell] = field(default_factory=list)
    doubted: str = ""
    """Why the reference may be another one than the run was made with; empty: it is that."""

    @property
    def whole(self) -> LoadedRun:
        """The run with what it sweeps among its records: for questions of how it was made, not how fast."""
        return dataclasses.replace(
            self,
            records=self.records + self.swept,
            pending=self.pending + self.swept_pending,
            swept=[],
            swept_pending=[],
        )

    @functools.cached_property
    def began(self) -> str:
        """When its first record was begun; empty where none says so."""
        return min((record.started_at for record in self.whole.records if record.started_at), default="")

    @functools.cached_property
    def _places(self) -> dict[tuple[Variant, str], list[CellRecord]]:
        places: dict[tuple[Variant, str], list[CellRecord]] = {}
        for record in self.records:
            places.setdefault((record.cell.variant, record.cell.dataset.name), []).append(record)
        return places

    def at(self, variant: Variant, dataset: str) -> list[CellRecord]:
        """The records of a variant on a dataset, measured or not."""
        return self._places.get((variant, dataset), [])

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """What was planned at the experiment's own workload and tunables, or is there without a plan."""
        return [*(record.cell for record in self.records), *self.pending]

    @functools.cached_property
    def on_cpu(self) -> bool:
        """Whether it ran on the CPU, where every design is PyTorch's own operator."""
        return any(cell.workload.device == "cpu" for cell in self.cells)

    def variant(self, label: str) -> Variant:
        """The variant of that label; BadInputError where the run has none."""
        found = [variant for variant in self.variants if variant.label == label]
        if not found:
            known = [variant.label for variant in self.variants]
            raise BadInputError(
                f"{self.name}: has no arm {label!r}; it has: {', '.join(known)}.{meant(label, known)}"
            )
        return found[0]


def load(folders: Sequence[Path]) -> list[LoadedRun]:
    """Reads runs; BadInputError where a folder holds no run, or a file in it is not what it should be."""
    if not folders:
        raise BadInputError("No run was named; give the folder of at least one.")
    names = _unique_names([folder.resolve() for folder in folders])
    return [load_run(folder, name) for folder, name in zip(folders, names, strict=True)]


def load_run(folder: Path, name: str = "") -> LoadedRun:
    """One run; complete, partial, or without anything but its cells and records."""
    if not folder.is_dir():
        raise _no_run(folder)
    with cell_files.opened(folder) as files:
        planned = _planned(folder, files)
        if not planned:
            raise _no_run(folder)
        found = [_record(cell, files) for cell in planned if files.kind(cell.id, wall.RECORD)]
    found.sort(key=lambda record: record.cell.id)
    done = {record.cell.id for record in found}
    pending = [cell for cell in planned if cell.id not in done]
    every = [*(record.cell for record in found), *pending]
    if all(cell.point for cell in every):
        raise BadInputError(f"{folder}: holds a sweep without a cell of its experiment's own workload.")
    told = _described(folder)
    variants = _ordered(told.variants, (cell.variant for cell in every))
    reference, doubted = _reference(told, variants)
    name = clean(name or folder.resolve().name)
    return LoadedRun(
        folder=folder,
        name=name,
        title=told.title or name,
        reference=reference,
        doubted=doubted,
        variants=variants,
        datasets=_ordered(told.datasets, (cell.dataset.name for cell in every)),
        records=[record for record in found if not record.cell.point],
        pending=[cell for cell in pending if not cell.point],
        swept=[record for record in found if record.cell.point],
        swept_pending=[cell for cell in pending if cell.point],
    )


def _no_run(folder: Path) -> BadInputError:
    return BadInputError(
        f"{folder}: is not the folder of a run: it holds no {wall.CELLS}/*/{wall.CELL} and no {wall.PACKED}."
    )


def _record(cell: Cell, files: CellFiles) -> CellRecord:
    """The record of a cell; a failed one where the file is not its record, or its samples cannot be times."""
    record = cell_files.record(files, cell)
    for name in ("kernel_us", "prepare_us", "stage_us", *INFERENCE):
        times = passes(record).get(name, np.ones(1))
        if not (times >= _LEAST_US).all():
            why = f"Its record cannot be used: {files.path(cell.id, wall.RECORD)}: {name}: a pass is not "
            why += "longer than 0 µs; the file is damaged, or the workload too small to be timed."
            return CellRecord(cell, "failed", why)
    return record


def passes(record: CellRecord) -> dict[str, Series]:
    """A record's samples as one number per pass, µs.

    `kernel_us`, `prepare_us`: mean over the tables of the pass; of a launch that takes all tables, its share
    per table, which is what the record holds. `total_us`: prepare plus kernel of the same pass (the kernel
    alone where the design prepares nothing). `stage_us`: all tables of the batch. Those of `INFERENCE` as
    they are in the record, of whole inferences several a pass. Computed once per record.
    """
    kept = vars(record)  # as functools.cached_property does it, for records know no numpy
    if "_passes" not in kept:
        kept["_passes"] = _passes(record)
    found: dict[str, Series] = kept["_passes"]
    return found


def levels(record: CellRecord) -> dict[str, float]:
    """By what `passes` has, the process's own time (`processes.level`). Computed once per record."""
    kept = vars(record)
    if "_levels" not in kept:
        series, made = passes(record), dict[str, float]()
        for name, values in series.items():
            # Where nothing is prepared, prepare + kernel is the kernel.
            same = name == "total_us" and "prepare_us" not in series
            made[name] = made["kernel_us"] if same else processes.level(values)
        kept["_levels"] = made
    found: dict[str, float] = kept["_levels"]
    return found


def _passes(record: CellRecord) -> dict[str, Series]:
    stage = np.asarray(record.samples.get("stage_us", []), dtype=float)
    series = {
        name: _per_pass(record.samples[name], len(stage), record.cell.workload.tables)
        for name in ("kernel_us", "prepare_us")
        if record.samples.get(name)
    }
    if "kernel_us" in series:
        kernel, prepare = series["kernel_us"], series.get("prepare_us", np.zeros(1))
        # Where pins are renewed less than once a pass there is no prepare of the same pass to add.
        series["total_us"] = kernel + (prepare if len(prepare) == len(kernel) else float(np.median(prepare)))
    if len(stage):
        series["stage_us"] = stage
    return series | {
        name: np.asarray(record.samples[name], dtype=float) for name in INFERENCE if record.samples.get(name)
    }


def single_launch(record: CellRecord) -> bool:
    """Whether one launch took all tables: then there is one `kernel_us` a pass and not one a table."""
    kernels, passes = (len(record.samples.get(name, [])) for name in ("kernel_us", "stage_us"))
    return kernels == passes and record.cell.workload.tables > 1


def _per_pass(samples: list[float], passes: int, tables: int) -> Series:
    values = np.asarray(samples, dtype=float)
    width = len(values) // passes if passes and len(values) % passes == 0 else tables
    return values.reshape(-1, width).mean(axis=1) if len(values) % width == 0 else values


def _unique_names(folders: list[Path]) -> list[str]:
    """Folder names, with the parent's where two are the same."""
    names = [readable(folder.name) for folder in folders]
    twice = {name for name, count in Counter(names).items() if count > 1}
    longer = [
        f"{readable(folder.parent.name)}/{name}" if name in twice else name
        for folder, name in zip(folders, names, strict=True)
    ]
    if doubled := [name for name, count in Counter(longer).items() if count > 1]:
        raise BadInputError(f"{doubled[0]}: the same run was named twice.")
    return longer


def _planned(folder: Path, files: CellFiles) -> list[Cell]:
    """What the run was to measure, from its plan or, without one, from the cells that were handed out."""
    if os.path.lexists(path := folder / wall.PLAN):
        return plan.read(path).cells
    return [_handed_out(cell_id, files) for cell_id in files.ids() if files.kind(cell_id, wall.CELL)]


def _handed_out(cell_id: str, files: CellFiles) -> Cell:
    cell = cell_files.load(Cell, files, cell_id, wall.CELL)
    if cell.id != cell_id:
        raise BadInputError(f"{files.path(cell_id, wall.CELL)}: is of another cell, {cell.id[:100]!r}.")
    return cell


@dataclass(frozen=True)
class _Described:
    """What a run's experiment.toml tells; empty values where there is none."""

    title: str
    reference: str | None
    """The label of a variant; None where there is no file."""
    variants: list[Variant]
    datasets: list[str]


def raw_experiment(folder: Path) -> dict[str, Any] | None:
    """What stands in a run's experiment.toml; None where there is none. BadInputError where it cannot be
    read, or is no file of the run's own: no link is followed."""
    path = folder / wall.EXPERIMENT
    return read_toml(path, follow=False) if os.path.lexists(path) else None


def _described(folder: Path) -> _Described:
    """Read leniently: a record stays readable when its design is gone from the project."""
    path = folder / wall.EXPERIMENT
    if (raw := raw_experiment(folder)) is None:
        return _Described("", None, [], [])
    try:
        variants = list(dict.fromkeys(_variant(raw_arm) for raw_arm in raw.get("arms", [])))
        datasets = [dataset_of(name).name for name in raw.get("datasets", [])]
    except (AttributeError, TypeError, decoder.MismatchError) as error:
        raise BadInputError(f"{path}: arms or datasets: are not what an experiment holds.") from error
    title, reference = (clean(str(raw.get(key, "")))[:_MOST_TITLE] for key in ("title", "reference"))
    if not raw.get("reference"):
        raise BadInputError(
            f"{path}: reference: is missing, so it is not what the run wrote; put that back, or remove this."
        )
    return _Described(title, reference, variants, datasets)


def _variant(raw: Any) -> Variant:
    made = decoder.decode(Variant, raw)
    return dataclasses.replace(made, toolchain=made.toolchain or PYTORCH)


def _reference(told: _Described, variants: list[Variant]) -> tuple[Variant, str]:
    """That of the label which the experiment names; or a baseline, or else the first of all, and then why."""
    named = [variant for variant in (*told.variants, *variants) if variant.label == told.reference]
    if named:
        return named[0], ""
    baselines = [variant for variant in variants if variant.design == "baseline"]
    does = "is gone"
    if told.reference is not None:
        does = f"names {quoted(told.reference)}, which is none of the run's arms"
    return (baselines or variants)[0], f"{wall.EXPERIMENT} {does}"


def _ordered(first: Iterable[T], then: Iterable[T]) -> list[T]:
    """Those that occur in `then`, in the order of `first`, the rest after them."""
    listed, present = dict.fromkeys(first), dict.fromkeys(then)
    return [name for name in listed if name in present] + [name for name in present if name not in listed]
