"""FBGEMM's table-batched embeddings, fed with the batch's own tables, by any of its ways to look them up.

`path` says by which: 0, the operator for inference (IntNBit...), which reads every type of row; 1 and 2, the
forward pass of the operator for training, in its first form and its second (`is_experimental`), which reads
float32 and float16. Which is the fastest depends on the shape and the GPU. `index_bits` 32 (or 0, as the
workload has them): int32 row numbers and offsets, converted beforehand, where they fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
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
    from harness.groups import TableGroup
    from harness.records import Workload

FOLDER = Path(fbgemm_gpu.__file__).parent
Bind = Callable[["Batch"], Callable[[], Tensor]]
VALUES_IN_FLOAT16 = True
"""Its kernels make float16 of a quantised value, and add up in float32."""

INFERENCE, TRAINING_V1, TRAINING_V2 = range(3)
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


def make(batch: Batch, tunables: Mapping[str, int]) -> Bind:
    """Copies the tables, and gives what makes of any batch of them the call: [batch, sum of dims].

    The bounds check is off: it is a kernel of its own, which reads every index once more before the lookup,
    and some builds lack it. So FBGEMM is measured at its fastest. RuntimeError where a path does not read
    rows of this type, or has no sample weights.
    """
    work, dtype = batch.work, batch.asked.indices.dtype
    if tunables.get("index_bits", 0) == 32 and max(work.all_lookups, work.rows) < 2**31:
        dtype = torch.int32
    path = tunables.get("path", INFERENCE)
    if path == INFERENCE:
        return _inference(batch, dtype)
    return _training(batch, dtype, second=path == TRAINING_V2)


def _inference(batch: Batch, dtype: torch.dtype) -> Bind:
    work, device = batch.work, batch.offsets.device
    place = EmbeddingLocation.DEVICE if device.type == "cuda" else EmbeddingLocation.HOST
    operator = IntNBitTableBatchedEmbeddingBagsCodegen(
        [
            (f"table {number}", group.rows, group.dim, _TYPES[work.dtype], place)
            for number, group in enumerate(_groups(work))
        ],
        feature_table_map=[feature.table for feature in work.features],
        pooling_mode=_MODES[work.mode],
        device=device,
        bounds_check_mode=BoundsCheckMode.NONE,
        output_dtype=_TYPES[work.output_dtype],
        indices_dtype=dtype,
    )
    operator.initialize_weights()
    for (values, pairs), (our_values, our_pairs) in zip(
        operator.split_embedding_weights(), _stored(batch), strict=True
    ):
        values.copy_(our_values)
        if our_pairs is not None:
            pairs.copy_(our_pairs)

    def bind(given: Batch) -> Callable[[], Tensor]:
        indices, offsets = given.asked.indices.to(dtype), given.asked.offsets.to(dtype)
        return lambda: operator(indices, offsets, given.asked.sample_weights)

    return bind


def _groups(work: Workload) -> list[TableGroup]:
    """Of each table its group, in their order; features may share a table."""
    found = {feature.table: feature.group for feature in work.features}
    return [found[table] for table in sorted(found)]


def _tables(batch: Batch) -> list[int]:
    """Of each table the number of a feature that looks it up."""
    found = {feature.table: number for number, feature in enumerate(batch.work.features)}
    return [found[table] for table in sorted(found)]


def _stored(batch: Batch) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Each table's bytes [rows, bytes], and those of its scales and biases [rows, 4], in FBGEMM's order."""
    quantised = batch.tables.quantised
    for number in _tables(batch):
        table = batch.weights[number]
        pairs = None if quantised is None else quantised.scale_bias[number].view(torch.uint8)
        yield table if quantised is not None else table.view(torch.uint8), pairs


def _training(batch: Batch, dtype: torch.dtype, *, second: bool) -> Bind:
    """The operator's forward kernel itself, without the Python module and the autograd node around it."""
    work, device = batch.work, batch.offsets.device
    if device.type != "cuda" or work.dtype not in ("float32", "float16"):
        raise RuntimeError(
            f"FBGEMM's training forward reads float32 and float16 on a GPU, not {work.dtype} here."
        )
    if batch.asked.sample_weights is not None:
        raise RuntimeError("FBGEMM's training forward is measured without sample weights; use path=0.")
    _load_training()
    rows = torch.cat([batch.weights[number].reshape(-1) for number in _tables(batch)])
    begins = list(accumulate((group.rows * group.dim for group in _groups(work)), initial=0))
    ends = list(accumulate((feature.group.dim for feature in work.features), initial=0))
    # What its cache for tables in host memory would need, and has no use for here.
    no_rows, no_numbers = rows.new_empty(0), torch.empty(0, dtype=torch.int32, device=device)
    cache = torch.empty(0, work.dim, dtype=torch.float32, device=device)
    placements = torch.zeros(work.tables, dtype=torch.int32, device=device)
    starts = torch.tensor([begins[feature.table] for feature in work.features], device=device)
    columns = torch.tensor(ends, dtype=torch.int32, device=device)
    forward = torch.ops.fbgemm.split_embedding_codegen_forward_unweighted_cuda
    tables = (rows, no_rows, cache, placements, starts, columns, work.columns, work.dim)
    how = (
        _MODES[work.mode].value,
        no_numbers,
        no_numbers,
        _TYPES[work.output_dtype].as_int(),
        second,
    )

    def bind(given: Batch) -> Callable[[], Tensor]:
        indices, offsets = given.asked.indices.to(dtype), given.asked.offsets.to(dtype)

        def lookup() -> Tensor:
            output: Tensor = forward(*tables, indices, offsets, *how)
            return output

        return lookup

    return bind


def _load_training() -> None:
    """The package loads it by itself, unless it was cut down."""
    if hasattr(torch.ops.fbgemm, "split_embedding_codegen_forward_unweighted_cuda"):
        return
    for name in ("fbgemm_gpu_tbe_common", "fbgemm_gpu_tbe_training_forward"):
        torch.ops.load_library(str(FOLDER / f"{name}.so"))
