"""The GPU's L2 cache between samples and between cells."""

from __future__ import annotations

import torch

from harness.bench import driver

TIMES_L2 = 3
"""A pass over this many times L2 leaves nothing of what was there, whatever the replacement policy."""


class L2:
    """Empties L2, so that what one measurement left there cannot help the next."""

    def __init__(self, size: int, *, persisting: bool) -> None:
        """`size`: bytes of L2. `persisting`: whether lines of it can be pinned at all."""
        self.size = size
        self._persisting = persisting
        self._other_data = torch.zeros(TIMES_L2 * size // 4, device="cuda")
        self._sum = torch.zeros((), device="cuda")

    @staticmethod
    def scratch_bytes(size: int) -> int:
        """GPU memory that an instance takes."""
        return TIMES_L2 * size

    def flush(self) -> None:
        """Queues a read of other data. It only reads: lines it had written would go back to memory later,
        at the cost of whatever is timed then."""
        torch.sum(self._other_data, dim=0, out=self._sum)

    def reset(self) -> None:
        """Makes pinned lines ordinary ones, which a flush can then displace. The GPU must be idle."""
        if self._persisting:
            driver.reset_persisting_l2()

    def isolate(self) -> None:
        """Nothing that ran before is left in L2 when this returns."""
        torch.cuda.synchronize()
        self.reset()
        self.flush()
        torch.cuda.synchronize()
