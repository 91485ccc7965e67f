"""TorchRec's `EmbeddingBagCollection`, in one launch. Imported where a model has one."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import (
    EmbeddingBagCollection,
    EmbeddingBagCollectionInterface,
    get_embedding_names_by_table,
)
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from embedding_kernels._layout import Slot
from embedding_kernels.tables import EmbeddingTables, OnBadIndex


class Collection(EmbeddingTables, EmbeddingBagCollectionInterface):  # type: ignore[misc]
    """Takes a KeyedJaggedTensor and gives a KeyedTensor, in float32, as `EmbeddingBagCollection`.

    The features' keys may be in any order and more than are looked up; a table may have several features
    and a feature several tables.
    """

    _orders: dict[tuple[str, ...], tuple[Tensor, list[int]]]
    _last_keys: tuple[str, ...]

    def __init__(self, collection: EmbeddingBagCollection, on_bad_index: OnBadIndex = "count") -> None:
        bags = dict(collection.embedding_bags.items())
        self._configs: list[EmbeddingBagConfig] = collection.embedding_bag_configs()
        self._weighted: bool = collection.is_weighted()
        self._features = [list(config.feature_names) for config in self._configs]
        super().__init__(
            list(bags.values()),
            names=[f"embedding_bags.{name}" for name in bags],
            output_dtype=torch.float32,
            on_bad_index=on_bad_index,
        )
        self._embedding_names = [
            name for names in get_embedding_names_by_table(self._configs) for name in names
        ]
        self._lengths = [c.embedding_dim for c in self._configs for _ in c.feature_names]

    def forward(self, features: KeyedJaggedTensor) -> KeyedTensor:  # type: ignore[override]
        """As `EmbeddingBagCollection`. ValueError for features whose batch sizes differ; KeyError for one
        that is missing."""
        if features.variable_stride_per_key() or features.inverse_indices_or_none() is not None:
            raise ValueError(
                "embedding_kernels takes KeyedJaggedTensors with one batch size for all of their keys."
            )
        keys = tuple(features.keys())
        descriptors, groups = self._for_keys(keys)
        weights = features.weights() if self._weighted else None
        asked = (features.values(), features.offsets(), weights)
        values = self._look_up(descriptors, groups, self._columns, len(keys), asked)
        return KeyedTensor(keys=self._embedding_names, length_per_key=self._lengths, values=values)

    def embedding_bag_configs(self) -> list[EmbeddingBagConfig]:
        """Those of the collection."""
        return self._configs

    def is_weighted(self) -> bool:
        """Whether features bring per-sample weights."""
        return self._weighted

    @property
    def device(self) -> torch.device:
        """Where the tables are."""
        return self.storage.device

    def reset_parameters(self) -> None:
        """As TorchRec's: what a table's `init_fn` gives."""
        for config in self._configs:
            if config.init_fn is not None:
                config.init_fn(self.weight(f"embedding_bags.{config.name}"))

    def _slots(self) -> list[Slot]:
        return self._slots_of([name for names in self._features for name in dict.fromkeys(names)])

    def _slots_of(self, keys: Any) -> list[Slot]:
        slots, column = [], 0
        at = {key: number for number, key in reversed(list(enumerate(keys)))}
        for number, names in enumerate(self._features):
            for name in names:
                if name not in at:
                    raise KeyError(f"The features have no key {name!r}; they have {', '.join(keys)}.")
                slots.append(Slot(number, at[name], column, self.modes[number]))
                column += self._shapes[number].dim
        return slots

    def _for_keys(self, keys: tuple[str, ...]) -> tuple[Tensor, list[int]]:
        """Descriptors for features in this order, made once for each order."""
        if keys not in self._orders:
            made = self._described(self._slots_of(keys))
            self._orders[keys] = (made.words.to(self.storage.device), made.groups)
        self._last_keys = keys
        return self._orders[keys]

    def _repacked(self) -> None:
        super()._repacked()
        self._forget_orders()

    def _apply(self, fn: Any, recurse: bool = True) -> Collection:
        super()._apply(fn, recurse)
        self._forget_orders()
        return self

    def _forget_orders(self) -> None:
        """They lie where the tables were."""
        self._orders = {}
        self._last_keys = ()

    def _feature_name(self, feature: int) -> str:
        return self._last_keys[feature] if feature < len(self._last_keys) else str(feature)


def take_over(
    module: nn.Module, bags: dict[str, nn.EmbeddingBag], on_bad_index: OnBadIndex
) -> EmbeddingTables:
    """For `optimize`."""
    return Collection(cast(EmbeddingBagCollection, module), on_bad_index)
