"""The model against one written out in loops, and what it is said to take of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.bench import dlrm, model_check
from harness.bench.batch import Lookup
from harness.bench.check import Reference
from harness.bench.dlrm import Dlrm, Prediction
from harness.bench.failures import CellError
from harness.bench.tables import DTYPES
from harness.records import Model, Workload

SMALL = Workload(tables=3, rows=10, dim=4, batch=5, pooling=1, device="cpu")
MODEL = Model(6, (7, 4), (9, 8, 1))
CROSS = Model(6, (7, 4), (9, 8, 1), cross_layers=3, cross_rank=2)


def pooled_rows(work: Workload, seed: int = 0, scale: float = 1.0) -> list[Tensor]:
    """What lookups might have given: a tensor per table."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(work.tables, work.batch, work.dim, generator=generator) * scale
    return list(drawn.to(DTYPES[work.output_dtype]).unbind())


def lookups(pooled: list[Tensor]) -> list[Lookup]:
    return [partial(lambda rows: rows, rows) for rows in pooled]


def crossed(layers: nn.ModuleList, first: list[float]) -> list[float]:
    """A cross network in plain Python."""
    now = first
    for layer in layers:
        assert isinstance(layer, dlrm.Cross)
        low = [sum(float(w) * v for w, v in zip(row, now, strict=True)) for row in layer.down.weight]
        high = [
            float(bias) + sum(float(w) * v for w, v in zip(row, low, strict=True))
            for row, bias in zip(layer.up.weight, layer.up.bias, strict=True)
        ]
        now = [x0 * factor + x for x0, factor, x in zip(first, high, now, strict=True)]
    return now


def by_hand(model: Dlrm, dense: Tensor, pooled: list[Tensor]) -> list[float]:
    """Probabilities, sample by sample, in plain Python."""

    def through(layers: nn.Sequential, values: list[float], last_relu: bool) -> list[float]:
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        for number, layer in enumerate(linear):
            sums = [
                float(layer.bias[out])
                + sum(float(w) * v for w, v in zip(layer.weight[out], values, strict=True))
                for out in range(layer.out_features)
            ]
            values = sums if number == len(linear) - 1 and not last_relu else [max(0.0, s) for s in sums]
        return values

    found = []
    for sample in range(len(dense)):
        bottom = through(model.bottom, dense[sample].tolist(), True)
        features = [bottom, *(rows[sample].tolist() for rows in pooled)]
        side_by_side = [value for feature in features for value in feature]
        entering = crossed(model.cross, side_by_side) if model.cross else list(bottom)
        for later in range(len(features)) if not model.cross else ():
            for before in range(later):
                entering.append(sum(a * b for a, b in zip(features[later], features[before], strict=True)))
        found.append(1 / (1 + math.exp(-through(model.top, entering, False)[0])))
    return found


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40), tables=st.integers(1, 5))
def test_it_is_the_model_written_out_by_hand(seed: int, tables: int) -> None:
    work = Workload(tables=tables, rows=10, dim=4, batch=3, pooling=1, device="cpu")
    model, dense, pooled = (
        Dlrm(MODEL, work, seed),
        dlrm.dense_features(MODEL, work, seed),
        pooled_rows(work, seed),
    )
    probabilities = model(dense, lookups(pooled)).probabilities
    assert probabilities.shape == (3, 1)
    assert np.allclose(probabilities[:, 0].numpy(), by_hand(model, dense, pooled), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_cross_network_is_the_one_written_out_by_hand(seed: int) -> None:
    model, dense, pooled = (
        Dlrm(CROSS, SMALL, seed),
        dlrm.dense_features(CROSS, SMALL, seed),
        pooled_rows(SMALL),
    )
    assert model.top[0].in_features == 4 * 4
    probabilities = model(dense, lookups(pooled)).probabilities
    assert np.allclose(probabilities[:, 0].numpy(), by_hand(model, dense, pooled), rtol=1e-4, atol=1e-5)


def test_all_tables_side_by_side_are_the_tables_one_by_one() -> None:
    model, dense, pooled = Dlrm(MODEL, SMALL, 1), dlrm.dense_features(MODEL, SMALL, 1), pooled_rows(SMALL)
    one_by_one = model(dense, lookups(pooled))
    at_once = model(dense, lookups([torch.cat(pooled, dim=1)]))
    assert torch.equal(one_by_one.logits, at_once.logits)


def test_weights_come_from_the_seed() -> None:
    first, again, other = (Dlrm(MODEL, SMALL, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("dtype", "made"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_half_tables_have_a_half_model(dtype: str, made: torch.dtype) -> None:
    work = Workload(tables=3, rows=10, dim=4, batch=5, pooling=1, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    model, dense = Dlrm(MODEL, work, 1), dlrm.dense_features(MODEL, work, 1)
    assert {tensor.dtype for tensor in [dense, *model.parameters()]} == {made}
    assert model(dense, lookups(pooled_rows(work))).probabilities.dtype == made


Checked = tuple[Dlrm, Tensor, list[Tensor], Prediction]


def checked(work: Workload, seed: int = 3, shape: Model = MODEL) -> Checked:
    model, dense, pooled = (
        Dlrm(shape, work, seed),
        dlrm.dense_features(shape, work, seed),
        pooled_rows(work, seed),
    )
    return model, dense, pooled, model(dense, lookups(pooled))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("tables", [1, 12, 40])
def test_right_outputs_are_well_within_what_rounding_may_cost(dtype: str, tables: int) -> None:
    work = Workload(tables=tables, rows=10, dim=4, batch=300, pooling=1, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    model, dense, pooled, prediction = checked(work)
    found = model_check.run(model, dense, pooled, {"eager": prediction})
    assert found.passed, found.worst
    assert found.max_error < 0.8
    assert found.elements == 2 * 300


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("tables", "rank"), [(1, 2), (26, 64)])
def test_so_are_those_of_a_cross_network_and_wrong_ones_are_found(dtype: str, tables: int, rank: int) -> None:
    work = Workload(tables=tables, rows=10, dim=8, batch=300, pooling=1, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    shape = Model(6, (7, 8), (9, 8, 1), cross_layers=3, cross_rank=rank)
    made = checked(work, shape=shape)
    model, dense, pooled, prediction = made
    found = model_check.run(model, dense, pooled, {"eager": prediction})
    assert found.passed, found.worst
    assert found.max_error < 0.8
    # Of three digits, which bfloat16 has, several layers leave less than one bag of one table is worth.
    nothing = model(dense, lookups([torch.zeros_like(rows) for rows in pooled]))
    wrong = nothing if dtype == "bfloat16" else one_bag_wrong(made)
    assert not model_check.run(model, dense, pooled, {"eager": wrong}).passed


def swapped(made: Checked) -> Prediction:
    model, dense, pooled, _ = made
    prediction: Prediction = model(dense, lookups([pooled[1], pooled[0], *pooled[2:]]))
    return prediction


def one_bag_wrong(made: Checked) -> Prediction:
    model, dense, pooled, _ = made
    wrong = pooled[0].clone()
    wrong[2] = 0
    prediction: Prediction = model(dense, lookups([wrong, *pooled[1:]]))
    return prediction


def not_a_number(made: Checked) -> Prediction:
    logits = made[3].logits.clone()
    logits[1] = torch.nan
    return Prediction(logits, made[3].probabilities)


def without_sigmoid(made: Checked) -> Prediction:
    return Prediction(made[3].logits, made[3].logits)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("wrong", [swapped, one_bag_wrong, not_a_number, without_sigmoid])
def test_wrong_outputs_are_found(dtype: str, wrong: Callable[[Checked], Prediction]) -> None:
    work = Workload(tables=3, rows=10, dim=4, batch=50, pooling=1, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    made = checked(work)
    found = model_check.run(*made[:3], {"eager": made[3], "CUDA graph": wrong(made)})
    assert not found.passed
    assert "of the model, CUDA graph, bag " in found.worst
    third = model_check.run(*made[:3], {"CUDA graph": wrong(made)}, 2)
    assert third.worst == found.worst.replace(", bag ", ", batch 2, bag ")


def test_the_reference_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model, dense, pooled, _ = checked(SMALL)
    unit = model_check.rounding(torch.float32, torch.device("cpu"))

    def due() -> Reference:
        return model_check.reference(model, dense, pooled, unit)

    whole = due()
    monkeypatch.setattr("harness.bench.check.CHUNK_BYTES", 1)
    in_pieces = due()
    assert torch.allclose(whole.expected, in_pieces.expected, rtol=1e-12)
    assert torch.allclose(whole.allowed, in_pieces.allowed, rtol=1e-12)
    assert whole.expected.shape == (5, 1)


@pytest.fixture
def tf32() -> Iterator[None]:
    """Switched on, as a user may."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("tf32")
def test_what_tf32_costs_is_allowed_only_where_it_is_on() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert model_check.rounding(torch.float32, gpu).factors == 2.0**-11
    assert model_check.rounding(torch.float32, cpu).factors == 0
    assert model_check.rounding(torch.float16, gpu).factors == 0
    torch.backends.cuda.matmul.allow_tf32 = False
    assert model_check.rounding(torch.float32, gpu).factors == 0
    model, dense, pooled, _ = checked(SMALL)
    exact, rough = (
        model_check.reference(model, dense, pooled, model_check.Rounding(factors, 2.0**-24, 2.0**-24))
        for factors in (0.0, 2.0**-11)
    )
    assert (rough.allowed > 10 * exact.allowed).all()


def test_products_too_large_for_float16_are_said() -> None:
    work = Workload(tables=3, rows=10, dim=4, batch=5, pooling=1, device="cpu", dtype="float16")
    model, dense = Dlrm(MODEL, work, 1), dlrm.dense_features(MODEL, work, 1)
    pooled = pooled_rows(work, scale=400)
    with pytest.raises(CellError, match=r"too large for float16: use dtype = \"bfloat16\""):
        model_check.run(model, dense, pooled, {"eager": model(dense, lookups(pooled))})


@pytest.mark.parametrize("cross", [{}, {"cross_layers": 3, "cross_rank": 16}])
def test_an_inference_takes_no_more_memory_than_is_said(cross: dict[str, int]) -> None:
    """On the CPU, where PyTorch's profiler tells what was allocated; all of it counts, freed or not."""
    work = Workload(tables=20, rows=10, dim=32, batch=256, pooling=1, device="cpu")
    shape = Model(13, (64, 32), (64, 16, 1), **cross)
    said = dlrm.model_bytes(shape, work)
    model, dense, pooled = Dlrm(shape, work, 0), dlrm.dense_features(shape, work, 0), pooled_rows(work)
    with torch.profiler.profile(profile_memory=True) as profile:
        model(dense, lookups([rows.clone() for rows in pooled]))
    allocated = sum(e.self_cpu_memory_usage for e in profile.events() or [] if e.self_cpu_memory_usage > 0)
    weights = sum(4 * parameter.numel() for parameter in model.parameters())
    taken = allocated + weights + dense.nbytes
    assert 0.75 * said < taken <= said


def test_the_model_of_many_tables_is_counted_by_its_products() -> None:
    few, many = (
        dlrm.model_bytes(Model(), Workload(tables=tables, rows=10, device="cpu")) for tables in (12, 250)
    )
    products = 2048 * 251**2 * 4
    assert products < many - few < 4 * products
    assert dlrm.model_bytes(Model(), Workload(tables=250)) > 2 * many * 0.95
