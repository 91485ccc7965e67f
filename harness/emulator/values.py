"""Rows as they lie in memory, results as kernels write them, and what both are worth in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.emulator.arguments import Array

Float64 = NDArray[np.float64]
STORED_AS = {
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "uint16",
    "int32": "int32",
    "int64": "int64",
}
"""NumPy's types; bfloat16, which it lacks, as its bits."""
_ROUNDING = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_UNWRITTEN = {4: 0x7FC0DEAD, 2: 0x7FEB}
"""Bits that no kernel writes, not a number in any type, by their width."""


@dataclass(frozen=True)
class Table:
    """A table [rows, dim] of one type."""

    data: Array
    """As it lies in memory; rows of int8 and int4 are filled up to 16 bytes, as the contract has it."""
    scales: Array | None
    """Of int8 and int4: scale and bias of each row, [rows, 2]."""
    values: Float64
    """What its elements are worth."""
    magnitudes: Float64
    """Of what a kernel computes an element from: scale times number, and bias."""


def stored(table: Float64, dtype: str) -> Table:
    """The table as `dtype`."""
    if dtype not in ("int8", "int4"):
        data = _as_bfloat16(table) if dtype == "bfloat16" else table.astype(STORED_AS[dtype])
        values = worth(data, dtype)
        return Table(data, None, values, np.abs(values))
    most = 255 if dtype == "int8" else 15
    scales = np.stack([np.ptp(table, axis=1) / most, table.min(axis=1)], axis=1).astype(np.float16)
    scale, bias = (part[:, None].astype(np.float64) for part in scales.T)
    data = np.clip(np.rint((table - bias) / np.maximum(scale, 1e-9)), 0, most).astype(np.uint8)
    values, magnitudes = data * scale + bias, data * scale + np.abs(bias)
    if dtype == "int4":
        data = np.pad(data, ((0, 0), (0, data.shape[1] % 2)))
        data = (data[:, ::2] | data[:, 1::2] << 4).astype(np.uint8)
    filled = np.pad(data, ((0, 0), (0, -data.shape[1] % 16)), constant_values=0x7F)
    return Table(filled, scales, values, magnitudes)


def worth(bits: Array, dtype: str) -> Float64:
    """Stored values in float64."""
    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.astype(np.float64)


def _as_bfloat16(values: Float64) -> Array:
    """Cut off after 16 bits; which values a test takes does not matter."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def unwritten(shape: tuple[int, ...], dtype: str) -> Array:
    """Memory of results into which nothing was written yet."""
    made = np.empty(shape, STORED_AS[dtype])
    made.view(f"uint{8 * made.itemsize}")[...] = _UNWRITTEN[made.itemsize]
    return made


def complaint(got: Array, dtype: str, expected: Float64, magnitude: Float64) -> str:
    """What is wrong with one row of results [dim], or an empty string.

    `magnitude`: the sum of the terms' magnitudes ÷ what they are divided by. Rounding grows with it: sums are
    made in float32, in any order, and rounded again as they are written.
    """
    column = np.flatnonzero(got.view(f"uint{8 * got.itemsize}") == _UNWRITTEN[got.itemsize])
    if column.size:
        return f"column {column[0]} is never written"
    found = worth(got, dtype)
    with np.errstate(invalid="ignore"):
        right = np.abs(found - expected) <= 16 * 2.0**-23 * magnitude + _ROUNDING[dtype] * np.abs(expected)
    if right.all():
        return ""
    first = int(np.flatnonzero(~right)[0])
    return f"column {first} is {found[first]:.7g} instead of {expected[first]:.7g}"
