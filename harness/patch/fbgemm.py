"""Reads FBGEMM's TBE for inference, IntNBitTableBatchedEmbeddingBagsCodegen, without FBGEMM."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, cast

from torch import Tensor, nn

from harness.errors import BadInputError

Mode = Literal["sum", "mean"]
Read = tuple[list[Tensor], Literal["int8", "int4"], int, list[Tensor | None] | None, Mode]
_MODES: dict[int, Mode] = {0: "sum", 1: "mean"}
"""By PoolingMode, of those that pool."""


def read(tbe: nn.Module) -> Read:
    """Rows as they are stored, their type, columns, index remappings or None: each feature's; and the mode.

    BadInputError where its rows mean something else than `quantise.from_fbgemm_tbe` takes over, or where its
    pruning cannot be read.
    """
    if not hasattr(tbe, "split_embedding_weights_with_scale_bias"):
        raise BadInputError(f"{type(tbe).__name__} is no IntNBitTableBatchedEmbeddingBagsCodegen of FBGEMM.")
    if not getattr(tbe, "weight_initialized", True):
        raise BadInputError("This TBE has no weights yet; call its initialize_weights() or load them.")
    module: Any = tbe
    specs = module.embedding_specs  # (name, rows, dim, type, location) each
    types = sorted({spec[3].value for spec in specs})
    if types not in (["int8"], ["int4"]):
        raise BadInputError(
            f"Tables of one type are taken over together, int8 or int4; this TBE has {', '.join(types)}."
        )
    dims = sorted({spec[2] for spec in specs})
    if len(dims) > 1:
        raise BadInputError(
            f"Tables of one dim are taken over together; this TBE has {', '.join(map(str, dims))}. "
            "Give the tables of each dim by themselves."
        )
    if module.scale_bias_size_in_bytes != 4 or getattr(module, "reverse_qparam", False):
        raise BadInputError("This TBE does not keep scale and bias as float16 before each row's values.")
    if int(module.pooling_mode) not in _MODES:
        raise BadInputError("This TBE does not pool, and bags are pooled.")
    tables = [rows for rows, *_ in module.split_embedding_weights_with_scale_bias(0)]
    remappings = _remappings(module)
    features = module.feature_table_map  # they may share a table; each has one here
    if remappings is not None and len(features) > len(tables):
        raise BadInputError(
            "Features share tables of this TBE, which is pruned, and FBGEMM then mixes their remappings up; "
            "make a TBE with a table for each feature."
        )
    return (
        [tables[table] for table in features],
        cast(Literal["int8", "int4"], types[0]),
        dims[0],
        None if remappings is None else [remappings[table] for table in features],
        _MODES[int(module.pooling_mode)],
    )


def _remappings(module: Any) -> list[Tensor | None] | None:
    """Of every table, where it was pruned."""
    in_a_hash_table = (
        module.index_remapping_hash_table_cpu is not None or module.index_remapping_hash_table.numel()
    )
    if in_a_hash_table:
        raise BadInputError(
            "This TBE keeps its index remapping in a hash table; give its tables and the "
            "index_remapping that it was made with."
        )
    if not module.index_remappings_array.numel():
        return None
    ends = module.index_remappings_array_offsets.tolist()
    parts = [module.index_remappings_array[begin:end] for begin, end in pairwise(ends)]
    return [part if part.numel() else None for part in parts]
