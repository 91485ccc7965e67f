"""Runs a design's device code on the CPU: the host's C++ compiler and a stand-in for CUDA's words.

It knows nothing of caches or time; but every index, address, sum and exchange between threads is the real
code's, and a read past the end of a bag can be seen without a GPU.
"""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.build import instances
from harness.build.instances import Instance
from harness.design_source import COMMON_DIR, DESIGNS_DIR
from harness.designs import Design

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


class TableRows(ctypes.Structure):
    """opt_designs/common/tables_args.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "scales")),
        *((name, ctypes.c_int64) for name in ("rows", "row_stride_bytes")),
    )


class TablesArgs(ctypes.Structure):
    """opt_designs/common/tables_args.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("tables", "indices", "offsets", "sample_weights", "output")),
        *((name, ctypes.c_int64) for name in ("n_indices", "n_bags", "n_tables", "dim", "output_stride")),
        ("mode", ctypes.c_int),
    )


def work_together(design: Design) -> bool:
    """Whether its threads exchange anything; shared memory without a barrier is a thread's own."""
    codes = [source.read_text(encoding="utf-8") for source in design.sources]
    return any(word in code for code in codes for word in ("_sync(", "__syncthreads"))


@dataclass
class Emulated:
    """One design's kernels as host functions."""

    library: ctypes.CDLL
    instances: list[Instance]

    def run(
        self,
        instance: Instance,
        args: Any,
        blocks: int | tuple[int, int] = 3,
        threads: tuple[int, int] = (32, 8),
    ) -> str:
        """Runs the whole grid; what a failed assertion said, or an empty string."""
        function = getattr(self.library, f"run_{self.instances.index(instance)}")
        function.restype = ctypes.c_char_p
        x, y = (blocks, 1) if isinstance(blocks, int) else blocks
        return bytes(function(ctypes.byref(args), x, y, *threads)).decode()

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
        if (STAND_IN / source.name).is_file():
            continue
        code = source.read_text(encoding="utf-8")
        for instruction in _PREFETCHES:
            code = code.replace(instruction, "prefetched.push_back(address);")
        assert "asm" not in code, f"{source}: an instruction that is not emulated"
        (folder / source.name).write_text(code)
    wanted = instances.of(design)
    lines = ['#include "cuda_fp16.h"', '#include "kernel.cuh"', 'extern "C" {']
    lines.append("#define FIELD(type, name) , static_cast<type>(args.name)")
    for i, instance in enumerate(wanted):
        args = "PrepareArgs" if instance.function == "prepare" else "TablesArgs"
        kernel = f"&{instance.expression}"
        if instance.function == "lookup":
            args, kernel = "LookupArgs", f"lookup_{i}"
            scalar_t, index_t = instance.expression.partition("<")[2].rstrip(">").split(", ")[:2]
            lines.append(f"static void {kernel}(LookupArgs args) {{")
            lines.append(f"  typedef {scalar_t} scalar_t;\n  typedef {index_t} index_t;")
            lines.append(f"  {instance.expression}(LOOKUP_EXPANDED(0 LOOKUP_FIELDS(FIELD)));\n}}")
        grid = "unsigned blocks_x, unsigned blocks_y, unsigned x, unsigned y"
        lines.append(f"const char* run_{i}(const {args}* args, {grid}) {{")
        lines.append(f"  emulated::threads_work_together = {str(work_together(design)).lower()};")
        lines.append(f"  return emulated::emulate({kernel}, *args, {{blocks_x, blocks_y, 1}}, x, y);\n}}")
    if design.all_tables:
        lines.append("size_t size_of_tables_args() { return sizeof(TablesArgs); }")
        lines.append("size_t size_of_table_rows() { return sizeof(TableRows); }")
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
    command = [
        "g++",
        "-std=c++20",
        "-O1",
        "-fwrapv",
        "-fno-gnu-unique",
        "-Wno-unknown-pragmas",
        "-shared",
        "-fPIC",
    ]
    command += [f"-I{path}" for path in (STAND_IN, folder, COMMON_DIR, DESIGNS_DIR)]
    subprocess.run([*command, "host.cpp", "-o", "host.so"], cwd=folder, check=True)
    return Emulated(ctypes.CDLL(str(folder / "host.so")), wanted)
