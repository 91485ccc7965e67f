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
from collections.abc import Callable, Mapping
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


def host_us() -> dict[str, dict[str, float]]:
    """What is recorded as `host_us`, `queued_host_us` and `torch_host_us`."""
    add = partial(torch.zeros(64, device="cuda").add_, 1)
    calls = {str(count): lookup(count) for count in _COUNTS} | {"add": add}
    with torch.inference_mode():
        idle, queued = (returned_us(calls, each, torch.cuda.synchronize) for each in (1, _QUEUED))
    least = {"idle": idle.pop("add"), "queued": queued.pop("add")}
    return {"host_us": idle, "queued_host_us": queued, "torch_host_us": least}


def lookup(count: int) -> Callable[[], Any]:
    """A call over so many tables of 8 float32 columns, 64 bags of one row each."""
    module = ek.EmbeddingTables([torch.ones(20, 8)] * count).cuda()
    indices = torch.randint(0, 20, (64 * count,), device="cuda")
    return partial(module, indices, torch.arange(64 * count + 1, device="cuda"))


def returned_us(
    calls: Mapping[str, Callable[[], Any]], in_a_row: int, wait: Callable[[], Any]
) -> dict[str, float]:
    """Median time until each call has returned, of so many in a row; `wait` lets the GPU end what it has.

    Calls take turns, so that a host that slows down meanwhile is slow for all of them. As many come before
    and do not count: host and GPU are slow where they have just begun."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    rounds = _CALLS // in_a_row
    for _ in range(2 * rounds):
        for name, call in calls.items():
            wait()
            begin = time.perf_counter()
            for _ in range(in_a_row):
                call()
            took[name].append((time.perf_counter() - begin) / in_a_row)
    return {name: round(statistics.median(times[rounds:]) * 1e6, 2) for name, times in took.items()}


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
        **host_us(),
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
