"""The GPU of this process: what is opened, measured and set once, and shared by its cells."""

from __future__ import annotations

import torch

from harness.bench import ceilings, driver, environment, log
from harness.bench.failures import CellError, require_gpu
from harness.bench.l2 import L2
from harness.bench.nvml import Nvml

MARGIN_BYTES = 256 << 20
"""Left over for what the driver and PyTorch's allocator take beyond what is asked for."""


class Gpu:
    """One GPU, with its ceilings measured unless told otherwise."""

    def __init__(self, *, ceilings_matter: bool = True) -> None:
        """CellError where there is no usable GPU, or not the memory to measure its ceilings."""
        require_gpu()
        properties = torch.cuda.get_device_properties(0)
        self.nvml = Nvml.open(environment.gpu_uuid())
        if self.nvml is None:
            log.say("NVML is not available: clocks, heat and other users of the GPU go unseen")
        l2_bytes = properties.L2_cache_size
        needed = ceilings.scratch_bytes() + L2.scratch_bytes(l2_bytes)
        if needed > (free := self.free_bytes()):
            raise CellError(
                f"Measuring the GPU's ceilings needs {needed / 1e9:.2f} GB of its memory, and"
                f" {free / 1e9:.2f} GB are free: end what else runs on it.",
                "oom",
            )
        self._persisting = driver.max_persisting_l2_bytes() > 0
        self._default_set_aside = driver.l2_set_aside() if self._persisting else 0
        self.l2 = L2(l2_bytes, persisting=self._persisting)
        self.ceilings = {"event_overhead_us": 0.0}
        if not ceilings_matter:
            return
        self.ceilings = ceilings.measure(l2_bytes, properties.multi_processor_count)
        log.say("ceilings: " + ", ".join(f"{name} {value:.4g}" for name, value in self.ceilings.items()))

    @staticmethod
    def free_bytes() -> int:
        """GPU memory that can be had now, less a margin."""
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0] - MARGIN_BYTES

    def set_aside_l2(self, megabytes: int | None) -> int:
        """Sets L2 aside for persisting lines; None: as when the process began. Returns the bytes granted."""
        if not self._persisting:
            if megabytes:
                raise CellError("tunables.set_aside_mb: this GPU cannot set L2 aside (none under MIG).")
            return 0
        wanted = self._default_set_aside if megabytes is None else megabytes * 1_000_000
        if driver.l2_set_aside() != wanted:
            driver.set_aside_l2(wanted)
        return driver.l2_set_aside()
