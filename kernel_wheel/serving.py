"""python -m kernel_wheel.serving FOLDER: TorchRec with FBGEMM's tables beside the same after `optimize`.

Whole inferences of a model of experiments/models that has a dense part, by default dlrm_dcnv2 with tables cut
down to 3 million rows: latencies and samples per second at several batch sizes, eager, the host's part
included, and as CUDA graphs. Outputs are held against each other first. Writes FOLDER/serving.json. Needs
TorchRec, FBGEMM and a GPU. --device cpu shows on any machine that all parts are there; small tables and
batches (--max-rows 1000 --batch 8 --blocks 2) do for that.
"""

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
from harness import designs, files, tuning
from harness.bench.environment import free_host_bytes
from harness.errors import BadInputError, HarnessError, MachineError
from harness.run.checkout import commit_of
from kernel_wheel import side_by_side
from kernel_wheel.torchrec_model import ROW_TYPES, Pair, make_pair, needed_bytes, requests

SCHEMA_VERSION = 1
BATCHES = (1, 8, 64, 512, 2048, 4096, 16384)
MOST_BATCHES = 64
"""Distinct ones that take turns: each has a CUDA graph of the whole model."""


def main() -> int:
    """The exit code."""
    given = _arguments()
    try:
        print(compared(given))
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _arguments() -> argparse.Namespace:
    head, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m kernel_wheel.serving", description=head.partition(": ")[2], epilog=rest
    )
    parser.add_argument("folder", type=Path, help="the record is written here, as serving.json")
    parser.add_argument("--model", default="dlrm_dcnv2", help="name or file (default: dlrm_dcnv2)")
    parser.add_argument("--max-rows", type=int, default=3_000_000, help="cut larger tables down; 0: none")
    parser.add_argument("--row-type", choices=ROW_TYPES, default="float32", help="(default: float32)")
    parser.add_argument("--traffic", help="a dataset or trace (default: as `harness tune`)")
    parser.add_argument("--batch", type=int, nargs="+", default=list(BATCHES), help="samples in a batch")
    parser.add_argument(
        "--blocks", type=int, default=20, help="of passes, in an order drawn anew (default: 20)"
    )
    parser.add_argument("--passes", type=int, default=25, help="of each model in each block (default: 25)")
    parser.add_argument("--plan", type=Path, help="plan.json that optimize is given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    return parser.parse_args()


def compared(given: argparse.Namespace) -> Path:
    """Measures and writes the record, which is returned. HarnessError in a sentence where that cannot be."""
    target = Path(given.folder) / "serving.json"
    if target.exists():
        raise BadInputError(f"{target}: is there already; name another folder.")
    if given.blocks < 1 or given.passes < 1 or given.max_rows < 0 or min(given.batch) < 1:
        raise BadInputError("--blocks, --passes and --batch are 1 at the least, and --max-rows 0.")
    _require(given.device)
    what = tuning.asked(given.model, traffic=given.traffic, max_rows=given.max_rows, seed=given.seed)
    if what.model.dense is None:
        raise BadInputError(f"{given.model}: has no dense part ([dense]) in its file, and so no inference.")
    if given.device == "cpu":
        _require_memory(given, what)
    try:
        with torch.no_grad():
            pair = make_pair(what, given.row_type, given.device, given.plan)
            found = [_at(pair, what, batch, given) for batch in given.batch]
    except (ek.PlanError, ek.UnsupportedError) as error:
        raise BadInputError(str(error)) from error
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"The GPU has too little memory for {given.model} twice; cut its tables down with --max-rows."
        ) from error
    record = {"schema_version": SCHEMA_VERSION, **_circumstances(given), "batches": found}
    given.folder.mkdir(parents=True, exist_ok=True)
    files.write_whole(target, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return target


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


def _at(pair: Pair, what: tuning.Asked, batch: int, given: argparse.Namespace) -> dict[str, Any]:
    """Everything at one batch size."""
    what = dataclasses.replace(what, work=dataclasses.replace(what.work, batch=batch))
    clock = side_by_side.clock_of(given.device)
    l2_bytes = clock.l2_bytes if given.device == "cuda" else None
    batches = tuning.batches_of(what, given.device, l2_bytes)[:MOST_BATCHES]
    asked = requests(what, batches, given.device)
    apart = pair.largest_differences(asked)
    how = side_by_side.How(given.blocks, given.passes, given.seed, batch)
    models = {"torchrec_fbgemm": pair.theirs, "embedding_kernels": pair.ours}
    return {
        "batch": batch,
        "distinct_batches": len(batches),
        "largest_differences": apart,
        "models": side_by_side.measured(models, asked, how, clock),
    }


def _circumstances(given: argparse.Namespace) -> dict[str, Any]:
    commit = commit_of(Path(__file__))
    packages: Sequence[str] = ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "embedding-kernels")
    clock = side_by_side.clock_of(given.device)
    return {
        "commit": commit.name,
        "dirty": commit.dirty,
        "sources": {name: designs.source_hashes()[name] for name in ("fused", "vectorized")},
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "gpu": dataclasses.asdict(clock.gpu),
        "packages": {name: version for name in packages if (version := _version(name))},
        "model": given.model,
        "max_rows": given.max_rows,
        "row_type": given.row_type,
        "traffic": given.traffic,
        "plan": json.loads(given.plan.read_text(encoding="utf-8")) if given.plan else None,
        "seed": given.seed,
        "blocks": given.blocks,
        "passes": given.passes,
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
