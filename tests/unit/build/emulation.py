"""Runs a design's device code on the CPU: the host's C++ compiler and a stand-in for CUDA's words.

Thread after thread, so it knows nothing of warps, caches or time; but every index, address and sum is the
real code's, and a read past the end of a bag can be seen without a GPU.
"""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.build import kernels
from harness.designs import COMMON_DIR, DESIGNS_DIR, Design

STAND_IN = Path(__file__).parents[2] / "data" / "emulated_device"
_PREFETCHES = [
    f'asm volatile("prefetch.global.{where} [%0];" ::"l"(address));' for where in ("L1", "L2::evict_last")
]


class LookupArgs(ctypes.Structure):
    """opt_designs/common/lookup_args.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "indices", "offsets", "sample_weights")),
        *((name, ctypes.c_void_p) for name in ("output", "offset2bag", "bag_size")),
        *((name, ctypes.c_int64) for name in ("n_indices", "n_bags", "dim", "rows", "row_stride")),
        *((name, ctypes.c_int64) for name in ("column_stride", "sample_weight_stride", "padding_idx")),
        ("mode", ctypes.c_int),
    )


class PrepareArgs(ctypes.Structure):
    """opt_designs/common/lookup_args.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "hot_rows")),
        *((name, ctypes.c_int64) for name in ("n_hot_rows", "row_bytes", "row_stride_bytes")),
    )


@dataclass
class Emulated:
    """One design's kernels as host functions."""

    library: ctypes.CDLL
    instances: list[kernels.Instance]

    def run(
        self, instance: kernels.Instance, args: Any, blocks: int = 3, threads: tuple[int, int] = (32, 8)
    ) -> str:
        """Runs the whole grid; what a failed assertion said, or an empty string."""
        function = getattr(self.library, f"run_{self.instances.index(instance)}")
        function.restype = ctypes.c_char_p
        return bytes(function(ctypes.byref(args), blocks, *threads)).decode()

    def prefetched(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """The addresses that were prefetched since this was last asked."""
        self.library.take_prefetched.restype = ctypes.c_size_t
        count = self.library.take_prefetched(None)
        taken = np.empty(count, np.uint64)
        self.library.take_prefetched(taken.ctypes.data_as(ctypes.c_void_p))
        return taken


def build(design: Design, folder: Path) -> Emulated:
    """Compiles the design's own sources for this CPU, with the machine instructions in them replaced."""
    for source in design.sources:
        code = source.read_text(encoding="utf-8")
        for instruction in _PREFETCHES:
            code = code.replace(instruction, "prefetched.push_back(address);")
        assert "asm" not in code, f"{source}: an instruction that is not emulated"
        (folder / source.name).write_text(code)
    instances = kernels.instances(design)
    lines = ['#include "cuda_fp16.h"', '#include "kernel.cuh"', 'extern "C" {']
    lines.append("#define FIELD(type, name) , static_cast<type>(args.name)")
    for i, instance in enumerate(instances):
        args, kernel = "PrepareArgs", f"&{instance.expression}"
        if instance.function == "lookup":
            args, kernel = "LookupArgs", f"lookup_{i}"
            scalar_t, index_t = instance.expression.partition("<")[2].rstrip(">").split(", ")[:2]
            lines.append(f"static void {kernel}(LookupArgs args) {{")
            lines.append(f"  typedef {scalar_t} scalar_t;\n  typedef {index_t} index_t;")
            lines.append(f"  {instance.expression}(LOOKUP_EXPANDED(0 LOOKUP_FIELDS(FIELD)));\n}}")
        lines.append(f"const char* run_{i}(const {args}* args, unsigned blocks, unsigned x, unsigned y) {{")
        lines.append(f"  return emulate({kernel}, *args, blocks, x, y);\n}}")
    lines.append("""
    size_t size_of_lookup_args() { return sizeof(LookupArgs); }
    size_t take_prefetched(size_t* out) {
      const size_t count = prefetched.size();
      if (out) {
        for (size_t i = 0; i < count; i++) out[i] = prefetched[i];
        prefetched.clear();
      }
      return count;
    }}""")
    (folder / "host.cpp").write_text("\n".join(lines), encoding="utf-8")
    command = ["g++", "-std=c++17", "-O1", "-fwrapv", "-Wno-unknown-pragmas", "-shared", "-fPIC"]
    command += [f"-I{path}" for path in (STAND_IN, folder, COMMON_DIR, DESIGNS_DIR)]
    subprocess.run([*command, "host.cpp", "-o", "host.so"], cwd=folder, check=True)
    return Emulated(ctypes.CDLL(str(folder / "host.so")), instances)
