"""A pretended GPU for programs that look up through the patch: host memory, and a driver that launches what
the emulator makes of our kernels.

Each program is a process of its own, for the pretended backend cannot be taken out of a process again.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import torch

from harness.build import instances
from harness.design_source import COMMON_DIR
from harness.emulator import compilation
from harness.patch import build
from tests import compiled_once, synthetic_wheel
from tests.unit.patch.pretended_entry import ours

TESTS = Path(__file__).resolve().parents[2]
PRELUDE = f"""
import ctypes, sys, threading
from pathlib import Path
import torch
sys.path.insert(0, {str(TESTS.parent)!r})
from harness import patch
from tests.gpu.cases import assert_right, random_case
driver = ctypes.CDLL(sys.argv[1] + "/libcuda.so.1")  # found by this name when the patch looks for the driver
driver.fake_events.restype = ctypes.c_char_p
torch.ops.load_library(sys.argv[1] + "/device.so")
fake = torch.ops.fake_cuda
folder = Path(sys.argv[2])

def events():
    return driver.fake_events().decode().splitlines()

def launches():
    return [line.partition(" tables ")[0] for line in events() if " grid " in line]

def others():
    return [line for line in events() if " grid " not in line and not line.startswith("load")]

def run(op, weight, indices, offsets, mode=0, scales=None, last=False, padding=-1, device=0):
    given = [fake.on_gpu(tensor, device) for tensor in (weight, indices, offsets)]
    scales = None if scales is None else fake.on_gpu(scales, device)
    outputs = op(*given, False, mode, False, scales, last, padding)
    return [fake.on_cpu(output) for output in outputs]

forward = torch.ops.aten._embedding_bag.default
forward_only = torch.ops.aten._embedding_bag_forward_only.default
weight, indices, offsets = torch.randn(10, 4), torch.tensor([1, 2, 3]), torch.tensor([0, 2])
"""


def libraries() -> Path:
    """The folder with the pretended driver and backend."""
    headers = Path(torch.__file__).resolve().parent / "include"
    compiler = ["c++", "-std=c++20", "-shared", "-fPIC"]
    sources, contract = TESTS / "data" / "fake_cuda", build.contract_dir()
    includes = ["-isystem", str(headers), "-isystem", str(headers / "torch" / "csrc" / "api" / "include")]
    torch_libraries = [f"-L{headers.parent / 'lib'}", "-lc10", "-ltorch_cpu"]
    named = "-Wl,-soname,libcuda.so.1"
    commands = {
        "libcuda.so.1": [*compiler, str(sources / "driver.cpp"), "-I", str(contract), *includes, named],
        "device.so": [*compiler, str(sources / "device.cpp"), *includes, *torch_libraries],
    }
    reads = [*(sources / name for name in ("driver.cpp", "device.cpp")), *contract.glob("*.h")]
    return compiled_once.libraries("fake_cuda", commands, reads)


@functools.cache
def emulated_kernels() -> str:
    """The libraries with the kernels that tests launch, as the driver wants them named."""
    chosen = [(made, instances.of(made)) for made in map(ours, ("combined", "vectorized", "fused"))]
    chosen.append((ours("slow_tables"), instances.usual(ours("slow_tables"))))
    libraries = [compilation.compiled(*pair).library for pair in chosen]
    return ":".join(map(str, [*libraries, _pytorch_kernel()]))


def _pytorch_kernel() -> Path:
    source = TESTS / "data" / "fake_cuda" / "pytorch_kernel.cpp"
    includes = [f"-I{folder}" for folder in (compilation.STAND_IN, COMMON_DIR)]
    names = [
        f"-D{index.upper()}_SYMBOL={synthetic_wheel.symbol(index_dtype=index)}"
        for index in ("int32", "int64")
    ]
    command = ["c++", *compilation.OPTIONS, "-shared", str(source), *includes, *names]
    reads = [source, *compilation.STAND_IN.iterdir(), *COMMON_DIR.iterdir()]
    return compiled_once.libraries("pytorch_kernel", {"kernels.so": command}, reads) / "kernels.so"


def on_fake_cuda(libraries: Path, design: Path, code: str) -> str:
    """What the code prints; it must not fail, nor say anything on stderr."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + code, str(libraries), str(design)],
        env={**os.environ, "HARNESS_DESIGN": "", "EMULATED_KERNELS": emulated_kernels()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, ""), f"{result.returncode}: {result.stderr}"
    return result.stdout
