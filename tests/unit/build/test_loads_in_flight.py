"""How many loads of rows a lane of `fused` has on their way before it waits for one, seen in machine code.

The compiler may well begin to widen the first row before it asks for the others. Needs no GPU."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from harness.patch.manifest import Entry, Manifest

pytestmark = pytest.mark.nvrtc

GLOBAL_LOAD, BY_REGISTERS, NOTHING = 0x981, 1, 255
REGISTERS_OF = {5: 2, 6: 4}
"""Of a load, by the field that tells its size: more than one."""
LAYOUTS = 2 * 2
"""Rows are loaded in four places: wide and narrow, as many as go together and what is left."""


def on_their_way(folder: Path, entry: Entry) -> Iterator[int]:
    """Loads that have been asked for whenever one is waited for, in the order of instructions."""
    with (folder / entry.cubin).open("rb") as file:
        section = ELFFile(file).get_section_by_name(f".text.{entry.symbol}")
        assert section is not None
        code = section.data()
    waiting: set[int] = set()
    loads = 0
    for low, high in struct.iter_unpack("<QQ", code):
        reads = {low >> 24 & 255, high & 255}
        if low >> 9 & 7 == BY_REGISTERS:
            reads.add(low >> 32 & 255)
        if waiting & (reads - {NOTHING}):
            yield loads
            waiting.clear()
            loads = 0
        if low & 0xFFF == GLOBAL_LOAD:
            first = low >> 16 & 255
            waiting |= set(range(first, first + REGISTERS_OF.get(high >> 9 & 7, 1)))
            loads += 1


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("dtype", "loads"),
    [("float32", 5), ("float16", 4), ("bfloat16", 4), ("int8", 8), ("int4", 8)],  # a row's scale is one, too
)
def test_rows_of_models_are_asked_for_before_one_is_waited_for(
    compiled: Callable[[str, str], tuple[Path, Manifest]], dtype: str, loads: int, arch: str
) -> None:
    folder, done = compiled("fused", "13.0")
    kernels = [e for e in done.entries if (e.function, e.dtype, e.arch) == ("lookup_stream", dtype, arch)]
    assert kernels
    for kernel in kernels:
        together = [number for number in on_their_way(folder, kernel) if number >= loads]
        assert len(together) >= LAYOUTS, (kernel.output_dtype, kernel.index_dtype)
        assert kernel.spill_bytes == 0


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_wide_rows_are_asked_for_before_one_is_waited_for(
    compiled: Callable[[str, str], tuple[Path, Manifest]], arch: str
) -> None:
    """Two loads of each of four rows, where a lane has columns in all halves and where not."""
    folder, done = compiled("fused", "13.0")
    kernels = [e for e in done.entries if (e.function, e.arch) == ("lookup_wide", arch)]
    assert {kernel.index_dtype for kernel in kernels} == {"int32", "int64"}
    for kernel in kernels:
        assert list(on_their_way(folder, kernel)).count(8) >= 2, (kernel.output_dtype, kernel.index_dtype)
        assert kernel.spill_bytes == 0
        assert kernel.occupancy >= 0.5
