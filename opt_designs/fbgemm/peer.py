"""FBGEMM's table-batched embedding for inference, fed with the batch's own tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import fbgemm_gpu
import torch
from fbgemm_gpu.split_embedding_configs import SparseType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
    BoundsCheckMode,
    EmbeddingLocation,
    PoolingMode,
)
from fbgemm_gpu.split_table_batched_embeddings_ops_inference import IntNBitTableBatchedEmbeddingBagsCodegen
from torch import Tensor

if TYPE_CHECKING:
    from harness.bench.batch import Batch

VALUES_IN_FLOAT16 = True
"""Its kernels make float16 of a quantised value, and add up in float32."""

_TYPES = {
    "float32": SparseType.FP32,
    "float16": SparseType.FP16,
    "int8": SparseType.INT8,
    "int4": SparseType.INT4,
}
_MODES = {"sum": PoolingMode.SUM, "mean": PoolingMode.MEAN}


def version() -> str:
    """What is measured, for the record."""
    return f"FBGEMM {fbgemm_gpu.__version__}, bounds check off"


def make(batch: Batch) -> Callable[[], Tensor]:
    """The call that looks up all tables: [batch, tables * dim].

    The bounds check is off: it is a kernel of its own, which reads every index once more before the lookup,
    and some builds lack it. So FBGEMM is measured at its fastest.
    """
    work, device = batch.work, batch.offsets.device
    place = EmbeddingLocation.DEVICE if device.type == "cuda" else EmbeddingLocation.HOST
    operator = IntNBitTableBatchedEmbeddingBagsCodegen(
        [(f"table {t}", work.rows, work.dim, _TYPES[work.dtype], place) for t in range(work.tables)],
        pooling_mode=_MODES[work.mode],
        device=device,
        bounds_check_mode=BoundsCheckMode.NONE,
        output_dtype=_TYPES[work.output_dtype],
        indices_dtype=batch.asked.indices.dtype,
    )
    operator.initialize_weights()
    for (values, pairs), (our_values, our_pairs) in zip(
        operator.split_embedding_weights(), _stored(batch), strict=True
    ):
        values.copy_(our_values)
        if our_pairs is not None:
            pairs.copy_(our_pairs)
    asked = batch.asked
    return lambda: operator(asked.indices, asked.offsets, asked.sample_weights)


def _stored(batch: Batch) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Each table's bytes [rows, bytes], and those of its scales and biases [rows, 4], in FBGEMM's order."""
    quantised = batch.tables.quantised
    for number, table in enumerate(batch.weights):
        pairs = None if quantised is None else quantised.scale_bias[number].view(torch.uint8)
        yield table if quantised is not None else table.view(torch.uint8), pairs
