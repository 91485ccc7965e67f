"""The lookups and the pin kernel, run on the CPU from their own sources against NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from harness import designs
from harness.build import instances
from harness.build.instances import Instance
from tests.unit.build.emulation import Emulated, LookupArgs, PrepareArgs, build, work_together

pytestmark = pytest.mark.compiler

Array = np.ndarray[Any, Any]


COLUMNWISE = [
    design.name for design in designs.discover().values() if design.compiled and not work_together(design)
]
LOOKUPS = [
    pytest.param(name, instance, id=f"{name}-{instance.expression}")
    for name in COLUMNWISE
    for instance in instances.of(designs.get(name))
    if instance.function == "lookup"
]
POISON = 2**30  # a row number that no table here has


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Emulated]:
    return cache(lambda name: build(designs.get(name), tmp_path_factory.mktemp(name)))


class Batch:
    """One table and one batch, with poison after the last index: whoever reads that far is refused."""

    def __init__(
        self, lengths: list[int], instance: Instance, *, rows: int = 50, dim: int = 40, seed: int = 0
    ):
        random = np.random.default_rng(seed)
        self.n, self.rows, self.dim = sum(lengths), rows, dim
        self.weights = random.normal(size=(rows, dim)).astype(instance.dtype)
        self.indices = np.full(self.n + 64, POISON, instance.index_dtype)
        self.indices[: self.n] = random.integers(0, rows, self.n)
        self.ends = np.cumsum(lengths)
        self.offsets = (self.ends - lengths).astype(instance.index_dtype)
        self.sample_weights: Array | None = None
        self.padding_idx, self.mode = -1, 0
        self.output = np.full((len(lengths), dim), np.nan, instance.dtype)
        self.offset2bag = np.full(self.n, -1, instance.index_dtype)
        self.bag_size = np.full(len(lengths), -1, instance.index_dtype)

    def args(self) -> LookupArgs:
        size = self.weights.itemsize
        return LookupArgs(
            weights=self.weights.ctypes.data,
            indices=self.indices.ctypes.data,
            offsets=self.offsets.ctypes.data,
            sample_weights=None if self.sample_weights is None else self.sample_weights.ctypes.data,
            output=self.output.ctypes.data,
            offset2bag=self.offset2bag.ctypes.data,
            bag_size=self.bag_size.ctypes.data,
            n_indices=self.n,
            n_bags=len(self.offsets),
            dim=self.dim,
            rows=self.rows,
            row_stride=self.weights.strides[0] // size,
            column_stride=self.weights.strides[1] // size,
            sample_weight_stride=1 if self.sample_weights is None else self.sample_weights.strides[0] // size,
            padding_idx=self.padding_idx,
            mode=self.mode,
        )

    def check(self) -> None:
        """Compares every output with float64 sums."""
        tolerance = 1e-5 if self.output.dtype == np.float32 else 2e-3
        for bag, end in enumerate(self.ends):
            begin = self.ends[bag - 1] if bag else 0
            picked = self.indices[begin:end].astype(np.int64)
            kept = picked != self.padding_idx
            values = self.weights[picked].astype(np.float64) * kept[:, None]
            if self.sample_weights is not None:
                values *= self.sample_weights[begin:end, None].astype(np.float64)
            expected = values.sum(axis=0) / (max(kept.sum(), 1) if self.mode else 1)
            np.testing.assert_allclose(
                self.output[bag], expected, rtol=tolerance, atol=tolerance * max(1, len(picked))
            )
            assert self.bag_size[bag] == kept.sum()
            assert (self.offset2bag[begin:end] == bag).all()


@pytest.mark.parametrize(("name", "instance"), LOOKUPS)
def test_sums_of_ragged_and_empty_bags(
    emulated: Callable[[str], Emulated], name: str, instance: Instance
) -> None:
    batch = Batch([0, 1, 7, 0, 0, 2, 33, 3, 16, 0], instance)
    assert emulated(name).run(instance, batch.args()) == ""
    batch.check()


@pytest.mark.parametrize(("name", "instance"), LOOKUPS)
def test_no_index_is_read_past_the_end_whatever_the_bags_length(
    emulated: Callable[[str], Emulated], name: str, instance: Instance
) -> None:
    for length in range(3 * max([0, *instance.tunables.values()]) + 4):
        batch = Batch([2, length], instance, dim=3, seed=length)
        assert emulated(name).run(instance, batch.args()) == "", f"a bag of {length} rows"
        batch.check()


@pytest.mark.parametrize(("name", "instance"), LOOKUPS)
def test_padding_weights_and_mean(emulated: Callable[[str], Emulated], name: str, instance: Instance) -> None:
    batch = Batch([5, 0, 9, 4], instance, rows=4, seed=3)
    batch.padding_idx, batch.mode = 2, 1
    batch.weights[2] = np.nan  # never added, whatever the padding row holds
    batch.indices[14:18] = 2  # a bag of nothing but padding
    emulated_design = emulated(name)
    assert emulated_design.run(instance, batch.args()) == ""
    assert (batch.output[3] == 0).all()
    batch.weights[2] = 0  # for the reference, which multiplies by nought
    batch.check()

    batch = Batch([5, 0, 9, 4], instance, seed=4)
    batch.sample_weights = np.random.default_rng(5).normal(size=36).astype(instance.dtype)[::2]
    assert emulated_design.run(instance, batch.args()) == ""
    batch.check()


@pytest.mark.parametrize(("name", "instance"), LOOKUPS)
def test_columns_apart_and_outputs_that_nobody_wants(
    emulated: Callable[[str], Emulated], name: str, instance: Instance
) -> None:
    batch = Batch([3, 4], instance, dim=50)
    batch.weights = np.ascontiguousarray(batch.weights.T).T
    args = batch.args()
    args.offset2bag = args.bag_size = None
    assert emulated(name).run(instance, args, blocks=1) == ""
    assert (batch.offset2bag == -1).all()
    batch.offset2bag[:], batch.bag_size[:] = [0] * 3 + [1] * 4, [3, 4]
    batch.check()


@pytest.mark.parametrize("wrong", [-1, 50, -(2**31), 2**31 - 1])
@pytest.mark.parametrize(("name", "instance"), LOOKUPS)
def test_an_index_outside_the_table_is_refused_wherever_it_stands(
    emulated: Callable[[str], Emulated], name: str, instance: Instance, wrong: int
) -> None:
    for position in (0, 1, 4, 10):
        batch = Batch([4, 7], instance, dim=1)
        batch.indices[position] = wrong
        said = emulated(name).run(instance, batch.args())
        assert said == "every index is a row of the table", f"position {position}"


@pytest.mark.parametrize("offsets", [[0, -1, 3], [0, 5, 3], [0, 3, 12]])
def test_offsets_that_leave_the_indices_are_refused(
    emulated: Callable[[str], Emulated], offsets: list[int]
) -> None:
    (instance,) = (
        i for i in instances.of(designs.get("baseline")) if i.expression == "lookup<float, long long>"
    )
    batch = Batch([3, 4, 4], instance)
    batch.offsets[:] = offsets
    assert emulated("baseline").run(instance, batch.args()) == "offsets ascend within the indices"


@pytest.mark.parametrize("distance", designs.get("l1dpf").tunables["distance"].values)
def test_l1_prefetches_every_row_once_and_ahead_of_its_use(
    emulated: Callable[[str], Emulated], distance: int
) -> None:
    design = emulated("l1dpf")
    (instance,) = (
        i
        for i in design.instances
        if (i.dtype, i.index_dtype) == ("float32", "int64")
        and i.tunables == {"distance": distance, "resident": 5}
    )
    batch = Batch([0, 1, distance, 2 * distance + 1, 3], instance, dim=1)
    design.prefetched()
    assert design.run(instance, batch.args(), blocks=1, threads=(1, 1)) == ""
    address = batch.weights.ctypes.data + batch.indices[: batch.n] * batch.weights.strides[0]
    assert design.prefetched().tolist() == address.tolist()
    # A row that no table has: the thread stops when it would prefetch it, `distance` rows before its turn.
    wrong = 1 + 3 * distance
    batch.indices[wrong] = POISON
    batch.offset2bag[:] = -1
    assert design.run(instance, batch.args(), blocks=1, threads=(1, 1)) != ""
    assert design.prefetched().tolist() == address[:wrong].tolist()
    assert (batch.offset2bag >= 0).tolist() == [n < wrong - distance for n in range(batch.n)]


@pytest.mark.parametrize("name", [name for name in COLUMNWISE if designs.get(name).prepares])
@pytest.mark.parametrize("row_bytes", [2, 4, 100, 128, 132, 256, 510, 512])
@pytest.mark.parametrize("gap", [0, 4, 128])
@pytest.mark.parametrize("misaligned", [0, 4, 64, 127])
def test_every_line_of_every_hot_row_is_prefetched_once(
    emulated: Callable[[str], Emulated], name: str, row_bytes: int, gap: int, misaligned: int
) -> None:
    design = emulated(name)
    hot = np.array([7, 0, 3, 9], np.int64)
    begin, stride = 2**40 + misaligned, row_bytes + gap  # an address that is computed with, never read
    args = PrepareArgs(
        weights=begin, hot_rows=hot.ctypes.data, n_hot_rows=4, row_bytes=row_bytes, row_stride_bytes=stride
    )
    for instance in (i for i in design.instances if i.function == "prepare"):
        for blocks, threads in ((1, (32, 1)), (2, (32, 8)), (3, (128, 1))):
            assert design.run(instance, args, blocks, threads) == ""
            wanted: list[int] = []
            for row in hot.tolist():
                first, last = begin + row * stride, begin + row * stride + row_bytes - 1
                wanted += range(first // 128 * 128, last + 1, 128)
            assert sorted(design.prefetched().tolist()) == sorted(wanted)


def test_python_and_device_code_agree_about_the_arguments(emulated: Callable[[str], Emulated]) -> None:
    library = emulated("baseline").library
    library.size_of_lookup_args.restype = ctypes.c_size_t
    assert library.size_of_lookup_args() == ctypes.sizeof(LookupArgs)
