"""The check knows right from wrong: rounding passes, the smallest real mistake does not, and is named."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.bench import batch, check
from harness.bench.batch import Batch
from harness.bench.rotation import Turn
from harness.bench.tables import TableStore
from harness.records import Cell
from harness.traces.stretches import Stretches


@pytest.fixture
def made(cell: Callable[..., Cell]) -> Callable[..., Batch]:
    """A batch of a workload, as `cell` takes it."""

    def make(**changes: object) -> Batch:
        one = cell(**changes)
        trace = np.random.default_rng(3).integers(0, one.workload.rows, 500)
        stretches = Stretches(one, [trace] * one.workload.tables)
        return batch.make(one, stretches, TableStore().get(one.workload, one.seed))

    return make


@dataclasses.dataclass(frozen=True)
class Wrong(Batch):
    """A batch whose operator makes one mistake, in table 1."""

    mistake: Callable[[Tensor], None] = lambda output: None

    def lookup(self, table: int) -> Tensor:
        output = super().lookup(table).clone()
        if table == 1:
            self.mistake(output)
        return output


def with_mistake(right: Batch, mistake: Callable[[Tensor], None]) -> Wrong:
    return Wrong(**{f.name: getattr(right, f.name) for f in dataclasses.fields(right)}, mistake=mistake)


@pytest.mark.parametrize(
    ("dtype", "mode", "weighted"),
    [
        c
        for c in itertools.product(["float32", "float16", "bfloat16"], ["sum", "mean"], [False, True])
        if c[1:] != ("mean", True)
    ],
)
@pytest.mark.parametrize("bags", ["fixed", "ragged"])
def test_pytorchs_own_operator_passes(
    made: Callable[..., Batch], dtype: str, mode: str, weighted: bool, bags: str
) -> None:
    found = check.run(made(dtype=dtype, mode=mode, weighted=weighted, bags=bags, pooling=150))
    assert found.passed
    assert 0 < found.max_error <= 1
    assert found.elements == (3 + 1) * 32 * 16


def test_a_bag_that_misses_its_smallest_term_is_found(made: Callable[..., Batch]) -> None:
    right = made(pooling=150)
    rows = right.weights[1][right.indices[1][5 * 150 : 6 * 150], 7]
    least = rows[rows.abs().argmin()]

    def leave_out(output: Tensor) -> None:
        output[5, 7] -= 10 * least

    found = check.run(with_mistake(right, leave_out))
    assert not found.passed
    assert found.worst.startswith("table 1, bag 5, column 7: got ")
    assert f"expected {float(check.reference(right, 1).expected[5, 7])!r}" in found.worst


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_wrong_and_fit_into_json(made: Callable[..., Batch], value: float) -> None:
    def spoil(output: Tensor) -> None:
        output[31, 15] = value

    found = check.run(with_mistake(made(), spoil))
    assert not found.passed
    assert found.worst.startswith("table 1, bag 31, column 15: ")
    assert found.max_error < float("inf")
    assert "beyond any bound" in check.sentence(found)


def test_zeros_and_neighbouring_bags_are_wrong(made: Callable[..., Batch]) -> None:
    def wipe(output: Tensor) -> None:
        output.zero_()

    def shift(output: Tensor) -> None:
        output.copy_(output.roll(1, 0))

    assert not check.run(with_mistake(made(), wipe)).passed
    assert not check.run(with_mistake(made(), shift)).passed


def test_an_output_of_another_shape_is_wrong(
    made: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = made()
    monkeypatch.setattr(Batch, "lookup", lambda self, table: torch.zeros(32, 15))
    found = check.run(right)
    assert not found.passed
    assert "[32, 15]" in found.worst


def test_the_reference_is_the_plain_sum_whatever_the_pieces(
    made: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = made(weighted=True)
    scale = right.sample_weights[2]
    assert scale is not None
    rows = right.weights[2].double().numpy()[right.indices[2].numpy()].reshape(32, 10, 16)
    plain = (rows * scale.double().numpy().reshape(32, 10, 1)).sum(1)
    for pieces in (1, 3 * 8 * 16, 25 * 8 * 16, check.CHUNK_BYTES):
        monkeypatch.setattr(check, "CHUNK_BYTES", pieces)
        due = check.reference(right, 2)
        np.testing.assert_allclose(due.expected.numpy(), plain, rtol=1e-12, atol=1e-14)
        bound = 10 * 2.0**-24 * np.abs(rows * scale.double().numpy().reshape(32, 10, 1)).sum(1)
        np.testing.assert_allclose(due.allowed.numpy(), bound, rtol=1e-5)


def test_the_prepare_of_each_table_runs_before_its_lookup(made: Callable[..., Batch]) -> None:
    prepared: list[int] = []
    assert check.run(made(), prepared.append).passed
    assert prepared == [0, 1, 2, 0]


def several(cell: Cell, count: int) -> list[Batch]:
    trace = np.random.default_rng(3).integers(0, cell.workload.rows, 500)
    tables = TableStore().get(cell.workload, cell.seed)
    stretches = Stretches(cell, [trace] * cell.workload.tables)
    return [batch.make(cell, stretches, tables, number) for number in range(count)]


def one_for_all(given: Batch) -> list[Callable[[], Tensor]]:
    return [lambda: torch.cat([given.lookup(table) for table in range(given.work.tables)], dim=1)]


@pytest.mark.parametrize("bind", [batch.per_table, one_for_all])
@pytest.mark.parametrize("together", [1, 2, 100])
def test_every_later_batch_is_compared_whole_however_many_at_once(
    cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch, bind: batch.Bind, together: int
) -> None:
    made = several(cell(bags="ragged", weighted=True), 6)
    monkeypatch.setattr(check, "_together", lambda work: together)
    prepared: list[tuple[int, int]] = []
    calls = [bind(one) for one in made]
    turns = [Turn(of_it, partial(lambda *at: prepared.append(at), n)) for n, of_it in enumerate(calls)]
    found = check.worst_of(check.run_others(made, turns))
    assert found.passed
    assert found.elements == 5 * 3 * 32 * 16
    assert prepared == [(n, call) for n in range(1, 6) for call in range(len(calls[0]))]

    def late_slip() -> Tensor:
        output = calls[4][-1]().clone()
        output[31, -1] += 1e-3
        return output

    turns[4] = Turn([*calls[4][:-1], late_slip])
    wrong = check.worst_of(check.run_others(made, turns))
    assert not wrong.passed
    assert wrong.worst.startswith("table 2, batch 4, bag 31, column 15: got ")
    turns[5] = Turn([lambda: torch.zeros(31, 16)] * len(calls[0]))
    shapeless = check.worst_of(check.run_others(made, turns))
    assert "the output is [31, 16]" in shapeless.worst


def test_of_one_batch_there_are_no_others(cell: Callable[..., Cell]) -> None:
    made = several(cell(), 1)
    assert check.run_others(made, [Turn(batch.per_table(made[0]))]) == []


def test_small_batches_are_compared_together_within_the_memory_that_is_said(
    cell: Callable[..., Cell],
) -> None:
    small, large = cell(batch=1, pooling=1).workload, cell(batch=2048, pooling=150, dim=128).workload
    assert check._together(large) == 1
    assert check.scratch_bytes(large, 2) == check.scratch_bytes(large)
    assert check._together(small) > 1000
    assert check.scratch_bytes(small, 500) > 100 * check.scratch_bytes(small)
    assert check.scratch_bytes(small, 10**9) < 8 * check.CHUNK_BYTES


def test_ragged_bags_hold_the_same_indices_one_bag_empty_and_odd_ones_among_them(
    made: Callable[..., Batch],
) -> None:
    lengths = check.ragged(made(mode="mean")).offsets.diff(append=torch.tensor([320]))
    assert lengths.sum() == 320
    assert lengths[0] == 0
    assert lengths.min() >= 0
    assert {0, 1} == set((lengths % 2).tolist())


def test_a_kernel_that_is_wrong_for_odd_bags_only_is_found(
    made: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Batch.lookup

    def two_at_a_time(self: Batch, table: int) -> Tensor:
        output = right(self, table).clone()
        ends = torch.cat([self.offsets[1:], torch.tensor([self.work.lookups])])
        odd = (ends - self.offsets) % 2 == 1
        output[odd] -= self.weights[table][self.indices[table][ends[odd] - 1]]
        return output

    monkeypatch.setattr(Batch, "lookup", two_at_a_time)
    found = check.run(made(pooling=10))
    assert not found.passed
    assert found.worst.startswith("table 0 in ragged bags, bag ")


def test_a_sum_beyond_float16_is_rightly_infinite(made: Callable[..., Batch]) -> None:
    large = made(dtype="float16", pooling=50)
    for table in large.weights:
        table.fill_(60_000)
    assert large.lookup(0).isinf().all()
    assert check.run(large).passed

    def flip(output: Tensor) -> None:
        output.neg_()

    assert not check.run(with_mistake(large, flip)).passed


def quantised(
    batch: Batch, adding: Callable[[Batch, Tensor, Tensor], Tensor], slip: float = 0.0
) -> list[Callable[[], Tensor]]:
    """One call for all tables of quantised rows, added up in float32; `slip` spoils one element."""

    def lookup() -> Tensor:
        bag_of = torch.bucketize(torch.arange(batch.work.lookups), batch.offsets, right=True) - 1
        outputs = [adding(batch, torch.tensor(table), bag_of) for table in range(batch.work.tables)]
        outputs[2][3, 1] += slip
        return torch.cat(outputs, dim=1).half()

    return [lookup]


def value_by_value(batch: Batch, table: Tensor, bag_of: Tensor) -> Tensor:
    assert batch.tables.quantised is not None
    values = batch.tables.quantised.dequantise(int(table), batch.indices[table])
    return torch.zeros(batch.work.batch, batch.work.dim).index_add_(0, bag_of, values)


def bias_apart(batch: Batch, table: Tensor, bag_of: Tensor) -> Tensor:
    """Σ scale × q and Σ bias each by themselves, as a kernel may add them up."""
    assert batch.tables.quantised is not None
    bias = batch.tables.quantised.scale_bias[table][batch.indices[table]][:, 1:].float()
    steps = batch.tables.quantised.dequantise(int(table), batch.indices[table]) - bias
    both = (torch.zeros(batch.work.batch, part.size(1)).index_add_(0, bag_of, part) for part in (steps, bias))
    return sum(both, torch.zeros(1))


@pytest.mark.parametrize("adding", [value_by_value, bias_apart])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_quantised_rows_are_held_against_what_they_stand_for(
    made: Callable[..., Batch], dtype: str, adding: Callable[[Batch, Tensor, Tensor], Tensor]
) -> None:
    batch = made(dtype=dtype, pooling=150, dim=7)
    found = check.run(batch, bind=lambda given: quantised(given, adding))
    assert found.passed
    assert found.elements == (3 + 2) * 32 * 7
    # A step of one row's scale is far more than rounding.
    assert batch.tables.quantised is not None
    step = float(batch.tables.quantised.scale_bias[2][:, 0].min())
    wrong = check.run(batch, bind=lambda given: quantised(given, adding, 30 * step))
    assert not wrong.passed
    assert wrong.worst.startswith("table 2")
    assert "bag 3, column 1" in wrong.worst


def test_the_reference_of_quantised_rows_is_the_plain_sum_of_their_values(made: Callable[..., Batch]) -> None:
    batch = made(dtype="int4", weighted=True, bags="ragged", dim=5)
    scale = batch.sample_weights[1]
    assert scale is not None
    assert scale.dtype == torch.float32
    assert batch.tables.quantised is not None
    values = batch.tables.quantised.dequantise(1, batch.indices[1]).double() * scale[:, None]
    ends = [*batch.offsets.tolist()[1:], batch.work.lookups]
    plain = [values[a:b].sum(0).tolist() for a, b in zip(batch.offsets.tolist(), ends, strict=True)]
    np.testing.assert_allclose(check.reference(batch, 1).expected.numpy(), plain, atol=1e-6)
    strict, lenient = (
        check.reference(batch, 1, values_in_float16=rounded).allowed for rounded in (False, True)
    )
    assert (lenient >= strict).all()
    assert (lenient > strict).any()
