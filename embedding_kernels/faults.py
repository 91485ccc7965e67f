"""What was wrong with lookups that went on in spite of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class BadLookups:
    """Since the model was made, or they were last forgotten."""

    module: str
    """The path of the module within its model."""
    rows: int
    """Row numbers outside their table. Each counted as a row of zeros."""
    offsets: int
    """Bags whose offsets descend or leave the indices. Each was taken for empty."""
    table: str
    """The first of either was in this table (of TorchRec's collections: of this key of the features),"""
    bag: int
    """in this bag,"""
    index: int
    """and was this row number, or of offsets this offset."""


def read(faults: Tensor) -> tuple[int, int, int, int, int]:
    """Rows, offsets, table, bag, index. Waits for no lookup: on a GPU it is read beside what runs there."""
    if faults.is_cuda:
        with torch.cuda.device(faults.device):
            beside = torch.cuda.Stream()
            with torch.cuda.stream(beside):
                words = faults.to("cpu", non_blocking=True)
            beside.synchronize()
    else:
        words = faults
    rows, offsets, _, table = words[:2].clone().view(torch.int32).tolist()
    return rows & 0xFFFFFFFF, offsets & 0xFFFFFFFF, table, *words[2:].tolist()


def bad_lookups(model: nn.Module, *, forget: bool = False) -> list[BadLookups]:
    """What was wrong with the lookups of every `EmbeddingTables` in a model; those that met nothing are
    left out.

    Stops no stream. `forget`: starts anew, behind what is queued on the current stream.
    """
    from embedding_kernels.tables import EmbeddingTables

    found = []
    for path, module in model.named_modules():
        if isinstance(module, EmbeddingTables) and (bad := module.bad_lookups(forget=forget)):
            found.append(replace(bad, module=path))
    return found
