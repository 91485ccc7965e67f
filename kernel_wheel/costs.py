"""python -m kernel_wheel.costs: what `embedding_kernels` costs the host, on the GPU at hand, as JSON.

`host_us`: by the number of tables, the median time until a call returns, the GPU idle before it;
`load_ms`: what loading the kernels for one type of rows, or for all, takes in a fresh process once
CUDA has been initialised.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

import torch

import embedding_kernels as ek
from harness.errors import MachineError

_CALLS = 1000
_COLD = """
import sys, time, torch, embedding_kernels as ek
torch.zeros(1).cuda()
begin = time.perf_counter()
ek.warm_up("cuda", sys.argv[1:])
print((time.perf_counter() - begin) * 1e3)
"""


def host_us(count: int) -> float:
    """Of a call over so many tables of 8 float32 columns, 64 bags of one row each."""
    module = ek.EmbeddingTables([torch.ones(20, 8)] * count).cuda()
    indices = torch.randint(0, 20, (64 * count,), device="cuda")
    offsets = torch.arange(64 * count + 1, device="cuda")
    took = []
    with torch.inference_mode():
        for _ in range(_CALLS):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            module(indices, offsets)
            took.append(time.perf_counter() - begin)
    return statistics.median(took) * 1e6


def load_ms(row_types: list[str]) -> float:
    """In a process of its own."""
    command = [sys.executable, "-c", _COLD, *row_types]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """The exit code."""
    if not (ready := ek.check()):
        print(ready.why_not, file=sys.stderr)
        return MachineError.exit_code
    types = ["float32", "float16", "bfloat16", "int8", "int4"]
    found = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "host_us": {count: round(host_us(count), 2) for count in (12, 250, 1000)},
        "load_ms": {"float32": round(load_ms(types[:1]), 1), "all": round(load_ms(types), 1)},
    }
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
