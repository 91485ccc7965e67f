"""What is done to tables after `optimize`, as models do it to all of their modules, changes no numbers."""

from __future__ import annotations

import copy
import importlib.util
import io
from typing import Any

import pytest
import torch
from torch import nn

from tests.served_package import Choice, ek
from tests.unit.embedding_kernels import plans
from tests.unit.embedding_kernels.test_torchrec import collection, features, quantised

# What PyTorch's own code warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)

ROWS = torch.tensor([[0, 1, 2], [3, 4, 4]])
needs_torchrec = pytest.mark.skipif(
    importlib.util.find_spec("torchrec") is None, reason="needs TorchRec (`make setup`)"
)


def bag(rows: int = 5, dim: int = 8) -> nn.EmbeddingBag:
    return nn.EmbeddingBag(rows, dim, mode="sum")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, "torch.HalfTensor"])
def test_type_converts_rows_and_nothing_else(dtype: Any) -> None:
    theirs = nn.Sequential(bag())
    ours = ek.optimize(copy.deepcopy(theirs), strict=True)
    theirs.type(dtype), ours.type(dtype)
    found = ours(ROWS)
    assert found.dtype == theirs[0].weight.dtype
    torch.testing.assert_close(found, theirs(ROWS).detach(), rtol=2e-2, atol=2e-2)
    assert not ek.bad_lookups(ours)
    quantised_rows = ek.EmbeddingTables([ek.quantise(torch.rand(5, 8), "int8")])
    before = quantised_rows(ROWS.flatten(), torch.tensor([0, 6]))
    assert torch.equal(quantised_rows.type(dtype)(ROWS.flatten(), torch.tensor([0, 6])), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32])
def test_type_of_what_rows_cannot_be_is_refused(dtype: torch.dtype) -> None:
    ours = ek.optimize(nn.Sequential(bag()))
    before = ours(ROWS)
    with pytest.raises(TypeError, match="float32, float16 or bfloat16"):
        ours.type(dtype)
    assert torch.equal(ours(ROWS), before)


@needs_torchrec
@pytest.mark.parametrize("how", ["half", "bfloat16", "float"])
@pytest.mark.parametrize("dtype", [torch.float, torch.half, torch.qint8])
def test_rows_of_a_quantised_collection_keep_their_type(dtype: torch.dtype, how: str) -> None:
    theirs = quantised(dtype)
    ours = ek.optimize(copy.deepcopy(theirs), strict=True)
    given, state = features(["a", "b", "c", "d"]), copy.deepcopy(theirs.state_dict())
    before = ours(given).values()
    getattr(theirs, how)(), getattr(ours, how)()
    assert torch.equal(ours(given).values(), before)
    ours.load_state_dict(state)
    assert torch.equal(ours(given).values(), before)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(theirs(given).values(), before, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("how", ["half", "bfloat16", "share_memory"])
def test_a_shallow_copy_is_converted_and_moved_by_itself(how: str) -> None:
    ours = ek.optimize(bag())
    before = ours(ROWS)
    copied = copy.copy(ours)
    with torch.no_grad():
        ours.weight.mul_(2)
    assert torch.equal(copied(ROWS), 2 * before)  # the same memory
    getattr(copied, how)()
    assert torch.equal(ours(ROWS), 2 * before)
    torch.testing.assert_close(copied(ROWS).float(), 2 * before, rtol=2e-2, atol=2e-2)
    getattr(ours, how)()
    torch.testing.assert_close(ours(ROWS).float(), 2 * before, rtol=2e-2, atol=2e-2)


def test_a_shallow_copy_has_kernels_of_its_own() -> None:
    ours = ek.EmbeddingTables([torch.rand(5, 8), torch.rand(5, 8)])
    copied = copy.copy(ours)
    copied.use_kernel(["fused", "vectorized"])
    assert ours.kernels == ("fused", "fused")
    given = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 2, 4])
    assert torch.equal(copied(*given), ours(*given))


def test_frozen_tables_are_left_out_of_a_backward_pass_and_others_refuse_it() -> None:
    frozen = nn.Sequential(bag(), nn.Linear(8, 1))
    ek.optimize(frozen)
    frozen[0].requires_grad_(False)
    frozen(ROWS).sum().backward()
    assert frozen[1].weight.grad is not None
    thawed: Any = ek.optimize(nn.Sequential(bag()).requires_grad_(False))
    assert thawed(ROWS).numpy().shape == (2, 8)
    assert thawed[0].requires_grad_() is thawed[0]
    with pytest.raises(RuntimeError, match="has no gradient"):
        thawed(ROWS).sum().backward()


def test_tables_are_taken_once_whoever_takes_them() -> None:
    bags: Any = nn.ModuleList([bag(), bag()])
    tables = ek.EmbeddingTables(list(bags))
    with pytest.raises(ValueError, match="Table 0 lies in tables that were made of it before"):
        ek.EmbeddingTables(list(bags))
    model: Any = nn.ModuleDict({"x": bags})
    ek.optimize(model)
    assert model["x"] is bags
    assert "shares its weight with tables that were made of it before" in ek.report(model)[0].why_not
    with torch.no_grad():
        bags[0].weight.fill_(7)
    assert (tables.weight(0) == 7).all()
    del tables, model
    assert ek.EmbeddingTables(list(bags)).weight(0)[0, 0] == 7


def test_a_model_is_loaded_onto_another_device_than_it_was_saved_on() -> None:
    """`meta` stands for a GPU: what has to stay on the CPU does."""
    saved = io.BytesIO()
    torch.save(ek.EmbeddingTables([torch.rand(5, 8)] * 2), saved)
    saved.seek(0)
    loaded = torch.load(saved, weights_only=False, map_location="meta")
    assert loaded.storage.is_meta
    assert loaded._numbers.tensor.device.type == "cpu"
    assert loaded.to_empty(device="cpu")(ROWS.flatten(), torch.tensor([0, 3, 6])).shape == (1, 16)


def test_rows_without_a_device_take_no_values() -> None:
    with pytest.raises(ValueError, match="tables are on no device"):
        ek.EmbeddingTables([torch.empty(5, 4, device="meta")]).update_rows(
            0, torch.tensor([1]), torch.ones(1, 4)
        )


def test_what_a_class_saves_beside_its_weight_is_not_lost() -> None:
    class Versioned(nn.EmbeddingBag):
        def get_extra_state(self) -> Any:
            return {"version": 3}

        def set_extra_state(self, state: Any) -> None: ...

    class Told(nn.EmbeddingBag):
        def extra_repr(self) -> str:
            return "a bag"

    model = ek.optimize(nn.Sequential(Versioned(5, 3), Told(5, 3)))
    whys = [swap.why_not for swap in ek.report(model)]
    assert whys == ["Versioned has a get_extra_state of its own", ""]
    assert "0._extra_state" in model.state_dict()


@pytest.mark.parametrize("name", ["storage", "descriptors", "faults", "modes", "weight", "_limits"])
def test_names_that_tables_need_themselves_stay_names_of_bags(name: str) -> None:
    model: Any = nn.ModuleDict({"first": bag(), "named": nn.ModuleDict({name: bag(), "b": bag()})})
    wanted = model["named"][name](ROWS).detach()
    ek.optimize(model, strict=True)
    assert torch.equal(model["named"][name](ROWS), wanted)
    assert {swap.path for swap in ek.report(model)} == {"first", f"named.{name}", "named.b"}
    with pytest.raises(ek.UnsupportedError, match=f"a table called {name} would hide"):
        ek.optimize({name: bag()})


@needs_torchrec
def test_a_collection_with_other_outputs_is_left_and_named() -> None:
    from torchrec.inference.modules import quantize_embeddings

    model = nn.ModuleDict({"first": bag(), "q": collection(dims=(8, 12, 16))})
    quantize_embeddings(model, dtype=torch.qint8, output_dtype=torch.quint8, inplace=True)
    ek.optimize(model)
    assert [swap.why_not for swap in ek.report(model)] == [
        "",
        "its outputs are not float32, float16 or bfloat16",
    ]


def test_what_was_swapped_before_memory_ended_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(bag(), bag())
    made = ek.optimize.__globals__["OneTable"]
    calls: list[Any] = []

    def once(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) > 1:
            raise torch.OutOfMemoryError("no room")
        return made(*given, **named)

    monkeypatch.setitem(ek.optimize.__globals__, "OneTable", once)
    with pytest.raises(torch.OutOfMemoryError):
        ek.optimize(model)
    assert [str(swap) for swap in ek.report(model)] == ["0 (EmbeddingBag): 1 table swapped"]


def test_a_part_that_was_optimised_by_itself_is_told() -> None:
    model = nn.Sequential(nn.Sequential(bag()), bag())
    ek.optimize(model[0])
    assert [swap.path for swap in ek.report(model)] == ["0.0"]
    ek.optimize(model)
    assert sorted(swap.path for swap in ek.report(model)) == ["0.0", "1"]


def test_nested_indices_are_refused_in_words() -> None:
    ours = ek.optimize(bag())
    nested = torch.nested.nested_tensor([torch.tensor([1, 2]), torch.tensor([3])], layout=torch.jagged)
    with pytest.raises(ValueError, match=r"give its values\(\) and offsets\(\)"):
        ours(nested)
    with pytest.raises(TypeError, match="Per-sample weights are a tensor, not a list"):
        ours(ROWS, None, [1.0])


def test_a_bag_answers_all_that_a_bag_does() -> None:
    theirs = bag()
    ours = ek.optimize(copy.deepcopy(theirs))
    for name in ("norm_type", "scale_grad_by_freq", "sparse", "padding_idx", "max_norm"):
        assert getattr(ours, name) == getattr(theirs, name)
    before = ours.weight.clone()
    ours.reset_parameters()
    assert not torch.equal(ours.weight, before)


@pytest.mark.parametrize("least", [-65505.0, -65519.0])
def test_least_values_below_float16_are_refused(least: float) -> None:
    with pytest.raises(ValueError, match="too large for a scale and bias of float16"):
        ek.quantise(torch.tensor([[least, -65000.0, -64999.0, least]]), "int8")
    assert ek.quantise(torch.tensor([[-65504.0, -65000.0]]), "int8").scale_bias[0, 1] == -65504


def test_a_quantised_table_of_what_does_not_fit_is_named() -> None:
    pairs = torch.zeros(2, 2, dtype=torch.float16)
    with pytest.raises(TypeError, match="made of tensors, not of a list"):
        ek.QuantisedTable("int8", 4, [1], pairs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scale and bias on meta"):
        ek.QuantisedTable("int8", 4, torch.zeros(2, 4, dtype=torch.uint8), pairs.to("meta"))


def test_a_plan_of_types_that_there_are_not_is_refused() -> None:
    wrong: Any = "int2"
    plan = plans.plan(plans.group("", plans.shape(5, 3), choice=Choice("fused", wrong)))
    with pytest.raises(ek.PlanError, match=r"groups\[0\]\.choice\.row_type: is none of unchanged, float32"):
        ek.optimize(nn.ModuleList([nn.EmbeddingBag(5, 3)]), plan=plan)
