"""`tune` and its plan on a real GPU, and the kernels of "fused" that moved limits lead to, against float64.

As for test_embedding_kernels.py the package must be built.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.served import assert_right, batch, expected, some_tables
from tests.served_package import Plan, _operators, ek

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.mark.parametrize("longest", [0, 3, 40, 200])
@pytest.mark.parametrize("bags_per_sm", [0, 4])
def test_every_kernel_of_fused_takes_any_call_of_alike_tables(longest: int, bags_per_sm: int) -> None:
    tables = some_tables(*[(300, 64, "float32")] * 3)
    module = ek.EmbeddingTables(tables).cuda()
    bags = bags_per_sm * torch.cuda.get_device_properties().multi_processor_count or 7
    indices, offsets = batch(tables, bags, longest)
    wanted = expected(tables, indices, offsets)
    most = 2**31 - 1
    large = [((0, 0, clocks), "large") for clocks in (None, 0, 1, 2**24 - 1)]
    for limits, kernel in (((most, None), "stream"), *large, ((0, most), "tables")):
        module.use_limits(*limits)
        assert_right(module(indices.cuda(), offsets.cuda()), wanted, 30)
        assert f"lookup_{kernel}" in _operators.last_kernel()


def test_when_memory_is_crowded_is_tried() -> None:
    usual = _operators.crowded_clocks(torch.cuda.current_device())
    assert 50 < usual < 5000
    bags = [nn.EmbeddingBag(3000, 128, mode="sum").cuda() for _ in range(2)]
    many = 3 * torch.cuda.get_device_properties().multi_processor_count
    offsets = torch.arange(0, 2 * many * 100 + 1, 100).cuda()
    batches = [(torch.randint(0, 3000, (2 * many * 100,)).cuda(), offsets) for _ in range(2)]
    (group,) = ek.tune(bags, batches, blocks=11).groups
    assert [each.why_not for each in group.candidates] == [""] * len(group.candidates)
    tried = [each.choice.crowded_clocks for each in group.candidates]
    shares = [round(share * usual) for share in (0.5, 0.75, 4 / 3)]
    assert [each for each in tried if each is not None] == [0, *shares, 2**24 - 1]


@pytest.mark.parametrize("decide_by", ["eager", "graph"])
def test_a_plan_is_made_and_applied(decide_by: Any, tmp_path: Path) -> None:
    bags = [nn.EmbeddingBag(3000, 64, mode="sum").cuda() for _ in range(3)]
    weights = [bag.weight.detach() for bag in bags]
    batches = [tuple(each.cuda() for each in batch(weights, 64, 60, seed=seed)) for seed in range(4)]
    made = ek.tune(bags, batches, row_types=["float16", "int8"], decide_by=decide_by, blocks=11)
    (group,) = made.groups
    assert [each.why_not for each in group.candidates] == [""] * len(group.candidates)
    assert all(each.eager_us and each.graph_us for each in group.candidates)
    assert made.gpu.name == torch.cuda.get_device_name()
    assert made.protocol.l2_bytes > 0
    made.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == made
    indices, offsets = batches[0]
    wanted = expected([weight.cpu() for weight in weights], indices.cpu(), offsets.cpu())
    model = ek.optimize(copy.deepcopy(bags), plan=tmp_path / "plan.json", strict=True)
    if group.choice.kernel == "own":
        assert type(model) is nn.ModuleList
        return
    found = model(indices, offsets)
    near = {"unchanged": 1e-4, "float16": 1e-2, "int8": 0.1}[group.choice.row_type]
    torch.testing.assert_close(found.double().cpu(), wanted, rtol=near, atol=60 * near)


class Called(nn.Module):
    """Calls its bags one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(500, dim, mode="mean") for dim in (16, 20))

    def forward(self, indices: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return torch.cat([bag(indices, offsets) for bag in self.bags], dim=1)


def test_a_models_own_calls() -> None:
    model = Called().cuda()
    offsets = torch.arange(0, 300, 3).cuda()
    batches = [(torch.randint(0, 500, (300,)).cuda(), offsets) for _ in range(3)]
    with torch.no_grad():
        before = [model(*each) for each in batches]
        made = ek.tune(model, batches, blocks=11)
        assert [each.choice.kernel for each in made.groups[0].candidates if each.eager_us]
        for each, right in zip(batches, before, strict=True):
            torch.testing.assert_close(model(*each), right)
        ek.optimize(model, plan=made)
        for each, right in zip(batches, before, strict=True):
            torch.testing.assert_close(model(*each), right)
