"""What tables may be made of, the memory that they get, and views of it that others keep."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from embedding_kernels._layout import DTYPES, Shape
from embedding_kernels.quantised import QuantisedTable

Given = Tensor | QuantisedTable
ROW_TYPE_OF = {dtype: name for name, dtype in DTYPES.items()}


class Lent:
    """What views of tables that others keep hold on to; see `HeldTables._lendable`.

    Known weakly, for it is to live as long as they do, and as the module's own storage is of that memory."""

    _tensor: weakref.ref[Tensor] | None = None

    @property
    def memory(self) -> Tensor | None:
        """The tensor that was lent, as long as anybody has it."""
        return self._tensor() if self._tensor is not None else None

    @memory.setter
    def memory(self, tensor: Tensor | None) -> None:
        self._tensor = None if tensor is None else weakref.ref(tensor)

    def __reduce__(self) -> tuple[type[Lent], tuple[()]]:
        # A copy's tables lie in memory of their own.
        return (Lent, ())


def allocated(size: int, device: torch.device) -> Tensor:
    """So many bytes, all zero. Tables that do not fit a device's memory are refused, in words: nothing here
    looks rows up elsewhere."""
    try:
        return torch.zeros(size, dtype=torch.uint8, device=device)
    except RuntimeError as error:
        if device.type != "cpu" and not isinstance(error, torch.OutOfMemoryError):
            raise
        raise torch.OutOfMemoryError(
            f"EmbeddingTables lie in the memory of one device: these take {size / 1e9:,.2f} GB in one piece, "
            f"beside the tables that they are made of, and {device} has no room for them."
        ) from error


def rows_of(table: Given) -> Tensor:
    return table.data if isinstance(table, QuantisedTable) else table


def shape_of(number: int, table: Given) -> Shape:
    if isinstance(table, QuantisedTable):
        return Shape(table.data.size(0), table.dim, table.row_type)
    if not isinstance(table, Tensor):
        raise TypeError(
            f"EmbeddingTables are made of tensors, QuantisedTable and nn.EmbeddingBag; number {number} is a "
            f"{type(table).__name__}."
        )
    if table.dim() != 2 or table.layout != torch.strided or table.dtype not in ROW_TYPE_OF:
        raise ValueError(
            f"Tables are dense [rows, columns] of float32, float16 or bfloat16: table {number} is "
            f"{table.dtype} {list(table.shape)}."
        )
    return Shape(table.size(0), table.size(1), ROW_TYPE_OF[table.dtype])


def apart(view: Tensor) -> Tensor:
    """The same memory as a storage of its own, so that saving one table does not save all of them."""
    return torch.empty_like(view) if view.numel() == 0 or view.is_meta else alias_of(view)


def alias_of(tensor: Tensor) -> Tensor:
    """Another tensor of the same memory, which has its own storage and keeps the other tensor alive: that
    itself, and not what `detach()` makes of it."""
    return torch.from_dlpack(tensor)  # type: ignore[attr-defined]


class Holder(Protocol):
    """Tables, of which others keep views."""

    def _holds(self, values: Tensor) -> bool: ...


_HOLDERS = WeakIdKeyDictionary()
"""By parameter, a weak reference to the tables that it was moved into."""


def now_views(parameters: Iterable[nn.Parameter], tables: Holder) -> None:
    """They are views of these tables from now on."""
    for parameter in parameters:
        _HOLDERS[parameter] = weakref.ref(tables)


def let_go(parameters: Iterable[nn.Parameter]) -> None:
    """The tables are nobody's any more, though they may live on for a while."""
    for parameter in parameters:
        _HOLDERS.pop(parameter, None)


def is_held(weight: Tensor) -> bool:
    """Whether it still is a view of somebody's tables, so that others of it would come apart."""
    holder = _HOLDERS[weight]() if weight in _HOLDERS else None
    return holder is not None and not weight.is_meta and holder._holds(weight)
