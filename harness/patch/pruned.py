"""Tables that were pruned: rows left out, and a remapping from the row numbers before to those left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.errors import BadInputError
from harness.patch.rows import aligned

Remapping = Sequence[Tensor | None]
"""Of each table, [rows before]: the row that now has this row's values, or -1 where it was pruned away and
counts as zeros. None, or [0] as PyTorch has it, for a table that was not pruned."""


def with_pruned_rows(
    data: Sequence[Tensor], pairs: Sequence[Tensor], remapping: Remapping
) -> tuple[list[Tensor], list[Tensor]]:
    """Quantised tables that are whole again: rows by their numbers before, those pruned away as zeros.

    `data` and `pairs` are those of `QuantisedTables`. BadInputError where a remapping is not of its table.
    """
    if len(remapping) != len(data):
        raise BadInputError(f"There are {len(data)} tables and index remappings of {len(remapping)}.")
    whole = [_whole(number, *table) for number, table in enumerate(zip(data, pairs, remapping, strict=True))]
    return [table for table, _ in whole], [scale_bias for _, scale_bias in whole]


def _whole(number: int, data: Tensor, pairs: Tensor, mapping: Tensor | None) -> tuple[Tensor, Tensor]:
    if mapping is None or (mapping.numel() == 1 and int(mapping) == 0):
        return data, pairs
    name = f"The index remapping of table {number}"
    if mapping.dim() != 1 or mapping.dtype not in (torch.int32, torch.int64):
        raise BadInputError(f"{name} is {mapping.dtype} {list(mapping.shape)}, not int32 or int64 [rows].")
    mapping = mapping.to(data.device)
    wrong = mapping[(mapping < -1) | (mapping >= len(data))]
    if len(wrong):
        raise BadInputError(f"{name} leads to row {int(wrong[0])}; the table has {len(data)} rows.")
    kept = (mapping >= 0).nonzero().squeeze(1)
    whole = aligned(data.new_zeros(len(mapping), data.size(1)))
    whole_pairs = pairs.new_zeros(len(mapping), 2)
    whole[kept], whole_pairs[kept] = data[mapping[kept]], pairs[mapping[kept]]
    return whole, whole_pairs
