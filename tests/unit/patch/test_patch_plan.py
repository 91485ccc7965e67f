"""What the kernel would be told, evaluated in float64 and compared with what EmbeddingBag computes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from harness import patch
from harness.patch.manifest import LaunchShape

LOOKUPS = (torch.ops.aten._embedding_bag.default, torch.ops.aten._embedding_bag_forward_only.default)


class Arguments(TorchDispatchMode):
    """Keeps the arguments with which EmbeddingBag arrives at the operator that the patch replaces."""

    names = (
        "weight",
        "indices",
        "offsets",
        "scale",
        "mode",
        "sparse",
        "sample_weights",
        "last",
        "padding_idx",
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LOOKUPS:
            defaults = (None, None, None, False, 0, False, None, False, -1)
            self.call = dict(zip(self.names, (*args, *defaults[len(args) :]), strict=True))
        return func(*args, **(kwargs or {}))


def plan(call: dict[str, Any], multiprocessors: int = 132) -> dict[str, Any]:
    text = torch.ops.embedding_harness.plan(
        call["weight"],
        call["indices"],
        call["offsets"],
        call["mode"],
        call["sample_weights"],
        call["last"],
        call["padding_idx"],
        multiprocessors,
    )
    answer: dict[str, Any] = json.loads(text)
    return answer


def evaluate(planned: dict[str, Any], call: dict[str, Any]) -> NDArray[np.float64]:
    """The kernels' contract, lookup_args.h, the slow way: flat memory, strides, one element at a time."""

    def memory(tensor: torch.Tensor) -> NDArray[Any]:
        reach = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
        return torch.as_strided(tensor.detach(), (reach,), (1,)).numpy()

    table, indices, offsets = memory(call["weight"]), memory(call["indices"]), memory(call["offsets"])
    bags, dim, n_indices = planned["n_bags"], planned["dim"], planned["n_indices"]
    output = np.zeros((bags, dim))
    for bag in range(bags):
        begin = 0 if bag == 0 else int(offsets[bag])
        end = int(offsets[bag + 1]) if bag < bags - 1 else n_indices
        counted = 0
        for position in range(begin, end):
            row = int(indices[position])
            assert 0 <= row < planned["rows"]
            if row == planned["padding_idx"]:
                continue
            counted += 1
            scale = 1.0
            if planned["weighted"]:
                scale = float(memory(call["sample_weights"])[position * planned["sample_weight_stride"]])
            for column in range(dim):
                at = row * planned["row_stride"] + column * planned["column_stride"]
                output[bag, column] += scale * float(table[at])
        if planned["mode"] == 1 and counted:
            output[bag] /= counted
    return output


@pytest.fixture
def applied(make_design: Any) -> Iterator[None]:
    patch.apply(make_design())
    yield
    patch.remove()


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    rows, dim = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    mode = draw(st.sampled_from(["sum", "mean"]))
    two_dimensional = draw(st.booleans())
    row = st.integers(0, rows - 1)
    if two_dimensional:
        width = draw(st.integers(1, 4))
        bags = draw(st.lists(st.lists(row, min_size=width, max_size=width), min_size=1, max_size=5))
    else:
        bags = draw(st.lists(st.lists(row, max_size=5), max_size=6))
    return {
        "rows": rows,
        "dim": dim,
        "mode": mode,
        "bags": bags,
        "two_dimensional": two_dimensional,
        "padding_idx": draw(st.none() | st.integers(-rows, rows - 1)),
        "weighted": mode == "sum" and draw(st.booleans()),
        "index_dtype": draw(st.sampled_from([torch.int32, torch.int64])),
        "layout": draw(st.sampled_from(["rows", "columns", "wider"])),
        "requires_grad": draw(st.booleans()),
    }


def table(case: dict[str, Any]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(case["rows"] * 100 + case["dim"])
    if case["layout"] == "columns":
        return torch.randn(case["dim"], case["rows"], generator=generator).t()
    if case["layout"] == "wider":
        return torch.randn(case["rows"], case["dim"] + 3, generator=generator)[:, 1 : case["dim"] + 1]
    return torch.randn(case["rows"], case["dim"], generator=generator)


@pytest.mark.usefixtures("applied")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases())
def test_planned_arguments_compute_what_embedding_bag_computes(case: dict[str, Any]) -> None:
    weight = table(case).requires_grad_(case["requires_grad"])
    flat = [row for bag in case["bags"] for row in bag]
    if case["two_dimensional"]:
        indices, offsets = torch.tensor(case["bags"], dtype=case["index_dtype"]), None
    else:
        indices = torch.tensor(flat, dtype=case["index_dtype"])
        ends = np.cumsum([0, *map(len, case["bags"])])
        offsets = torch.tensor(ends[:-1], dtype=case["index_dtype"])
    sample_weights = torch.randn(indices.shape) if case["weighted"] else None
    bag = torch.nn.EmbeddingBag(
        case["rows"],
        case["dim"],
        mode=case["mode"],
        padding_idx=case["padding_idx"],
        _weight=weight,
    )
    with Arguments() as arrived:  # type: ignore[no-untyped-call]
        expected = bag(indices, offsets, per_sample_weights=sample_weights)
    planned = plan(arrived.call)
    assert "refusal" not in planned
    assert planned["index_bytes"] == indices.element_size()
    np.testing.assert_allclose(
        evaluate(planned, arrived.call), expected.detach().numpy(), rtol=1e-5, atol=1e-5, strict=False
    )


def a_call(**changes: Any) -> dict[str, Any]:
    call: dict[str, Any] = {
        "weight": torch.randn(10, 4),
        "indices": torch.tensor([1, 2, 3]),
        "offsets": torch.tensor([0, 2]),
        "mode": 0,
        "sample_weights": None,
        "last": False,
        "padding_idx": -1,
    }
    return {**call, **changes}


@pytest.mark.usefixtures("applied")
def test_indices_and_offsets_of_two_types_are_promoted_as_pytorch_does() -> None:
    assert plan(a_call(offsets=torch.tensor([0, 2], dtype=torch.int32)))["index_bytes"] == 8
    assert plan(a_call(indices=torch.tensor([1, 2, 3], dtype=torch.int32)))["index_bytes"] == 8


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"weight": torch.randn(10, 4, dtype=torch.float64)}, "the table's dtype is not the design's"),
    ({"weight": torch.randn(10, 4, dtype=torch.bfloat16)}, "the table's dtype is not the design's"),
    ({"weight": torch.randn(10)}, "the table is not a dense matrix"),
    ({"weight": torch.randn(10, 4).to_sparse()}, "the table is not a dense matrix"),
    ({"weight": torch.randn(10, 0)}, "the table has no columns"),
    ({"indices": torch.tensor([[1, 2], [3, 4]])}, "indices or offsets are not one-dimensional"),
    ({"offsets": torch.tensor(0)}, "indices or offsets are not one-dimensional"),
    ({"indices": torch.tensor([1.0, 2.0])}, "indices or offsets are neither int32 nor int64"),
    ({"indices": torch.tensor([1, 2], dtype=torch.int16)}, "indices or offsets are neither int32 nor int64"),
    ({"indices": torch.arange(6)[::2]}, "indices or offsets are not contiguous"),
    (
        {"indices": torch.empty(3, dtype=torch.int64, device="meta")},
        "indices or offsets are on another device",
    ),
    ({"last": True}, "include_last_offset is set, and designs do not read the last offset"),
    ({"offsets": torch.empty(0, dtype=torch.int64), "last": True}, "include_last_offset is set"),
    ({"mode": 2}, "mode is max"),
    ({"mode": 3}, "the mode is not the design's"),
    ({"sample_weights": torch.ones(2)}, "per-sample weights are not one for each index"),
    ({"sample_weights": torch.ones(3, 1)}, "per-sample weights are not one for each index"),
    ({"sample_weights": torch.ones(3).double()}, "per-sample weights have another dtype"),
    ({"sample_weights": torch.ones(3, device="meta")}, "per-sample weights are on another device"),
    ({"padding_idx": 10}, "padding_idx is outside the table"),
]


@pytest.mark.usefixtures("applied")
@pytest.mark.parametrize(("changes", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_no_design_computes_is_left_to_pytorch(changes: dict[str, Any], why: str) -> None:
    assert plan(a_call(**changes))["refusal"].startswith(why)


NARROW: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"modes": ["mean"]}, {}, "the mode is not the design's"),
    ({"index_dtypes": ["int32"]}, {}, "the indices' dtype is not the design's"),
    ({"weighted": False}, {"sample_weights": torch.ones(3)}, "the design takes no per-sample weights"),
    ({"padding": False}, {"padding_idx": 0}, "the design takes no padding_idx"),
    ({"max_dim": 3}, {}, "the table has more columns than the design takes"),
    ({"dim_multiple": 8}, {}, "the design does not take this number of columns"),
]


@pytest.mark.parametrize(("manifest", "changes", "why"), NARROW, ids=[why for *_, why in NARROW])
def test_what_this_design_does_not_support_is_left_to_pytorch(
    make_design: Any, manifest: dict[str, Any], changes: dict[str, Any], why: str
) -> None:
    patch.apply(make_design(**manifest))
    assert plan(a_call(**changes))["refusal"] == why


@pytest.mark.parametrize(
    ("shape", "bags", "blocks"),
    [
        ((1024, 1, 0, 0), 5, 1024),
        ((0, 1, 0, 0), 5, 5),
        ((0, 4, 0, 0), 9, 3),
        ((0, 4, 32, 0), 9, 3 * 2),
        ((0, 1, 0, 2), 5000, 2 * 132),
        ((0, 1, 0, 2), 100, 100),
        ((0, 1, 0, 0), 0, 0),
    ],
)
def test_blocks_follow_from_the_launch_shape(
    make_design: Any, shape: tuple[int, int, int, int], bags: int, blocks: int
) -> None:
    patch.apply(make_design(launch=LaunchShape(32, 8, *shape)))
    call = a_call(weight=torch.randn(10, 48), offsets=torch.zeros(bags, dtype=torch.int64))
    assert plan(call)["blocks"] == blocks
