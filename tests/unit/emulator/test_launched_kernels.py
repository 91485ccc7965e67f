"""Emulated kernels launched by a process that goes on: what a launch returns, and what ends the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.build import instances
from harness.emulator.compilation import compiled, symbol
from tests.unit.emulator.test_wrong_kernels import LOOKUP, READ, changed, design

pytestmark = pytest.mark.compiler

LAUNCH = """
import ctypes, sys
launched = getattr(ctypes.CDLL(sys.argv[1]), sys.argv[2])
launched.restype = ctypes.c_char_p
weights = (ctypes.c_float * 6)(1, 2, 3, 4, 5, 6)  # three rows of two columns
indices, offsets = (ctypes.c_int64 * 3)(0, 2, 1), (ctypes.c_int64 * 2)(0, 2)
output = (ctypes.c_float * 4)()

def launch(**changes):
    at = {name: ctypes.addressof(globals()[name]) for name in ("weights", "indices", "offsets", "output")}
    fields = {
        "weights": 0, "indices": 0, "offsets": 0, "sample_weights": 0, "output": 0, "offset2bag": 0,
        "bag_size": 0, "n_indices": 3, "n_bags": 2, "dim": 2, "rows": 3, "row_stride": 2, "column_stride": 1,
        "sample_weight_stride": 0, "padding_idx": -1, "mode": 0, **at, **changes,
    }
    values = [ctypes.c_int64(value) for value in fields.values()]
    arguments = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    told = launched((ctypes.c_uint * 2)(2, 1), (ctypes.c_uint * 2)(32, 1), arguments)
    print(told, list(output), flush=True)
    output[:] = [0] * 4

launch()
"""


def launched(folder: Path, code: str, then: str) -> subprocess.CompletedProcess[str]:
    """What became of a process that launches the kernel rightly, and then otherwise."""
    made = design(folder, code)
    (wanted,) = instances.of(made)
    library = compiled(made, [wanted]).library
    command = [sys.executable, "-c", LAUNCH + then, str(library), symbol(made, wanted)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_failed_assertion_is_a_launchs_result_and_the_next_is_right(tmp_path: Path) -> None:
    done = launched(tmp_path, LOOKUP, "indices[1] = 3\nlaunch()\nindices[1] = 2\nlaunch()")
    right, refused, again = done.stdout.splitlines()
    assert right == again == "None [6.0, 8.0, 3.0, 4.0]"
    assert "every index is a row of the table" in refused
    assert (done.returncode, done.stderr) == (0, "")


LINE = LOOKUP.splitlines().index(READ.rstrip()) + 1
MISALIGNED = f"kernel.cuh:{LINE}: 'const float' is accessed at an address that is no multiple of 4"


@pytest.mark.parametrize(
    ("then", "does"),
    [
        ("launch(weights=0)", "reads through a null pointer"),
        ("launch(weights=1 << 40)", "reads memory that is not there, at 0x10000000000"),
        ("launch(output=1 << 40)", "writes memory that is not there, at 0x10000000000"),
        ("launch(weights=ctypes.addressof(weights) + 2)", MISALIGNED),
    ],
)
def test_a_wrong_access_ends_the_process_in_words(tmp_path: Path, then: str, does: str) -> None:
    done = launched(tmp_path, LOOKUP, then)
    assert done.stdout == "None [6.0, 8.0, 3.0, 4.0]\n"
    told = f"An emulated kernel goes wrong: thread (0, 0) of block (0, 0) {does}.\n"
    assert (done.returncode, done.stderr) == (70, told)


def test_a_barrier_that_not_all_reach_ends_the_process_in_words(tmp_path: Path) -> None:
    loop = "  for (lookup_int64 bag = "
    waits = changed(LOOKUP, (loop, f"  if (mode == 7 && threadIdx.x == 0) __syncthreads();\n{loop}"))
    done = launched(tmp_path, waits, "launch(mode=7)")
    told = "some threads wait for ever: not all come to the same barrier or exchange"
    assert (done.returncode, done.stderr) == (70, f"An emulated kernel goes wrong: {told}.\n")


def test_a_fault_of_another_thread_is_not_the_kernels(tmp_path: Path) -> None:
    done = launched(tmp_path, LOOKUP, "ctypes.string_at(8)")
    assert (done.returncode, done.stderr) == (-11, "")
