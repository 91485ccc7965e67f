"""python -m kernel_wheel.costs [FOLDER] [--wheel FILE]: what `embedding_kernels` costs on the GPU at hand.

`host_us`: by the number of tables, the median time until a call returns, the GPU idle before it;
`queued_host_us`: the same of a call behind others, as within a model, the GPU's queue never full;
`torch_host_us`: both of adding a number to 64 others in place, of PyTorch's own operations the least, which
tells a slow host from a slow call;
`load_ms`: what loading the kernels for one type of rows, or for all, takes in a fresh process once
CUDA has been initialised; `counting_us`: a lookup in the paper's tables, rows drawn uniformly, as a CUDA
graph, where bad indices are counted and where they are asserted against; `wheel_bytes`: the size of the wheel
that was named. Printed as JSON, and with a FOLDER written there too, as costs.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import embedding_kernels as ek
from embedding_kernels._clock import Clock, GpuClock, Passes
from harness import files
from harness.errors import BadInputError, HarnessError, MachineError
from harness.run.checkout import commit_of
from kernel_wheel import sources

SCHEMA_VERSION = 2
_CALLS = 1000
_QUEUED = 50
"""Calls in a row. The GPU's queue has room for some 1,000 launches; one that finds it full waits."""
_COUNTS = 12, 250, 1000
_BLOCKS, _BATCHES = 20, 4
_TABLES, _ROWS, _DIM, _BAGS, _POOLING = 12, 500_000, 128, 2048, 150
"""The paper's workload."""
_COLD = """
import sys, time, torch, embedding_kernels as ek
torch.zeros(1).cuda()
begin = time.perf_counter()
ek.warm_up("cuda", sys.argv[1:])
print((time.perf_counter() - begin) * 1e3)
"""


def host_us(count: int, calls: int) -> float:
    """Of a call, of so many in a row, over so many tables of 8 float32 columns, 64 bags of one row each."""
    module = ek.EmbeddingTables([torch.ones(20, 8)] * count).cuda()
    indices = torch.randint(0, 20, (64 * count,), device="cuda")
    offsets = torch.arange(64 * count + 1, device="cuda")
    with torch.inference_mode():
        return returned_us(partial(module, indices, offsets), calls, torch.cuda.synchronize)


def torch_host_us() -> dict[str, float]:
    """Of PyTorch's own least operation, behind none (`idle`) and behind others (`queued`)."""
    numbers = torch.zeros(64, device="cuda")
    with torch.inference_mode():
        call = partial(numbers.add_, 1)
        return {
            name: round(returned_us(call, calls, torch.cuda.synchronize), 2)
            for name, calls in {"idle": 1, "queued": _QUEUED}.items()
        }


def returned_us(call: Callable[[], Any], calls: int, wait: Callable[[], Any]) -> float:
    """Median time until a call has returned, of so many in a row; `wait` lets the GPU end what it has.

    As many come before and do not count: host and GPU are slow where they have just begun."""
    took, rounds = [], _CALLS // calls
    for _ in range(2 * rounds):
        wait()
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        took.append((time.perf_counter() - begin) / calls)
    return statistics.median(took[rounds:]) * 1e6


def load_ms(row_types: list[str]) -> float:
    """In a process of its own."""
    command = [sys.executable, "-c", _COLD, *row_types]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def counting_us(module: ek.EmbeddingTables, asked: list[tuple[Any, Any]], clock: Clock) -> dict[str, float]:
    """Median of a lookup where bad indices are counted and where asserted against; blocks take turns."""
    captured = {}
    with torch.no_grad():
        for how in ("count", "assert"):
            module.on_bad_index = how  # the graph keeps what was asked when it was captured
            captured[how] = clock.capture(Passes(how, [partial(_begin, module, each) for each in asked]))
    took: dict[str, list[float]] = {how: [] for how in captured}
    turns = list(range(len(asked))) * 4
    for block in range(-1, _BLOCKS):  # what a first block costs besides is in none of the times
        for how in sorted(captured, reverse=bool(block % 2)):
            times = clock.graph_us(captured[how], turns)
            if block >= 0:
                took[how] += times
    return {how: round(statistics.median(times), 2) for how, times in took.items()}


def _begin(module: ek.EmbeddingTables, asked: tuple[Any, Any]) -> Callable[[], Any]:
    return partial(module, *asked)


def _counting() -> dict[str, float]:
    module = ek.EmbeddingTables([torch.rand(_ROWS, _DIM) for _ in range(_TABLES)]).cuda()
    bags = _TABLES * _BAGS
    offsets = torch.arange(bags + 1, device="cuda") * _POOLING
    drawn = [torch.randint(0, _ROWS, (bags * _POOLING,), device="cuda") for _ in range(_BATCHES)]
    return counting_us(module, [(indices, offsets) for indices in drawn], GpuClock(torch.device("cuda", 0)))


def main() -> int:
    """The exit code."""
    head, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m kernel_wheel.costs", description=head.partition(": ")[2], epilog=rest
    )
    parser.add_argument("folder", type=Path, nargs="?", help="costs.json is written here, too")
    parser.add_argument("--wheel", type=Path, help="the wheel whose size is told")
    given = parser.parse_args()
    try:
        measured(given.folder, given.wheel)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def measured(folder: Path | None, wheel: Path | None) -> None:
    """Measures, prints and writes. HarnessError in a sentence where that cannot be."""
    target = folder / "costs.json" if folder else None
    if target and target.exists():
        raise BadInputError(f"{target}: is there already; name another folder.")
    if wheel and not wheel.is_file():
        raise BadInputError(f"--wheel {wheel}: is no file; `make wheel` builds one.")
    if not (ready := ek.check()):
        raise MachineError(ready.why_not)
    types = ["float32", "float16", "bfloat16", "int8", "int4"]
    commit, gpu = commit_of(Path(__file__)), GpuClock(torch.device("cuda", 0)).gpu
    found = {
        "schema_version": SCHEMA_VERSION,
        "commit": commit.name,
        "dirty": commit.dirty,
        "sources": sources.of_today(),
        "gpu": gpu.name,
        "driver": gpu.driver,
        "torch": torch.__version__,
        "host_us": {count: round(host_us(count, 1), 2) for count in _COUNTS},
        "queued_host_us": {count: round(host_us(count, _QUEUED), 2) for count in _COUNTS},
        "torch_host_us": torch_host_us(),
        "load_ms": {"float32": round(load_ms(types[:1]), 1), "all": round(load_ms(types), 1)},
        "counting_us": _counting(),
        "wheel_bytes": wheel.stat().st_size if wheel else None,
    }
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(target, text)


if __name__ == "__main__":
    sys.exit(main())
