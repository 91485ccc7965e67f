"""Limits between the kernels of "fused": moved by `tune`, told to the operator, and what is launched then."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness import designs
from tests.served import batch
from tests.served_package import Call, Choice, Plan, asked, ek, limits
from tests.unit.embedding_kernels.plans import WoundUp
from tests.unit.embedding_kernels.test_launches import fake_gpu, on_fake_gpu

__all__ = ["fake_gpu"]


def test_the_usual_ones_are_the_designs() -> None:
    large, stream = (next(iter(special.when)) for special in designs.get("fused").special)
    assert (large.rows_per_bag, large.bags_per_sm) == ((limits.FEW_ROWS, 0), (limits.MANY_BAGS, 0))
    assert stream.rows_per_bag == (0, limits.FEW_ROWS)


def test_the_kernel_that_is_launched(fake_gpu: Path) -> None:
    code = """
def launched(bags, longest, *limits, count=3):
    tables = alike(count)
    module = ek.EmbeddingTables(tables)
    module.use_limits(*limits)
    indices, offsets = batch(tables, bags, longest)
    given = [fake.on_gpu(t, 0) for t in (module.storage, module.descriptors, indices, offsets)]
    found = _operators.lookup(*given, None, None, count, 4 * count, module._groups, 0)
    assert_right(fake.on_cpu(found), expected(tables, indices, offsets), 8)
    return _operators.last_kernel().split("_float32")[0]

for limits in ((), (2,), (0, 0), (2, 4), (None, 0)): print(launched(5, 9, *limits))  # some 4 rows
for limits in ((), (99,), (0, 4), (None, 4), (32, 3)): print(launched(13, 90, *limits))  # some 45; 3 per SM
"""
    stream, large, rest = "fused_lookup_stream", "fused_lookup_large", "fused_lookup_tables"
    found = on_fake_gpu(fake_gpu, code)
    assert found == [*(stream, rest, large, rest, stream), *(large, stream, rest, rest, large)]


def test_the_operator_refuses_limits_that_are_none() -> None:
    module = ek.EmbeddingTables([torch.ones(3, 4)])
    for wrong in ((-1, None), (None, 2**31)):
        with pytest.raises(ValueError, match=r"are counts below 2\^31"):
            module.use_limits(*wrong)
    module._groups[-1] = 2**31
    with pytest.raises(RuntimeError, match="limits of rows and bags are counts"):
        module(torch.tensor([0]), torch.tensor([0, 1]))


def asked_of(bags: int, length: int, dims: tuple[int, ...] = (8, 8)) -> tuple[Any, Any]:
    """Tables, and a call of bags that are all of one length."""
    tables = ek.EmbeddingTables([torch.ones(30, dim) for dim in dims])
    offsets = torch.arange(len(dims) * bags + 1) * length
    call = Call(None, (torch.zeros(int(offsets[-1]), dtype=torch.int64), offsets), {})
    return tables, [asked(tables, call)]


@pytest.mark.parametrize(
    ("bags", "length", "row_type", "found"),
    [
        (6, 4, "unchanged", [(4, 0), (4, None)]),  # usually for the kernel for few rows
        (400, 50, "unchanged", [(51, None), (None, 41)]),  # for that for many bags: 40 on each multiprocessor
        (20, 50, "unchanged", [(51, None), (None, 2)]),  # for that for any call
        (400, 50, "float16", [(51, None)]),
    ],
)
def test_limits_are_moved_as_little_as_need_be(
    bags: int, length: int, row_type: str, found: list[tuple[int | None, int | None]]
) -> None:
    tables, calls = asked_of(bags, length)
    assert limits.moved(tables, calls, row_type, 10) == found


def test_where_one_kernel_takes_all_there_are_none() -> None:
    assert limits.moved(*asked_of(400, 50, (8, 16)), "unchanged", 10) == []
    assert limits.moved(*asked_of(400, 50, (6, 6)), "unchanged", 10) == []
    assert limits.moved(*asked_of(0, 50), "unchanged", 10) == []
    tables, calls = asked_of(400, 50)
    weighted = [dataclasses.replace(call, weights=torch.ones(1)) for call in calls]
    assert limits.moved(tables, weighted, "unchanged", 10) == []


def test_a_plan_moves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    bags = [nn.EmbeddingBag(30, 8, mode="sum") for _ in range(2)]
    batches = [batch([bag.weight for bag in bags], 20, 99, seed=seed) for seed in range(2)]
    made = ek.tune(copy.deepcopy(bags), batches, clock=WoundUp(fused=10, own=20, moved=5))
    choice = made.groups[0].choice
    assert choice.kernel == "fused"
    assert (choice.few_rows, choice.many_bags) != (None, None)
    monkeypatch.setattr(Plan, "differences", lambda self, device: "")
    served = ek.optimize(copy.deepcopy(bags), plan=made, strict=True)
    usual = (choice.few_rows, choice.many_bags)
    assert served._limits == tuple(-1 if limit is None else limit for limit in usual)
    assert served._groups[-2:] == list(served._limits)
    assert str(Choice("fused", "float16", 48)) == "fused few_rows=48, float16 rows"
