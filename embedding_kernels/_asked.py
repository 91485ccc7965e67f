"""What one call looks up, in whatever form the model asks for it, and its sums in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embedding_kernels._layout import Slot
from embedding_kernels._one_table import _bags
from embedding_kernels._stand_ins import OneTable
from embedding_kernels.quantised import QuantisedTable
from embedding_kernels.tables import EmbeddingTables

_AT_ONCE = 1 << 24
"""Values in float64 that sums are made of at a time."""


@dataclass(frozen=True)
class Call:
    """A call that the model made."""

    table: int | None
    """Of a list or dict the table's number; None: all of the module."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """The lookups of a call."""

    slots: Sequence[Slot]
    """In the order of their columns."""
    indices: Tensor
    offsets: Tensor
    """[features * bags + 1]."""
    weights: Tensor | None
    features: int

    @property
    def bags(self) -> int:
        """Of each table."""
        return (self.offsets.numel() - 1) // self.features

    @property
    def lookups(self) -> int:
        """Rows of all slots."""
        return sum(int(ends[-1] - ends[0]) for ends in map(self.ends, self.slots))

    def ends(self, slot: Slot) -> Tensor:
        """Where the slot's bags begin among the indices, and where the last one ends: int64 [bags + 1]."""
        first = slot.feature * self.bags
        return self.offsets[first : first + self.bags + 1].long()


def anew(value: Any) -> Any:
    """An argument as a request brings it: a KeyedJaggedTensor keeps what it has worked out once."""
    if type(value).__name__ != "KeyedJaggedTensor":
        return value
    kind: Any = type(value)
    return kind(
        keys=value.keys(),
        values=value.values(),
        weights=value.weights_or_none(),
        lengths=value.lengths_or_none(),
        offsets=value.offsets_or_none(),
    )


def asked(tables: Any, call: Call) -> Asked:
    """What a call asks of `EmbeddingTables`.

    ValueError, in words, where a row number is none of its table's or offsets are wrong.
    """
    args, kwargs = list(call.args), dict(call.kwargs)
    if call.table is not None or isinstance(tables, OneTable):
        number = call.table or 0
        names = ("input", "offsets", "per_sample_weights")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        rows = given["input"]
        indices, offsets = _bags(rows, given.get("offsets"), tables._include_last_offset[number])
        weights = given.get("per_sample_weights")
        slots = [Slot(number, 0, 0, tables.modes[number])]
        found = Asked(slots, indices, offsets, None if weights is None else weights.reshape(-1), 1)
    elif hasattr(tables, "_slots_of"):  # of TorchRec
        features = anew(*args, *kwargs.values())
        keys = tuple(features.keys())
        weights = features.weights() if tables.is_weighted() else None
        found = Asked(tables._slots_of(keys), features.values(), features.offsets(), weights, len(keys))
    else:
        names = ("indices", "offsets", "per_sample_weights")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        slots = tables._slots()
        features = 1 + max(slot.feature for slot in slots)
        weights = given.get("per_sample_weights")
        found = Asked(slots, given["indices"], given["offsets"], weights, features)
    _require_right(tables, found)
    return found


def _require_right(tables: EmbeddingTables, found: Asked) -> None:
    for what, numbers in (("indices", found.indices), ("offsets", found.offsets)):
        if not isinstance(numbers, Tensor) or numbers.dtype not in (torch.int32, torch.int64):
            kind = numbers.dtype if isinstance(numbers, Tensor) else type(numbers).__name__
            raise ValueError(f"A sample batch has {what} of {kind}, not a tensor of int32 or int64.")
    if found.weights is not None and found.weights.shape != found.indices.shape:
        raise ValueError(
            f"A sample batch has per-sample weights {list(found.weights.shape)} beside indices "
            f"{list(found.indices.shape)}, and should have one for each."
        )
    count = found.offsets.numel()
    if found.offsets.dim() != 1 or not count or (count - 1) % found.features:
        raise ValueError(
            f"A sample batch has {count} offsets, which are not features * bags + 1 for {found.features} "
            "features in one dimension."
        )
    if found.bags == 0:
        return
    for slot in found.slots:
        ends, name = found.ends(slot), tables.names[slot.table] or "0"
        least, most = int(ends.min()), int(ends.max())
        if least < 0 or most > found.indices.numel() or bool((ends.diff() < 0).any()):
            raise ValueError(f"A sample batch has wrong offsets for table {name}.")
        numbers = found.indices[least:most]
        rows = tables._shapes[slot.table].rows
        if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < rows:
            raise ValueError(f"A sample batch looks up a row that table {name} of {rows} rows has not.")


def sums(tables: EmbeddingTables, wanted: Asked) -> tuple[Tensor, Tensor, Tensor]:
    """In float64 [bags, columns]: the sums, the sums of their terms' magnitudes, and the rows in each bag."""
    columns = [_of_slot(tables, wanted, slot) for slot in wanted.slots]
    return (
        torch.cat([sums for sums, _, _ in columns], dim=1),
        torch.cat([terms for _, terms, _ in columns], dim=1),
        torch.cat([lengths[:, None].expand_as(found) for found, _, lengths in columns], dim=1),
    )


def _of_slot(tables: EmbeddingTables, wanted: Asked, slot: Slot) -> tuple[Tensor, Tensor, Tensor]:
    ends, dim = wanted.ends(slot), tables._shapes[slot.table].dim
    lengths = ends.diff()
    found = torch.zeros(wanted.bags, dim, dtype=torch.float64, device=ends.device)
    terms = torch.zeros_like(found)
    if slot.mode == "max":
        found[lengths > 0] = -torch.inf
    for begin, end in _parts(ends, dim):
        numbers = wanted.indices[int(ends[begin]) : int(ends[end])].long()
        bag = torch.repeat_interleave(torch.arange(begin, end, device=ends.device), lengths[begin:end])
        rows, magnitudes = _rows(tables, slot.table, numbers)
        if wanted.weights is not None:
            factors = wanted.weights[int(ends[begin]) : int(ends[end]), None].double()
            rows, magnitudes = rows * factors, magnitudes * factors.abs()
        if slot.mode == "max":
            found.scatter_reduce_(0, bag[:, None].expand_as(rows), rows, "amax")
        else:
            found.index_add_(0, bag, rows)
        terms.index_add_(0, bag, magnitudes)
    if slot.mode == "mean":
        divisor = lengths.clamp(min=1)[:, None]
        found, terms = found / divisor, terms / divisor
    return found, terms, lengths


def _parts(ends: Tensor, dim: int) -> Iterator[tuple[int, int]]:
    """Bags that are added up at a time: from the first on, up to the second."""
    at_once, bounds, begin = max(1, _AT_ONCE // dim), ends.tolist(), 0
    while begin < len(bounds) - 1:
        end = begin + 1
        while end < len(bounds) - 1 and bounds[end + 1] - bounds[begin] <= at_once:
            end += 1
        yield begin, end
        begin = end


def _rows(tables: EmbeddingTables, table: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as stored, and how large the terms are that make up each value: float64 [n, dim]."""
    shape, stored = tables._shapes[table], tables._rows(table)[numbers]
    if not shape.quantised:
        values = stored.double()
        return values, values.abs()
    pairs = tables.scale_bias(table)[numbers]
    row_type: Any = shape.row_type
    values = QuantisedTable(row_type, shape.dim, stored, pairs).dequantised().double()
    return values, values.abs() + 2 * pairs[:, 1:].double().abs()
