"""One of the tables of `EmbeddingTables`, called as the nn.EmbeddingBag that it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from embedding_kernels.tables import EmbeddingTables


class Table:
    """One of `EmbeddingTables`, to be called as the nn.EmbeddingBag that it was."""

    def __init__(self, tables: EmbeddingTables, number: int) -> None:
        self._tables, self._at = tables, number

    @property
    def weight(self) -> Tensor:
        """Its rows; see `HeldTables.weight`."""
        return self._tables.weight(self._at)

    @property
    def num_embeddings(self) -> int:
        """Its rows."""
        return self._tables._shapes[self._at].rows

    @property
    def embedding_dim(self) -> int:
        """Its columns."""
        return self._tables._shapes[self._at].dim

    @property
    def mode(self) -> str:
        """How its rows are joined."""
        return self._tables.modes[self._at]

    def __call__(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """As nn.EmbeddingBag: `input` [bags, length], or [n] and `offsets` [bags], [bags + 1] for a module
        with include_last_offset."""
        indices, ends = _bags(input, offsets, self._tables.include_last_offset[self._at])
        weights = None if per_sample_weights is None else per_sample_weights.reshape(-1)
        return self._tables.look_up_one(self._at, indices, ends, weights)


def _bags(input: Tensor, offsets: Tensor | None, include_last_offset: bool) -> tuple[Tensor, Tensor]:
    """Indices and offsets [bags + 1] of what nn.EmbeddingBag takes; ValueError where it would raise one."""
    if input.dim() == 2:
        if offsets is not None:
            raise ValueError("With indices of two dimensions, [bags, length], no offsets are given.")
        bags, length = input.shape
        ends = torch.arange(bags + 1, device=input.device, dtype=input.dtype) * length
        return input.reshape(-1), ends
    if input.dim() != 1 or offsets is None or offsets.dim() != 1:
        raise ValueError("Indices have two dimensions, or one and offsets beside them, of one dimension too.")
    if include_last_offset:
        return input, offsets
    return input, torch.cat((offsets, offsets.new_full((1,), input.numel())))
