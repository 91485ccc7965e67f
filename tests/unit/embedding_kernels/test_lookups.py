"""Lookups on the CPU against sums in float64, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from tests.served import assert_right, batch, expected, look_up_features, some_tables
from tests.served_package import ek

MIXED = (
    (50, 4, "float32"),
    (3, 7, "float16"),
    (1, 33, "bfloat16"),
    (40, 5, "int4"),
    (20, 64, "int8"),
    (9, 16, "float32"),
)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("output_dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tables_of_any_rows_columns_types_and_modes(
    index_dtype: torch.dtype, output_dtype: torch.dtype
) -> None:
    tables = some_tables(*MIXED)
    modes = ["sum", "mean", "max", "max", "mean", "sum"]
    module = ek.EmbeddingTables(tables, modes=modes, output_dtype=output_dtype)  # type: ignore[arg-type]
    indices, offsets = batch(tables, 13, 9, dtype=index_dtype)
    output = module(indices, offsets)
    assert output.dtype == output_dtype
    assert_right(output, expected(tables, indices, offsets, modes), 4)
    assert module.bad_lookups() is None


def test_features_in_any_order() -> None:
    module = ek.EmbeddingTables(some_tables(*[(30, 64, "float32")] * 3))
    assert_right(*look_up_features(module, 7, 5))


def test_per_sample_weights() -> None:
    tables = some_tables(*MIXED)
    module = ek.EmbeddingTables(tables)
    indices, offsets = batch(tables, 5, 12)
    weights = torch.randn(indices.numel())
    assert_right(module(indices, offsets, weights), expected(tables, indices, offsets, weights=weights), 4)
    with pytest.raises(ValueError, match="Per-sample weights are for tables whose modes"):
        ek.EmbeddingTables(tables, modes="mean")(indices, offsets, weights)


def test_indices_and_offsets_of_different_types_and_strides() -> None:
    tables = some_tables((30, 6, "float32"), (20, 3, "float32"))
    module = ek.EmbeddingTables(tables)
    indices, offsets = batch(tables, 4, 3)
    wide = torch.stack((indices, indices), dim=1)[:, 0]
    assert not wide.is_contiguous()
    assert_right(module(wide, offsets.int()), expected(tables, indices, offsets))


@pytest.mark.parametrize("bags", [0, 1])
def test_no_bags_and_empty_bags(bags: int) -> None:
    module = ek.EmbeddingTables(some_tables((5, 2, "float32"), (4, 3, "int8")))
    output = module(torch.zeros(0, dtype=torch.int64), torch.zeros(2 * bags + 1, dtype=torch.int64))
    assert output.shape == (bags, 5)
    assert not output.any()


def test_a_table_without_rows_has_empty_bags_alone() -> None:
    tables = [torch.zeros(0, 3), torch.ones(2, 3)]
    module = ek.EmbeddingTables(tables)
    assert module(torch.tensor([0, 1]), torch.tensor([0, 0, 2])).tolist() == [[0, 0, 0, 2, 2, 2]]


def test_wrong_row_numbers_and_offsets_are_survived_and_counted() -> None:
    tables = some_tables((5, 4, "float32"), (3, 2, "int4"), (7, 3, "float16"))
    module = ek.EmbeddingTables(tables, output_dtype=torch.float32)
    indices = torch.tensor([1, 5, 0, -1, 2, 6, 2**40])
    offsets = torch.tensor([0, 3, 4, 5, 6, 5, 9])  # of table 2 they descend, then go too far
    output = module(indices, offsets)
    assert_right(output, expected(tables, indices, offsets))
    assert not output[:, 6:].any()
    assert module.bad_lookups() == ek.BadLookups("", rows=3, offsets=2, table="0", bag=0, index=5)
    module(indices, offsets)
    assert module.bad_lookups(forget=True) == ek.BadLookups("", rows=6, offsets=4, table="0", bag=0, index=5)
    assert ek.bad_lookups(nn.ModuleDict({"inner": module})) == []
    module(torch.tensor([0, 2, 9]), torch.tensor([0, 1, 1, 2, 2, 2, 3]))
    (bad,) = ek.bad_lookups(nn.ModuleDict({"inner": module}))
    assert bad == ek.BadLookups("inner", rows=1, offsets=0, table="2", bag=1, index=9)


def test_threads_look_up_and_count_together() -> None:
    tables = some_tables(*MIXED)
    module = ek.EmbeddingTables(tables)
    calls = [batch(tables, 13, 9, seed=seed) for seed in range(4)]
    for indices, _ in calls:
        indices[0] = -1

    def work(number: int) -> Any:
        return [module(*calls[number]) for _ in range(50)][-1]

    with ThreadPoolExecutor(4) as pool:
        for call, found in zip(calls, pool.map(work, range(4)), strict=True):
            assert_right(found, expected(tables, *call), 4)
    bad = module.bad_lookups()
    assert bad is not None
    assert (bad.rows, bad.offsets) == (200, 0)


@pytest.mark.parametrize(
    ("indices", "offsets", "words"),
    [
        ([0, 7], [0, 1, 2], "no row 7 in a table of 3 rows \\(feature 1, bag 0\\)"),
        ([0, 1], [0, 2, 1], "offsets descend or leave the indices at 1 \\(feature 1, bag 0\\)"),
    ],
)
def test_on_request_what_is_wrong_is_an_error_or_nobodys_concern(
    indices: list[int], offsets: list[int], words: str
) -> None:
    tables = [torch.ones(2, 3), torch.ones(3, 3)]
    with pytest.raises(RuntimeError, match=words):
        ek.EmbeddingTables(tables, on_bad_index="assert")(torch.tensor(indices), torch.tensor(offsets))
    with pytest.raises(RuntimeError, match=r"there is no row 4 in a table of 3 rows \(bag 0\)"):
        ek.EmbeddingTables(tables, on_bad_index="assert")[1](torch.tensor([4]), torch.tensor([0]))
    silent = ek.EmbeddingTables(tables, on_bad_index="ignore")
    silent(torch.tensor(indices), torch.tensor(offsets))
    assert silent.bad_lookups() is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([[1]], [0, 1, 1]), "have one dimension"),
        (([1], [0, 1]), "2 offsets are not features \\* bags \\+ 1 for 2 features"),
        (([1.0], [0, 1, 1]), "int32 or int64, not Float"),
        (([1], [0, 1, 1], [1.0, 2.0]), "one per-sample weight beside each index"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: tuple[list[Any], ...], words: str) -> None:
    module = ek.EmbeddingTables([torch.ones(2, 3), torch.ones(3, 3)])
    with pytest.raises(RuntimeError, match=f"^embedding_kernels: .*{words}"):
        module(*map(torch.tensor, arguments))


def test_indices_elsewhere_are_refused() -> None:
    module = ek.EmbeddingTables([torch.ones(2, 3)])
    with pytest.raises(RuntimeError, match="not on the device of their tables; move them there"):
        module(torch.zeros(1, dtype=torch.int64, device="meta"), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("tables", "options", "words"),
    [
        ([], {}, "at least one table"),
        ([torch.ones(2, 3).double()], {}, "float64"),
        ([torch.ones(2)], {}, r"table 0 is torch.float32 \[2\]"),
        ([torch.ones(2, 0)], {}, "no columns"),
        ([torch.ones(2, 3)], {"modes": "median"}, "median"),
        ([torch.ones(2, 3)], {"names": ["a", "b"]}, "1 tables need as many names"),
        ([torch.ones(2, 3)], {"output_dtype": torch.float64}, "float64"),
        ([torch.ones(2, 3)], {"on_bad_index": "shout"}, "shout"),
        ([torch.ones(2, 3), torch.ones(2, 3, device="meta")], {}, "table 1 is on meta"),
    ],
)
def test_tables_that_do_not_fit_are_named(tables: list[Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ek.EmbeddingTables(tables, **options)


def test_a_backward_pass_is_refused() -> None:
    bags = [nn.EmbeddingBag(5, 3, mode="sum"), nn.EmbeddingBag(4, 2, mode="mean")]
    module = ek.EmbeddingTables(bags)
    output = module(torch.tensor([1, 2]), torch.tensor([0, 1, 2]))
    with pytest.raises(RuntimeError, match="is for inference and has no gradient"):
        output.sum().backward()
    with torch.no_grad():
        assert not module(torch.tensor([1, 2]), torch.tensor([0, 1, 2])).requires_grad
    frozen = ek.EmbeddingTables([torch.ones(5, 3)])
    assert not frozen(torch.tensor([1]), torch.tensor([0, 1])).requires_grad
    weighted = frozen(torch.tensor([1]), torch.tensor([0, 1]), torch.ones(1, requires_grad=True))
    with pytest.raises(RuntimeError, match="is for inference and has no gradient"):
        weighted.sum().backward()


@pytest.mark.parametrize("row_type", ["int8", "int4"])
def test_quantised_rows_are_near(row_type: Any) -> None:
    weight = torch.randn(30, 7)
    table = ek.quantise(weight, row_type)
    steps = {"int8": 255, "int4": 15}[row_type]
    spread = weight.amax(1, keepdim=True) - weight.amin(1, keepdim=True)
    assert ((table.dequantised() - weight).abs() <= spread / steps + 0.01).all()
    with pytest.raises(ValueError, match="no numbers"):
        ek.quantise(torch.tensor([[float("nan")]]), row_type)
    with pytest.raises(ValueError, match=r"uint8 \[30, "):
        ek.QuantisedTable(row_type, 9, table.data, table.scale_bias)


@pytest.mark.parametrize("row_type", ["int8", "int4"])
@pytest.mark.parametrize("most", [1e-3, 2.2e-5, 2.1e-5, 7e-6, 1e-6, 1e-7, 1e-9, 0])
def test_rows_of_a_small_range_lose_none_of_their_values(row_type: Any, most: float) -> None:
    """Whose scale is among the least that float16 has, 6e-8 apart."""
    weight = torch.linspace(0, most, 64).view(1, 64)
    table = ek.quantise(weight, row_type)
    step = max(most / {"int8": 255, "int4": 15}[row_type], 6e-8)
    assert ((table.dequantised() - weight).abs() <= 0.51 * (step + 6e-8)).all()


def test_a_bias_is_not_above_the_least_value() -> None:
    """The nearest float16 to 1000.26 is 1000.5, and no row would come out as less."""
    weight = torch.tensor([[1000.26, 1000.27, 1000.30, 1000.29]])
    table = ek.quantise(weight, "int8")
    assert ((table.dequantised() - weight).abs() <= 0.51 * 0.30 / 255).all()


@pytest.mark.parametrize(
    ("weight", "row_type", "words"),
    [
        (torch.zeros(2, 4), "int3", "quantised to int8 or int4, not 'int3'"),
        (torch.zeros(2, 4, dtype=torch.complex64), "int8", "not torch.complex64"),
        (torch.tensor([[70000.0, 70001.0]]), "int8", "too large for a scale and bias"),
        (torch.tensor([[-70001.0, -70000.0]]), "int4", "too large for a scale and bias"),
        (torch.zeros(2, 4).to_sparse(), "int8", "not torch.float32 .*sparse"),
        (torch.zeros(4), "int8", r"takes a table \[rows, columns\], not \[4\]"),
    ],
)
def test_what_cannot_be_quantised_is_named(weight: torch.Tensor, row_type: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ek.quantise(weight, row_type)


def test_checking_a_device() -> None:
    assert ek.check("cpu")
    ek.warm_up("cpu")
    ek.warm_up("cpu", "int8", kernels="vectorized")
    for unknown in ("banana", -1):
        assert ek.check(unknown).why_not == f"PyTorch knows no device {unknown!r}."
    missing = ek.check("xpu")
    assert not missing
    assert "not on xpu" in missing.why_not
    with pytest.raises(ValueError, match="no rows of int3"):
        ek.warm_up("cpu", ["int3"])
    with pytest.raises(ValueError, match="no kernels 'slow'; there are fused, vectorized"):
        ek.warm_up("cpu", kernels=["slow"])


@pytest.mark.parametrize(
    "register",
    [
        lambda module, hook: module.register_forward_hook(lambda *given: hook()),
        lambda module, hook: module.register_forward_pre_hook(lambda *given: hook()),
        lambda module, hook: nn.modules.module.register_module_forward_hook(lambda *given: hook()),
        lambda module, hook: nn.modules.module.register_module_forward_pre_hook(lambda *given: hook()),
    ],
)
def test_hooks_are_called_as_of_any_module(register: Callable[[nn.Module, Callable[[], None]], Any]) -> None:
    tables = some_tables((30, 6, "float32"))
    module = ek.EmbeddingTables(tables)
    given = batch(tables, 4, 3)
    called: list[int] = []
    handle = register(module, lambda: called.append(1))
    module(*given)
    handle.remove()
    module(*given)
    assert called == [1]


def test_a_tracer_that_leaves_it_whole_is_asked() -> None:
    """torch.fx puts a call of its own in the place of nn.Module's."""

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, ek.EmbeddingTables)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = ek.EmbeddingTables(some_tables((30, 6, "float32")))

        def forward(self, indices: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.tables(indices, offsets)
            return found

    calls = [node.target for node in Tracer().trace(Model()).nodes if node.op == "call_module"]
    assert calls == ["tables"]


def test_a_module_that_was_compiled_in_place_is_called_so() -> None:
    tables = some_tables((30, 6, "float32"))
    module = ek.EmbeddingTables(tables)
    given = batch(tables, 4, 3)
    wanted, seen = module(*given), []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        seen.append(graph)
        return graph.forward

    module.compile(backend=backend, fullgraph=True)
    torch.testing.assert_close(module(*given), wanted)
    assert len(seen) == 1


def test_what_is_no_table_or_no_name_is_told() -> None:
    module = ek.EmbeddingTables(some_tables((30, 6, "float32"), (20, 3, "float32")))
    with pytest.raises(IndexError, match="There are 2 tables, and none is number 2"):
        module.look_up_one(2, torch.tensor([0]), torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="names: a list of texts, one for each table, not the text 'ab'"):
        ek.EmbeddingTables(some_tables((30, 6, "float32"), (20, 3, "float32")), names="ab")
    with pytest.raises(TypeError, match="updating takes streams, not a int"), ek.updating(3):  # type: ignore[arg-type]
        pass
    with pytest.raises(TypeError, match="report takes a model that was optimised, not a NoneType"):
        ek.report(None)  # type: ignore[arg-type]
