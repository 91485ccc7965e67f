"""Theoretical occupancy: how many warps of a kernel fit on a multiprocessor.

The limits are those of the table "Technical Specifications per Compute Capability" in NVIDIA's CUDA C++
Programming Guide.
"""

from __future__ import annotations

from dataclasses import dataclass

_WARP = 32
_REGISTERS = 65536
_REGISTER_UNIT = 256  # a warp's registers are allotted in this many at a time
_PARTITIONS = 4  # each with a quarter of the registers; a warp lives in one of them
_SHARED_UNIT = 128
_SHARED_PER_BLOCK = 1024  # what the system takes of shared memory for every block


@dataclass(frozen=True)
class Limits:
    """What one multiprocessor holds."""

    warps: int
    blocks: int
    shared_bytes: int


LIMITS = {
    "sm_80": Limits(warps=64, blocks=32, shared_bytes=164 * 1024),
    "sm_86": Limits(warps=48, blocks=16, shared_bytes=100 * 1024),
    "sm_89": Limits(warps=48, blocks=24, shared_bytes=100 * 1024),
    "sm_90": Limits(warps=64, blocks=32, shared_bytes=228 * 1024),
    "sm_100": Limits(warps=64, blocks=32, shared_bytes=228 * 1024),
    "sm_120": Limits(warps=48, blocks=24, shared_bytes=100 * 1024),
}


def resident_warps(arch: str, *, threads: int, registers: int, shared_bytes: int) -> int:
    """Warps that one multiprocessor of `arch` (a key of LIMITS) holds of a kernel.

    `threads` per block, `registers` per thread, `shared_bytes` per block. 0 where not even one block fits.
    """
    limits = LIMITS[arch]
    warps = -(-threads // _WARP)
    registers_of_warp = _rounded_up(max(registers, 1) * _WARP, _REGISTER_UNIT)
    by_registers = _REGISTERS // _PARTITIONS // registers_of_warp * _PARTITIONS // warps
    shared = _rounded_up(shared_bytes + _SHARED_PER_BLOCK, _SHARED_UNIT)
    return warps * min(limits.warps // warps, limits.blocks, by_registers, limits.shared_bytes // shared)


def occupancy(arch: str, *, threads: int, registers: int, shared_bytes: int) -> float:
    """Resident warps ÷ the most that a multiprocessor of `arch` holds."""
    warps = resident_warps(arch, threads=threads, registers=registers, shared_bytes=shared_bytes)
    return warps / LIMITS[arch].warps


def _rounded_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
