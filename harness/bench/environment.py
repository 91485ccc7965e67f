"""Where a cell was measured: the machine, the software, and what else uses the GPU."""

from __future__ import annotations

import dataclasses
import functools
import platform
from pathlib import Path

import torch

from harness.bench import driver
from harness.bench.nvml import Nvml
from harness.records import Environment
from harness.wall import Provenance

NO_NVML = "unknown (NVML is not available)"


def collect(device: str, nvml: Nvml | None) -> Environment:
    """The environment of a cell that begins now. On "cuda" the GPU must be initialised."""
    found = bare(device)
    if device == "cpu":
        return found
    properties = torch.cuda.get_device_properties(0)
    return dataclasses.replace(
        found,
        gpu=properties.name,
        gpu_uuid=gpu_uuid(),
        driver=nvml.driver() if nvml else NO_NVML,
        multiprocessors=properties.multi_processor_count,
        l2_bytes=properties.L2_cache_size,
        memory_bytes=properties.total_memory,
        persisting_l2_bytes=driver.max_persisting_l2_bytes(),
        mig=nvml.mig() if nvml else False,
        # Our own context is one of them.
        other_processes=max(0, nvml.processes() - 1) if nvml else 0,
        mps=nvml.mps() if nvml else False,
        display=nvml.display() if nvml else False,
    )


def bare(device: str) -> Environment:
    """What is known of the environment before the GPU is."""
    return Environment(
        device="cuda" if device == "cuda" else "cpu",
        gpu="",
        gpu_uuid="",
        driver="",
        multiprocessors=0,
        l2_bytes=0,
        memory_bytes=0,
        persisting_l2_bytes=0,
        mig=False,
        other_processes=0,
        torch=torch.__version__,
        cuda=torch.version.cuda or "",
        python=platform.python_version(),
        cpu=_cpu(),
        **dataclasses.asdict(Provenance.told()),
    )


def free_host_bytes() -> int:
    """Memory of the host that a process can still have."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def gpu_uuid() -> str:
    """The UUID of the GPU that PyTorch uses, as NVIDIA's tools write it."""
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


@functools.cache
def _cpu() -> str:
    """The processor's name; Linux tells it only here, and asks every core for its clock meanwhile."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
