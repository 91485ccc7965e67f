"""What was given more than tables stays as it is, and so does a bag that is called or loaded otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from tests.served_package import ek


class Called(nn.EmbeddingBag):
    def __call__(self, *given: Any, **named: Any) -> Any:
        return 2 * super().__call__(*given, **named)


class Renamed(nn.EmbeddingBag):
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict[prefix + "weight"] = state_dict.pop(prefix + "embedding")
        super()._load_from_state_dict(state_dict, prefix, *rest)


def with_anothers_forward() -> nn.EmbeddingBag:
    bag = nn.EmbeddingBag(5, 3)
    bag.forward = nn.EmbeddingBag(5, 3).forward  # type: ignore[method-assign]
    return bag


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Called(5, 3), "a forward of its own"),
        (lambda: Renamed(5, 3), "a _load_from_state_dict of its own"),
        (with_anothers_forward, "a forward of its own"),
    ],
)
def test_a_bag_that_is_called_or_loaded_otherwise_stays(
    make: Callable[[], nn.EmbeddingBag], why: str
) -> None:
    bag = make()
    assert ek.optimize(bag) is bag
    assert why in ek.report(bag)[0].why_not


def a_list() -> nn.Module:
    return nn.ModuleList([nn.EmbeddingBag(5, 3)])


def a_collection() -> nn.Module:
    torchrec = pytest.importorskip("torchrec")
    config = torchrec.EmbeddingBagConfig(name="t", num_embeddings=5, embedding_dim=4, feature_names=["f"])
    collection: nn.Module = torchrec.EmbeddingBagCollection(tables=[config])
    return collection


def table_batched() -> nn.Module:
    training = pytest.importorskip("fbgemm_gpu.split_table_batched_embeddings_ops_training")
    common = pytest.importorskip("fbgemm_gpu.split_table_batched_embeddings_ops_common")
    module: nn.Module = training.SplitTableBatchedEmbeddingBagsCodegen(
        [(5, 4, common.EmbeddingLocation.HOST, training.ComputeDevice.CPU)]
    )
    return module


def a_forward(module: nn.Module) -> None:
    module.forward = lambda *given: None


def a_module(module: nn.Module) -> None:
    module.add_module("projection", nn.Linear(3, 3))


def a_hook_of_its_state(module: nn.Module) -> None:
    module.register_state_dict_post_hook(lambda *given: None)


@pytest.mark.parametrize(
    ("make", "give"),
    [
        (a_list, a_forward),
        (a_list, a_hook_of_its_state),
        *((make, give) for make in (a_collection, table_batched) for give in (a_forward, a_module)),
        (a_collection, a_hook_of_its_state),
        (table_batched, a_hook_of_its_state),
    ],
)
def test_what_was_given_more_stays(make: Callable[[], nn.Module], give: Callable[[nn.Module], None]) -> None:
    module = make()
    give(module)
    model = nn.Sequential(module)
    ek.optimize(model)
    assert model[0] is module
    assert make is a_list or ek.report(model)[0].why_not  # of a list the bags are swapped, one by one


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
def test_a_derivative_carried_forward_is_refused() -> None:
    tables = ek.optimize(nn.EmbeddingBag(10, 4, mode="sum"))
    with forward_ad.dual_level():
        weights = forward_ad.make_dual(torch.ones(1, 2), torch.ones(1, 2))
        with pytest.raises(RuntimeError, match="no gradient"):
            tables(torch.tensor([[1, 2]]), per_sample_weights=weights)
