"""What a bag does and `EmbeddingTables` would not do is refused or left, and never done differently."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.served_package import Choice, Plan, ek
from tests.unit.embedding_kernels import plans

INDICES, OFFSETS = torch.tensor([0, 1, 2]), torch.tensor([0, 2])
WARNED_OF_BY_PYTORCH = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
"""For what PyTorch's own code warns of."""


class Doubled(nn.EmbeddingBag):
    def forward(self, *arguments: Any) -> Any:
        return 2 * super().forward(*arguments)


def hooked() -> nn.EmbeddingBag:
    bag = nn.EmbeddingBag(5, 3)
    bag.register_forward_hook(lambda _, given, output: 2 * output)
    return bag


@pytest.mark.parametrize("modes", [None, "sum"])
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: nn.EmbeddingBag(5, 3, padding_idx=1), "table 1 .* has a padding_idx"),
        (lambda: nn.EmbeddingBag(5, 3, max_norm=1.0), "table 1 .* has a max_norm"),
        (lambda: Doubled(5, 3), "table 1 .* a forward of its own"),
        (hooked, "table 1 .* has forward hooks"),
    ],
)
def test_tables_are_made_of_no_bag_that_does_more(
    make: Callable[[], nn.EmbeddingBag], why: str, modes: Any
) -> None:
    with pytest.raises(ValueError, match=f"(?i){why}"):
        ek.EmbeddingTables([nn.EmbeddingBag(4, 2), make()], modes=modes)


class Resettable(nn.EmbeddingBag):
    def reset(self) -> None: ...


class Twice(nn.Module):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return 2 * rows


def test_what_a_bag_is_beside_its_lookup_is_no_matter_where_it_stays() -> None:
    named, renamed, computed = (nn.EmbeddingBag(5, 3) for _ in range(3))
    named.feature = "user"  # type: ignore[assignment]
    renamed.register_load_state_dict_pre_hook(lambda *_: None)
    nn.utils.parametrize.register_parametrization(computed, "weight", Twice())
    bags = [named, renamed, computed, Resettable(5, 3)]
    tables = ek.EmbeddingTables(bags)
    for bag, table in zip(bags, tables, strict=True):
        torch.testing.assert_close(table(INDICES, OFFSETS[:1]), bag(INDICES, OFFSETS[:1]).detach())


def test_a_forward_that_was_wrapped_and_put_back_is_swapped() -> None:
    bag = nn.EmbeddingBag(5, 3)
    bag.forward = bag.forward  # type: ignore[method-assign]
    assert [swap.why_not for swap in ek.report(ek.optimize(nn.Sequential(bag), strict=True))] == [""]


def test_sample_weights_of_a_sum_beside_other_modes() -> None:
    bags = nn.ModuleList([nn.EmbeddingBag(5, 3, mode="sum"), nn.EmbeddingBag(4, 2, mode="mean")])
    weights = torch.tensor([1.0, -2.0, 0.5])
    wanted = bags[0](INDICES, OFFSETS, weights)
    tables: Any = ek.optimize(bags, strict=True)
    torch.testing.assert_close(tables[0](INDICES, OFFSETS, weights), wanted)
    for called in (tables[1], tables):
        with pytest.raises(ValueError, match='whose modes are all "sum"'):
            called(INDICES, OFFSETS, weights)


def test_a_bag_without_columns_is_left_and_nothing_is_half_done() -> None:
    model = nn.Sequential(nn.EmbeddingBag(5, 3), nn.EmbeddingBag(5, 0))
    with pytest.raises(ek.UnsupportedError, match="has no columns"):
        ek.optimize(model, strict=True)
    assert type(model[0]) is nn.EmbeddingBag
    ek.optimize(model)
    assert [swap.why_not for swap in ek.report(model)] == ["", "it has no columns"]


def test_what_somebody_gave_a_bag_or_list_is_not_lost() -> None:
    named, renamed, listed = (
        nn.EmbeddingBag(5, 3),
        nn.EmbeddingBag(5, 3),
        nn.ModuleList([nn.EmbeddingBag(5, 3)]),
    )
    named.feature = listed.features = "user"  # type: ignore[assignment]
    renamed.register_load_state_dict_pre_hook(lambda *_: None)
    model = ek.optimize(nn.ModuleList([nn.Sequential(named), nn.Sequential(renamed), listed]))
    whys = {swap.path: swap.why_not for swap in ek.report(model)}
    assert "has feature beside its weight" in whys["0.0"]
    assert "has hooks of its state_dict beside its weight" in whys["1.0"]
    assert whys["2.0"] == ""
    assert (model[0][0].feature, model[2].features) == ("user", "user")


def test_rows_that_a_plans_type_cannot_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "differences", lambda self, device: "")
    bag = nn.EmbeddingBag(5, 3, mode="sum")
    bags = nn.ModuleList([bag])
    plan = plans.plan(plans.group("", plans.shape(5, 3), choice=Choice("fused", "float16")))
    with torch.no_grad():
        bag.weight[4, 2] = -1e5
    with pytest.raises(ek.PlanError, match="values beyond 65504, where float16 ends"):
        ek.optimize(bags, plan=plan, strict=True)
    assert ek.optimize(bags, plan=plan).weight(0).dtype == torch.float32


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_values_that_are_no_numbers_stay_so_in_a_plans_type(
    monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    monkeypatch.setattr(Plan, "differences", lambda self, device: "")
    plan = plans.plan(plans.group("", plans.shape(5, 3), choice=Choice("fused", "float16")))
    bag = nn.EmbeddingBag(5, 3, mode="sum")
    with torch.no_grad():
        bag.weight[4, 2] = value
        held = ek.optimize(nn.ModuleList([copy.deepcopy(bag)]), plan=plan, strict=True).weight(0)
        torch.testing.assert_close(held, bag.weight.detach().half(), equal_nan=True)
        bag.weight[1, 1] = 1e5  # is seen beside them
    with pytest.raises(ek.PlanError, match="values beyond 65504"):
        ek.optimize(nn.ModuleList([bag]), plan=plan, strict=True)


@WARNED_OF_BY_PYTORCH
def test_a_gradient_of_asserting_tables_is_refused_in_words_when_compiled() -> None:
    tables = ek.EmbeddingTables([torch.randn(9, 4), torch.randn(5, 2)], on_bad_index="assert")
    weights = torch.rand(3, requires_grad=True)
    compiled: Any = torch.compile(tables, fullgraph=True)
    output = compiled(INDICES, torch.tensor([0, 1, 3]), weights)
    with pytest.raises(RuntimeError, match="is for inference and has no gradient"):
        output.sum().backward()


@WARNED_OF_BY_PYTORCH
def test_asserting_tables_are_compiled_and_packaged(tmp_path: Path) -> None:
    tables = ek.EmbeddingTables([torch.randn(9, 4), torch.randn(5, 2)], on_bad_index="assert")
    compiled: Any = torch.compile(tables, fullgraph=True, dynamic=True)
    size = {0: torch.export.Dim.AUTO}
    right, wrong = (INDICES, torch.tensor([0, 1, 3])), (torch.tensor([1, 2, 7]), torch.tensor([0, 1, 3]))
    with torch.no_grad():
        program = torch.export.export(tables, right, dynamic_shapes=(size, size))
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
        loaded: Any = torch._inductor.aoti_load_package(package)
        for call in (compiled, program.module(), loaded):
            torch.testing.assert_close(call(*right), tables(*right))
            with pytest.raises(RuntimeError, match="there is no row 7 in a table of 5 rows"):
                call(*wrong)


def test_two_bags_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one name as a text: \[1, '1'\]"):
        ek.optimize({1: nn.EmbeddingBag(5, 3), "1": nn.EmbeddingBag(5, 3)})


def test_nothing_is_loaded_from_or_into_no_device_in_silence() -> None:
    tables = ek.optimize([nn.EmbeddingBag(5, 3)])
    state, before = tables.state_dict(), tables.weight(0).clone()
    nowhere = copy.deepcopy(tables).to("meta")
    for assign in (False, True):
        with pytest.raises(RuntimeError, match="what it is loaded into is on no device"):
            nowhere.load_state_dict(state, assign=assign)
    with pytest.raises(RuntimeError, match="what is loaded is on no device"):
        tables.load_state_dict(nowhere.state_dict())
    torch.testing.assert_close(tables.weight(0), before)


def test_a_table_without_rows_is_saved_alone() -> None:
    tables = ek.EmbeddingTables([torch.ones(10_000, 64), torch.ones(0, 4), torch.ones(0, 4).half()])
    written = io.BytesIO()
    torch.save(tables.state_dict()["1.weight"], written)
    assert written.tell() < 10_000
    torch.save(tables.state_dict(), io.BytesIO())  # where views of one memory are of two types, it fails


def test_a_device_that_is_none_is_told() -> None:
    none: Any = None
    assert "knows no device None" in ek.check(none).why_not
