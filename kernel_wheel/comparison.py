"""Measures what `kernel_wheel.serving` asks for, one batch size after the other."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import embedding_kernels as ek
from harness import tuning
from harness.bench.environment import free_host_bytes
from harness.errors import BadInputError, MachineError
from harness.progress import Progress
from harness.run.checkout import commit_of
from kernel_wheel import served_record, side_by_side, sources
from kernel_wheel.torchrec_model import Pair, make_pair, needed_bytes, requests

MOST_BATCHES = 64
"""Distinct ones that take turns: each has a CUDA graph of the whole model."""


def compared(given: argparse.Namespace, target: Path, progress: Progress) -> None:
    """Measures what is left and writes the record, after every batch size. HarnessError in a sentence where
    that cannot be."""
    if given.blocks < 1 or given.passes < 1 or given.max_rows < 0 or min(given.batch) < 1:
        raise BadInputError("--blocks, --passes and --batch are 1 at the least, and --max-rows 0.")
    _require(given.device)
    what = tuning.asked(given.model, traffic=given.traffic, max_rows=given.max_rows, seed=given.seed)
    if what.model.dense is None:
        raise BadInputError(f"{given.model}: has no dense part ([dense]) in its file, and so no inference.")
    if given.device == "cpu":
        _require_memory(given, what)
    at = ""
    try:
        with torch.no_grad():
            if given.plan:
                ek.Plan.load(given.plan)  # in words what is wrong with it
            record = served_record.begun(target, _circumstances(given, target))
            if not (left := served_record.left(record)):  # it was asked for more when it was interrupted
                served_record.write(target, record)
                return
            progress.expect(len(record["asked_batches"]) * (given.blocks + 1))
            progress.advance(len(record["batches"]) * (given.blocks + 1))
            pair = make_pair(what, given.row_type, given.device, given.plan, progress)
            for batch in left:
                at = f" at batch {batch}"
                served_record.add(target, record, _at(pair, what, batch, given, progress))
    except (ek.PlanError, ek.UnsupportedError) as error:
        raise BadInputError(str(error)) from error
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"The GPU has too little memory for {given.model} twice{at}{served_record.kept(target)} Cut its "
            "tables down with --max-rows, or leave such batches out."
        ) from error


def _require(device: str) -> None:
    for package in ("torchrec", "fbgemm_gpu"):
        if importlib.util.find_spec(package) is None:
            raise MachineError(
                f"This needs the Python package {package}, built for this PyTorch; install it."
            )
    if not (ready := ek.check(device)):
        raise MachineError(ready.why_not)


def _require_memory(given: argparse.Namespace, what: tuning.Asked) -> None:
    """On the CPU, where a process that asks for too much is killed without a word."""
    needed, free = needed_bytes(what), free_host_bytes()
    if needed > free:
        raise MachineError(
            f"{given.model} needs {needed / 1e9:.1f} GB of memory here, its tables several times over, and "
            f"{free / 1e9:.1f} GB are free; cut its tables down with --max-rows."
        )


def _at(
    pair: Pair, what: tuning.Asked, batch: int, given: argparse.Namespace, progress: Progress
) -> dict[str, Any]:
    """Everything at one batch size."""
    what = dataclasses.replace(what, work=dataclasses.replace(what.work, batch=batch))
    clock = side_by_side.clock_of(given.device)
    l2_bytes = clock.l2_bytes if given.device == "cuda" else None
    progress.now(f"batch {batch}: requests are made")
    batches = tuning.batches_of(what, given.device, l2_bytes, most=MOST_BATCHES)
    asked = requests(what, batches, given.device)
    progress.now(f"batch {batch}: outputs of both are compared on {len(asked)} requests")
    apart = pair.largest_differences(asked)
    how = side_by_side.How(given.blocks, given.passes, given.seed, batch)
    models = {"torchrec_fbgemm": pair.theirs, "embedding_kernels": pair.ours}
    return {
        "batch": batch,
        "distinct_batches": len(batches),
        "largest_differences": apart,
        "models": side_by_side.measured(models, asked, how, clock, progress),
    }


def _circumstances(given: argparse.Namespace, target: Path) -> dict[str, Any]:
    commit = commit_of(Path(__file__), besides=target)
    packages: Sequence[str] = ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "embedding-kernels")
    clock = side_by_side.clock_of(given.device)
    return {
        "commit": commit.name,
        "dirty": commit.dirty,
        "sources": sources.of_today(),
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "gpu": dataclasses.asdict(clock.gpu),
        "packages": {name: version for name in packages if (version := _version(name))},
        "model": given.model,
        "max_rows": given.max_rows,
        "row_type": given.row_type,
        "traffic": given.traffic,
        "plan": json.loads(given.plan.read_text(encoding="utf-8")) if given.plan else None,
        "seed": given.seed,
        "asked_batches": sorted(set(given.batch)),
        "blocks": given.blocks,
        "passes": given.passes,
    }


def _version(name: str) -> str:
    """Of a distribution; or of the module of that name which is in use, where somebody put it there without
    one."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(name.replace("-", "_")), "__version__", ""))
