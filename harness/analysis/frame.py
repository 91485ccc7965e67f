"""Reads the folders of runs into records and a pandas table with one row per cell, measured or not."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness import plan, records
from harness.errors import BadInputError
from harness.experiment import dataset_of
from harness.records import MEASURED, PYTORCH, Cell, CellRecord
from harness.text import clean, readable
from harness.validation import read_toml

_MOST_TITLE = 500
"""Characters."""
_LEAST_US = 1e-6
"""A pass takes longer, for a clock of a GPU takes a thousand times that."""
PENDING = "pending"
"""Stands for the status of a planned cell that has no record yet."""
Series = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path
    name: str
    """The folder's name; unique among the runs that are loaded together."""
    title: str
    reference: str
    """Label of the arm that this run's speedups are taken against."""
    arms: list[str]
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

    @property
    def whole(self) -> Run:
        """The run with what it sweeps among its records: for questions of how it was made, not how fast."""
        return dataclasses.replace(
            self,
            records=self.records + self.swept,
            pending=self.pending + self.swept_pending,
            swept=[],
            swept_pending=[],
        )

    @functools.cached_property
    def _places(self) -> dict[tuple[str, str], list[CellRecord]]:
        places: dict[tuple[str, str], list[CellRecord]] = {}
        for record in self.records:
            places.setdefault((record.cell.arm, record.cell.dataset.name), []).append(record)
        return places

    def at(self, arm: str, dataset: str) -> list[CellRecord]:
        """The records of an arm on a dataset, measured or not."""
        return self._places.get((arm, dataset), [])

    @functools.cached_property
    def contenders(self) -> list[str]:
        """The arms that can be had: without those whose hot rows an oracle names, where there are others."""
        cells = [*(record.cell for record in self.records), *self.pending]
        oracles = {cell.arm for cell in cells if cell.hot_rows == "oracle"}
        return [arm for arm in self.arms if arm not in oracles] or self.arms

    @functools.cached_property
    def on_cpu(self) -> bool:
        """Whether it ran on the CPU, where every design is PyTorch's own operator."""
        cells = [*(record.cell for record in self.records), *self.pending]
        return any(cell.workload.device == "cpu" for cell in cells)


@dataclass(frozen=True)
class Loaded:
    """The runs that are looked at together."""

    runs: list[Run]
    cells: pd.DataFrame
    """One row per cell; see `_row` for the columns. Ordered by run, arm, dataset, point, replicate."""

    @property
    def records(self) -> list[CellRecord]:
        """Every record of every run."""
        return [record for run in self.runs for record in run.whole.records]

    def contestant(self, run: str, arm: str) -> str:
        """The arm's name on a page with all runs: its label, and the run's name where two runs have it."""
        shared = sum(arm in other.arms for other in self.runs) > 1
        return f"{arm} ({run})" if shared else arm


def load(folders: Sequence[Path]) -> Loaded:
    """Reads runs; BadInputError where a folder holds no run, or a file in it is not what it should be."""
    if not folders:
        raise BadInputError("No run was named; give the folder of at least one.")
    names = _unique_names([folder.resolve() for folder in folders])
    runs = [load_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    rows = [row for run in runs for row in _rows(run)]
    return Loaded(runs, pd.DataFrame(rows))


def load_run(folder: Path, name: str = "") -> Run:
    """One run; complete, partial, or without anything but its cells and records."""
    planned = _planned(folder)
    if not planned:
        raise BadInputError(f"{folder}: is not the folder of a run: it holds no cells/*/cell.json.")
    paths = {cell.id: folder / "cells" / cell.id / "record.json" for cell in planned}
    found = [_record(cell, paths[cell.id]) for cell in planned if os.path.lexists(paths[cell.id])]
    found.sort(key=lambda record: record.cell.id)
    done = {record.cell.id for record in found}
    pending = [cell for cell in planned if cell.id not in done]
    if all(cell.point for cell in [*(record.cell for record in found), *pending]):
        raise BadInputError(f"{folder}: holds a sweep without a cell of its experiment's own workload.")
    every = [*(record.cell for record in found), *pending]
    described = _described(folder)
    arms = _ordered(described["arms"], (cell.arm for cell in every))
    datasets = _ordered(described["datasets"], (cell.dataset.name for cell in every))
    baselines = [arm for arm in arms if arm.startswith("baseline")]
    name = clean(name or folder.resolve().name)
    return Run(
        folder=folder,
        name=name,
        title=described["title"] or name,
        reference=described["reference"] or (baselines or arms)[0],
        arms=arms,
        datasets=datasets,
        records=[record for record in found if not record.cell.point],
        pending=[cell for cell in pending if not cell.point],
        swept=[record for record in found if record.cell.point],
        swept_pending=[cell for cell in pending if cell.point],
    )


def _record(cell: Cell, path: Path) -> CellRecord:
    """The record of a cell; a failed one where the file is none of it, or its samples are no times."""
    record = records.of_cell(cell, path)
    for name in ("kernel_us", "prepare_us", "stage_us", *INFERENCE):
        times = passes(record).get(name, np.ones(1))
        if not (times >= _LEAST_US).all():
            why = f"Its record cannot be used: {path}: {name}: a pass is not longer than 0 µs; the file is "
            why += "damaged, or the workload too small to be timed."
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


def _planned(folder: Path) -> list[Cell]:
    """What the run was to measure, from its plan or, without one, from the cells that were handed out."""
    if (path := folder / "plan.json").is_file():
        return plan.read(path).cells
    return [_handed_out(path) for path in sorted(folder.glob("cells/*/cell.json"))]


def _handed_out(path: Path) -> Cell:
    cell = records.load(Cell, path)
    if cell.id != path.parent.name:
        raise BadInputError(f"{path}: is of another cell, {cell.id[:100]!r}.")
    return cell


def _described(folder: Path) -> dict[str, Any]:
    """Title, reference and order from the run's experiment.toml; empty values where there is none.

    Read leniently: a record stays readable when its design is gone from the project.
    """
    path = folder / "experiment.toml"
    raw = read_toml(path) if path.is_file() else {}
    try:
        arms = [
            records.arm_label(
                arm["design"],
                arm.get("toolchain") or PYTORCH,
                arm.get("tunables", {}),
                arm.get("hot_rows", "held_out"),
            )
            for arm in raw.get("arms", [])
        ]
        datasets = [dataset_of(name).name for name in raw.get("datasets", [])]
    except (AttributeError, KeyError, TypeError) as error:
        raise BadInputError(f"{path}: arms or datasets: are not what an experiment holds.") from error
    title, reference = (clean(str(raw.get(key, "")))[:_MOST_TITLE] for key in ("title", "reference"))
    return {"title": title, "reference": reference, "arms": arms, "datasets": datasets}


def _ordered(first: Iterable[str], then: Iterable[str]) -> list[str]:
    """Those that occur in `then`, in the order of `first`, the rest after them."""
    present = list(dict.fromkeys(then))
    listed = [name for name in first if name in present]
    return listed + [name for name in present if name not in listed]


def _rows(run: Run) -> list[dict[str, Any]]:
    rows = [_row(run, record.cell, record) for record in run.whole.records]
    rows += [_row(run, cell, None) for cell in run.whole.pending]
    arms, datasets = run.arms, run.datasets

    def place(row: dict[str, Any]) -> tuple[int, int, str, int]:
        return arms.index(row["arm"]), datasets.index(row["dataset"]), row["point"], row["replicate"]

    return sorted(rows, key=place)


def _row(run: Run, cell: Cell, record: CellRecord | None) -> dict[str, Any]:
    """One cell, flat. Times are the median over passes, µs; absent where nothing was measured."""
    series = passes(record) if record is not None and record.status in MEASURED else {}
    check = record.check if record else None
    kernel = record.kernel if record else None
    environment = record.environment if record else None
    states = record.gpu if record else []
    return {
        "run": run.name,
        "id": cell.id,
        "record": f"cells/{cell.id}/record.json" if record else "",
        "arm": cell.arm,
        "design": cell.design,
        "toolchain": cell.toolchain,
        "dataset": cell.dataset.name,
        "point": cell.point,
        "replicate": cell.replicate,
        "status": record.status if record else PENDING,
        "message": record.message if record else "",
        **{name: float(np.median(series[name])) if name in series else None for name in METRIC_NAMES},
        "passes": max((len(v) for name, v in series.items() if name not in INFERENCE), default=0),
        "samples": sum(len(values) for values in record.samples.values()) if record else 0,
        "throttled_passes": len(record.throttled_passes) if record else 0,
        "check_passed": check.passed if check else None,
        "check_max_error": check.max_error if check else None,
        "quantisation_error": record.facts.get("quantisation_error") if record else None,
        "registers": kernel.registers if kernel else None,
        "spill_bytes": kernel.spill_bytes if kernel else None,
        "shared_bytes": kernel.shared_bytes if kernel else None,
        "occupancy": kernel.occupancy if kernel else None,
        "kernel": kernel.name if kernel else "",
        "compiler": kernel.compiler if kernel else "",
        "arch": kernel.arch if kernel else "",
        "source_hash": kernel.source_hash if kernel else "",
        "device": environment.device if environment else cell.workload.device,
        "gpu": environment.gpu if environment else "",
        "sm_clock_mhz_min": min((state.sm_clock_mhz for state in states), default=None),
        "sm_clock_mhz_max": max((state.sm_clock_mhz for state in states), default=None),
        "temperature_c_max": max((state.temperature_c for state in states), default=None),
        "seed": cell.seed,
        "started_at": record.started_at if record else "",
    }


INFERENCE = ("e2e_us", "e2e_graph_us", "bottom_us", "interaction_us", "top_us")
"""Of whole inferences and their parts."""
METRIC_NAMES = ("kernel_us", "prepare_us", "total_us", "stage_us", *INFERENCE)
