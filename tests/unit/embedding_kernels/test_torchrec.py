"""TorchRec's collections against TorchRec itself, and a whole DLRM."""

from __future__ import annotations

import copy
import importlib.util
import pickle
from typing import Any

import pytest
import torch

from tests.served_package import ek, import_torchrec

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="needs TorchRec (`make setup`)"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


def collection(*, weighted: bool = False, dims: tuple[int, int, int] = (8, 3, 6)) -> Any:
    """Three tables: one of two features, one whose feature another table has too."""
    rec = import_torchrec()
    config = rec.EmbeddingBagConfig
    mean = rec.PoolingType.SUM if weighted else rec.PoolingType.MEAN
    types = rec.modules.embedding_configs.DataType
    half = types.FP32 if weighted else types.FP16  # PyTorch weighs rows with numbers of their own type alone
    tables = [
        config(name="t1", embedding_dim=dims[0], num_embeddings=50, feature_names=["a", "b"]),
        config(name="t2", embedding_dim=dims[1], num_embeddings=20, feature_names=["c"], pooling=mean),
        config(name="t3", embedding_dim=dims[2], num_embeddings=10, feature_names=["c", "d"], data_type=half),
    ]
    return rec.EmbeddingBagCollection(tables=tables, is_weighted=weighted)


def features(keys: list[str], bags: int = 5, *, weighted: bool = False) -> Any:
    rec = import_torchrec()
    generator = torch.Generator().manual_seed(len(keys) + bags)
    lengths = torch.randint(0, 4, (len(keys) * bags,), generator=generator)
    values = torch.randint(0, 10, (int(lengths.sum()),), generator=generator)
    weights = torch.rand(values.numel(), generator=generator) if weighted else None
    return rec.KeyedJaggedTensor(keys=keys, values=values, lengths=lengths, weights=weights)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("keys", [["a", "b", "c", "d"], ["d", "unused", "c", "b", "a"]])
def test_a_collection_for_keys_in_any_order(keys: list[str], weighted: bool) -> None:
    theirs = collection(weighted=weighted)
    ours = ek.optimize(copied := copy.deepcopy(theirs), strict=True)
    shared = {bag.weight.data_ptr() for bag in copied.embedding_bags.values()}
    assert shared == {ours.weight(number).data_ptr() for number in range(3)}
    for bags in (5, 1):
        given = features(keys, bags, weighted=weighted)
        wanted, found = theirs(given), ours(given)
        assert found.keys() == wanted.keys()
        assert found.length_per_key() == wanted.length_per_key()
        torch.testing.assert_close(found.values(), wanted.values(), rtol=1e-3, atol=1e-3)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert [config.name for config in ours.embedding_bag_configs()] == ["t1", "t2", "t3"]
    assert ours.is_weighted() == weighted
    assert ours.device == theirs.device


def test_copies_of_a_collection() -> None:
    ours = ek.optimize(collection())
    given = features(["a", "b", "c", "d"])
    before = ours(given).values().detach()
    assert torch.equal(copy.deepcopy(ours)(given).values(), before)


class Values(torch.nn.Module):
    """A collection's values, of plain tensors."""

    def __init__(self, bags: Any) -> None:
        super().__init__()
        self.bags = bags

    def forward(self, values: torch.Tensor, lengths: torch.Tensor) -> Any:
        keys = ["d", "a", "b", "c"]
        return self.bags(import_torchrec().KeyedJaggedTensor(keys, values, lengths=lengths)).values()


@pytest.mark.parametrize("dtype", [None, torch.qint8])
def test_a_collection_is_pickled_compiled_and_exported(dtype: torch.dtype | None) -> None:
    ours = ek.optimize(collection() if dtype is None else quantised(dtype))
    given = [features(["d", "a", "b", "c"], bags) for bags in (5, 8)]
    calls = [(each.values(), each.lengths()) for each in given]
    size = {0: torch.export.Dim.AUTO}
    program = torch.export.export(Values(ours), calls[0], dynamic_shapes=(size, size), strict=False)
    compiled: Any = torch.compile(ours, fullgraph=True, dynamic=True)
    again = pickle.loads(pickle.dumps(ours))
    with torch.no_grad():
        for each, call in zip(given, calls, strict=True):
            wanted = ours(each).values()
            assert torch.equal(again(each).values(), wanted)
            torch.testing.assert_close(compiled(each).values(), wanted)
            torch.testing.assert_close(program.module()(*call), wanted)


def test_wrong_row_numbers_are_told_by_key() -> None:
    rec = import_torchrec()
    ours = ek.optimize(collection())
    lengths = torch.tensor([1, 0, 0, 1, 0, 0, 1, 0])
    ours(rec.KeyedJaggedTensor(["d", "c", "b", "a"], torch.tensor([1, 17, 999]), lengths=lengths))
    (bad,) = ek.bad_lookups(ours)
    assert bad == ek.BadLookups("", rows=2, offsets=0, table="c", bag=1, index=17)


def test_keys_are_told_though_other_orders_came_between() -> None:
    rec = import_torchrec()
    ours = ek.optimize(collection())
    wrong = torch.tensor([1, 17, 2, 3]), torch.ones(4, dtype=torch.int64)

    def told() -> str:
        return str(ours.bad_lookups().table)

    ours(rec.KeyedJaggedTensor(["d", "c", "b", "a"], wrong[0], lengths=wrong[1]))
    assert told() == "c"
    ours(features(["d", "c", "unused", "b", "a"]))
    assert told() == "c", "by either order"
    ours(features(["a", "b", "c", "d"]))
    assert pickle.loads(pickle.dumps(ours)).bad_lookups().table == told() == "b or c"
    assert ours.half().bad_lookups().table == "b or c"
    ours = ek.optimize(collection())
    ours[2](torch.tensor([10]), torch.tensor([0]))
    assert told() == "embedding_bags.t3"


def test_tables_are_found_by_their_names() -> None:
    theirs = collection()
    ours = ek.optimize(copy.deepcopy(theirs))
    assert list(ours.embedding_bags) == list(theirs.embedding_bags)
    for name, bag in theirs.embedding_bags.items():
        assert torch.equal(ours.embedding_bags[name].weight, bag.weight)


def test_what_it_does_not_take_is_refused_in_words() -> None:
    rec = import_torchrec()
    ours = ek.optimize(collection())
    with pytest.raises(ValueError, match="have the key 'a' twice, with different bags; name it once"):
        ours(features(["a", "b", "c", "a", "d"]))
    with pytest.raises(KeyError, match="no key 'd'; they have a, b, c"):
        ours(features(["a", "b", "c"]))
    varying = rec.KeyedJaggedTensor(
        ["a", "b", "c", "d"],
        torch.tensor([1, 2, 3, 4, 5]),
        lengths=torch.tensor([1, 1, 1, 1, 1]),
        stride_per_key_per_rank=[[2], [1], [1], [1]],
    )
    with pytest.raises(ValueError, match="one batch size for all"):
        ours(varying)


def quantised(dtype: torch.dtype, *, split: bool = False) -> Any:
    """TorchRec's own quantisation of `collection()`."""
    import_torchrec()
    from torchrec.inference.modules import quantize_embeddings
    from torchrec.quant.embedding_modules import quant_prep_enable_quant_state_dict_split_scale_bias as enable

    model = torch.nn.ModuleDict({"bags": collection(dims=(8, 12, 16))})
    if split:
        enable(model["bags"])
    return quantize_embeddings(model, dtype=dtype, inplace=True)["bags"]


@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint4x2, torch.half])
def test_a_quantised_collection(dtype: torch.dtype) -> None:
    theirs = quantised(dtype)
    model = torch.nn.ModuleDict({"bags": theirs})
    ours = ek.optimize(model, strict=True)["bags"]
    assert ours is not theirs
    assert "quantised EmbeddingBagCollection): 3 tables swapped" in str(ek.report(model)[0])
    given = features(["d", "unused", "c", "b", "a"])
    wanted, found = theirs(given), ours(given)
    assert found.keys() == wanted.keys()
    assert found.length_per_key() == wanted.length_per_key()
    torch.testing.assert_close(found.values(), wanted.values(), rtol=2e-3, atol=2e-3)
    state, before = theirs.state_dict(), found.values()
    assert list(ours.state_dict()) == list(state)
    for key, rows in ours.state_dict().items():
        assert torch.equal(getattr(rows, "elem", rows), getattr(state[key], "elem", state[key]))
    other = ek.optimize(quantised(dtype))
    other.load_state_dict(ours.state_dict())
    assert torch.equal(other(given).values(), before)
    theirs.load_state_dict(other.state_dict())
    assert torch.equal(copy.deepcopy(ours)(given).values(), before)


def prune(collection: Any) -> None:
    """Keeps some of the rows: other numbers lead to those that are there."""
    for module in collection._emb_modules:
        remappings = []
        for _, rows, *_ in module.embedding_specs:
            before = torch.arange(2 * rows)
            remappings.append(torch.where(before % 2 > 0, before // 2, -1).int())
        module.set_index_remappings(remappings)


@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint4x2])
def test_a_pruned_quantised_collection(dtype: torch.dtype) -> None:
    rec = import_torchrec()
    from torchrec.inference.modules import quantize_embeddings

    def made() -> Any:
        tables = [
            rec.EmbeddingBagConfig(name=f"t{n}", embedding_dim=8 * n, num_embeddings=9, feature_names=[key])
            for n, key in enumerate("abcd", start=1)
        ]
        model = torch.nn.ModuleDict({"bags": rec.EmbeddingBagCollection(tables=tables)})
        found = quantize_embeddings(model, dtype=dtype, inplace=True)["bags"]
        prune(found)
        return found

    theirs = made()
    ours = ek.optimize(theirs, strict=True)
    given = features(["d", "c", "b", "a"], 9)
    wanted = theirs(given).values()
    torch.testing.assert_close(ours(given).values(), wanted, rtol=2e-3, atol=2e-3)
    assert 0 < ours(given).values().count_nonzero() < wanted.numel()
    state = theirs.state_dict()
    for key, rows in ours.state_dict().items():
        assert torch.equal(getattr(rows, "elem", rows), getattr(state[key], "elem", state[key]))
    other = ek.optimize(made())
    other.load_state_dict(state)
    assert torch.equal(other(given).values(), ours(given).values())
    name, rows = "embedding_bags.t1", ek.quantise(torch.ones(1, 8), ours._shapes[0].row_type)
    with pytest.raises(ValueError, match=f"Table {name}: row 4 was pruned away"):
        ours.update_rows(name, torch.tensor([4]), rows)
    ours.update_rows(name, torch.tensor([5]), rows)
    other.load_state_dict(ours.state_dict())
    assert torch.equal(other.weight(name), ours.weight(name))


def test_a_quantised_collection_that_is_left() -> None:
    theirs = quantised(torch.qint8, split=True)
    with pytest.raises(ek.UnsupportedError, match="keeps scales apart"):
        ek.optimize(theirs, strict=True)
    assert ek.optimize(theirs) is theirs


def test_other_collections_are_left_and_named() -> None:
    rec = import_torchrec()
    model = torch.nn.Module()
    table = rec.EmbeddingConfig(name="t", embedding_dim=4, num_embeddings=5, feature_names=["a"])
    model.sequence = rec.EmbeddingCollection(tables=[table])
    with pytest.raises(ek.UnsupportedError, match="alone is taken over, not EmbeddingCollection"):
        ek.optimize(model, strict=True)


def test_a_whole_dlrm() -> None:
    import_torchrec()
    from torchrec.models.dlrm import DLRM

    rec = import_torchrec()
    tables = [
        rec.EmbeddingBagConfig(name=f"t{n}", embedding_dim=16, num_embeddings=40, feature_names=[f"f{n}"])
        for n in range(5)
    ]
    model = DLRM(rec.EmbeddingBagCollection(tables=tables), 7, [32, 16], [24, 1]).eval()
    keys = list(model.state_dict())
    dense, given = torch.randn(6, 7), features([f"f{n}" for n in range(5)], 6)
    with torch.no_grad():
        before = model(dense, given)
        ek.optimize(model, strict=True)
        torch.testing.assert_close(model(dense, given), before)
    assert list(model.state_dict()) == keys
    assert [swap.path for swap in ek.report(model)] == ["sparse_arch.embedding_bag_collection"]
