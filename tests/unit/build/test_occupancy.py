"""Occupancy against figures of NVIDIA's occupancy calculator and of the published specifications."""

from __future__ import annotations

import pytest

from harness.build.occupancy import LIMITS, occupancy, resident_warps


@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared_bytes", "warps"),
    [
        ("sm_80", 256, 32, 0, 64),  # full
        ("sm_80", 256, 33, 0, 48),  # one register more costs a quarter
        ("sm_80", 256, 42, 0, 40),  # the paper's cap
        ("sm_80", 256, 74, 0, 24),  # PyTorch 2.1's loop
        ("sm_80", 256, 88, 0, 16),
        ("sm_80", 256, 255, 0, 8),
        ("sm_80", 1024, 65, 0, 0),  # more registers than the multiprocessor has for one block
        ("sm_80", 32, 16, 0, 32),  # the number of blocks
        ("sm_80", 256, 32, 48 * 1024, 24),  # shared memory: 3 blocks of 49 KiB in 164 KiB
        ("sm_86", 32, 16, 0, 16),
        ("sm_86", 256, 40, 0, 48),
        ("sm_86", 256, 42, 0, 40),
        ("sm_86", 1024, 32, 0, 32),  # two blocks of 32 warps do not fit into 48
        ("sm_89", 32, 16, 0, 24),
        ("sm_90", 256, 40, 0, 48),
        ("sm_90", 256, 32, 100 * 1024, 16),  # two blocks of 101 KiB in 228 KiB
        ("sm_100", 256, 32, 0, 64),
        ("sm_120", 32, 16, 0, 24),
        ("sm_120", 256, 42, 0, 40),
    ],
)
def test_resident_warps(arch: str, threads: int, registers: int, shared_bytes: int, warps: int) -> None:
    assert resident_warps(arch, threads=threads, registers=registers, shared_bytes=shared_bytes) == warps


def test_occupancy_is_the_share_of_the_most() -> None:
    assert occupancy("sm_80", threads=256, registers=74, shared_bytes=0) == 0.375
    assert occupancy("sm_80", threads=256, registers=42, shared_bytes=0) == 0.625
    assert occupancy("sm_86", threads=256, registers=74, shared_bytes=0) == 0.5


@pytest.mark.parametrize("arch", LIMITS)
def test_never_above_one(arch: str) -> None:
    assert all(
        0 < occupancy(arch, threads=threads, registers=registers, shared_bytes=0) <= 1
        for threads in (32, 96, 256)
        for registers in (0, 1, 24, 64, 168)
    )
