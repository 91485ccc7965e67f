"""What was wrong with lookups that went on in spite of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

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
    """The first of either was in this table. Of TorchRec's collections it is this key of the features; where
    calls had them in different orders, those that it may be, with " or " between."""
    bag: int
    """In this bag,"""
    index: int
    """and was this row number, or of offsets this offset. Tables that are called one by one count for
    themselves: then this is the first of those of all together, or else of the first table that met any."""


@dataclass(frozen=True)
class Told:
    """A LookupFaults (opt_designs/common/tables_args.h)."""

    rows: int
    offsets: int
    table: int
    bag: int
    index: int

    @property
    def any(self) -> bool:
        """Whether something was wrong."""
        return bool(self.rows or self.offsets)


def read(*faults: Tensor) -> list[Told]:
    """What is counted in [n, words], one after the other. Waits for no lookup: on a GPU it is read beside
    what runs there."""
    if faults[0].is_cuda:
        with torch.cuda.device(faults[0].device):
            beside = torch.cuda.Stream()
            with torch.cuda.stream(beside):
                copies = [each.to("cpu", non_blocking=True) for each in faults]
            beside.synchronize()
    else:
        copies = list(faults)
    words = torch.cat(copies)
    counts, places = words.view(torch.int32).tolist(), words.tolist()
    return [
        Told(rows & 0xFFFFFFFF, offsets & 0xFFFFFFFF, table, bag, index)
        for (rows, offsets, _, table, *_), (_, _, bag, index) in zip(counts, places, strict=True)
    ]


def bad_lookups(model: nn.Module, *, forget: bool = False) -> list[BadLookups]:
    """What was wrong with the lookups of every `EmbeddingTables` in a model; those that met nothing are
    left out.

    Stops no stream. `forget`: starts anew, behind what is queued on the current stream.
    """
    from embedding_kernels.tables import EmbeddingTables

    if not isinstance(cast(object, model), nn.Module):
        raise TypeError(f"bad_lookups takes a model, not a {type(model).__name__}.")
    found = []
    for path, module in model.named_modules():
        if isinstance(module, EmbeddingTables) and (bad := module.bad_lookups(forget=forget)):
            found.append(replace(bad, module=path))
    return found
