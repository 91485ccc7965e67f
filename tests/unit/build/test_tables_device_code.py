"""Kernels for all tables at once, whose threads work together, run on the CPU from their own sources."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from harness import designs
from harness.build import instances
from harness.build.instances import Instance
from harness.designs import Launch
from tests.unit.build.emulation import Emulated, TableRows, TablesArgs, build

pytestmark = pytest.mark.compiler

Array = np.ndarray[Any, Any]
DESIGNS = [d.name for d in designs.discover().values() if d.compiled and d.all_tables]
POISON = 2**30  # a row number that no table here has
TOLERANCE = {"float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}
REFUSED = "every index is a row of its table, and offsets ascend within the indices"


@dataclass(frozen=True)
class Kernel:
    """One instance, and how its blocks follow from bags."""

    design: str
    instance: Instance
    launch: Launch

    @property
    def stays(self) -> bool:
        return self.launch.blocks_per_sm > 0

    def splits(self, bags: int) -> list[int]:
        """Numbers of blocks: of a kernel that stays any; otherwise of one table, as the launch allows."""
        if self.stays:
            return [1, 3]
        return [max(bags // 7, 1), bags] if self.launch.rows_per_block[1] else [bags]


def _kernels() -> list[Any]:
    """A kernel and a type of rows each, results of the usual type; of indices now one, now the other."""
    found = []
    for name in DESIGNS:
        design = designs.get(name)
        special = {s.kernel: s.launch for s in design.special}
        usual = [i for i in instances.of(design) if i.output_dtype == designs.OUTPUTS[i.dtype][0]]
        for function, general in sorted({(i.function, bool(i.general)) for i in usual}):
            kinds = [i for i in usual if (i.function, bool(i.general)) == (function, general)]
            several = len({i.dtype for i in kinds}) > 1
            for n, dtype in enumerate(dict.fromkeys(i.dtype for i in kinds)):
                both = [i for i in kinds if i.dtype == dtype]
                for instance in [both[n % 2]] if several else both:
                    kernel = Kernel(name, instance, special.get(function, design.launch))
                    found.append(pytest.param(kernel, id=f"{name}-{instance.expression}"))
    return found


KERNELS = pytest.mark.parametrize("kernel", _kernels())


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Emulated]:
    return cache(lambda name: build(designs.get(name), tmp_path_factory.mktemp(name)))


class Call:
    """Tables and a batch, and the sums in float64. Behind the last index stands poison."""

    def __init__(
        self,
        lengths: Sequence[Sequence[int]],
        instance: Instance,
        *,
        dim: int = 128,
        rows: int = 1000,
        seed: int = 0,
        mean: bool = False,
    ) -> None:
        random = np.random.default_rng(seed)
        self.dim, self.rows, self.mean = dim, rows, mean
        self.lengths = np.array(lengths)
        dtype, self.output_dtype = instance.dtype, instance.output_dtype
        n = int(self.lengths.sum())
        tables = [random.normal(size=(rows, dim)) for _ in lengths]
        self.data, self.scales, self.values = zip(*(_stored(table, dtype) for table in tables), strict=True)
        self.indices = np.full(n + 64, POISON, instance.index_dtype)
        self.indices[:n] = random.integers(0, rows, n)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(instance.index_dtype)
        # What nobody writes is no number.
        shape = (self.lengths.shape[1], len(lengths) * dim)
        self.output = np.full(shape, np.nan, "float32")
        if self.output_dtype != "float32":
            self.output = np.full(shape, 0x7FFF, "uint16")

    def args(self) -> TablesArgs:
        self._tables = (TableRows * len(self.data))(
            *(
                TableRows(
                    weights=data.ctypes.data,
                    scales=None if scales is None else scales.ctypes.data,
                    rows=self.rows,
                    row_stride_bytes=data.strides[0],
                )
                for data, scales in zip(self.data, self.scales, strict=True)
            )
        )
        return TablesArgs(
            tables=ctypes.addressof(self._tables),
            indices=self.indices.ctypes.data,
            offsets=self.offsets.ctypes.data,
            output=self.output.ctypes.data,
            n_indices=int(self.lengths.sum()),
            n_bags=self.lengths.shape[1],
            n_tables=self.lengths.shape[0],
            dim=self.dim,
            output_stride=self.output.shape[1],
            mode=int(self.mean),
        )

    def check(self) -> None:
        got = self.output.astype(np.float64)
        if self.output_dtype != "float32":
            got = _real(self.output, self.output_dtype)
        for table, bags in enumerate(self.lengths):
            for bag in range(len(bags)):
                at = table * len(bags) + bag
                picked = self.indices[self.offsets[at] : self.offsets[at + 1]]
                values = self.values[table][picked]
                expected, most = values.sum(axis=0), np.abs(values).sum(axis=0)
                if self.mean and len(picked):
                    expected, most = expected / len(picked), most / len(picked)
                error = np.abs(got[bag, table * self.dim : (table + 1) * self.dim] - expected)
                # Sums are made in float32; what is written may be rounded further.
                allowed = TOLERANCE["float32"] * most + TOLERANCE[self.output_dtype] * np.abs(expected)
                assert (error <= allowed).all(), f"table {table}, bag {bag} of {len(picked)} rows"


def _stored(table: Array, dtype: str) -> tuple[Array, Array | None, Array]:
    """A table as it lies in memory, its scales and biases, and its values in float64."""
    if dtype in ("int8", "int4"):
        most = 255 if dtype == "int8" else 15
        scales = np.stack([np.ptp(table, axis=1) / most, table.min(axis=1)], axis=1).astype(np.float16)
        exact = scales.astype(np.float64)
        quantised = np.clip(np.rint((table - exact[:, 1:]) / exact[:, :1]), 0, most).astype(np.uint8)
        values = quantised * exact[:, :1] + exact[:, 1:]
        if dtype == "int4":
            quantised = (quantised[:, ::2] | quantised[:, 1::2] << 4).astype(np.uint8)
        return np.ascontiguousarray(quantised), scales, values
    if dtype == "bfloat16":
        stored = (table.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return stored, None, _real(stored, dtype)
    stored = table.astype(dtype)
    return stored, None, stored.astype(np.float64)


def _real(bits: Array, dtype: str) -> Array:
    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view(np.float16).astype(np.float64)


Emulations = Callable[[str], Emulated]


def run(emulated: Emulations, kernel: Kernel, call: Call, blocks: int) -> str:
    """`blocks`: of a kernel that stays, or of one table."""
    x, y = kernel.launch.threads
    y = kernel.launch.threads_y_of.get(kernel.instance.dtype, y)  # type: ignore[call-overload]
    grid = blocks if kernel.stays else (blocks, len(call.data))
    return emulated(kernel.design).run(kernel.instance, call.args(), grid, (x, y))


@KERNELS
def test_sums_and_means_of_bags_of_any_length(emulated: Emulations, kernel: Kernel) -> None:
    random = np.random.default_rng(7)
    lengths = random.integers(0, 60, (2, 21))
    lengths[0, :6] = [0, 1, 256, 257, 150, 0]
    lengths[1, -3:] = [31, 0, 128]
    for mean in (False, True):
        for blocks in kernel.splits(21):
            call = Call(lengths.tolist(), kernel.instance, mean=mean)
            assert run(emulated, kernel, call, blocks) == ""
            call.check()


@KERNELS
def test_a_bag_much_longer_than_the_others(emulated: Emulations, kernel: Kernel) -> None:
    for blocks in kernel.splits(5):
        call = Call([[3, 2100, 0, 40, 7], [1, 0, 30, 601, 2]], kernel.instance, seed=1)
        assert run(emulated, kernel, call, blocks) == ""
        call.check()


@KERNELS
@pytest.mark.parametrize("dim", [32, 64, 96, 160, 256, 320])
def test_columns_in_whole_groups_of_16_bytes(emulated: Emulations, kernel: Kernel, dim: int) -> None:
    call = Call([[5, 0, 70, 33], [1, 9, 0, 17]], kernel.instance, dim=dim, rows=90, seed=dim)
    assert run(emulated, kernel, call, 2 if kernel.stays else 4) == ""
    call.check()


@KERNELS
def test_few_bags_and_empty_ones(emulated: Emulations, kernel: Kernel) -> None:
    for lengths in ([[0]], [[1]], [[300]], [[5], [0], [40]], [[0, 0, 0]]):
        call = Call(lengths, kernel.instance)
        assert run(emulated, kernel, call, 1 if kernel.stays else len(lengths[0])) == ""
        call.check()


@KERNELS
@pytest.mark.parametrize("wrong", [-1, 1000, -(2**31), 2**31 - 1])
def test_an_index_outside_its_table_is_refused_wherever_it_stands(
    emulated: Emulations, kernel: Kernel, wrong: int
) -> None:
    for position in (0, 37, 38, 290, 340):
        call = Call([[38, 0, 250], [12, 40, 1]], kernel.instance)
        call.indices[position] = wrong
        assert run(emulated, kernel, call, 2 if kernel.stays else 3) == REFUSED, f"position {position}"


@KERNELS
@pytest.mark.parametrize("offsets", [[0, -1, 3, 11], [0, 5, 3, 11], [0, 3, 12, 11], [0, 3, 5, 12]])
def test_offsets_that_leave_the_indices_are_refused(
    emulated: Emulations, kernel: Kernel, offsets: list[int]
) -> None:
    call = Call([[3, 4, 4]], kernel.instance)
    call.offsets[:] = offsets
    assert run(emulated, kernel, call, 1 if kernel.stays else 3) == REFUSED


def test_python_and_device_code_agree_about_the_arguments(emulated: Emulations) -> None:
    for name in DESIGNS:
        library = emulated(name).library
        for struct, function in ((TablesArgs, "size_of_tables_args"), (TableRows, "size_of_table_rows")):
            size = getattr(library, function)
            size.restype = ctypes.c_size_t
            assert size() == ctypes.sizeof(struct)
