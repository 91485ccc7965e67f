"""Runs made up as pages speak of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from harness import experiment, wall
from harness.analysis import frame
from harness.profiles import KernelLaunch, Profile
from harness.records import Cell, CellRecord, to_json
from tests import synthetic_run as synthetic
from tests.unit.written.records import GPU

RUNS = {
    "kernels": [],
    "float16": [],
    "ragged": [],
    "int8": [],
    "int4": [],
    "dlrm_dcnv2": [],
    "dlrm_dcnv2_float16": ["workload.dtype=float16"],
    "dlrm_dcnv2_int8": [],
    "dlrm_dcnv2_int4": [],
    "recflex_a": [],
    "recflex_c": [],
    "youtube": [],
    "equal": [],
    "many": [],
    "dlrm_dcnv2_whole": [],
    "paper": [],
}
"""Runs that pages speak of, and what they set besides their experiment."""
SLOWER = 1.5
"""So much longer takes every path of FBGEMM but one here."""


def of_two_boards(cell: Cell) -> CellRecord:
    """Replicates take turns on two boards; FBGEMM's third path is the fastest, and ours 10 % slower."""
    record = synthetic.record(cell)
    if cell.design in ("fused", "fbgemm"):
        single = synthetic.single_launch(cell).samples
        factor = 1.1 if cell.design == "fused" else 1.0 if cell.tunables["path"] == 2 else SLOWER
        slower = {name: [us * factor for us in values] for name, values in single.items()}
        record = dataclasses.replace(record, samples=record.samples | slower)
    assert record.environment
    board = dataclasses.replace(record.environment, gpu=GPU, gpu_uuid=f"GPU-{cell.replicate % 2}")
    return dataclasses.replace(record, environment=board)


def profile(run: Path, read: dict[str, float]) -> None:
    """So many bytes that each design reads from memory for a table and batch on medium."""
    for record in frame.load_run(run).records:
        cell = record.cell
        if cell.dataset.name == "medium" and cell.design in read:
            counted = {"dram__bytes_read.sum": read[cell.design] * cell.workload.tables}
            launch = KernelLaunch("lookup", "(1, 1, 1)", "(32, 1, 1)", counted)
            made = Profile(cell, "ok", "", [launch], profiler="Nsight Compute 1")
            (run / wall.CELLS / cell.id / wall.PROFILE).write_text(to_json(made), encoding="utf-8")


def small(folder: Path, name: str, make: Callable[[Cell], CellRecord | None]) -> None:
    """A run of the experiment `name` in few processes."""
    what = dataclasses.replace(experiment.read(experiment.find(name)), replicates=4)
    synthetic.write_run(folder / "h200" / name, what, make)
