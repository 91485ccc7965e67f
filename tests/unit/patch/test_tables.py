"""embedding_bags and EmbeddingBags on the CPU, where PyTorch's own operators answer; and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from harness import patch
from harness.errors import BadInputError
from harness.patch.quantise import QuantisedTables, from_fused_4bit, from_fused_8bit, quantise
from tests.gpu.table_cases import ROWS, USUAL, assert_right, make, random_tables_case


@pytest.mark.parametrize("seed", range(80))
def test_every_type_and_mode_on_the_cpu(seed: int) -> None:
    case = random_tables_case(seed)
    assert_right(case.call(), case)


@pytest.mark.parametrize("dtype", ROWS)
def test_the_output_has_the_type_that_is_asked_for(dtype: str) -> None:
    case = make([[2, 0, 3]], dtype=dtype)
    default = patch.embedding_bags(case.weights, case.indices, case.offsets)
    assert default.dtype == getattr(torch, USUAL[dtype])
    for output in ("float32", "float16", "bfloat16"):
        asked = make([[2, 0, 3]], dtype=dtype, output_dtype=output)
        assert_right(asked.call(), asked)


def test_indices_and_offsets_of_different_types_and_strides_are_one_call() -> None:
    case = make([[3, 1], [0, 2]], index_dtype=torch.int32)
    expected = case.call()
    wide = patch.embedding_bags(case.weights, case.indices, case.offsets.long())
    assert torch.equal(wide, expected)
    apart = torch.stack([case.indices, case.indices], dim=1)[:, 0]
    assert torch.equal(patch.embedding_bags(case.weights, apart, case.offsets), expected)


def test_tables_and_bags_lie_as_fbgemm_has_them() -> None:
    tables = [torch.tensor([[1.0], [2.0]]), torch.tensor([[10.0], [20.0]])]
    indices, offsets = torch.tensor([0, 1, 1, 0, 1, 1, 1]), torch.tensor([0, 3, 3, 5, 7])
    got = patch.embedding_bags(tables, indices, offsets)
    assert got.tolist() == [[5.0, 30.0], [0.0, 40.0]]


WEIGHTS = [torch.zeros(4, 3), torch.zeros(5, 3)]
INDICES, OFFSETS = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 3])


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"weights": []}, ValueError, "at least one table"),
        ({"weights": torch.zeros(4, 3)}, ValueError, r"a list of tables .*; the first has the shape \[3\]"),
        ({"weights": [nn.EmbeddingBag(4, 3)]}, TypeError, "such as module.weight; got EmbeddingBag"),
        ({"weights": [torch.zeros(4, 3), torch.zeros(4, 2)]}, ValueError, r"table 1 has the shape \[4, 2\]"),
        ({"weights": [torch.zeros(4, 3), torch.zeros(4, 3).half()]}, TypeError, "table 1 is Half"),
        ({"weights": [torch.zeros(4, 3).int()]}, TypeError, "tables of float32, float16 or bfloat16"),
        ({"weights": [torch.zeros(3, 4).t()]}, ValueError, "columns are 4 elements apart"),
        ({"indices": INDICES.float()}, TypeError, "of int32 or int64; got Float and Long"),
        ({"indices": INDICES[None]}, ValueError, r"one-dimensional indices and offsets; got \[1, 3\]"),
        ({"offsets": torch.tensor([0, 3])}, ValueError, "2 are not that for 2 tables"),
        ({"offsets": torch.tensor([], dtype=torch.int64)}, ValueError, "0 are not that for 2 tables"),
        ({"offsets": torch.tensor([0, 2, 1])}, ValueError, "offset 2 is 1"),
        ({"offsets": torch.tensor([-1, 2, 3])}, ValueError, "offset 0 is -1"),
        ({"offsets": torch.tensor([0, 2, 4])}, ValueError, "ascend within the 3 indices: offset 2 is 4"),
        ({"mode": "median"}, ValueError, "the modes sum, mean, max; got 'median'"),
        ({"mode": "mean", "per_sample_weights": torch.ones(3)}, ValueError, "in the mode sum alone"),
        ({"per_sample_weights": torch.ones(2)}, ValueError, "one per-sample weight"),
        ({"per_sample_weights": torch.ones(3).int()}, ValueError, "a floating-point number"),
        ({"output_dtype": torch.int8}, TypeError, "writes float32, float16 or bfloat16, not Char"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    changes: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    given: dict[str, Any] = {"weights": WEIGHTS, "indices": INDICES, "offsets": OFFSETS, **changes}
    with pytest.raises(kind, match=sentence):
        patch.embedding_bags(**given)


@pytest.mark.parametrize("dtype", ROWS)
@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_row_outside_its_table_is_an_error(dtype: str, wrong: int) -> None:
    case = make([[1], [1]], rows=[9, 5], dtype=dtype)
    case.indices[1] = wrong
    with pytest.raises(IndexError, match=rf"got row number {wrong} for table 1, which has 5 rows"):
        case.call()


def test_quantised_tables_without_their_scales_are_refused() -> None:
    made = quantise(WEIGHTS, "int8")
    for scales in ((), (made.scale_bias[0], made.scale_bias[0])):
        broken = QuantisedTables("int8", 3, made.data, scales)
        with pytest.raises(ValueError, match=r"scales of 0|those of table 1 are not"):
            patch.embedding_bags(broken, INDICES, OFFSETS)


def test_gradients_are_refused_and_not_silently_missing() -> None:
    trained = [torch.zeros(4, 3), torch.zeros(5, 3, requires_grad=True)]
    with pytest.raises(RuntimeError, match="is for inference, and table 1 requires a gradient"):
        patch.embedding_bags(trained, INDICES, OFFSETS)
    with pytest.raises(RuntimeError, match="per-sample weights require a gradient"):
        patch.embedding_bags(WEIGHTS, INDICES, OFFSETS, per_sample_weights=torch.ones(3, requires_grad=True))
    with torch.no_grad():
        assert not patch.embedding_bags(trained, INDICES, OFFSETS).requires_grad
    with torch.inference_mode():
        assert patch.embedding_bags(trained, INDICES, OFFSETS).shape == (1, 6)


def test_on_the_cpu_calls_go_to_pytorch_whatever_is_applied(
    make_tables_design: Any, make_design: Any
) -> None:
    patch.embedding_bags(WEIGHTS, INDICES, OFFSETS)
    patch.apply(make_tables_design())
    assert patch.active() == "every_table"
    assert patch.calls()["stock"] == 0
    patch.embedding_bags(WEIGHTS, INDICES, OFFSETS)
    calls = patch.calls()
    assert (calls["design"], calls["stock"]) == (0, 1)
    assert calls["fallback"] == "the tables are not on a CUDA device"
    patch.apply(make_design())
    assert patch.active() == "two_way + every_table"
    patch.remove()
    assert patch.active() is None
    with pytest.raises(BadInputError, match="no design is applied"):
        patch.set_hot_rows(WEIGHTS[0], torch.tensor([1]))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
def test_models_that_pytorch_quantised_answer_as_before(bits: int, weighted: bool) -> None:
    torch.manual_seed(0)
    table = torch.randn(60, 32)
    indices, offsets = torch.randint(60, (90,)), torch.tensor([0, 10, 10, 40, 90])
    scales = torch.rand(90) if weighted else None
    pack, look_up, take_over = {
        8: ("byte_prepack", "byte_rowwise_offsets", from_fused_8bit),
        4: ("4bit_prepack", "4bit_rowwise_offsets", from_fused_4bit),
    }[bits]
    packed = getattr(torch.ops.quantized, f"embedding_bag_{pack}")(table)
    theirs = getattr(torch.ops.quantized, f"embedding_bag_{look_up}")(
        packed, indices, offsets, per_sample_weights=scales, include_last_offset=True
    )
    ours = patch.embedding_bags(
        take_over([packed]), indices, offsets, per_sample_weights=scales, output_dtype=torch.float32
    )
    # In 8 bits float32 scales become float16: half a scale per row at most, on average a tenth.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4 if bits == 4 else 0.1)


def modules(mode: str = "mean") -> list[nn.EmbeddingBag]:
    torch.manual_seed(0)
    return [nn.EmbeddingBag(rows, 12, mode=mode) for rows in (30, 7, 200)]


def test_a_module_of_modules_does_what_they_do() -> None:
    bags = modules()
    joint = patch.EmbeddingBags(bags)
    indices = [torch.randint(bag.num_embeddings, (5 * n,)) for n, bag in enumerate(bags, start=1)]
    starts = [torch.arange(5) * n for n in (1, 2, 3)]
    ends = torch.tensor([0, 5, 15])
    with torch.no_grad():
        expected = torch.cat([bag(i, s) for bag, i, s in zip(bags, indices, starts, strict=True)], dim=1)
        offsets = torch.cat([*(s + e for s, e in zip(starts, ends, strict=True)), torch.tensor([30])])
        got = joint(torch.cat(indices), offsets)
    torch.testing.assert_close(got, expected)
    assert joint.get_buffer("weight_1").data_ptr() == bags[1].weight.data_ptr()
    assert "3 tables, embedding_dim=12, mode='mean'" in repr(joint)
    assert not list(joint.parameters())


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_quantised_module_moves_saves_and_copies(dtype: Any) -> None:
    joint = patch.EmbeddingBags(modules("sum"))
    small = joint.quantise(dtype)
    indices, offsets = torch.randint(7, (9,)), torch.tensor([0, 1, 3, 5, 5, 8, 9])
    expected = small(indices, offsets)
    assert expected.dtype == torch.float16
    bound = {"int8": 0.05, "int4": 1.0}[dtype]
    torch.testing.assert_close(expected.float(), joint(indices, offsets), rtol=0, atol=bound)

    assert torch.equal(copy.deepcopy(small)(indices, offsets), expected)
    assert torch.equal(small.bfloat16().float().half()(indices, offsets), expected)
    other = patch.EmbeddingBags([torch.randn(rows, 12) for rows in (30, 7, 200)]).quantise(dtype)
    assert not torch.equal(other(indices, offsets), expected)
    for assign in (False, True):
        other.load_state_dict(copy.deepcopy(small.state_dict()), assign=assign)
        assert torch.equal(other(indices, offsets), expected)
    tables = small.tables()
    assert isinstance(tables, QuantisedTables)
    assert all(data.stride(0) % 16 == 0 for data in tables.data)
    assert small.tables() is tables
    with pytest.raises(BadInputError, match=f"quantised already, to {dtype}"):
        small.quantise("int8")


def test_quantised_rows_that_lie_within_something_else_are_copied() -> None:
    made = quantise([torch.randn(5, 20)], "int8")
    wide = torch.cat([made.data[0], torch.zeros(5, 12, dtype=torch.uint8)], dim=1)
    within = QuantisedTables(
        "int8", 20, (wide.flatten()[: 4 * 32 + 20].as_strided((5, 20), (32, 1)),), made.scale_bias
    )
    module = patch.EmbeddingBags(within)
    indices, offsets = torch.arange(5), torch.arange(6)
    assert torch.equal(module(indices, offsets), patch.embedding_bags(made, indices, offsets))


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ([], "at least one table"),
        (
            [nn.EmbeddingBag(3, 4, mode="sum"), nn.EmbeddingBag(3, 4, mode="max")],
            "module 1 has 'max', module 0 'sum'",
        ),
        ([torch.zeros(3, 4), torch.zeros(3, 5)], r"table 1 is \[3, 5\], table 0 \[3, 4\]"),
        ([torch.zeros(3)], r"table 0 is \[3\]"),
        ([torch.zeros(())], r"table 0 is \[\]"),
        (torch.zeros(3, 4), "put a single one into brackets"),
        ([torch.zeros(3, 4), nn.Embedding(3, 4)], "number 1 is Embedding"),
        ([nn.EmbeddingBag(3, 4, padding_idx=0)], "no padding_idx, which module 0 sets"),
        ([nn.EmbeddingBag(3, 4, max_norm=1.0)], "no max_norm, which module 0 sets"),
    ],
)
def test_modules_that_cannot_be_joined_are_one_sentence(tables: Any, sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        patch.EmbeddingBags(tables)


def test_a_mode_that_there_is_not_is_refused_at_once() -> None:
    with pytest.raises(BadInputError, match="the modes sum, mean, max; got 'median'"):
        patch.EmbeddingBags([torch.zeros(3, 4)], mode="median")  # type: ignore[arg-type]


def test_a_compiled_model_holds_the_operator() -> None:
    joint = patch.EmbeddingBags(modules("sum"))
    indices, offsets = torch.randint(7, (9,)), torch.tensor([0, 1, 3, 5, 5, 8, 9])
    with torch.inference_mode():
        compiled = torch.compile(joint, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(indices, offsets), joint(indices, offsets))


def test_the_patch_knows_no_other_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'embedding_bag'"):
        patch.embedding_bag  # noqa: B018
