"""torch.compile, torch.export and AOTInductor."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.served import assert_right, batch, expected, some_tables
from tests.served_package import ek

# What PyTorch's own code warns of.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Model(nn.Module):
    """Tables, and something behind them that a compiler may join with them."""

    def __init__(self, tables: Any) -> None:
        super().__init__()
        self.tables = ek.EmbeddingTables(tables, output_dtype=torch.float32)

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        output: Tensor = self.tables(indices, offsets)
        return output * 2 + 1


TABLES = some_tables((20, 8, "float32"), (9, 3, "int4"), (5, 4, "float16"))


def compared(model: Any, bags: int, seed: int) -> None:
    indices, offsets = batch(TABLES, bags, 5, seed=seed)
    assert_right(model(indices, offsets), expected(TABLES, indices, offsets) * 2 + 1, 4)


def test_compiled_whole_for_batches_of_any_size() -> None:
    model = Model(TABLES)
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for seed, bags in enumerate((3, 17, 40)):
            compared(compiled, bags, seed)
        indices, offsets = batch(TABLES, 2, 3)
        indices[0] = 77
        compiled(indices, offsets)
    assert model.tables.bad_lookups() is not None


def test_compiled_with_gradients_enabled_and_refused() -> None:
    bags = [nn.EmbeddingBag(20, 8, mode="sum"), nn.EmbeddingBag(9, 3, mode="sum")]
    compiled = torch.compile(ek.EmbeddingTables(bags), fullgraph=True)
    output = compiled(torch.tensor([1, 2]), torch.tensor([0, 1, 2]))
    assert torch.equal(output[0, :8], bags[0].weight[1])
    with pytest.raises(RuntimeError, match="is for inference and has no gradient"):
        output.sum().backward()


def test_exported_for_batches_of_any_size() -> None:
    indices, offsets = batch(TABLES, 4, 5)
    size = {0: torch.export.Dim.AUTO}
    program = torch.export.export(Model(TABLES), (indices, offsets), dynamic_shapes=(size, size))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for seed, bags in enumerate((2, 30)):  # of one bag an exported program is a special case, to PyTorch
        compared(torch.export.load(file).module(), bags, seed)
        file.seek(0)


class Bags(nn.Module):
    """A single bag and a list of them, called as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.EmbeddingBag(9, 4, mode="sum")
        self.bags = nn.ModuleList(nn.EmbeddingBag(9, 2, mode="mean") for _ in range(3))

    def forward(self, together: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
        found = [bag(indices, offsets).sum(0) for bag in self.bags]
        return torch.cat([self.one(together).sum(0), *found])


def test_swapped_bags_are_exported_and_compiled_for_batches_of_any_size() -> None:
    model = ek.optimize(Bags(), strict=True)
    calls = [
        (torch.randint(0, 9, (bags, 3)), torch.randint(0, 9, (4 * bags,)), torch.arange(0, 4 * bags, 4))
        for bags in (5, 11, 2)
    ]
    size = {0: torch.export.Dim.AUTO}
    program: Any = torch.export.export(model, calls[0], dynamic_shapes=(size, size, size)).module()
    compiled: Any = torch.compile(model, fullgraph=True, dynamic=True)
    once: Any = torch.compiler.set_stance
    with torch.no_grad():
        compiled(*calls[0])
    with torch.no_grad(), once("fail_on_recompile"):
        for call in calls:
            wanted = model(*call)
            torch.testing.assert_close(program(*call), wanted)
            torch.testing.assert_close(compiled(*call), wanted)


def test_packaged_by_aotinductor(tmp_path: Path) -> None:
    indices, offsets = batch(TABLES, 4, 5)
    size = {0: torch.export.Dim.AUTO}
    with torch.no_grad():
        program = torch.export.export(Model(TABLES), (indices, offsets), dynamic_shapes=(size, size))
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    loaded = torch._inductor.aoti_load_package(package)
    for seed, bags in enumerate((1, 30)):
        compared(loaded, bags, seed)


def test_traced_as_torchscript() -> None:
    indices, offsets = batch(TABLES, 4, 5)
    with torch.no_grad():
        traced = torch.jit.trace(Model(TABLES), (indices, offsets))
    compared(traced, 7, seed=1)


def test_shapes_of_tensors_without_values() -> None:
    indices, offsets = batch(TABLES, 4, 5)
    module = ek.EmbeddingTables(TABLES)
    assert module.to("meta")(indices.to("meta"), offsets.to("meta")).shape == (4, 15)
    module = ek.EmbeddingTables(TABLES)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        assert module(fake.from_tensor(indices), fake.from_tensor(offsets)).shape == (4, 15)


def test_what_torch_says_of_the_operator() -> None:
    module = ek.EmbeddingTables(TABLES)
    indices, offsets = batch(TABLES, 4, 5)
    arguments = (module.storage, module.descriptors, indices, offsets, None, module.faults)
    torch.library.opcheck(
        torch.ops.embedding_kernels.lookup.default,
        (*arguments, module._numbers.listed),
        test_utils=("test_schema", "test_faketensor"),
    )
    torch.library.opcheck(
        torch.ops.embedding_kernels.lookup_eager.default,
        (*arguments, module._numbers.tensor),
        test_utils="test_schema",
    )
