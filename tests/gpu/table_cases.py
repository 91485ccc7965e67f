"""Calls of embedding_bags, and what they come to in float64, computed apart from torch's operators."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from harness.patch.quantise import QuantisedTables, quantise

ROWS = ("float32", "float16", "bfloat16", "int8", "int4")
USUAL = {
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int8": "float16",
    "int4": "float16",
}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class TablesCase:
    """One call; tensors are on the CPU until `call` takes them elsewhere."""

    weights: list[torch.Tensor] | QuantisedTables
    indices: torch.Tensor
    offsets: torch.Tensor
    mode: str
    sample_weights: torch.Tensor | None
    output_dtype: torch.dtype

    @property
    def n_tables(self) -> int:
        return len(self.weights.data if isinstance(self.weights, QuantisedTables) else self.weights)

    def on(self, device: str) -> TablesCase:
        """The same call with its tensors on a device."""
        weights: list[torch.Tensor] | QuantisedTables
        if isinstance(self.weights, QuantisedTables):
            weights = self.weights.to(device)
        else:
            weights = [_like(weight, device) for weight in self.weights]
        scales = None if self.sample_weights is None else self.sample_weights.to(device)
        return replace(
            self,
            weights=weights,
            indices=self.indices.to(device),
            offsets=self.offsets.to(device),
            sample_weights=scales,
        )

    def call(self) -> torch.Tensor:
        from harness import patch

        return patch.embedding_bags(
            self.weights,
            self.indices,
            self.offsets,
            mode=self.mode,  # type: ignore[arg-type]
            per_sample_weights=self.sample_weights,
            output_dtype=self.output_dtype,
        )


def make(
    lengths: Sequence[Sequence[int]],
    *,
    seed: int = 0,
    rows: Sequence[int] = (),
    dim: int = 16,
    dims: Sequence[int] = (),
    dtype: str = "float32",
    index_dtype: torch.dtype = torch.int64,
    mode: str = "sum",
    weighted: bool = False,
    output_dtype: str = "",
    apart: int = 0,
) -> TablesCase:
    """`lengths`: those of the bags, of each table. `dims`: of each table, where they differ. `apart`: columns
    that lie between the rows of a table."""
    generator = torch.Generator().manual_seed(seed)
    rows = rows or [100] * len(lengths)
    widths = dims or [dim] * len(lengths)
    tables = [
        torch.randn(n, width + apart, generator=generator)[:, :width]
        for n, width in zip(rows, widths, strict=True)
    ]
    flat = [
        torch.randint(n, (sum(bags),), generator=generator) for n, bags in zip(rows, lengths, strict=True)
    ]
    ends = np.cumsum([0, *(length for bags in lengths for length in bags)])
    indices = torch.cat(flat).to(index_dtype)
    weights: list[torch.Tensor] | QuantisedTables
    if dtype in ("int8", "int4"):
        weights = quantise(tables, dtype)  # type: ignore[arg-type]
    else:
        weights = [_like(table, "cpu", getattr(torch, dtype)) for table in tables]
    return TablesCase(
        weights,
        indices,
        torch.tensor(ends).to(index_dtype),
        mode,
        torch.randn(indices.shape, generator=generator) if weighted else None,
        getattr(torch, output_dtype or USUAL[dtype]),
    )


def random_tables_case(seed: int, **fixed: object) -> TablesCase:
    """Ragged and empty bags, tables of different sizes, all types and modes, odd and even dims."""
    rng = random.Random(seed)
    n_tables, n_bags = rng.choice([1, 2, 5, 17]), rng.choice([0, 1, 3, 64])
    longest = rng.choice([0, 1, 6, 40])
    lengths = [[rng.randint(0, longest) for _ in range(n_bags)] for _ in range(n_tables)]
    if n_bags > 1:
        lengths[rng.randrange(n_tables)][rng.randrange(n_bags)] = 300
    dtype, mode = rng.choice(ROWS), rng.choice(["sum", "sum", "mean", "max"])
    chosen: dict[str, object] = {
        "rows": [rng.choice([1, 7, 500, 3000]) for _ in range(n_tables)],
        "dim": rng.choice([1, 4, 7, 16, 32, 33, 64, 128, 160]),
        "dims": [],
        "dtype": dtype,
        "index_dtype": rng.choice([torch.int32, torch.int64]),
        "mode": mode,
        "weighted": mode == "sum" and rng.random() < 0.4,
        "output_dtype": rng.choice(["float32", USUAL[dtype]]),
        "apart": rng.choice([0, 0, 4, 5]),
    }
    if fixed.get("dtype", dtype) not in ("int8", "int4") and rng.random() < 0.5:
        chosen["dims"] = [rng.choice([2, 4, 6, 8, 32, 33, 64, 128, 130, 300]) for _ in range(n_tables)]
    return make(lengths, seed=seed, **{**chosen, **fixed})  # type: ignore[arg-type]


def assert_right(output: torch.Tensor, case: TablesCase) -> None:
    """Fails, naming the worst element, where an output is further off than rounding explains."""
    reference, bound = _expected(case)
    assert output.dtype == case.output_dtype
    got = output.detach().to("cpu", torch.float64).numpy()
    assert got.shape == reference.shape
    if not got.size:
        return
    excess = np.nan_to_num(np.abs(got - reference) / bound, nan=np.inf)
    worst = np.unravel_index(excess.argmax(), excess.shape)
    assert excess.max() <= 1, (
        f"bag, column {worst}: {got[worst]}, should be {reference[worst]} ± {bound[worst]}"
    )


def _like(table: torch.Tensor, device: str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The table elsewhere or of another type, its rows as far apart as here."""
    if table.is_contiguous():
        return table.to(device, dtype)
    wide = table.new_zeros(len(table), table.stride(0), device=device, dtype=dtype or table.dtype)
    wide[:, : table.size(1)] = table
    return wide[:, : table.size(1)]


def _values(case: TablesCase, table: int) -> tuple[Array, Array]:
    """The values of a table, and how large the numbers are that they are made of."""
    if not isinstance(case.weights, QuantisedTables):
        values = case.weights[table].to(torch.float64).numpy()
        return values, np.abs(values)
    data = case.weights.data[table].numpy()
    if case.weights.dtype == "int4":
        data = np.stack([data & 15, data >> 4], axis=2).reshape(len(data), -1)
    q = data[:, : case.weights.dim].astype(np.float64)
    scale, bias = case.weights.scale_bias[table].to(torch.float64).numpy().T[:, :, None]
    return scale * q + bias, scale * q + np.abs(bias)


def _expected(case: TablesCase) -> tuple[Array, Array]:
    """The result, and how far rounding may take a kernel from it, for every element.

    A kernel may add the rows of a bag in any order, in float32: some roundings of each term, one of each
    partial sum and one of the mean, and then that to the output's type.
    """
    offsets, indices = case.offsets.numpy(), case.indices.numpy()
    n_bags = (len(offsets) - 1) // case.n_tables
    scales = np.ones(len(indices))
    if case.sample_weights is not None:
        scales = case.sample_weights.to(torch.float64).numpy()
    results, bounds = [], []
    for table in range(case.n_tables):
        values, sizes = _values(case, table)
        result = np.zeros((n_bags, values.shape[1]))
        bound = np.zeros_like(result)
        for bag in range(n_bags):
            begin, end = offsets[table * n_bags + bag], offsets[table * n_bags + bag + 1]
            if begin == end:
                continue
            rows, factors = indices[begin:end], scales[begin:end, None]
            divisor = end - begin if case.mode == "mean" else 1
            if case.mode == "max":
                result[bag] = values[rows].max(axis=0)
                bound[bag] = sizes[rows].max(axis=0) * 4 * 2.0**-24
            else:
                result[bag] = (values[rows] * factors).sum(axis=0) / divisor
                bound[bag] = (
                    (sizes[rows] * np.abs(factors)).sum(axis=0) / divisor * (end - begin + 4) * 2.0**-24
                )
        results.append(result)
        bounds.append(bound)
    reference, bound = np.concatenate(results, axis=1), np.concatenate(bounds, axis=1)
    output = torch.finfo(case.output_dtype)
    return reference, bound + (np.abs(reference) + bound) * output.eps + output.smallest_normal * output.eps
