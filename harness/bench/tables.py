"""The tables of a workload, made on its device from its seed, and how far smaller types take them off.

Tables are made in the order in which they are first looked up; features that share one have it in common.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.patch import quantise
from harness.patch.quantise import QuantisedTables
from harness.records import QUANTISED, VALUES_WITHIN, Workload

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
}
_CHUNK_VALUES = 1 << 25
"""As many are made as float32 at a time where the table is of a smaller type, so that it needs little
beside itself."""
_COPIES = 8
"""Of a chunk, at most alive while it is quantised and compared."""


@dataclass(frozen=True)
class Tables:
    """The tables of a workload."""

    weights: list[Tensor]
    """Of each feature its table: [rows, dim]; of quantised ones the stored values alone, uint8
    [rows, bytes]."""
    quantised: QuantisedTables | None = None
    """The same with scales and biases, where they are quantised."""
    error: dict[str, float] = field(default_factory=dict)
    """Against the float32 values that a smaller type was made of: `quantisation_error` (root of the mean
    square of the differences ÷ that of the values), `quantisation_error_max` and `quantisation_error_mean`
    (largest and mean difference; see `values_within` of the record). Empty for float32."""

    def rows(self, table: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Some rows of a table, and how large the terms are that make up each value: float64 [n, dim]."""
        stored = self.weights[table][numbers.long()]
        if self.quantised is None:
            values = stored.double()
            return values, values.abs()
        if self.quantised.dtype == "int4":
            stored = torch.stack([stored % 16, stored // 16], dim=2).flatten(1)[:, : self.quantised.dim]
        scale, bias = self.quantised.scale_bias[table][numbers.long()].double().split(1, dim=1)
        steps = stored.double() * scale
        return steps + bias, steps.abs() + bias.abs()


class TableStore:
    """Keeps the last tables made, for the cells of a launch share them and making them takes time."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._tables = Tables([])

    def hold(self, work: Workload, seed: int) -> bool:
        """Whether these very tables are in memory already."""
        return self._key == _key(work, seed)

    def drop(self) -> None:
        """Gives their memory back."""
        self._key, self._tables = (), Tables([])
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def get(self, work: Workload, seed: int) -> Tables:
        """Tables of values so small that float16 holds the sum of any usual bag, and in a model the dot
        product of two such sums, even of bags that hold one row alone."""
        if not self.hold(work, seed):
            self.drop()
            self._tables = _made(work, torch.Generator(work.device).manual_seed(seed))
            self._key = _key(work, seed)
        return self._tables


def scratch_bytes(work: Workload) -> int:
    """What making the tables takes beside them."""
    largest = max(kind.rows * kind.dim for kind in work.kinds)
    return 0 if work.dtype == "float32" else _COPIES * 4 * min(_CHUNK_VALUES, largest)


def _key(work: Workload, seed: int) -> tuple[object, ...]:
    return work.tables, work.rows, work.dim, work.groups, work.dtype, work.device, seed


def _made(work: Workload, generator: torch.Generator) -> Tables:
    shapes = {feature.table: (feature.group.rows, feature.group.dim) for feature in work.features}
    stored = _Stored(work, generator)
    for table in sorted(shapes):
        stored.add(*shapes[table])
    weights = [stored.weights[feature.table] for feature in work.features]
    error = {} if work.dtype == "float32" else stored.differences.summary()
    if not work.quantised:
        return Tables(weights, None, error)
    pairs = [stored.scale_bias[feature.table] for feature in work.features]
    dtype: quantise.QuantisedType = "int8" if work.dtype == "int8" else "int4"
    return Tables(weights, QuantisedTables(dtype, work.dim, tuple(weights), tuple(pairs)), error)


class _Stored:
    """Makes one table after the other."""

    def __init__(self, work: Workload, generator: torch.Generator) -> None:
        self.weights: list[Tensor] = []
        self.scale_bias: list[Tensor] = []
        """Of quantised tables."""
        self.differences = _Differences()
        self._dtype, self._device, self._generator = work.dtype, work.device, generator

    def add(self, rows: int, dim: int) -> None:
        """The next table."""
        if self._dtype == "float32":
            self.weights.append(self._values(rows, dim))
        elif self._dtype in QUANTISED:
            self._add_quantised(rows, dim)
        else:
            table = torch.empty(rows, dim, dtype=DTYPES[self._dtype], device=self._device)
            for chunk, values in self._chunks(rows, dim):
                table[chunk] = values
                self.differences.add(table[chunk].float(), values)
            self.weights.append(table)

    def _add_quantised(self, rows: int, dim: int) -> None:
        # Rows of a chunk are laid out as those of the whole: with the same stride.
        whole: Tensor | None = None
        scale_bias = torch.empty(rows, 2, dtype=torch.float16, device=self._device)
        for chunk, values in self._chunks(rows, dim):
            part = quantise.quantise([values], "int8" if self._dtype == "int8" else "int4")
            if whole is None:
                stride, width = part.data[0].stride(0), part.data[0].size(1)
                whole = torch.zeros(rows, stride, dtype=torch.uint8, device=self._device)[:, :width]
            whole[chunk], scale_bias[chunk] = part.data[0], part.scale_bias[0]
            self.differences.add(part.dequantise(0), values)
        assert whole is not None
        self.weights.append(whole)
        self.scale_bias.append(scale_bias)

    def _values(self, rows: int, dim: int) -> Tensor:
        """Uniform. The generator's are multiples of 2^-23; scaled they use every bit of their mantissas."""
        table = torch.empty(rows, dim, device=self._device)
        return table.uniform_(-1, 1, generator=self._generator).mul_(VALUES_WITHIN)

    def _chunks(self, rows: int, dim: int) -> Iterator[tuple[slice, Tensor]]:
        """The values of one table as float32, some rows after the other."""
        step = max(1, _CHUNK_VALUES // dim)
        for first in range(0, rows, step):
            count = min(step, rows - first)
            yield slice(first, first + count), self._values(count, dim)


class _Differences:
    """Adds up how far stored values are from the originals."""

    def __init__(self) -> None:
        self._most = 0.0
        self._count = 0
        self._sum = self._squares = self._originals = 0.0

    def add(self, stored: Tensor, originals: Tensor) -> None:
        apart = (stored - originals).abs_()
        self._most = max(self._most, float(apart.max()))
        self._count += apart.numel()
        self._sum += float(apart.sum(dtype=torch.float64))
        self._squares += float(apart.square_().sum(dtype=torch.float64))
        self._originals += float(originals.square().sum(dtype=torch.float64))

    def summary(self) -> dict[str, float]:
        return {
            "quantisation_error": (self._squares / self._originals) ** 0.5 if self._originals else 0.0,
            "quantisation_error_max": self._most,
            "quantisation_error_mean": self._sum / self._count,
        }
