"""embedding_bags and EmbeddingBags on the CPU, where PyTorch's own operators answer; and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from harness import patch
from harness.errors import BadInputError
from harness.patch.quantise import QuantisedTables, quantise
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
        ({"weights": [torch.zeros(4, 3), torch.zeros(4, 0)]}, ValueError, r"table 1 has the shape \[4, 0\]"),
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
        ({"offsets": torch.tensor([1, 2, 3])}, ValueError, "begin at 0; the first is 1"),
        ({"offsets": torch.tensor([3, 3, 3])}, ValueError, "begin at 0; the first is 3"),
        ({"offsets": torch.tensor([0, 1, 2])}, ValueError, "end at the number of indices, 3; the last is 2"),
        ({"offsets": torch.tensor([0, 0, 0])}, ValueError, "end at the number of indices, 3; the last is 0"),
        ({"offsets": torch.tensor([0])}, ValueError, "end at the number of indices, 3; the last is 0"),
        (
            {"weights": WEIGHTS[:1], "offsets": torch.tensor([0, 2])},  # two bags, to nn.EmbeddingBag
            ValueError,
            r"the last is 2\. Those of nn\.EmbeddingBag without include_last_offset lack it: append it",
        ),
        ({"indices": torch.tensor([], dtype=torch.int64)}, ValueError, "within the 0 indices: offset 1 is 1"),
        ({"mode": "median"}, ValueError, "the modes sum, mean, max; got 'median'"),
        ({"mode": "mean", "per_sample_weights": torch.ones(3)}, ValueError, "in the mode sum alone"),
        ({"per_sample_weights": torch.ones(2)}, ValueError, "one per-sample weight"),
        ({"per_sample_weights": torch.ones(3).int()}, ValueError, "a floating-point number"),
        ({"output_dtype": torch.int8}, TypeError, "writes float32, float16 or bfloat16, not Char"),
        ({"batch_sizes": [1]}, ValueError, "batch sizes of 1 tables, and 2 tables"),
        ({"batch_sizes": [2, 2]}, ValueError, "3 are not that for 2 tables of 2 bags"),
        # As many offsets as two tables of two bags have.
        (
            {"offsets": torch.tensor([0, 1, 2, 3, 3]), "batch_sizes": [3, 1]},
            ValueError,
            r"as many bags in every table: table 1 has 1, table 0 3\. Call it for each batch size",
        ),
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


def test_batch_sizes_that_are_what_the_offsets_are_taken_for_change_nothing() -> None:
    case = make([[3, 1], [0, 2]])
    assert isinstance(case.weights, list)
    given = case.weights, case.indices, case.offsets
    assert torch.equal(patch.embedding_bags(*given, batch_sizes=[2, 2]), case.call())
    with pytest.raises(ValueError, match="table 1 has 1, table 0 3"):
        patch.embedding_bags(quantise(case.weights, "int8"), *given[1:], batch_sizes=[3, 1])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("name", ["weights", "indices", "offsets", "sample_weights"])
def test_a_tensor_without_values_among_others_is_refused(name: str, dtype: str) -> None:
    case = make([[2, 1], [0, 3]], dtype=dtype, weighted=True)
    given = {
        "weights": case.weights,
        "indices": case.indices,
        "offsets": case.offsets,
        "sample_weights": case.sample_weights,
    }
    for other in ("cpu", "meta"):
        moved: dict[str, Any] = {
            n: value if (n == name) == (other == "cpu") else _on_meta(value) for n, value in given.items()
        }
        sample_weights = moved.pop("sample_weights")
        with pytest.raises(
            ValueError, match=r"got a tensor on cpu and another on meta, which holds no values"
        ):
            patch.embedding_bags(**moved, per_sample_weights=sample_weights)


@pytest.mark.parametrize("dtype", ["float32", "int4"])
def test_on_meta_alone_a_lookup_is_a_shape(dtype: str) -> None:
    case = make([[2, 1, 1], [0, 3, 0]], dtype=dtype)
    weights, indices, offsets = map(_on_meta, (case.weights, case.indices, case.offsets))
    output = patch.embedding_bags(weights, indices, offsets)
    assert (output.device.type, output.shape, output.dtype) == ("meta", (3, 32), case.call().dtype)


def _on_meta(value: Any) -> Any:
    if isinstance(value, list):
        return [tensor.to("meta") for tensor in value]
    return value.to("meta")


REFUSED = "is for inference and has no gradient: train its tables with torch.nn.EmbeddingBag"


def test_gradients_are_refused_and_not_silently_missing() -> None:
    trained = [torch.zeros(4, 3), torch.zeros(5, 3, requires_grad=True)]
    scales = torch.ones(3, requires_grad=True)
    for output in (
        patch.embedding_bags(trained, INDICES, OFFSETS),
        patch.embedding_bags(WEIGHTS, INDICES, OFFSETS, per_sample_weights=scales),
        patch.embedding_bags(quantise(WEIGHTS, "int8"), INDICES, OFFSETS, per_sample_weights=scales).float(),
    ):
        assert output.requires_grad
        with pytest.raises(RuntimeError, match=REFUSED):
            output.sum().backward()
    assert not patch.embedding_bags(WEIGHTS, INDICES, OFFSETS).requires_grad
    with torch.no_grad():
        assert not patch.embedding_bags(trained, INDICES, OFFSETS).requires_grad
    with torch.inference_mode():
        assert patch.embedding_bags(trained, INDICES, OFFSETS).shape == (1, 6)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # PyTorch's own use
def test_gradients_of_other_kinds_are_refused() -> None:
    def lookup(table: torch.Tensor) -> torch.Tensor:
        return patch.embedding_bags([table, WEIGHTS[1]], INDICES, OFFSETS)

    with pytest.raises(RuntimeError, match="has no forward-mode gradient"):
        torch.func.jvp(lookup, (WEIGHTS[0],), (WEIGHTS[0],))
    with pytest.raises(
        RuntimeError, match=r"cannot use C\+\+ torch::autograd::Function with functorch transforms"
    ):
        torch.func.grad(lambda table: lookup(table).sum())(WEIGHTS[0])


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


def test_the_patch_knows_no_other_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'embedding_bag'"):
        patch.embedding_bag  # noqa: B018
