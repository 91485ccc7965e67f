"""Tables of every type: what they hold, row by row, and how far that is from float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from harness.bench import tables
from harness.bench.tables import TableStore
from harness.patch import quantise
from harness.records import VALUES_WITHIN, Cell

QUANTISED = ["int8", "int4"]
SMALLER = ["float16", "bfloat16", *QUANTISED]


@pytest.mark.parametrize("dtype", ["float32", *SMALLER])
@pytest.mark.parametrize("dim", [16, 7])
def test_rows_are_those_of_the_table_as_float64(cell: Callable[..., Cell], dtype: str, dim: int) -> None:
    made = TableStore().get(cell(dtype=dtype, dim=dim).workload, 7)
    numbers = torch.tensor([1999, 0, 1, 1])
    values, magnitudes = made.rows(2, numbers)
    if made.quantised is None:
        assert torch.equal(values, made.weights[2][numbers].double())
        assert torch.equal(magnitudes, values.abs())
    else:
        torch.testing.assert_close(
            values, made.quantised.dequantise(2, numbers).double(), rtol=1e-6, atol=1e-7
        )
        assert (magnitudes >= values.abs()).all()
        assert made.quantised.data[2].stride(0) % 16 == 0
    assert torch.equal(values[2], values[3])
    assert not torch.equal(values[0], values[1])


def test_what_lies_in_memory_is_what_was_reckoned_with(cell: Callable[..., Cell]) -> None:
    for dtype in ["float32", *SMALLER]:
        work = cell(dtype=dtype, dim=20).workload
        made = TableStore().get(work, 7)
        held = sum(table.untyped_storage().nbytes() for table in made.weights)
        if made.quantised is not None:
            held += sum(pairs.untyped_storage().nbytes() for pairs in made.quantised.scale_bias)
        assert held == work.table_bytes


@pytest.mark.parametrize("dtype", SMALLER)
def test_pieces_make_the_same_tables_as_the_whole(
    cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    whole = TableStore().get(cell(dtype=dtype).workload, 7)
    monkeypatch.setattr(tables, "_CHUNK_VALUES", 333 * 16)
    pieces = TableStore().get(cell(dtype=dtype).workload, 7)
    assert all(torch.equal(a, b) for a, b in zip(whole.weights, pieces.weights, strict=True))
    assert pieces.error == pytest.approx(whole.error)
    if whole.quantised is not None and pieces.quantised is not None:
        assert torch.equal(whole.quantised.scale_bias[2], pieces.quantised.scale_bias[2])


@pytest.mark.parametrize("dtype", QUANTISED)
def test_the_error_is_that_against_the_float32_table(cell: Callable[..., Cell], dtype: str) -> None:
    original = TableStore().get(cell().workload, 7)
    made = TableStore().get(cell(dtype=dtype).workload, 7)
    assert original.error == {}
    assert made.quantised is not None
    known = quantise.error(made.quantised, original.weights)
    assert made.error == pytest.approx(
        {
            "quantisation_error": known.relative,
            "quantisation_error_max": known.max,
            "quantisation_error_mean": known.mean,
        },
        rel=1e-4,
    )
    assert known.max <= known.bound * (1 + 1e-6)


@pytest.mark.parametrize("dtype", ["float32", *SMALLER])
def test_values_reach_as_far_as_the_records_say(cell: Callable[..., Cell], dtype: str) -> None:
    work = cell(dtype=dtype).workload
    made = TableStore().get(work, 7)
    values = torch.cat([made.rows(table, torch.arange(work.rows))[0] for table in range(work.tables)])
    rounding = made.error.get("quantisation_error_max", 0.0)
    for end, sign in ((values.max(), 1), (values.min(), -1)):
        assert 0.99 * VALUES_WITHIN - rounding <= sign * float(end) <= VALUES_WITHIN + rounding


def test_fewer_bits_cost_more(cell: Callable[..., Cell]) -> None:
    errors = [TableStore().get(cell(dtype=d).workload, 7).error["quantisation_error"] for d in SMALLER]
    assert errors == sorted(errors)
    assert errors[0] == pytest.approx(2.0**-12, rel=0.3)
