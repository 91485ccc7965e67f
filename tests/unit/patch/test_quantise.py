"""Quantised tables: how close they are, and that tables of PyTorch and FBGEMM mean the same here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadInputError
from harness.patch import quantise as q

DTYPES: tuple[q.QuantisedType, ...] = ("int8", "int4")


def table(rows: int, dim: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)) * size


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    rows=st.integers(1, 20),
    dim=st.integers(1, 33),
    seed=st.integers(0, 2**31),
    size=st.sampled_from([1e-7, 1e-4, 1.0, 300.0]),
    offset=st.sampled_from([0.0, 1.0, -40.0]),
)
@settings(deadline=None, max_examples=60)
def test_no_value_moves_by_more_than_half_its_rows_scale(
    dtype: q.QuantisedType, rows: int, dim: int, seed: int, size: float, offset: float
) -> None:
    original = table(rows, dim, seed, size) + offset
    made = q.quantise([original], dtype)
    scale = made.scale_bias[0][:, :1].double()
    apart = (made.dequantise(0).double() - original.double()).abs()
    rounding = original.double().abs() * 2.0**-22  # of the float32 arithmetic, on both ways
    assert bool((apart <= scale / 2 + rounding).all())
    ideal = (original.amax(1, keepdim=True) - original.amin(1, keepdim=True)).double() / q.LEVELS[dtype]
    # What float16 adds to the scale: its own rounding, and the bias's, which the range must take in.
    bias_step = original.double().abs().amax(1, keepdim=True) * 2.0**-10 + 2.0**-24
    assert bool((scale <= ideal * (1 + 2.0**-10) + bias_step / q.LEVELS[dtype] * 1.01 + 2.0**-24).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_of_equal_values_that_float16_holds_is_exact(dtype: q.QuantisedType) -> None:
    original = torch.tensor([[0.0], [1.5], [-0.25]]).expand(3, 5)
    assert torch.equal(q.quantise([original], dtype).dequantise(0), original)


@pytest.mark.parametrize(("dtype", "dim"), [("int8", 5), ("int8", 64), ("int4", 5), ("int4", 64)])
def test_rows_begin_at_multiples_of_16_bytes(dtype: q.QuantisedType, dim: int) -> None:
    made = q.quantise([table(7, dim), table(3, dim)], dtype)
    for data, pairs in zip(made.data, made.scale_bias, strict=True):
        assert data.stride(0) % 16 == data.data_ptr() % 16 == 0
        assert (data.dtype, data.size(1), made.bytes_per_row) == (torch.uint8,) + 2 * (made.bytes_per_row,)
        assert (pairs.dtype, pairs.shape) == (torch.float16, (len(data), 2))
    assert made.to("cpu").data[0].stride(0) % 16 == 0


def test_int4_keeps_the_first_value_in_the_low_half() -> None:
    made = q.quantise([torch.tensor([[0.0, 15.0, 3.0]])], "int4")
    assert made.data[0].tolist() == [[0xF0, 0x03]]
    assert made.scale_bias[0].tolist() == [[1.0, 0.0]]


def test_large_tables_are_quantised_in_parts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    original = table(50, 8)
    whole = q.quantise([original], "int4")
    monkeypatch.setattr(q, "_CHUNK", 7)
    parts = q.quantise([original], "int4")
    assert torch.equal(whole.data[0], parts.data[0])
    assert torch.equal(whole.scale_bias[0], parts.scale_bias[0])
    assert q.error(parts, [original]).max == pytest.approx(
        float((whole.dequantise(0) - original).abs().max())
    )


@pytest.mark.parametrize(("size", "offset"), [(1.0, 0.0), (1e-3, 0.0), (2.0, 30.0)])
def test_tables_that_pytorch_packed_in_8_bits_keep_their_values(size: float, offset: float) -> None:
    original = table(40, 24, size=size) + offset
    packed = torch.ops.quantized.embedding_bag_byte_prepack(original)
    made = q.from_fused_8bit([packed])
    theirs = torch.ops.quantized.embedding_bag_byte_unpack(packed)
    scale = made.scale_bias[0][:, :1].float()
    assert made.dim == 24
    assert bool(((made.dequantise(0) - theirs).abs() <= scale * 0.5001).all())
    if offset == 0 and size == 1:
        assert float(((made.dequantise(0) - theirs).abs() / scale).mean()) < 0.1


def test_tables_that_pytorch_packed_in_4_bits_are_taken_over_exactly() -> None:
    original = table(40, 24)
    packed = torch.ops.quantized.embedding_bag_4bit_prepack(original)
    made = q.from_fused_4bit([packed])
    theirs = torch.ops.quantized.embedding_bag_4bit_unpack(packed)
    assert made.dim == 24
    torch.testing.assert_close(made.dequantise(0), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("dim", "padding"), [(8, 0), (24, 12), (7, 5)])
def test_tables_of_fbgemms_tbe_are_taken_over_exactly(dtype: q.QuantisedType, dim: int, padding: int) -> None:
    made = q.quantise([table(9, dim), table(4, dim, 1)], dtype)
    rows = [
        torch.cat([pairs.view(torch.uint8), data, torch.full((len(data), padding), 99, dtype=torch.uint8)], 1)
        for data, pairs in zip(made.data, made.scale_bias, strict=True)
    ]
    again = q.from_fbgemm_tbe(rows, dtype, dim)
    for number in (0, 1):
        assert torch.equal(again.data[number][:, : dim // 2], made.data[number][:, : dim // 2])
        assert torch.equal(again.dequantise(number), made.dequantise(number))


def test_rows_padded_before_their_scale_are_read_with_dim() -> None:
    packed = torch.ops.quantized.embedding_bag_byte_prepack(table(6, 8))
    padded = torch.cat([packed[:, :8], torch.full((6, 4), 7, dtype=torch.uint8), packed[:, 8:]], 1)
    plain = q.from_fused_8bit([packed])
    assert torch.equal(q.from_fused_8bit([padded], dim=8).dequantise(0), plain.dequantise(0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_error_is_that_of_the_values(dtype: q.QuantisedType) -> None:
    tables = [table(30, 16), table(20, 16, 1)]
    made = q.quantise(tables, dtype)
    apart = torch.cat([(made.dequantise(i) - t).double().flatten() for i, t in enumerate(tables)])
    values = torch.cat([t.double().flatten() for t in tables])
    found = q.error(made, tables)
    assert found.max == pytest.approx(float(apart.abs().max()), rel=1e-5)
    assert found.mean == pytest.approx(float(apart.abs().mean()), rel=1e-5)
    assert found.relative == pytest.approx(float(apart.norm() / values.norm()), rel=1e-5)
    assert found.mean < found.max <= found.bound * 1.0001


def test_int8_is_closer_than_int4() -> None:
    original = [table(30, 16)]
    eight, four = (q.error(q.quantise(original, dtype), original).relative for dtype in DTYPES)
    assert eight < four / 10


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ([], "no table"),
        ([torch.zeros(3)], r"Table 0 has the shape \[3\]"),
        (torch.zeros(3, 4), "A list of tables is needed, and this is a Tensor"),
        (
            [torch.nn.EmbeddingBag(3, 4)],
            "Table 0 is EmbeddingBag, and a tensor is needed, such as module.weight",
        ),
        (
            [torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.int64)],
            "Table 1 holds torch.int64, and floating-",
        ),
        ([torch.zeros(3, 4), torch.zeros(3, 5)], "Table 1 has 5 columns and table 0 has 4"),
        ([torch.zeros(3, 4), torch.full((3, 4), torch.nan)], "Table 1 holds values that are infinite"),
        ([torch.full((3, 4), 1e9)], "too large for a scale and bias in float16"),
    ],
)
def test_what_cannot_be_quantised_is_one_sentence(tables: list[torch.Tensor], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        q.quantise(tables, "int8")


@pytest.mark.parametrize(
    "taken_over",
    [lambda t, dim: q.from_fbgemm_tbe(t, "int8", dim), q.from_fused_8bit, q.from_fused_4bit],
    ids=["tbe", "8bit", "4bit"],
)
def test_what_is_not_packed_is_not_taken_over(taken_over: Any) -> None:
    with pytest.raises(BadInputError, match=r"Table 0 holds torch.float32, and bytes \(uint8\) are needed"):
        taken_over([torch.zeros(3, 40)], 8)
    for dim in (0, -1):
        with pytest.raises(BadInputError, match=f"dim: {dim} is less than 1"):
            taken_over([torch.zeros(3, 40, dtype=torch.uint8)], dim)


def test_unknown_types_and_short_rows_are_named() -> None:
    with pytest.raises(BadInputError, match="int8 or int4, not to 'int2'"):
        q.quantise([torch.zeros(1, 1)], "int2")  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="it needs 12 columns or more"):
        q.from_fbgemm_tbe([torch.zeros(3, 11, dtype=torch.uint8)], "int8", 8)
    with pytest.raises(BadInputError, match="differ in number or shape"):
        q.error(q.quantise([torch.zeros(2, 2)], "int8"), [torch.zeros(3, 2)])
