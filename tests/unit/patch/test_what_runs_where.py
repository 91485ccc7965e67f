"""Eager, torch.compile, torch.export, AOTInductor and TorchScript: what answers a lookup in each. On the CPU.

A design takes no table on the CPU, so PyTorch's own kernel answers; that the patch was asked, it counts.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from harness import patch
from harness.errors import BadInputError

pytestmark = [
    # TorchScript's own, and PyTorch's within its export.
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning"
    ),
    pytest.mark.xdist_group("inductor"),  # which compiles its headers once for a process after the other
]


class AllKinds(nn.Module):
    """Float and quantised tables, sample weights, every mode, other output types."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        tables = [nn.EmbeddingBag(rows, 16, mode="sum") for rows in (30, 20)]
        self.floats = patch.EmbeddingBags(tables)
        self.most = patch.EmbeddingBags(
            [table.weight for table in tables], mode="max", output_dtype=torch.float16
        )
        self.eight = self.floats.quantise("int8")
        weights = [table.weight.detach() for table in tables]
        self.four = patch.EmbeddingBags(weights, mode="mean", output_dtype=torch.float32).quantise("int4")
        self.head = nn.Linear(128, 3)

    def forward(self, indices: Tensor, offsets: Tensor, scales: Tensor) -> Tensor:
        parts = [self.floats(indices, offsets, scales), self.eight(indices, offsets, scales).float()]
        parts += [self.most(indices, offsets).float(), self.four(indices, offsets, batch_sizes=None)]
        result: Tensor = self.head(torch.cat(parts, dim=1))
        return result


class Bags(nn.Module):
    """EmbeddingBag, as a user's model has it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.EmbeddingBag(30, 16, mode="mean", padding_idx=0)
        self.two = nn.EmbeddingBag(20, 16, mode="sum", include_last_offset=True)

    def forward(self, indices: Tensor, offsets: Tensor, scales: Tensor) -> Tensor:
        last = self.two(indices, offsets, per_sample_weights=scales)
        return torch.cat([self.one(indices, offsets[:-1]), last], dim=1)


def call(bags: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Of two tables with as many bags each, or of one with twice as many."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, (2 * bags,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    count = int(offsets[-1])
    return torch.randint(20, (count,), generator=generator), offsets, torch.rand(count, generator=generator)


def exported(model: nn.Module) -> torch.export.ExportedProgram:
    n, bags = Dim("n", min=2), Dim("bags", min=2)
    return torch.export.export(model, call(5), dynamic_shapes=({0: n}, {0: 2 * bags + 1}, {0: n}))


def saved(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def packaged(program: torch.export.ExportedProgram, folder: Path) -> Callable[..., Tensor]:
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "model.pt2"))
    loaded: Callable[..., Tensor] = torch._inductor.aoti_load_package(path)
    return loaded


def traced(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, call(5)), file)
    file.seek(0)
    return torch.jit.load(file)


def assert_alike(one: Callable[..., Tensor], other: Callable[..., Tensor]) -> None:
    with torch.no_grad():
        for seed, bags in enumerate((5, 3, 8)):
            given = call(bags, seed)
            torch.testing.assert_close(one(*given), other(*given), rtol=1e-5, atol=1e-5)


def test_embedding_bags_in_eager_compiled_exported_and_traced() -> None:
    model = AllKinds().eval()
    with torch.no_grad():
        for backend in ("eager", "aot_eager", "inductor"):
            torch._dynamo.reset()
            assert_alike(torch.compile(model, backend=backend, fullgraph=True, dynamic=True), model)
        program = exported(model)
        targets = {str(node.target) for node in program.graph.nodes}
        assert {f"embedding_harness.{name}embedding_bags.default" for name in ("", "quantised_")} <= targets
        assert_alike(program.module(), model)
        assert_alike(saved(program).module(), model)
        assert_alike(traced(model), model)
    assert_alike(exported(model).module(), model)  # with gradients wanted, by whomever


def test_embedding_bags_in_a_package(tmp_path: Path) -> None:
    model = AllKinds().eval()
    with torch.no_grad():
        program = exported(model)
    package = packaged(program, tmp_path)
    assert_alike(package, model)
    indices, offsets, scales = call(5)
    for wrong in ((indices, offsets + 1, scales), (indices + 100, offsets, scales)):
        with pytest.raises(RuntimeError):
            package(*wrong)


def test_embedding_bags_is_not_for_torchscripts_compiler() -> None:
    for model in (AllKinds(), AllKinds().floats):
        with pytest.raises(
            BadInputError, match=r"not for torch\.jit\.script; use torch\.jit\.trace or torch\.export"
        ):
            torch.jit.script(model)


@pytest.fixture
def asked(make_design: Any) -> Iterator[Callable[[Callable[..., Tensor]], int]]:
    """How often the patch is asked by a call of the model, which has two EmbeddingBags; checks the result."""
    wanted = {bags: Bags()(*call(bags)).detach() for bags in (5, 3)}

    def count(model: Callable[..., Tensor]) -> int:
        with torch.no_grad():
            torch.testing.assert_close(model(*call(5)), wanted[5])
            before = patch.calls()["stock"]
            torch.testing.assert_close(model(*call(3)), wanted[3])
        asked_times: int = patch.calls()["stock"] - before
        return asked_times

    patch._apply(make_design(), {}, "CPU")
    yield count
    patch.remove()


def test_embedding_bag_comes_to_the_patch_through_the_dispatcher(asked: Callable[[Any], int]) -> None:
    model = Bags().eval()
    assert asked(model) == 2
    with torch.no_grad():
        torch._dynamo.reset()
        for backend in ("aot_eager", "inductor"):
            assert asked(torch.compile(model, backend=backend, fullgraph=True, dynamic=True)) == 2
        program = exported(model)
        assert asked(program.module()) == 2
        assert asked(saved(program).module()) == 2
        assert asked(traced(model)) == 2
        assert asked(torch.jit.script(model)) == 2
        assert asked(patch.by_dispatcher(program).module()) == 2


def test_embedding_bag_in_a_package_comes_to_the_patch_if_sent_there(
    asked: Callable[[Any], int], tmp_path: Path
) -> None:
    with torch.no_grad():
        program = patch.by_dispatcher(exported(Bags().eval()))
    assert asked(packaged(program, tmp_path)) == 2


def test_what_is_returned_for_a_backward_pass_is_not_left_out_without_a_word() -> None:
    class All(Bags):
        def forward(self, indices: Tensor, offsets: Tensor, scales: Tensor) -> Any:
            return torch.embedding_bag(self.one.weight, indices, offsets)

    with torch.no_grad():
        program = exported(All().eval())
    with pytest.raises(BadInputError, match="embedding_bag: this program uses more than the pooled rows"):
        patch.by_dispatcher(program)


def test_embedding_bag_in_a_package_passes_the_patch_by_otherwise(
    asked: Callable[[Any], int], tmp_path: Path
) -> None:
    with torch.no_grad():
        program = exported(Bags().eval())
    assert asked(packaged(program, tmp_path)) == 0


def test_embedding_bag_compiled_into_a_cpp_wrapper_passes_the_patch_by(asked: Callable[[Any], int]) -> None:
    torch._dynamo.reset()
    with torch.no_grad():
        assert (
            asked(torch.compile(Bags().eval(), options={"cpp_wrapper": True}, fullgraph=True, dynamic=True))
            == 0
        )
