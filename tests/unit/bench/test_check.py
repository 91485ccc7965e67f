"""The check knows right from wrong: rounding passes, the smallest real mistake does not, and is named."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.bench import batch, check
from harness.bench.batch import Batch
from harness.bench.tables import TableStore
from harness.records import Cell


@pytest.fixture
def made(cell: Callable[..., Cell]) -> Callable[..., Batch]:
    """A batch of a workload, as `cell` takes it."""

    def make(**changes: object) -> Batch:
        one = cell(**changes)
        trace = np.random.default_rng(3).integers(0, one.workload.rows, 500)
        return batch.make(one, [trace] * one.workload.tables, TableStore().get(one.workload, one.seed))

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
        for c in itertools.product(["float32", "float16"], ["sum", "mean"], [False, True])
        if c[1:] != ("mean", True)
    ],
)
def test_pytorchs_own_operator_passes(
    made: Callable[..., Batch], dtype: str, mode: str, weighted: bool
) -> None:
    found = check.run(made(dtype=dtype, mode=mode, weighted=weighted, pooling=150))
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
