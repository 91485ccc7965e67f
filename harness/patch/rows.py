"""How quantised rows lie in memory: q packed into bytes, each row beginning at a multiple of 16 bytes."""

from __future__ import annotations

import torch
from torch import Tensor

_ALIGNMENT = 16


def row_bytes(dtype: str, dim: int) -> int:
    """Bytes of one row's values, "int8" or "int4"."""
    return dim if dtype == "int8" else (dim + 1) // 2


def packed(q: Tensor, dtype: str) -> Tensor:
    """q uint8 [rows, dim] as it is stored: [rows, bytes]."""
    if dtype == "int8":
        return q
    if q.size(1) % 2:
        q = torch.nn.functional.pad(q, (0, 1))
    return q[:, 0::2] | (q[:, 1::2] << 4)


def unpacked(data: Tensor, dtype: str, dim: int) -> Tensor:
    """What `packed` was given."""
    if dtype == "int8":
        return data
    return torch.stack([data & 15, data >> 4], dim=2).flatten(1)[:, :dim]


def aligned(table: Tensor) -> Tensor:
    """The table [rows, bytes] itself, or a copy in which every row begins at a multiple of 16 bytes."""
    if table.stride(0) % _ALIGNMENT == 0 and table.stride(1) == 1 and table.data_ptr() % _ALIGNMENT == 0:
        return table
    whole = table.new_zeros(len(table), _whole(table))
    whole[:, : table.size(1)] = table
    return whole[:, : table.size(1)]


def padded(table: Tensor) -> Tensor:
    """The rows of a table with what is left of their last 16 bytes, which a copy of values would leave out.

    The table itself, or a copy where rows begin elsewhere or the last has nothing behind it.
    """
    table = aligned(table)
    shape = (len(table), _whole(table))
    stride = table.stride(0)
    reach = table.untyped_storage().nbytes() - table.storage_offset()
    if stride < shape[1] or (len(table) - 1) * stride + shape[1] > reach:
        whole = table.new_zeros(shape)
        whole[:, : table.size(1)] = table
        return whole
    return table.as_strided(shape, (stride, 1))


def _whole(table: Tensor) -> int:
    return -(-table.size(1) // _ALIGNMENT) * _ALIGNMENT
