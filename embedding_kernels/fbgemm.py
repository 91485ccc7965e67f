"""FBGEMM's table-batched modules. What is asked of FBGEMM itself is asked where a model has one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor

from embedding_kernels._layout import DTYPES, Slot
from embedding_kernels._memory import Given
from embedding_kernels._refusals import TABLE_BATCHED
from embedding_kernels.quantised import QuantisedTable
from embedding_kernels.tables import EmbeddingTables, Mode, OnBadIndex

ROW_TYPES = {"int8": "int8", "int4": "int4", "fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
"""By FBGEMM's names for them, which are TorchRec's in small letters."""
INFERENCE, TRAINING = TABLE_BATCHED
_OUTPUTS = {0: torch.float32, 1: torch.float16, 5: torch.bfloat16}
"""By SparseType.as_int()."""
_MODES: dict[int, Mode] = {0: "sum", 1: "mean"}
"""By PoolingMode."""
_STRUCTURE = frozenset(
    (
        *("D_offsets", "rows_per_table", "weights_tys", "feature_dims", "hash_size_cumsum"),
        *("weights_offsets", "weights_placements", "original_rows_per_table"),
        *("index_remappings_array", "index_remappings_array_offsets"),
        *("index_remapping_hash_table", "index_remapping_hash_table_offsets"),
    )
)
"""Of a state, what the tables are made by."""


class TableBatched(EmbeddingTables):
    """Takes indices and offsets of features, and gives [bags, sum of the features' columns], as FBGEMM does.

    `state_dict` has FBGEMM's keys and values. What it says of the tables' shapes and pruning is not loaded
    anew: it has to be equal.
    """

    def __init__(self, module: Any, on_bad_index: OnBadIndex = "count") -> None:
        """`module`: one of which `why_not` says nothing."""
        self._features = list(module.feature_table_map)
        mode = _MODES[int(module.pooling_mode)]
        specs = module.embedding_specs
        self._weights_key = ""
        tables: Sequence[Given]
        if type(module).__name__ == INFERENCE:
            self._keeps_row_types = True
            tables = [
                unpacked(whole(*rows), ROW_TYPES[spec[3].value], spec[2])
                for spec, rows in zip(specs, rows_of(module), strict=True)
            ]
            names = [spec[0] for spec in specs]
        else:
            flat = _flat_weights(module)
            self._weights_key = flat[0]
            self._memory = flat[1].detach().view(torch.uint8)
            self._alignment = 1  # FBGEMM's tables lie one right behind the other
            tables = [weights.detach() for weights in module.split_embedding_weights()]
            names = list(module.table_names or [])
        numbers = [str(number) for number in range(len(tables))]
        super().__init__(
            tables,
            modes=mode,
            names=names if len(set(names)) == len(tables) and all(names) else numbers,
            output_dtype=_OUTPUTS[module.output_dtype],
            on_bad_index=on_bad_index,
        )
        if any(parameter.requires_grad for parameter in module.parameters()):
            self._refuse_gradients()
        state = module.state_dict(keep_vars=True)
        self._keys = list(state)
        for key, values in state.items():
            if key != self._weights_key:
                self.register_buffer(key, values.detach(), persistent=False)

    def forward(
        self,
        indices: Tensor,
        offsets: Tensor,
        per_sample_weights: Tensor | None = None,
        feature_requires_grad: Tensor | None = None,
        batch_size_per_feature_per_rank: list[list[int]] | None = None,
        total_unique_indices: int | None = None,
        **others: Any,
    ) -> Tensor:
        """`indices` [n], feature after feature and bag after bag; `offsets` [features × bags + 1].

        ValueError for batch sizes that differ, and for arguments that are of training alone.
        """
        if batch_size_per_feature_per_rank is not None:
            raise ValueError("embedding_kernels takes one batch size for all features of a call.")
        if given := [name for name, value in others.items() if value is not None]:
            raise ValueError(f"embedding_kernels does not know what {given[0]} asks for; leave it out.")
        descriptors = self._buffers["descriptors"]
        return self._look_up(descriptors, self._numbers, indices, offsets, per_sample_weights)

    def _slots(self) -> list[Slot]:
        slots, column = [], 0
        for feature, table in enumerate(self._features):
            slots.append(Slot(table, feature, column, self.modes[table], self.kernels[table]))
            column += self._shapes[table].dim
        return slots

    def _features_asked(self) -> int:
        return len(self._features)

    def _feature_name(self, feature: int) -> str:
        return str(self.names[self._features[feature]])

    def _state(self, memory: Tensor | None = None) -> Iterator[tuple[str, Tensor]]:
        memory = self.storage if memory is None else memory
        for key in self._keys:
            if key == self._weights_key:
                size = sum(shape.rows * shape.row_bytes for shape in self._shapes)
                yield key, memory[:size].view(DTYPES[self._shapes[0].row_type])
            else:
                yield key, cast(Tensor, self._buffers[key])

    def _why_not_loaded(self, key: str, held: Tensor, given: Tensor) -> str:
        if key not in _STRUCTURE or torch.equal(given.to(held), held):
            return ""
        return "is of other tables than are held; optimize their model"


def why_not(module: Any) -> str:
    """Why a table-batched module cannot be taken over; empty where it can."""
    if int(module.pooling_mode) not in _MODES:
        return "it does not pool its rows"
    if module.output_dtype not in _OUTPUTS:
        return "its outputs are not float32, float16 or bfloat16"
    if type(module).__name__ == INFERENCE:
        return why_not_inference(module)
    if module.weights_precision.value not in ("fp32", "fp16", "bf16"):
        return f"its rows are {module.weights_precision.value}, not fp32, fp16 or bf16"
    key, flat = _flat_weights(module)
    tables = module.split_embedding_weights()
    begins = [0, *accumulate(table.numel() for table in tables)]
    if list(module.weights_physical_offsets) != begins[:-1] or flat.numel() != begins[-1]:
        return f"its tables do not lie one behind the other in {key}, as where some are in managed memory"
    return ""


def why_not_inference(module: Any) -> str:
    """The same of one for inference, whatever it does with the rows."""
    if types := {spec[3].value for spec in module.embedding_specs} - set(ROW_TYPES):
        return f"its rows are {types.pop()}, not {', '.join(ROW_TYPES)}"
    if module.scale_bias_size_in_bytes != 4 or getattr(module, "reverse_qparam", False):
        return "its rows do not begin with scale and bias as float16"
    if not module.weight_initialized:
        return "it has no weights yet"
    if module.weights_uvm.numel():
        return "its tables lie in managed memory, and may be more than the GPU's holds"
    if not is_pruned(module):
        return ""
    if len(module.feature_table_map) > len(module.embedding_specs):
        return "its tables are pruned and shared by features, whose remappings FBGEMM mixes up"
    for table, spec in enumerate(module.embedding_specs):
        found = _remapping(module, table)
        if found.numel() and not -1 <= int(found.min()) <= int(found.max()) < spec[1]:
            return f"the remapping of its table {table} leads outside the {spec[1]} rows"
    return ""


def is_pruned(module: Any) -> bool:
    """Whether rows were left out, and row numbers are remapped."""
    return bool(
        module.index_remapping_hash_table_cpu is not None
        or module.index_remapping_hash_table.numel()
        or module.index_remappings_array.numel()
    )


def rows_of(module: Any) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Of each table of a module for inference its rows, uint8 [rows, bytes], and if the module is pruned
    [rows before]: where each is now, or -1."""
    pruned = is_pruned(module)
    for table, (rows, *_) in enumerate(module.split_embedding_weights_with_scale_bias(0)):
        yield rows, _remapping(module, table) if pruned else None


def unpacked(rows: Tensor, row_type: str, dim: int) -> Given:
    """A table of FBGEMM's rows, uint8 [rows, bytes]."""
    if row_type in ("int8", "int4"):
        pairs = rows[:, :4].contiguous().view(torch.float16)
        width = dim if row_type == "int8" else (dim + 1) // 2
        return QuantisedTable(cast(Any, row_type), dim, rows[:, 4 : 4 + width], pairs)
    width = dim * DTYPES[row_type].itemsize
    return rows[:, :width].contiguous().view(DTYPES[row_type])


def whole(rows: Tensor, remapping: Tensor | None) -> Tensor:
    """A table that was pruned with its rows by their numbers before, those left out as zeros."""
    if remapping is None:
        return rows
    kept = (remapping >= 0).nonzero().squeeze(1)
    found = rows.new_zeros(remapping.numel(), rows.size(1))
    found[kept] = rows[remapping[kept].long()]
    return found


def _remapping(module: Any, table: int) -> Tensor:
    """See `rows_of`; as FBGEMM itself looks it up."""
    feature = module.feature_table_map.index(table)
    before = int(module.original_rows_per_table[feature])
    indices = torch.arange(before, dtype=module.indices_dtype, device=module.current_device)
    offsets = torch.zeros(len(module.feature_table_map) + 1, dtype=indices.dtype, device=indices.device)
    offsets[feature + 1 :] = before  # one bag of every feature
    if module.index_remapping_hash_table_cpu is not None:
        found = module.index_remapping_hash_table_cpu.lookup(indices, offsets)
    elif module.index_remapping_hash_table.numel():
        hashed = (module.index_remapping_hash_table, module.index_remapping_hash_table_offsets)
        found = torch.ops.fbgemm.pruned_hashmap_lookup(indices, offsets, *hashed)
    else:
        arrays = (module.index_remappings_array, module.index_remappings_array_offsets)
        found = torch.ops.fbgemm.pruned_array_lookup(indices, offsets, *arrays)
    return cast(Tensor, found)


def _flat_weights(module: Any) -> tuple[str, Tensor]:
    """Of a module for training, the key of what all tables lie in, and it."""
    key = "weights_host" if module.weights_host.numel() else "weights_dev"
    return key, getattr(module, key)
