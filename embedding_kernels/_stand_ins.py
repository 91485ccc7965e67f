"""`EmbeddingTables` in the place of a single nn.EmbeddingBag, and of a dict of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from embedding_kernels._one_table import AsBag
from embedding_kernels.tables import EmbeddingTables, OnBadIndex


class OneTable(AsBag, EmbeddingTables):  # type: ignore[misc]
    """A single nn.EmbeddingBag's place: called as it was, its key is `weight`, and so is its attribute."""

    def __init__(self, bag: nn.EmbeddingBag, *, on_bad_index: OnBadIndex = "count") -> None:
        super().__init__([bag], names=[""], on_bad_index=on_bad_index)

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """As nn.EmbeddingBag."""
        return self._look_up_bags(input, offsets, per_sample_weights)

    def _table(self) -> tuple[EmbeddingTables, int]:
        return self, 0


class TablesByName(EmbeddingTables):
    """An nn.ModuleDict's place: what it goes through is names."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.names)

    def __getattr__(self, name: str) -> Any:
        """A table is an attribute, too."""
        return self[name] if name in self.__dict__.get("names", ()) else super().__getattr__(name)
