"""Groups of tables as plans know them: what a module that `optimize` swaps looks up; other types of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from embedding_kernels import fbgemm
from embedding_kernels._layout import DTYPES
from embedding_kernels._memory import ROW_TYPE_OF
from embedding_kernels.plan import Choice, TableShape, collapsed
from embedding_kernels.quantised import why_not_quantised
from embedding_kernels.tables import EmbeddingTables

_VALUES_AT_ONCE = 2**26
"""Of those that are tried in another type: copies take memory beside the tables."""


def shapes_of(module: nn.Module) -> tuple[TableShape, ...]:
    """Of what a module looks up, in the order of its outputs: an nn.EmbeddingBag, a list or dict of them,
    one of TorchRec's collections, or one of FBGEMM's table-batched modules."""
    return collapsed(_each(module))


def _each(module: Any) -> Iterator[TableShape]:
    if isinstance(module, nn.EmbeddingBag):
        rows, dim = module.weight.shape
        yield TableShape(1, rows, dim, cast(Any, ROW_TYPE_OF[module.weight.dtype]), cast(Any, module.mode))
    elif isinstance(module, nn.ModuleList | nn.ModuleDict):
        for bag in module._modules.values():  # one that stands there twice, twice
            yield from _each(bag)
    elif hasattr(module, "feature_table_map"):
        yield from _of_fbgemm(module)
    else:
        for config in module.embedding_bag_configs():
            row_type = fbgemm.ROW_TYPES[config.data_type.value.lower()]
            weight = getattr(module.embedding_bags[config.name], "weight", None)
            if isinstance(weight, Tensor) and weight.dtype in ROW_TYPE_OF:
                row_type = ROW_TYPE_OF[weight.dtype]
            mode = config.pooling.value.lower()
            for _ in config.feature_names:
                yield TableShape(
                    1, config.num_embeddings, config.embedding_dim, cast(Any, row_type), cast(Any, mode)
                )


def _of_fbgemm(module: Any) -> Iterator[TableShape]:
    mode = ("sum", "mean")[int(module.pooling_mode)]
    for feature, table in enumerate(module.feature_table_map):
        spec = module.embedding_specs[table]
        if isinstance(spec[0], str):  # for inference: name, rows, columns, type
            before = module.original_rows_per_table  # of pruned tables
            rows = int(before[feature]) if before.numel() else spec[1]
            dim, row_type = spec[2], spec[3]
        else:
            rows, dim, row_type = spec[0], spec[1], module.weights_precision
        yield TableShape(1, rows, dim, cast(Any, fbgemm.ROW_TYPES[row_type.value.lower()]), cast(Any, mode))


def why_not_converted(module: nn.Module, row_type: str) -> str:
    """Why the rows of a module that is swapped cannot be converted; empty where they can."""
    if row_type == "unchanged":
        return ""
    if hasattr(module, "feature_table_map") or hasattr(module, "_emb_modules"):
        return "FBGEMM's rows keep their type, with which its states are saved"
    return ""


def why_not_values(module: nn.Module, row_type: str) -> str:
    """Why the values that the rows have cannot be converted; empty where they can."""
    if row_type == "unchanged":
        return ""
    why_not = why_not_narrowed if row_type in DTYPES else why_not_quantised
    whys = (why_not(weight, cast(Any, row_type)) for weight in module.parameters())
    return next(filter(None, whys), "")


def why_not_narrowed(weight: Tensor, row_type: str) -> str:
    """Why values cannot be of a type of floating point; empty where they can."""
    if weight.is_meta:
        return ""
    for rows in weight.detach().split(max(1, _VALUES_AT_ONCE // max(1, weight.size(1)))):
        # inf and nan stay what they are.
        if bool((rows.to(DTYPES[row_type]).isinf() & rows.isfinite()).any()):
            return f"a row has values beyond {torch.finfo(DTYPES[row_type]).max:g}, where {row_type} ends"
    return ""


def apply(tables: EmbeddingTables, choice: Choice) -> None:
    """Looks up by this choice, none that keeps a module's own lookup, from now on. ValueError: see
    `convert`."""
    convert(tables, choice.row_type)
    use(tables, choice)


def use(tables: EmbeddingTables, choice: Choice) -> None:
    """The same of tables whose rows are of the choice's type already."""
    if choice.kernel != "own":
        tables.use_kernel(choice.kernel)
        tables.use_limits(*choice.limits)


def convert(tables: EmbeddingTables, row_type: str) -> None:
    """Holds the rows as another type from now on; outputs stay of the type that they are.

    float32, float16, bfloat16, or int8 and int4, row by row. ValueError where the rows cannot be quantised.
    The storage is a new one: tensors that were views of the old one are views of it no longer.
    """
    if row_type == "unchanged":
        return
    tables._asked_dtype = tables.output_dtype
    tables._convert([row_type] * len(tables.names))
    tables._repacked()
