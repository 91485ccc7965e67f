"""Tensors in memory that is promised and not there until it is touched."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import torch

_NORESERVE = 0x4000  # of Linux; Python's mmap names it from 3.13 on


def vast(dtype: torch.dtype, shape: Sequence[int], strides: Sequence[int]) -> torch.Tensor:
    """Zeros."""
    reach = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + 1
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    memory = mmap.mmap(-1, reach * dtype.itemsize, flags=flags)
    return torch.frombuffer(memory, dtype=dtype).as_strided(shape, strides)
