"""One of the tables of `EmbeddingTables`, called as the nn.EmbeddingBag that it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from embedding_kernels.tables import EmbeddingTables


class AsBag:
    """What models ask of an nn.EmbeddingBag, of one of the tables."""

    def _table(self) -> tuple[EmbeddingTables, int]:
        """Among which tables, and its number."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:
        """Its rows; see `HeldTables.weight`."""
        tables, at = self._table()
        return tables._rows(at)

    @property
    def num_embeddings(self) -> int:
        """Its rows."""
        tables, at = self._table()
        return tables._shapes[at].rows

    @property
    def embedding_dim(self) -> int:
        """Its columns."""
        tables, at = self._table()
        return tables._shapes[at].dim

    @property
    def mode(self) -> str:
        """How its rows are joined."""
        tables, at = self._table()
        return tables.modes[at]

    @property
    def include_last_offset(self) -> bool:
        """Whether offsets are [bags + 1]."""
        tables, at = self._table()
        return tables._include_last_offset[at]

    @property
    def padding_idx(self) -> None:
        """There is none; `optimize` leaves bags that have one."""
        return

    @property
    def max_norm(self) -> None:
        """The same."""
        return

    norm_type = 2.0
    scale_grad_by_freq = sparse = False

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As nn.EmbeddingBag's: values of a normal distribution."""
        self.weight.normal_()

    def _look_up_bags(self, input: Tensor, offsets: Tensor | None, weights: Tensor | None) -> Tensor:
        """`input` [bags, length], or [n] and `offsets` [bags], [bags + 1] for a module with
        include_last_offset. ValueError where nn.EmbeddingBag would raise one."""
        tables, at = self._table()
        indices, ends = _bags(input, offsets, tables._include_last_offset[at])
        if weights is not None:
            if not isinstance(weights, Tensor):
                raise TypeError(f"Per-sample weights are a tensor, not a {type(weights).__name__}.")
            if weights.shape != input.shape:
                raise ValueError(
                    f"Per-sample weights have the shape of the indices, {list(input.shape)}, not "
                    f"{list(weights.shape)}."
                )
            weights = weights.reshape(-1)
        return tables.look_up_one(at, indices, ends, weights)


class Table(AsBag):
    """One of `EmbeddingTables`, to be called as the nn.EmbeddingBag that it was."""

    def __init__(self, tables: EmbeddingTables, number: int) -> None:
        self._tables, self._at = tables, number

    def _table(self) -> tuple[EmbeddingTables, int]:
        return self._tables, self._at

    def __call__(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """As nn.EmbeddingBag."""
        return self._look_up_bags(input, offsets, per_sample_weights)

    forward = __call__


def _bags(input: Tensor, offsets: Tensor | None, include_last_offset: bool) -> tuple[Tensor, Tensor]:
    """Indices and offsets [bags + 1] of what nn.EmbeddingBag takes; ValueError where it would raise one."""
    if not isinstance(input, Tensor):
        raise TypeError(f"Indices are a tensor, not a {type(input).__name__}.")
    if offsets is not None and not isinstance(offsets, Tensor):
        raise TypeError(f"Offsets are a tensor, not a {type(offsets).__name__}.")
    if input.is_nested:
        raise ValueError("Indices are no nested tensor here; give its values() and offsets().")
    if input.dim() == 2:
        if offsets is not None:
            raise ValueError("With indices of two dimensions, [bags, length], no offsets are given.")
        bags, length = input.shape
        dtype = torch.int32 if input.dtype == torch.int32 else torch.int64
        ends = torch.arange(bags + 1, device=input.device, dtype=dtype) * length
        return input.reshape(-1), ends
    if input.dim() != 1 or offsets is None or offsets.dim() != 1:
        raise ValueError("Indices have two dimensions, or one and offsets beside them, of one dimension too.")
    if include_last_offset:
        return input, offsets
    return input, torch.cat((offsets, offsets.new_full((1,), input.numel())))
