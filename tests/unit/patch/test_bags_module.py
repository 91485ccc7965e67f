"""EmbeddingBags: what it is made of, shares, saves and refuses. On the CPU."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from harness import patch
from harness.errors import BadInputError
from harness.patch.quantise import QuantisedTables, quantise

INDICES, OFFSETS = torch.tensor([0, 3, 6, 1, 2, 2, 5, 4, 0]), torch.tensor([0, 1, 3, 5, 5, 8, 9])  # 3 tables
QUANTISED = pytest.mark.parametrize("dtype", ["int8", "int4"])
EVERY = pytest.mark.parametrize("dtype", ["", "int8", "int4"])


def modules(mode: str = "sum", seed: int = 0) -> list[nn.EmbeddingBag]:
    torch.manual_seed(seed)
    return [nn.EmbeddingBag(rows, 12, mode=mode) for rows in (30, 7, 200)]


def joined(dtype: str, seed: int = 0) -> patch.EmbeddingBags:
    """A module, quantised if asked for."""
    made = patch.EmbeddingBags([module.weight.detach() for module in modules(seed=seed)])
    return made.quantise(dtype) if dtype else made  # type: ignore[arg-type]


def test_a_module_of_modules_does_what_they_do() -> None:
    bags = modules("mean")
    joint = patch.EmbeddingBags(bags)
    indices = [torch.randint(bag.num_embeddings, (5 * n,)) for n, bag in enumerate(bags, start=1)]
    starts = [torch.arange(5) * n for n in (1, 2, 3)]
    ends = torch.tensor([0, 5, 15])
    with torch.no_grad():
        expected = torch.cat([bag(i, s) for bag, i, s in zip(bags, indices, starts, strict=True)], dim=1)
        offsets = torch.cat([*(s + e for s, e in zip(starts, ends, strict=True)), torch.tensor([30])])
        got = joint(torch.cat(indices), offsets, batch_sizes=[5, 5, 5])
    torch.testing.assert_close(got, expected)
    assert "3 tables, embedding_dim=12, mode='mean'" in repr(joint)
    with pytest.raises(ValueError, match="table 1 has 1, table 0 5"):
        joint(torch.cat(indices), offsets, batch_sizes=[5, 1, 9])


def test_tables_of_different_widths_stand_side_by_side() -> None:
    bags = [nn.EmbeddingBag(10 * dim, dim, mode="sum").requires_grad_(False) for dim in (3, 130, 1)]
    joint = patch.EmbeddingBags(bags)
    indices = [torch.randint(bag.num_embeddings, (8,)) for bag in bags]
    got = joint(torch.cat(indices), torch.arange(0, 25, 4))
    starts = torch.arange(0, 8, 4)
    assert got.shape == (2, 134)
    torch.testing.assert_close(
        got, torch.cat([bag(i, starts) for bag, i in zip(bags, indices, strict=True)], 1)
    )
    assert "embedding_dims=[1, 3, 130]" in repr(joint)
    shape = torch.export.export(joint, (torch.cat(indices), torch.arange(0, 25, 4))).graph_signature
    assert len(shape.user_outputs) == 1
    with pytest.raises(BadInputError, match=r"of one dim|one width"):
        joint.quantise("int8")


def test_parameters_are_the_modules_own() -> None:
    bags = modules()
    joint = patch.EmbeddingBags([bags[0], bags[1].weight, bags[0]])
    assert list(joint.parameters()) == [bags[0].weight, bags[1].weight]  # a shared one once
    assert joint.weight_2 is joint.weight_0 is bags[0].weight
    assert list(joint.state_dict()) == ["weight_0", "weight_1", "weight_2"]


@pytest.mark.parametrize("changed", ["a model of both", "the modules", "the joint module"])
def test_a_change_of_type_is_shared(changed: str) -> None:
    bags = modules()
    model, joint = nn.ModuleList(bags), patch.EmbeddingBags(bags)
    of: dict[str, nn.Module] = {
        "a model of both": nn.ModuleList([model, joint]),
        "the modules": model,
        "the joint module": joint,
    }
    of[changed].half()
    for bag in bags:
        bag.weight.data.fill_(3)
    with torch.no_grad():
        output = joint(INDICES, OFFSETS)
    assert output.dtype == torch.float16
    assert output[0].tolist() == [3.0] * 12 + [6.0] * 12 + [9.0] * 12
    with torch.no_grad():
        model.load_state_dict({f"{n}.weight": torch.zeros_like(bag.weight) for n, bag in enumerate(bags)})
        assert not joint(INDICES, OFFSETS).any()


def test_plain_tables_share_memory_until_moved() -> None:
    tables = [torch.ones(7, 4), torch.ones(9, 4)]
    joint = patch.EmbeddingBags(tables)
    assert not any(parameter.requires_grad for parameter in joint.parameters())
    indices, offsets = torch.tensor([0, 1]), torch.tensor([0, 1, 2])
    tables[0].fill_(5)
    assert joint(indices, offsets).tolist() == [[5.0] * 4 + [1.0] * 4]
    joint.double().float()
    tables[0].fill_(6)
    assert joint(indices, offsets).tolist() == [[5.0] * 4 + [1.0] * 4]


def test_nobody_trains_it_without_a_word() -> None:
    bags, head = modules(), nn.Linear(36, 1)
    loss = head(patch.EmbeddingBags(bags)(INDICES, OFFSETS)).sum()
    with pytest.raises(RuntimeError, match="is for inference and has no gradient: train its tables"):
        loss.backward()
    joint = patch.EmbeddingBags([bag.weight.detach() for bag in bags]).requires_grad_()
    with pytest.raises(RuntimeError, match="is for inference and has no gradient"):
        joint(INDICES, OFFSETS).sum().backward()
    frozen = patch.EmbeddingBags([bag.requires_grad_(False) for bag in bags])
    head(frozen(INDICES, OFFSETS)).sum().backward()  # what stands behind it may be trained
    assert head.weight.grad is not None


@QUANTISED
def test_a_quantised_module_moves_and_keeps_its_bits(dtype: Any) -> None:
    small = joined(dtype)
    expected = small(INDICES, OFFSETS)
    assert expected.dtype == torch.float16
    bound = {"int8": 0.05, "int4": 1.0}[dtype]
    torch.testing.assert_close(expected.float(), joined("")(INDICES, OFFSETS), rtol=0, atol=bound)
    assert torch.equal(nn.Sequential(small).bfloat16().float().half()[0](INDICES, OFFSETS), expected)
    tables = small.tables()
    assert isinstance(tables, QuantisedTables)
    assert all(data.stride(0) % 16 == 0 for data in tables.data)
    with pytest.raises(BadInputError, match=f"quantised already, to {dtype}"):
        small.quantise("int8")


def saved(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), saved]
)


@COPIES
@EVERY
def test_a_copy_is_whole_before_and_after_a_lookup(dtype: str, copied: Callable[[Any], Any]) -> None:
    module, other = joined(dtype), joined(dtype, seed=1)
    wanted, different = other(INDICES, OFFSETS), joined(dtype)(INDICES, OFFSETS)
    for _ in range(2):
        model = copied(nn.Sequential(module))
        assert torch.equal(model[0](INDICES, OFFSETS), different)
        # What a copy is given it looks up.
        for assign in (False, True):
            again = copied(module)
            again(INDICES, OFFSETS)
            again.load_state_dict(copy.deepcopy(other.state_dict()), assign=assign)
            assert torch.equal(again(INDICES, OFFSETS), wanted)
        assert torch.equal(copied(again)(INDICES, OFFSETS), wanted)
        if copied is copy.copy:
            module = joined(dtype)  # a shallow copy shares its tables
        module(INDICES, OFFSETS)


@EVERY
def test_nothing_that_a_lookup_makes_is_part_of_the_module(dtype: str) -> None:
    module = joined(dtype)

    def held() -> dict[str, Any]:
        return {**vars(module), **module._buffers, **module._parameters}

    before = held()
    module(INDICES, OFFSETS)
    module.tables()
    after = held()
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)


@EVERY
def test_first_lookups_come_from_many_threads(dtype: str) -> None:
    errors: list[BaseException] = []
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            module, together = joined(dtype), threading.Barrier(4)

            def work(module: patch.EmbeddingBags = module, together: threading.Barrier = together) -> None:
                together.wait()
                try:
                    module(INDICES, OFFSETS)
                except BaseException as error:
                    errors.append(error)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert not errors


def test_quantised_rows_that_lie_within_something_else_are_looked_up_right() -> None:
    made = quantise([torch.randn(5, 20)], "int8")
    wide = torch.cat([made.data[0], torch.zeros(5, 12, dtype=torch.uint8)], dim=1)
    short = wide.flatten()[: 4 * 32 + 20].as_strided((5, 20), (32, 1))  # nothing behind the last row
    apart = torch.cat([wide, wide], dim=1)[:, :20]
    unaligned = torch.cat([wide[:, :1], wide], dim=1)[:, 1:21]
    indices, offsets = torch.arange(5), torch.arange(6)
    for data in (short, apart, unaligned):
        module = patch.EmbeddingBags(QuantisedTables("int8", 20, (data,), made.scale_bias))
        assert module.data_0.shape == (5, 32)
        assert torch.equal(module(indices, offsets), patch.embedding_bags(made, indices, offsets))


class Scaled(nn.EmbeddingBag):
    def forward(self, *given: Any, **more: Any) -> torch.Tensor:
        return 2 * super().forward(*given, **more)


def pruned() -> Any:
    return prune.l1_unstructured(nn.EmbeddingBag(3, 4, mode="sum"), "weight", amount=2)


def hooked() -> nn.EmbeddingBag:
    module = nn.EmbeddingBag(3, 4, mode="sum")
    module.register_forward_hook(lambda module, given, output: 2 * output)
    return module


def replaced() -> nn.EmbeddingBag:
    module = nn.EmbeddingBag(3, 4, mode="sum")
    module.forward = lambda *given: torch.zeros(1, 4)  # type: ignore[method-assign]
    return module


MISFITS: list[tuple[Callable[[], Any], str]] = [
    (lambda: nn.EmbeddingBag(3, 4, mode="sum", padding_idx=0), "no padding_idx, which module 0 sets"),
    (lambda: nn.EmbeddingBag(3, 4, mode="sum", max_norm=1.0), "no max_norm, which module 0 sets"),
    (lambda: Scaled(3, 4, mode="sum"), "would not call the forward of Scaled, which module 0 is"),
    (replaced, "would not call the forward of EmbeddingBag, which module 0 is"),
    (hooked, "would not call the forward hooks that module 0 has"),
    (pruned, "would not call the forward hooks that module 0 has"),
    (
        lambda: parametrizations.weight_norm(nn.EmbeddingBag(3, 4, mode="sum")),
        "would not see changes of the weight of module 0, which is no parameter",
    ),
]


@pytest.mark.parametrize(("make", "sentence"), MISFITS)
@pytest.mark.parametrize("mode", [None, "sum"])
def test_what_no_joint_lookup_does_is_refused_whatever_the_mode(
    make: Callable[[], Any], sentence: str, mode: Any
) -> None:
    with pytest.raises(BadInputError, match=sentence):
        patch.EmbeddingBags([make()], mode=mode)
    with pytest.raises(BadInputError, match=sentence.replace("module 0", "module 1")):
        patch.EmbeddingBags([torch.zeros(5, 4), make()], mode=mode)


def test_modules_are_looked_up_in_their_own_mode() -> None:
    mean, most = nn.EmbeddingBag(3, 4, mode="mean"), nn.EmbeddingBag(3, 4, mode="max")
    with pytest.raises(BadInputError, match="module 1 has 'max', module 0 has 'mean'"):
        patch.EmbeddingBags([mean, most])
    with pytest.raises(
        BadInputError, match=r"module 0 has 'mean', the one asked for is 'sum'\. Give module\.weight"
    ):
        patch.EmbeddingBags([mean], mode="sum")
    assert patch.EmbeddingBags([mean], mode="mean").mode == "mean"
    assert patch.EmbeddingBags([most, torch.zeros(3, 4)]).mode == "max"
    assert patch.EmbeddingBags([mean.weight], mode="sum").mode == "sum"
    assert patch.EmbeddingBags([mean.weight]).mode == "sum"
    with pytest.raises(BadInputError, match="the modes sum, mean, max; got 'median'"):
        patch.EmbeddingBags([torch.zeros(3, 4)], mode="median")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ([], "at least one table"),
        ([torch.zeros(3, 4), torch.zeros(3, 0)], r"table 1 is \[3, 0\]"),
        ([torch.zeros(3)], r"table 0 is \[3\]"),
        ([torch.zeros(())], r"table 0 is \[\]"),
        (torch.zeros(3, 4), "put a single one into brackets"),
        (nn.EmbeddingBag(3, 4), "put a single one into brackets"),
        (iter([]), "at least one table"),
        ([torch.zeros(3, 4), nn.Embedding(3, 4)], "number 1 is Embedding"),
        ([torch.zeros(3, 4, requires_grad=True)], r"table 0 requires a gradient .*; give table\.detach\(\)"),
    ],
)
def test_tables_that_cannot_be_joined_are_one_sentence(tables: Any, sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        patch.EmbeddingBags(tables)


def test_tables_may_come_from_a_generator() -> None:
    tables = [torch.rand(3, 4), torch.rand(5, 4)]
    module = patch.EmbeddingBags(table for table in tables)
    assert all(map(torch.equal, module.parameters(), tables))


def test_tables_that_are_held_otherwise_are_looked_up() -> None:
    module = joined("")
    nn.utils.parametrize.register_parametrization(module, "weight_1", nn.Identity())
    assert "weight_1" not in module._parameters
    assert torch.equal(module(INDICES, OFFSETS), joined("")(INDICES, OFFSETS))


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        (("int8", 12), ("int8", 10), "rows of int8 and 10 columns are held, and these are of int8 and 12"),
        (("int8", 16), ("int4", 32), "rows of int4 and 32 columns are held, and these are of int8 and 16"),
        (("int4", 64), ("int8", 32), "rows of int8 and 32 columns are held, and these are of int4 and 64"),
    ],
)
def test_bytes_that_mean_something_else_are_not_loaded(theirs: Any, ours: Any, words: str) -> None:
    def made(row_type: Any, dim: int) -> patch.EmbeddingBags:
        return patch.EmbeddingBags([torch.rand(5, dim)]).quantise(row_type)

    held, given = made(*ours), made(*theirs).state_dict()
    before = held(torch.tensor([0, 3]), torch.tensor([0, 2]))
    with pytest.raises(RuntimeError, match=words):
        held.load_state_dict(given)
    assert torch.equal(held(torch.tensor([0, 3]), torch.tensor([0, 2])), before)
    of_before = made(*ours).state_dict()
    of_before.pop("quantised_as")  # as states were
    held.load_state_dict(of_before)
