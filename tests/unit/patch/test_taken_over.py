"""Models that FBGEMM or PyTorch quantised answer as before once they are taken over, pruned ones too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from harness import patch
from harness.errors import BadInputError
from harness.patch import quantise as q

# Ten rows of which five were kept.
KEPT = torch.tensor([3, -1, 1, -1, 2, -1, 0, -1, 4, -1], dtype=torch.int32)
INDICES = torch.tensor([2, 4, 1, 3, 8, 6, 0, 0, 5, 6, 4], dtype=torch.int32)
OFFSETS = torch.tensor([0, 3, 3, 8, 10, 10, 11], dtype=torch.int32)  # two tables of three bags


def tbe(
    bits: int = 8, remapping: Sequence[Any] | None = None, dims: Sequence[int] = (16, 16), **more: Any
) -> Any:
    """FBGEMM's own module on the CPU, tables of 5 and 7 rows, with random values."""
    pytest.importorskip("fbgemm_gpu", reason="needs FBGEMM for the CPU (fbgemm-gpu-cpu)")
    from fbgemm_gpu.split_embedding_configs import SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_inference import (
        IntNBitTableBatchedEmbeddingBagsCodegen,
    )

    kind = {8: SparseType.INT8, 4: SparseType.INT4, 16: SparseType.FP16}[bits]
    settings = {"output_dtype": SparseType.FP32, "device": "cpu", **more}
    made = IntNBitTableBatchedEmbeddingBagsCodegen(
        [
            (str(rows), rows, dim, kind, EmbeddingLocation.HOST)
            for rows, dim in zip((5, 7), dims, strict=True)
        ],
        index_remapping=remapping,
        **settings,
    )
    made.initialize_weights()
    generator = torch.Generator().manual_seed(0)
    for rows in weights(made):
        rows.copy_(torch.randint(256, rows.shape, dtype=torch.uint8, generator=generator))
        if bits < 16:
            pairs = torch.rand(len(rows), 2, generator=generator) * torch.tensor([0.01, -1.0])
            rows[:, :4] = pairs.half().view(torch.uint8)
    return made


def weights(module: Any) -> list[torch.Tensor]:
    return [rows for rows, *_ in module.split_embedding_weights_with_scale_bias(0)]


def assert_alike(
    module: Any, taken_over: q.QuantisedTables, indices: torch.Tensor, offsets: torch.Tensor
) -> None:
    mode: Any = ("sum", "mean")[int(module.pooling_mode)]
    ours = patch.embedding_bags(taken_over, indices, offsets, mode=mode, output_dtype=torch.float32)
    torch.testing.assert_close(ours, module(indices, offsets), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["SUM", "MEAN"])
@pytest.mark.parametrize("remapping", [[None, None], [KEPT, None], [KEPT, torch.arange(7).flip(0).int()]])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("in_a_hash_table", [False, True])
def test_a_tbe_of_fbgemm_answers_as_before(
    bits: int, remapping: list[Any], pooling: str, in_a_hash_table: bool
) -> None:
    pytest.importorskip("fbgemm_gpu", reason="needs FBGEMM for the CPU (fbgemm-gpu-cpu)")
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode

    pruned = remapping[0] is not None
    module = tbe(
        bits,
        remapping if pruned else None,
        pooling_mode=PoolingMode[pooling],
        use_array_for_index_remapping=not in_a_hash_table,
    )
    indices = INDICES if pruned else INDICES.clamp(max=4)
    by_hand = q.from_fbgemm_tbe(weights(module), "int8" if bits == 8 else "int4", 16, remapping)
    assert_alike(module, by_hand, indices, OFFSETS)
    if pruned and in_a_hash_table:
        with pytest.raises(BadInputError, match="in a hash table; give its tables and the index_remapping"):
            q.from_fbgemm_tbe(module)
        return
    taken_over = q.from_fbgemm_tbe(module)
    assert_alike(module, taken_over, indices, OFFSETS)
    told = patch.embedding_bags(taken_over, indices, OFFSETS, output_dtype=torch.float32)
    torch.testing.assert_close(told, module(indices, OFFSETS), rtol=1e-5, atol=1e-6)
    joint = patch.EmbeddingBags(taken_over, output_dtype=torch.float32)
    assert torch.equal(joint(indices, OFFSETS), told)
    again = patch.embedding_bags(joint.tables(), indices, OFFSETS, output_dtype=torch.float32)
    assert torch.equal(again, told)
    for refused, error in ((patch.EmbeddingBags, BadInputError), (patch.embedding_bags, ValueError)):
        given = () if refused is patch.EmbeddingBags else (indices, OFFSETS)
        with pytest.raises(error, match=f"of the mode '{pooling.lower()}'; leave mode out instead of 'max'"):
            refused(taken_over, *given, mode="max")
    for ours, theirs in zip(taken_over.data, by_hand.data, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.stride(0) % 16 == 0


def test_features_that_share_a_table_have_it_each() -> None:
    module = tbe(feature_table_map=[0, 1, 1])
    indices = torch.tensor([1, 2, 6, 0, 3, 3], dtype=torch.int32)
    offsets = torch.tensor([0, 2, 4, 6], dtype=torch.int32)
    taken_over = q.from_fbgemm_tbe(module)
    assert [len(data) for data in taken_over.data] == [5, 7, 7]
    assert_alike(module, taken_over, indices, offsets)
    with pytest.raises(BadInputError, match="Features share tables of this TBE, which is pruned"):
        q.from_fbgemm_tbe(tbe(remapping=[KEPT, None], feature_table_map=[0, 1, 1]))


def test_a_tbe_that_means_something_else_is_refused() -> None:
    pytest.importorskip("fbgemm_gpu", reason="needs FBGEMM for the CPU (fbgemm-gpu-cpu)")
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode

    unwritten = tbe()
    unwritten.weight_initialized = False
    for module, sentence in (
        (torch.nn.EmbeddingBag(3, 4), "EmbeddingBag is no IntNBitTableBatchedEmbeddingBagsCodegen"),
        (unwritten, "has no weights yet; call its initialize_weights"),
        (tbe(16), "int8 or int4; this TBE has fp16"),
        (tbe(dims=(16, 32)), "Tables of one dim are taken over together; this TBE has 16, 32"),
        (tbe(scale_bias_size_in_bytes=8), "does not keep scale and bias as float16 before"),
        (tbe(reverse_qparam=True), "does not keep scale and bias as float16 before"),
        (tbe(pooling_mode=PoolingMode.NONE), "does not pool"),
    ):
        with pytest.raises(BadInputError, match=sentence):
            q.from_fbgemm_tbe(module)
    with pytest.raises(BadInputError, match="needs the dtype and dim of tables that are given without"):
        q.from_fbgemm_tbe(weights(tbe()))


@pytest.mark.parametrize("mapping", [None, KEPT, KEPT.long(), torch.tensor([0], dtype=torch.int32)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
def test_models_that_pytorch_quantised_answer_as_before(
    bits: int, weighted: bool, mapping: torch.Tensor | None
) -> None:
    torch.manual_seed(0)
    table = torch.randn(5, 32)
    pruned = mapping is not None and len(mapping) > 1
    indices = torch.randint(10 if pruned else 5, (90,))
    offsets = torch.tensor([0, 10, 10, 40, 90])
    scales = torch.rand(90) if weighted else None
    pack, look_up, take_over = {
        8: ("byte_prepack", "byte_rowwise_offsets", q.from_fused_8bit),
        4: ("4bit_prepack", "4bit_rowwise_offsets", q.from_fused_4bit),
    }[bits]
    packed = getattr(torch.ops.quantized, f"embedding_bag_{pack}")(table)
    theirs = getattr(torch.ops.quantized, f"embedding_bag_{look_up}")(
        packed,
        indices,
        offsets,
        pruned_weights=mapping is not None,
        per_sample_weights=scales,
        compressed_indices_mapping=None if mapping is None else mapping.int(),
        include_last_offset=True,
    )
    taken_over = take_over([packed], index_remapping=None if mapping is None else [mapping])
    ours = patch.embedding_bags(
        taken_over, indices, offsets, per_sample_weights=scales, output_dtype=torch.float32
    )
    # In 8 bits float32 scales become float16: half a scale per row at most, on average a tenth.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4 if bits == 4 else 0.1)


def test_rows_that_were_pruned_away_are_zeros() -> None:
    packed = torch.ops.quantized.embedding_bag_byte_prepack(torch.randn(5, 8) + 3)
    whole, kept = q.from_fused_8bit([packed], index_remapping=[KEPT]), q.from_fused_8bit([packed])
    for row, place in enumerate(KEPT.tolist()):
        wanted = torch.zeros(8) if place < 0 else kept.dequantise(0)[place]
        assert torch.equal(whole.dequantise(0)[row], wanted)


@pytest.mark.parametrize(
    ("remapping", "sentence"),
    [
        ([], "There are 1 tables and index remappings of 0"),
        ([None, None], "There are 1 tables and index remappings of 2"),
        ([KEPT.clone().fill_(5)], "The index remapping of table 0 leads to row 5; the table has 5 rows"),
        ([torch.tensor([0, -2])], "leads to row -2"),
        ([torch.tensor([0.0, 1.0])], r"of table 0 is torch\.float32 \[2\], not int32 or int64"),
        ([torch.zeros(2, 2, dtype=torch.int32)], r"torch\.int32 \[2, 2\]"),
    ],
)
def test_a_wrong_remapping_is_one_sentence(remapping: list[Any], sentence: str) -> None:
    packed = torch.ops.quantized.embedding_bag_byte_prepack(torch.randn(5, 8))
    with pytest.raises(BadInputError, match=sentence):
        q.from_fused_8bit([packed], index_remapping=remapping)


def test_tables_of_other_columns_than_said_are_refused() -> None:
    made = q.quantise([torch.randn(5, 20)], "int8")
    for dtype, dim in (("int8", 19), ("int8", 32), ("int4", 20), ("int4", 38)):
        with pytest.raises(
            BadInputError, match=rf"shape \[5, 20\], and rows of {dim} columns in {dtype} take"
        ):
            q.QuantisedTables(dtype, dim, made.data, made.scale_bias)  # type: ignore[arg-type]
