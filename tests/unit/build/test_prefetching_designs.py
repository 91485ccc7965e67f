"""Where the prefetching designs keep what they fetch ahead, seen in their machine code. Needs no GPU."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from harness.build import kernels
from harness.patch.manifest import Entry, Manifest

pytestmark = pytest.mark.nvrtc

Compile = Callable[[str, str], tuple[Path, Manifest]]
VERSIONS = list(kernels.toolchains())
THREADS = 256
INSTRUCTIONS = {0x981: "global load", 0x983: "local load", 0x387: "local store", 0x984: "shared load"}
INSTRUCTIONS |= {0x388: "shared store", 0x988: "shared store", 0x987: "local store", 0x98F: "cache control"}


def lookup(done: Manifest, arch: str, **tunables: int) -> Entry:
    """The instance with float32 and int64."""
    (found,) = (
        e
        for e in done.entries
        if (e.function, e.arch, e.dtype, e.index_dtype) == ("lookup", arch, "float32", "int64")
        and e.tunables == tunables
    )
    return found


def instructions(folder: Path, entry: Entry) -> Counter[str]:
    """How many of each kind are in the kernel's code: 16 bytes each, the kind in the first 12 bits."""
    with (folder / entry.cubin).open("rb") as file:
        section = ELFFile(file).get_section_by_name(f".text.{entry.symbol}")
        assert section is not None
        code = section.data()
    kinds = (struct.unpack_from("<H", code, at)[0] & 0xFFF for at in range(0, len(code), 16))
    return Counter(INSTRUCTIONS[kind] for kind in kinds if kind in INSTRUCTIONS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["smpf", "lmpf", "l1dpf"])
def test_as_many_warps_as_under_the_paper_s_cap_or_no_cap(compiled: Compile, name: str, version: str) -> None:
    done = compiled(name, version)[1]
    for entry in (e for e in done.entries if e.arch in ("sm_80", "sm_90") and e.function == "lookup"):
        if entry.tunables["resident"] == 5:
            assert entry.registers <= 48
            # 40 warps of 64, as 42 registers let in, or more where the compiler needs fewer.
            assert entry.occupancy >= 0.625
        else:
            assert (entry.tunables["resident"], entry.spill_bytes) == (1, 0)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("distance", [2, 8])
def test_lmpf_fetches_into_local_memory(compiled: Compile, version: str, arch: str, distance: int) -> None:
    folder, done = compiled("lmpf", version)
    # Without a cap nothing is spilled, so what is in local memory is the buffer.
    entry = lookup(done, arch, distance=distance, resident=1)
    assert entry.spill_bytes == 0
    found = instructions(folder, entry)
    assert found["local store"] >= 1
    assert found["local load"] >= 1
    assert found["shared store"] == found["shared load"] == 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("distance", [2, 10])
def test_smpf_fetches_into_shared_memory(compiled: Compile, version: str, arch: str, distance: int) -> None:
    folder, done = compiled("smpf", version)
    entry = lookup(done, arch, distance=distance, resident=1)
    assert entry.shared_bytes == distance * THREADS * 4
    found = instructions(folder, entry)
    assert found["shared store"] >= distance
    assert found["shared load"] >= 1
    assert found["local store"] == found["local load"] == 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_l1dpf_prefetches_by_instruction_and_holds_nothing(
    compiled: Compile, version: str, arch: str
) -> None:
    folder, done = compiled("l1dpf", version)
    near, far = (lookup(done, arch, distance=distance, resident=1) for distance in (2, 10))
    for entry, distance in ((near, 2), (far, 10)):
        assert instructions(folder, entry)["cache control"] >= distance
    assert near.registers == far.registers
