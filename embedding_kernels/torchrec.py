"""TorchRec's `EmbeddingBagCollection` and its quantised form, in one launch. Imported where a model has
one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollectionInterface, get_embedding_names_by_table
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor
from torchrec.tensor_types import UInt4Tensor

from embedding_kernels import fbgemm
from embedding_kernels._layout import Slot
from embedding_kernels._memory import Given
from embedding_kernels._one_table import Table
from embedding_kernels._operators import OUTPUT_TYPES, Numbers, numbers_of
from embedding_kernels.quantised import QuantisedTable
from embedding_kernels.tables import EmbeddingTables, OnBadIndex


class Collection(EmbeddingTables, EmbeddingBagCollectionInterface):  # type: ignore[misc]
    """Takes a KeyedJaggedTensor and gives a KeyedTensor, as the collection in whose place it is.

    The features' keys may be in any order and more than are looked up; a table may have several features
    and a feature several tables.
    """

    _orders: dict[tuple[str, ...], tuple[Tensor, Numbers]]

    def __init__(
        self,
        tables: Sequence[Given],
        configs: Sequence[EmbeddingBagConfig],
        collection: Any,
        output_dtype: torch.dtype,
        on_bad_index: OnBadIndex,
    ) -> None:
        """`configs`: of each table, in the order of the output; `collection`: TorchRec's."""
        self._configs: list[EmbeddingBagConfig] = collection.embedding_bag_configs()
        self._weighted: bool = collection.is_weighted()
        self._features = [list(config.feature_names) for config in configs]
        self._usual_keys = tuple(dict.fromkeys(name for names in self._features for name in names))
        self._met_usual_keys = False
        self._other_keys: dict[tuple[str, ...], None] = {}
        super().__init__(
            tables,
            modes=["sum" if config.pooling is PoolingType.SUM else "mean" for config in configs],
            names=[f"embedding_bags.{config.name}" for config in configs],
            output_dtype=output_dtype,
            on_bad_index=on_bad_index,
        )
        self._embedding_names = [name for names in get_embedding_names_by_table(configs) for name in names]
        self._lengths = [config.embedding_dim for config in configs for _ in config.feature_names]

    def forward(self, features: KeyedJaggedTensor) -> KeyedTensor:  # type: ignore[override]
        """As `EmbeddingBagCollection`. ValueError for features whose batch sizes differ; KeyError for one
        that is missing."""
        if not isinstance(features, KeyedJaggedTensor):
            raise TypeError(f"A collection looks up a KeyedJaggedTensor, not a {type(features).__name__}.")
        if features.variable_stride_per_key() or features.inverse_indices_or_none() is not None:
            raise ValueError(
                "embedding_kernels takes KeyedJaggedTensors with one batch size for all of their keys."
            )
        keys = tuple(features.keys())
        descriptors, numbers = self._for_keys(keys)
        weights = features.weights() if self._weighted else None
        values = self._look_up(descriptors, numbers, features.values(), features.offsets(), weights)
        return KeyedTensor(keys=self._embedding_names, length_per_key=self._lengths, values=values)

    def embedding_bag_configs(self) -> list[EmbeddingBagConfig]:
        """Those of the collection."""
        return self._configs

    @property
    def embedding_bags(self) -> dict[str, Table]:
        """The tables by their names."""
        return {name.removeprefix("embedding_bags."): self[name] for name in self.names}

    def is_weighted(self) -> bool:
        """Whether features bring per-sample weights."""
        return self._weighted

    def reset_parameters(self) -> None:
        """As TorchRec's, of float tables: what a table's `init_fn` gives."""
        for config in self._configs:
            table = self.weight(f"embedding_bags.{config.name}")
            if config.init_fn is not None and table.is_floating_point():
                config.init_fn(table)

    @property
    def device(self) -> torch.device:
        """Where the tables are."""
        return self.storage.device

    def _slots(self) -> list[Slot]:
        return self._slots_of(self._usual_keys)

    def _slots_of(self, keys: Any) -> list[Slot]:
        slots, column = [], 0
        at = {key: number for number, key in enumerate(keys)}
        if twice := next((key for number, key in enumerate(keys) if at[key] != number), None):
            raise ValueError(f"The features have the key {twice!r} twice, with different bags; name it once.")
        for number, names in enumerate(self._features):
            for name in names:
                if name not in at:
                    raise KeyError(f"The features have no key {name!r}; they have {', '.join(keys)}.")
                slots.append(Slot(number, at[name], column, self.modes[number], self.kernels[number]))
                column += self._shapes[number].dim
        return slots

    def _features_asked(self) -> int:
        return len(self._usual_keys)

    def _for_keys(self, keys: tuple[str, ...]) -> tuple[Tensor, Numbers]:
        """Descriptors for features in this order, made once for each order."""
        if keys not in self._orders:
            made, device = self._described(self._slots_of(keys)), self.storage.device
            if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                raise RuntimeError(
                    f"embedding_kernels: look up once with the keys {', '.join(keys)} before a CUDA graph is "
                    "captured with them in this order."
                )
            numbers = numbers_of(self._told(made.groups, len(keys), self._columns))
            self._orders[keys] = (made.words.to(device), numbers)
            self._other_keys[keys] = None
        if keys == self._usual_keys:
            self._met_usual_keys = True
        return self._orders[keys]

    def _repacked(self) -> None:
        self._orders_by_kernels: dict[Any, Any] = {}
        super()._repacked()

    def _describe(self) -> None:
        super()._describe()
        usual = {self._usual_keys: (self.descriptors, self._numbers)}
        self._orders = self._orders_by_kernels.setdefault((self.kernels, self._limits), usual)

    def _feature_name(self, feature: int) -> str:
        # Only a feature's place is counted, and it is another key's in another order.
        orders = [self._usual_keys] * self._met_usual_keys + list(self._other_keys)
        return " or ".join(dict.fromkeys(keys[feature] for keys in orders if feature < len(keys)))


class QuantisedCollection(Collection):
    """In the place of TorchRec's quantised collection. Its `state_dict` is FBGEMM's rows, scale and bias
    before the values, of pruned tables without those left out; they are copies, since here rows lie
    otherwise."""

    _keeps_row_types = True

    def __init__(self, collection: Any, on_bad_index: OnBadIndex = "count") -> None:
        by_name = {config.name: config for config in collection.embedding_bag_configs()}
        configs, tables = [], []
        self._packings: list[tuple[torch.Size, Tensor | None]] = []
        for module in collection._emb_modules:
            for spec, (rows, remapping) in zip(module.embedding_specs, fbgemm.rows_of(module), strict=True):
                configs.append(by_name[spec[0]])
                whole = fbgemm.whole(rows, remapping)
                tables.append(fbgemm.unpacked(whole, fbgemm.ROW_TYPES[spec[3].value], spec[2]))
                self._packings.append((rows.shape, remapping))
        super().__init__(tables, configs, collection, collection._output_dtype, on_bad_index)

    def _state(self, memory: Tensor | None = None) -> Iterator[tuple[str, Tensor]]:
        for number, name in enumerate(self.names):
            yield f"{name}.weight", self._packed(number)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for key, packed in self._state():
            destination[prefix + key] = packed

    def _why_not_updated(self, number: int, rows: Tensor) -> str:
        _, remapping = self._packings[number]
        if remapping is None:
            return ""
        pruned = rows.long()[remapping.to(rows.device)[rows.long()] < 0]
        return f"row {int(pruned[0])} was pruned away, and a state has no place for it" if len(pruned) else ""

    def _packed(self, number: int) -> Tensor:
        shape, values = self._shapes[number], self._rows(number)
        parts = [values.contiguous().view(torch.uint8)]
        if shape.quantised:
            parts.insert(0, self.scale_bias(number).contiguous().view(torch.uint8))
        rows = torch.cat(parts, dim=1)
        size, remapping = self._packings[number]
        packed = rows.new_zeros(size)
        if remapping is None:
            packed[:, : rows.size(1)] = rows
        else:
            kept = (remapping >= 0).nonzero().squeeze(1)
            packed[remapping[kept].to(rows.device), : rows.size(1)] = rows[kept.to(rows.device)]
        return UInt4Tensor(packed) if shape.row_type == "int4" else packed

    def _load(self, state: dict[str, Tensor]) -> None:
        for number, name in enumerate(self.names):
            if (key := f"{name}.weight") not in state:
                continue
            shape, packed = self._shapes[number], getattr(state[key], "elem", state[key])
            remapping = self._packings[number][1]
            whole = fbgemm.whole(packed, None if remapping is None else remapping.to(packed.device))
            table = fbgemm.unpacked(whole, shape.row_type, shape.dim)
            self._rows(number).copy_(table.data if isinstance(table, QuantisedTable) else table)
            if isinstance(table, QuantisedTable):
                self.scale_bias(number).copy_(table.scale_bias)


def take_over(
    module: nn.Module, bags: dict[str, nn.EmbeddingBag], on_bad_index: OnBadIndex
) -> EmbeddingTables:
    """For `optimize`: an EmbeddingBagCollection."""
    collection: Any = module
    return Collection(
        [bag.weight for bag in bags.values()],
        collection.embedding_bag_configs(),
        collection,
        torch.float32,
        on_bad_index,
    )


def why_not_quantised(collection: Any) -> str:
    """Why a quantised collection cannot be taken over; empty where it can."""
    for module in collection._emb_modules:
        if type(module).__name__ != fbgemm.INFERENCE:
            return f"its tables are in FBGEMM's {type(module).__name__}"
        if why := fbgemm.why_not_inference(module):
            return why
    if collection._output_dtype not in OUTPUT_TYPES:
        return "its outputs are not float32, float16 or bfloat16"
    if getattr(collection, "register_tbes", False):
        return "it shows FBGEMM's modules as its own (register_tbes)"
    split = any(hasattr(bag, "weight_qscale") for bag in collection.embedding_bags.values())
    return "its state_dict keeps scales apart (quant_state_dict_split_scale_bias)" if split else ""
