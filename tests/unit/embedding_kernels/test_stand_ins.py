"""What stands in the place of bags answers what a model's own code asks of them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.served import assert_right, expected
from tests.served_package import ek

# What PyTorch's own code warns of.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

INDICES, OFFSETS = torch.tensor([4, 1, 0, 3, 3, 2, 1]), torch.tensor([0, 2, 2, 5])

NEAR: Any = {"rtol": 2e-3, "atol": 2e-3}
"""Of means in float16, which PyTorch rounds more than once."""


def bags(count: int = 3, **options: Any) -> list[nn.EmbeddingBag]:
    return [nn.EmbeddingBag(10 + number, 4, mode="sum", **options) for number in range(count)]


class Asking(nn.Module):
    """Goes through a dict by its names, and asks its bags what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.named = nn.ModuleDict(dict(zip("abc", bags(), strict=True)))
        self.listed = nn.ModuleList(bags(include_last_offset=True))
        self.one: Any = nn.EmbeddingBag(20, 4, mode="mean", dtype=torch.float16)

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        found = [self.named[name](indices, offsets) for name in self.named]
        listed: Any = self.listed
        for bag in listed:
            assert bag.weight.shape == (bag.num_embeddings, bag.embedding_dim)
            ends = (indices.numel(),) if bag.include_last_offset else ()
            found.append(bag(indices, torch.cat((offsets, offsets.new_tensor(ends)))))
        assert self.one.padding_idx is self.one.max_norm is None
        ends = (indices.numel(),) if self.one.include_last_offset else ()
        numbers = torch.cat((offsets, offsets.new_tensor(ends)))
        found.append(self.one(indices.to(self.one.weight.device), numbers).to(self.listed[0].weight.dtype))
        return torch.cat(found, dim=1)


def test_a_models_own_code_finds_what_it_asks_for() -> None:
    model: Any = Asking()
    with torch.no_grad():
        before = model(INDICES, OFFSETS)
        ek.optimize(model, strict=True)
        for served in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(served(INDICES, OFFSETS), before, **NEAR)
        compiled: Any = torch.compile(model, fullgraph=True)
        torch.testing.assert_close(compiled(INDICES, OFFSETS), before, **NEAR)
    assert list(model.named) == ["a", "b", "c"]
    assert model.one.weight.data_ptr() == model.one.storage.data_ptr()
    assert model.one.mode == "mean"


class Lists(nn.ModuleList):
    """Looks itself up."""

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        return torch.cat([bag(indices, offsets) for bag in self], dim=1)

    def rows(self) -> int:
        """A method of its own."""
        return len(self)


class Bag(nn.EmbeddingBag):
    """Made in another way, and no more than that."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows, 4, mode="sum")
        self._fill()

    def _fill(self) -> None:
        nn.init.zeros_(self.weight)


class Described(Bag):
    """Answers more than an nn.EmbeddingBag."""

    def described(self) -> str:
        """A method of its own."""
        return "rows"


def test_classes_of_ones_own_keep_what_they_have_more() -> None:
    model: Any = nn.ModuleDict({"lists": Lists(bags()), "bag": Bag(5), "described": Described(6)})
    lists = model["lists"]
    wanted = lists(INDICES, OFFSETS)
    ek.optimize(model)
    assert model["lists"] is lists
    assert lists.rows() == 3
    assert all(isinstance(bag, ek.EmbeddingTables) for bag in lists)
    torch.testing.assert_close(lists(INDICES, OFFSETS), wanted)
    assert isinstance(model["bag"], ek.EmbeddingTables)
    assert type(model["described"]) is Described
    assert str(ek.report(model)[-1]).endswith("since Described has more than nn.EmbeddingBag: described")


def test_what_is_kept_beside_the_weights_is_not_lost() -> None:
    listed, scaled = nn.ModuleList(bags()), nn.EmbeddingBag(5, 2, mode="sum")
    listed.register_buffer("scale", torch.ones(1))
    listed.bias = nn.Parameter(torch.ones(1))
    scaled.register_buffer("scale", torch.ones(1))
    model = nn.ModuleDict({"listed": listed, "scaled": scaled})
    keys = list(model.state_dict())
    ek.optimize(model)
    assert list(model.state_dict()) == keys
    assert model["scaled"] is scaled
    swaps = [str(swap) for swap in ek.report(model)]
    assert swaps[:3] == [f"listed.{number} (EmbeddingBag): 1 table swapped" for number in range(3)]
    assert swaps[3].endswith("left as it is, since it has scale beside its weight, which would be lost")


def test_a_second_optimize_keeps_the_report_of_the_first() -> None:
    model = nn.ModuleDict({"bags": nn.ModuleList(bags()), "more": nn.Linear(1, 1)})
    ek.optimize(model)
    model["more"] = nn.EmbeddingBag(3, 2, mode="sum")
    ek.optimize(model)
    assert [swap.path for swap in ek.report(model)] == ["bags", "more"]
    model["bags"] = nn.Linear(1, 1)
    ek.optimize(model)
    assert [swap.path for swap in ek.report(model)] == ["more"]


@pytest.mark.parametrize("by_name", [False, True])
def test_of_tables_called_one_by_one_the_wrong_one_is_told(by_name: bool) -> None:
    given = bags(4)
    weights = [bag.weight.detach() for bag in given]
    model = ek.optimize(dict(zip("abcd", given, strict=True)) if by_name else given)
    wrong = torch.tensor([1, 99, 2]), torch.tensor([0, 1])
    assert_right(model[2](*wrong), expected(weights[2:3], wrong[0], torch.tensor([0, 1, 3])))
    told = model.bad_lookups()
    assert (told.rows, told.offsets, told.bag, told.index) == (1, 0, 1, 99)
    assert told.table == ("c" if by_name else "2")
    model[1](torch.tensor([0]), torch.tensor([0, 5, 0]))
    told = model.bad_lookups()
    assert (told.rows, told.offsets, told.table) == (1, 2, "b" if by_name else "1")
    model(torch.tensor([0, 0, 0, -7]), torch.arange(5))
    for served in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.half()):
        told = served.bad_lookups()
        assert (told.rows, told.offsets, told.table, told.index) == (2, 2, "d" if by_name else "3", -7)
    assert model.bad_lookups(forget=True) is not None
    assert model.bad_lookups() is None


def test_of_a_compiled_list_the_wrong_table_is_told() -> None:
    model = Asking()
    ek.optimize(model)
    compiled: Any = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        compiled(torch.tensor([9, 10]), torch.tensor([0]))  # the first tables have 10 rows
    told = ek.bad_lookups(model)
    assert [(each.module, each.table, each.rows) for each in told] == [("named", "a", 1), ("listed", "0", 1)]


def test_exported_lists_count_for_each_table() -> None:
    model = ek.optimize(nn.ModuleDict({"bags": nn.ModuleList(bags())}))
    listed: Any = model["bags"]
    model.forward = lambda indices, offsets: torch.cat([bag(indices, offsets) for bag in listed], dim=1)
    program: Any = torch.export.export(model.eval(), (INDICES, OFFSETS)).module()
    wrong = INDICES.clone()
    wrong[0] = 11
    with torch.no_grad():
        found = program(wrong, OFFSETS)
        told = listed.bad_lookups(forget=True)
        assert (told.rows, told.table) == (2, "0")
        torch.testing.assert_close(found, model(wrong, OFFSETS))


def test_sample_weights_have_the_shape_of_the_indices() -> None:
    (model,) = ek.optimize(bags(1))
    indices = torch.tensor([[1, 2, 3], [4, 5, 6]])
    weights = torch.rand(2, 3)
    torch.testing.assert_close(
        model(indices, None, weights), (model.weight[indices] * weights[..., None]).sum(1)
    )
    for wrong in (weights.T, weights.reshape(-1), weights[:, :2], weights[None]):
        with pytest.raises(ValueError, match=r"have the shape of the indices, \[2, 3\], not \["):
            model(indices, None, wrong)
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with pytest.raises(RuntimeError, match=r"weights are float32, .* float64, not "):
            model(indices, None, weights.to(dtype))
    torch.testing.assert_close(model(indices, None, weights.double()), model(indices, None, weights))


def test_what_is_no_argument_is_said() -> None:
    model = ek.optimize(bags())
    with pytest.raises(RuntimeError, match="indices and offsets are tensors, not None"):
        model(INDICES, None)
    with pytest.raises(RuntimeError, match="int32 or int64, not Bool"):
        model[0](torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(TypeError, match="Indices are a tensor, not a list"):
        model[0]([[0, 1]])
    with pytest.raises(ek.PlanError, match=r"'a\\x00b': is no file's name"):
        ek.optimize(bags(), plan="a\0b")
    with pytest.raises(TypeError, match=r"Tables are named or numbered, not 1\.5"):
        model.update_rows(1.5, torch.tensor([1]), torch.ones(1, 4))
    with pytest.raises(TypeError, match="New values are a tensor or a QuantisedTable, not a list"):
        model.update_rows(1, torch.tensor([1]), [[1.0] * 4])
    with pytest.raises(ValueError, match=r"a tensor of one dimension, not of \[1, 1\]"):
        model.update_rows(1, torch.tensor([[1]]), torch.ones(1, 4))
    for wrong in (torch.ones(2, 2), (each for each in [torch.ones(2, 2)])):
        with pytest.raises(TypeError, match="EmbeddingTables takes a list of tables, not a "):
            ek.EmbeddingTables(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Tables are named by texts, not None"):
        ek.EmbeddingTables([torch.ones(2, 2)] * 2, names=["a", None])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"plan: is a Plan or the path of a plan\.json, not a dict"):
        ek.optimize(bags(), plan={})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="quantise takes a tensor, not a list"):
        ek.quantise([[1.0]], "int8")  # type: ignore[arg-type]
    with torch.device("meta"):
        nowhere = ek.optimize(bags())
    assert nowhere.bad_lookups() is None
    with pytest.raises(ValueError, match="on_bad_index is "):
        ek.optimize(nn.Linear(1, 1), on_bad_index="raise")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"quantise takes a table \[rows, columns\], not \[3, 0\]"):
        ek.quantise(torch.empty(3, 0), "int8")


def test_a_dicts_tables_are_attributes_and_called_by_forward_too() -> None:
    bags, indices = nn.ModuleDict({"user": nn.EmbeddingBag(5, 3, mode="sum")}), torch.tensor([[1, 2]])
    want = bags["user"](indices)
    model: Any = ek.optimize(nn.Sequential(bags))
    assert torch.equal(model[0].user(indices), want)
    assert torch.equal(model[0].user.forward(indices), want)
    with pytest.raises(AttributeError):
        _ = model[0].nobody
    with pytest.raises(TypeError, match="Offsets are a tensor, not a list"):
        model[0].user(torch.tensor([1]), [0])


def test_what_is_asked_of_no_model_is_named() -> None:
    with pytest.raises(TypeError, match="takes a model, not a list"):
        ek.bad_lookups([])  # type: ignore[arg-type]
    assert not ek.check(10**30)
