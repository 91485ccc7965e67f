"""python -m harness.fetched RUN [FILE]: what a GPU's memory gives to a run's rows where nobody adds them up.

For every workload and dataset of the run's design `fused` (or of --design), in the order of the bags and
sorted, in µs a pass (`harness.bench.fetched_rows`); written as RUN/fetched.json, or as FILE, after each of
them. Those whose rows are not fetched, tables of several widths for one, are left out and named.
docs/measurement.md says what the times tell and what they do not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from harness import cell_files, files, wall
from harness.errors import BadInputError, HarnessError, MachineError
from harness.records import Cell
from harness.run.checkout import commit_of

FILE = "fetched.json"
SCHEMA_VERSION = 1


def main() -> int:
    """The exit code."""
    head, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m harness.fetched", description=head.partition(": ")[2], epilog=rest
    )
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("file", type=Path, nargs="?", help=f"what is written, by default RUN/{FILE}")
    parser.add_argument("--design", default="fused", help="whose cells say what is fetched")
    given = parser.parse_args()
    try:
        measure(given.run, given.file or given.run / FILE, given.design)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def measure(run: Path, target: Path, design: str) -> None:
    """Measures and writes. HarnessError in a sentence where that cannot be."""
    if target.exists():
        raise BadInputError(f"{target}: is there already; name another file.")
    if not (cells := cells_of(run, design)):
        raise BadInputError(f"{run}: has no cells of {design} on a GPU; name another with --design.")
    try:
        import torch

        from harness.bench import environment
        from harness.bench.failures import CellError
        from harness.bench.fetched_rows import FetchedRows
        from harness.bench.nvml import Nvml
    except ModuleNotFoundError as error:
        raise MachineError(f"Rows are fetched by PyTorch, and there is no {error.name} here.") from error
    if not torch.cuda.is_available():
        raise MachineError("Rows are fetched on a GPU, and PyTorch finds none here.")

    fetched, commit = FetchedRows(run), commit_of(Path(__file__))
    here = environment.collect("cuda", Nvml.open(environment.gpu_uuid()))
    found: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "commit": commit.name,
        "dirty": commit.dirty,
        "gpu": here.gpu,
        "gpu_uuid": here.gpu_uuid,
        "driver": here.driver,
        "torch": here.torch,
        "cells": [],
    }
    for cell in cells:
        called = f"{cell.dataset.name} {cell.point}".strip()
        try:
            measured = fetched.measure(cell)
        except CellError as error:
            print(f"{called}: left out. {error}", file=sys.stderr, flush=True)
            continue
        times = {
            order: {form: round(us, 2) for form, us in of_forms.items()}
            for order, of_forms in measured.items()
        }
        found["cells"].append({"dataset": cell.dataset.name, "point": cell.point} | times)
        print(f"{called}: {json.dumps(times)}", flush=True)
        files.write_whole(target, json.dumps(found, indent=1) + "\n")
    if not found["cells"]:
        raise BadInputError(f"{run}: has no rows that are fetched; nothing is written.")


def cells_of(run: Path, design: str) -> list[Cell]:
    """The first of every workload and dataset, in the order of their names."""
    with cell_files.opened(run) as there:
        cells = [cell_files.load(Cell, there, cell_id, wall.CELL) for cell_id in there.ids()]
    first: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        if cell.design == design and cell.workload.device == "cuda":
            first.setdefault((cell.dataset.name, cell.point), cell)
    return list(first.values())


if __name__ == "__main__":
    sys.exit(main())
