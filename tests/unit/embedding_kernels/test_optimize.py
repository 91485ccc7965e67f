"""What `optimize` swaps, what it leaves and why; outputs and keys stay as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.served_package import ek


class Model(nn.Module):
    """A list, a dict and a single bag, called one by one, and a dense part."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        shapes = ((20, 4, "sum"), (10, 6, "mean"), (5, 3, "max"))
        self.bags = nn.ModuleList(nn.EmbeddingBag(rows, dim, mode=mode) for rows, dim, mode in shapes)
        self.named = nn.ModuleDict({"user": nn.EmbeddingBag(20, 4, mode="sum", include_last_offset=True)})
        self.one = nn.EmbeddingBag(8, 2, mode="sum", **changes)
        self.top = nn.Linear(19, 1)

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        ends = nn.functional.pad(offsets, (0, 1), value=indices.numel())
        found = [bag(indices, offsets) for bag in self.bags]
        found += [self.named["user"](indices, ends), self.one(indices.view(-1, 1)[: offsets.numel()])]
        top: Tensor = self.top(torch.cat(found, dim=1))
        return top


INDICES, OFFSETS = torch.tensor([4, 1, 0, 3, 3, 2, 1]), torch.tensor([0, 2, 2, 5])


def test_outputs_and_keys_stay_as_they_were() -> None:
    model = Model().eval()
    before, keys, state = model(INDICES, OFFSETS), list(model.state_dict()), copy.deepcopy(model.state_dict())
    weight = model.bags[1].weight
    assert ek.optimize(model) is model
    torch.testing.assert_close(model(INDICES, OFFSETS), before)
    assert list(model.state_dict()) == keys
    assert isinstance(model.bags, ek.EmbeddingTables)
    assert not model.bags.training
    assert weight.data_ptr() == model.bags.weight(1).data_ptr()  # type: ignore[operator]
    assert [str(swap) for swap in ek.report(model)] == [
        "bags (ModuleList): 3 tables swapped",
        "named (ModuleDict): 1 table swapped",
        "one (EmbeddingBag): 1 table swapped",
    ]
    model.load_state_dict({key: torch.zeros_like(value) for key, value in state.items()})
    assert not model.bags.weight(0).any()
    model.load_state_dict(state)
    torch.testing.assert_close(model(INDICES, OFFSETS), before)


def test_a_list_of_tables_can_be_called_as_one() -> None:
    model = ek.optimize(Model())
    indices, offsets = INDICES.repeat(3), torch.cat([OFFSETS + 7 * table for table in range(3)])
    together = model.bags(indices, nn.functional.pad(offsets, (0, 1), value=21))
    one_by_one = torch.cat([bag(INDICES, OFFSETS) for bag in model.bags], dim=1)
    assert torch.equal(together, one_by_one)
    assert len(model.bags) == 3
    assert torch.equal(model.bags["2"].weight, model.bags[-1].weight)
    assert "user" in model.named
    assert [table.embedding_dim for table in model.bags[1:]] == [6, 3]
    for table in (model.one, model.named["user"]):
        assert (table.num_embeddings, table.embedding_dim, table.mode) in ((8, 2, "sum"), (20, 4, "sum"))
    assert [name for name, _ in model.named.items()] == ["user"]


def test_calls_as_nn_embedding_bag_takes_them() -> None:
    bag = nn.EmbeddingBag(9, 3, mode="sum")
    one = ek.optimize(copy.deepcopy(bag))
    two_dimensional = torch.tensor([[1, 2], [8, 0], [3, 3]])
    assert torch.equal(one(two_dimensional), bag(two_dimensional))
    weights = torch.rand(3, 2)
    torch.testing.assert_close(
        one(two_dimensional, per_sample_weights=weights), bag(two_dimensional, per_sample_weights=weights)
    )
    assert one(torch.zeros(4, 0, dtype=torch.int64)).tolist() == [[0, 0, 0]] * 4
    first = torch.tensor([0])
    for arguments in ((two_dimensional, first), (first,), (torch.tensor(1), first)):
        with pytest.raises(ValueError, match="dimension"):
            one(*arguments)


def test_a_list_and_a_dict_of_bags() -> None:
    bags = [nn.EmbeddingBag(5, 2), nn.EmbeddingBag(4, 3)]
    assert list(ek.optimize(bags).state_dict()) == ["0.weight", "1.weight"]
    by_name = {"a": nn.EmbeddingBag(5, 2), "b": nn.EmbeddingBag(4, 3)}
    assert list(ek.optimize(by_name).state_dict()) == ["a.weight", "b.weight"]
    with pytest.raises(ek.UnsupportedError, match="padding_idx"):
        ek.optimize([nn.EmbeddingBag(5, 2, padding_idx=0)])
    with pytest.raises(ek.UnsupportedError, match="and nothing else"):
        ek.optimize([nn.Linear(2, 2)])
    with pytest.raises(TypeError, match="got int"):
        ek.optimize(3)


def hooked(bag: nn.EmbeddingBag) -> None:
    bag.register_forward_hook(lambda *_: None)


def of_its_own(bag: nn.EmbeddingBag) -> None:
    bag.__class__ = type("Odd", (nn.EmbeddingBag,), {"forward": lambda self, x: x})


def parametrised(bag: nn.EmbeddingBag) -> None:
    nn.utils.parametrizations.weight_norm(bag)


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        (None, {"padding_idx": 1}, "has a padding_idx"),
        (None, {"max_norm": 1.0}, "has a max_norm"),
        (None, {"dtype": torch.float64}, "rows are float64"),
        (hooked, {}, "EmbeddingBag has forward hooks"),
        (of_its_own, {}, "Odd has a forward of its own"),
        (parametrised, {}, "no plain parameter"),
    ],
)
def test_what_is_left_is_named_and_refused_where_strict(
    change: Callable[[nn.EmbeddingBag], None] | None, options: dict[str, Any], why: str
) -> None:
    model = Model(**options)
    if change is not None:
        change(model.one)
    with pytest.raises(ek.UnsupportedError, match=f"one .*left as it is, since .*{why}"):
        ek.optimize(model, strict=True)
    assert type(model.bags).__name__ == "ModuleList"
    one = model.one
    swapped: Any = ek.optimize(model)
    assert swapped.one is one
    assert isinstance(swapped.bags, ek.EmbeddingTables)
    assert len(ek.report(model)) == 3
    assert why in str(ek.report(model)[2])


def test_what_this_gpu_cannot_run_is_left_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    why = "The NVIDIA driver is one of CUDA 12.8, and embedding_kernels needs one of CUDA 13.0 or later."
    monkeypatch.setattr("embedding_kernels._refusals.check", lambda _: ek.Readiness(False, "cuda:0", why))
    with pytest.raises(ek.UnsupportedError, match=r"since The NVIDIA driver .* 13\.0 or later; "):
        ek.optimize(Model(), strict=True)
    assert type(ek.optimize(Model()).one) is nn.EmbeddingBag


def test_a_weight_of_two_modules_stays_one() -> None:
    model = Model()
    model.named["user"].weight = model.bags[0].weight
    shared = nn.ModuleDict({"first": model.one, "second": model.one})
    whole = nn.ModuleDict({"model": model, "shared": shared})
    ek.optimize(whole)
    (left,) = [swap for swap in ek.report(whole) if swap.why_not]
    assert (left.path, left.why_not) == ("model.named.user", "it shares its weight with model.bags")
    assert type(model.named["user"]) is nn.EmbeddingBag


def test_of_a_list_that_cannot_be_one_the_rest_is_swapped() -> None:
    bags = nn.ModuleList([nn.EmbeddingBag(5, 2), nn.EmbeddingBag(4, 3, padding_idx=1), nn.EmbeddingBag(9, 3)])
    keys = list(bags.state_dict())
    wanted = [bag(INDICES[1:5], OFFSETS[:2]) for bag in bags]
    model = ek.optimize(nn.ModuleDict({"bags": bags}))
    for bag, right in zip(model["bags"], wanted, strict=True):
        torch.testing.assert_close(bag(INDICES[1:5], OFFSETS[:2]), right)
    assert list(bags.state_dict()) == keys
    assert [swap.why_not[:18] for swap in ek.report(model)] == ["", "it has a padding_i", ""]


def test_bags_in_a_plain_list_are_named() -> None:
    model = nn.Module()
    vars(model)["hidden"] = [nn.EmbeddingBag(3, 2)]
    with pytest.raises(ek.UnsupportedError, match=r"hidden .*no nn\.ModuleList"):
        ek.optimize(model, strict=True)


def test_optimizing_again_changes_nothing() -> None:
    model = ek.optimize(Model())
    bags = model.bags
    assert ek.optimize(model).bags is bags
    assert ek.report(nn.Linear(1, 1)) == []


def test_kernels_are_chosen_by_path_and_table() -> None:
    model = Model()
    before = model(INDICES, OFFSETS)
    choice: Any = {"bags": ["fused", "vectorized", "fused"], "one": "vectorized"}
    ek.optimize(model, kernel=choice)
    chosen = [module.kernels for module in (model.bags, model.named, model.one)]
    assert chosen == [("fused", "vectorized", "fused"), ("fused",), ("vectorized",)]
    torch.testing.assert_close(model(INDICES, OFFSETS), before)
    model.bags.use_kernel("vectorized")  # type: ignore[operator]
    torch.testing.assert_close(copy.deepcopy(model)(INDICES, OFFSETS), before)
    assert ek.optimize(nn.EmbeddingBag(5, 2), kernel="vectorized").kernels == ("vectorized",)


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        ("slow", r"kernel: one of fused, vectorized, or a list of \d, one for each table; got 'slow'"),
        ({"bags": ["fused"]}, "a list of 3, one for each table"),
        ({"bags": 3}, "a list of 3, one for each table; got 3"),
        ({"bags": [["fused"]] * 3}, "a list of 3, one for each table"),
        ({"top": "fused"}, "nothing is swapped at 'top'; swapped are .'bags', 'named', 'one'."),
        (None, "kernel: is a name, or a dict of them by where a module is; got None"),
        (["fused"], r"kernel: is a name, or a dict of them by where a module is; got \['fused'\]"),
    ],
)
def test_kernels_that_do_not_fit_are_named(kernel: Any, words: str) -> None:
    model = Model()
    with pytest.raises((TypeError, ValueError), match=words):
        ek.optimize(model, kernel=kernel)
    assert type(model.bags) is nn.ModuleList


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of PyTorch's own
def test_an_optimised_list_in_a_compiled_model() -> None:
    model = ek.optimize(Model().eval())
    compiled: Any = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(INDICES, OFFSETS), model(INDICES, OFFSETS))
        torch.testing.assert_close(compiled(INDICES[:5], OFFSETS[:3]), model(INDICES[:5], OFFSETS[:3]))


class Tower(nn.Module):
    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(weight.size(0), weight.size(1), mode="sum")
        self.bag.weight = weight

    def forward(self, indices: torch.Tensor) -> Any:
        return self.bag(indices)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_weight_of_two_modules_stays_one_whoever_is_optimised_when(one_by_one: bool) -> None:
    weight, indices = nn.Parameter(torch.randn(10, 4)), torch.tensor([[1, 2]])
    first, second = towers = Tower(weight), Tower(weight)
    model = nn.ModuleList(towers)
    for module in towers if one_by_one else (model, model):
        ek.optimize(module)
    assert "it shares its weight with" in str(ek.report(second if one_by_one else model)[-1])
    with torch.no_grad():
        first.bag.weight.fill_(1.0)
    assert torch.equal(first(indices), second(indices))


def test_a_weight_whose_tables_are_gone_is_swapped_again() -> None:
    bag = nn.EmbeddingBag(10, 4, mode="sum")
    assert isinstance(ek.optimize(bag), ek.EmbeddingTables)
    assert isinstance(ek.optimize(bag), ek.EmbeddingTables)


def test_what_follows_a_bag_may_change_its_output_in_place() -> None:
    model = nn.Sequential(nn.EmbeddingBag(10, 4, mode="sum"), nn.ReLU(inplace=True))
    indices = torch.tensor([[1, 2]])
    want = model(indices).detach()
    output = ek.optimize(model)(indices)
    assert torch.equal(output, want)
    with pytest.raises(RuntimeError, match="no gradient"):
        output.sum().backward()


@pytest.mark.parametrize(
    ("bags", "error", "words"),
    [
        ([1], TypeError, "holds embedding bags, not a int"),
        ({"a.b": nn.EmbeddingBag(2, 2)}, ValueError, "no names of modules"),
        ({"": nn.EmbeddingBag(2, 2)}, ValueError, "no names of modules"),
    ],
)
def test_lists_and_dicts_that_are_no_modules_are_named(bags: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ek.optimize(bags)
