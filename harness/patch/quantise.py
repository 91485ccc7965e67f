"""Tables with eight or four bits per value, a scale and a bias per row: value = scale × q + bias.

`quantise` makes them of float tables; the `from_` functions take over tables that FBGEMM or PyTorch
quantised. `error` says what it costs. `harness.patch.embedding_bags` looks them up.

Values and scales lie apart: data uint8 [rows, bytes], where a row begins at a multiple of 16 bytes (int4: two
values a byte, the first in the low half), and scale_bias float16 [rows, 2].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from harness.errors import BadInputError
from harness.patch import fbgemm
from harness.patch.pruned import Remapping, with_pruned_rows
from harness.patch.rows import aligned, packed, row_bytes, unpacked

QuantisedType = Literal["int8", "int4"]
Mode = Literal["sum", "mean", "max"]
LEVELS: dict[str, int] = {"int8": 255, "int4": 15}
"""The largest q."""
_CHUNK = 1 << 18  # rows at a time, so that a table of gigabytes needs little beside itself


@dataclass(frozen=True)
class QuantisedTables:
    """Quantised tables with the same number of columns."""

    dtype: QuantisedType
    dim: int
    data: tuple[Tensor, ...]
    """A table each: uint8 [rows, dim], of int4 [rows, dim / 2 rounded up]."""
    scale_bias: tuple[Tensor, ...]
    """A table each: float16 [rows, 2]."""
    mode: Mode | None = None
    """How bags are joined, where the tables were taken over from a module that says it."""

    def __post_init__(self) -> None:
        for number, table in enumerate(self.data):
            if table.dim() != 2 or table.size(1) != self.bytes_per_row:
                raise BadInputError(
                    f"Table {number} has the shape {list(table.shape)}, and rows of {self.dim} columns in "
                    f"{self.dtype} take {self.bytes_per_row} bytes."
                )

    @property
    def bytes_per_row(self) -> int:
        """Bytes of a row's values; scale and bias take four more."""
        return row_bytes(self.dtype, self.dim)

    def to(self, device: torch.device | str) -> QuantisedTables:
        """The same tables on another device, rows aligned as here."""
        return QuantisedTables(
            self.dtype,
            self.dim,
            tuple(aligned(table.to(device)) for table in self.data),
            tuple(pairs.to(device) for pairs in self.scale_bias),
            self.mode,
        )

    def dequantise(self, table: int, rows: Tensor | None = None) -> Tensor:
        """The values [rows, dim] of one table, or of these rows of it, as float32."""
        data, pairs = self.data[table], self.scale_bias[table]
        if rows is not None:
            data, pairs = data.index_select(0, rows), pairs.index_select(0, rows)
        scale, bias = pairs.float().split(1, dim=1)
        values: Tensor = unpacked(data, self.dtype, self.dim).float() * scale + bias
        return values


def quantise(tables: Sequence[Tensor], dtype: QuantisedType) -> QuantisedTables:
    """Quantises float tables [rows, dim], each row over its own range.

    No value is further from its original than half its row's scale, (max − min) ÷ 255 for int8 and ÷ 15 for
    int4, rounded up to float16. Raises BadInputError where a value is infinite, no number, or too large for
    float16.
    """
    levels = LEVELS[_known(dtype)]
    dim = _common(tables, as_bytes=False)

    def rows(table: Tensor) -> tuple[Tensor, Tensor]:
        values = table.detach().float()
        low, high = values.aminmax(dim=1, keepdim=True)
        return _rounded(values, low, (high - low) / levels, levels)

    return _made(tables, rows, dtype, dim)


def from_fbgemm_tbe(
    tables: Any,
    dtype: QuantisedType | None = None,
    dim: int | None = None,
    index_remapping: Remapping | None = None,
) -> QuantisedTables:
    """Takes over FBGEMM's IntNBitTableBatchedEmbeddingBagsCodegen, of inference: a table for each feature.

    `tables`: the module itself, whose type, columns and pruning are then known; or uint8 [rows, row bytes]
    each, the first elements of its `split_embedding_weights_with_scale_bias(0)`, whose rows begin with scale
    and bias as float16 (FBGEMM's default) and may end in padding. Of these `dtype` and `dim` must be told,
    and `index_remapping` (see `Remapping`) where the TBE was made with one: without it they are looked up by
    the numbers that rows have after pruning.

    Scale, bias and q are taken over to the bit, and of a module the mode, which bags are then joined by; a
    sum may differ by rounding. BadInputError for modules that mean something else: other types, several of
    them or several dims, scales in float32, no pooling.
    """
    mode: Mode | None = None
    if isinstance(tables, torch.nn.Module):
        tables, dtype, dim, index_remapping, mode = fbgemm.read(tables)
    if dtype is None or dim is None:
        raise BadInputError(
            "from_fbgemm_tbe needs the dtype and dim of tables that are given without their module."
        )
    used = row_bytes(_known(dtype), _columns(dim))
    _common(tables, as_bytes=True, least=used + 4)

    def rows(table: Tensor) -> tuple[Tensor, Tensor]:
        values = unpacked(table[:, 4 : 4 + used], dtype, dim)
        return values, _read(table[:, :4], torch.float16)

    return replace(_made(tables, rows, dtype, dim, index_remapping), mode=mode)


def from_fused_8bit(
    tables: Sequence[Tensor], dim: int | None = None, index_remapping: Remapping | None = None
) -> QuantisedTables:
    """Takes over int8 tables whose rows end in scale and bias as float32: uint8 [rows, dim + 8].

    So does FBGEMM's `FloatToFused8BitRowwiseQuantized` write them, and PyTorch's
    `quantized::embedding_bag_byte_prepack`. `dim`: where rows are padded before the scale.
    `index_remapping`: where tables were pruned, what PyTorch's operators take as
    `compressed_indices_mapping`. Scale and bias are rounded to float16, and a value that would move with them
    is put where it was: it stays within half a scale, on average within a tenth.
    """
    width = _common(tables, as_bytes=True, least=8 + (1 if dim is None else _columns(dim)))
    dim = width - 8 if dim is None else dim

    def rows(table: Tensor) -> tuple[Tensor, Tensor]:
        scale, bias = _read(table[:, -8:], torch.float32).split(1, dim=1)
        return _rounded(table[:, :dim].float() * scale + bias, bias, scale, LEVELS["int8"])

    return _made(tables, rows, "int8", dim, index_remapping)


def from_fused_4bit(
    tables: Sequence[Tensor], dim: int | None = None, index_remapping: Remapping | None = None
) -> QuantisedTables:
    """Takes over int4 tables whose rows end in scale and bias as float16: uint8 [rows, dim / 2 + 4], exactly.

    So does FBGEMM's `FloatToFusedNBitRowwiseQuantizedSBHalf` write them at 4 bits, and PyTorch's
    `quantized::embedding_bag_4bit_prepack`. `dim`: where it is odd. `index_remapping`: as in
    `from_fused_8bit`.
    """
    width = _common(tables, as_bytes=True, least=4 + (1 if dim is None else row_bytes("int4", _columns(dim))))
    dim = 2 * (width - 4) if dim is None else dim

    def rows(table: Tensor) -> tuple[Tensor, Tensor]:
        return unpacked(table[:, : (dim + 1) // 2], "int4", dim), _read(table[:, -4:], torch.float16)

    return _made(tables, rows, "int4", dim, index_remapping)


@dataclass(frozen=True)
class QuantisationError:
    """How far quantised values are from the originals, over all values of all tables."""

    max: float
    """The largest difference."""
    mean: float
    """The mean difference."""
    bound: float
    """Half the largest scale: what `quantise` promises not to exceed."""
    relative: float
    """Root of the mean square of the differences ÷ that of the originals."""


def error(quantised: QuantisedTables, originals: Sequence[Tensor]) -> QuantisationError:
    """Compares every value of quantised tables with the float tables that they were made of."""
    if [t.shape for t in originals] != [torch.Size((len(d), quantised.dim)) for d in quantised.data]:
        raise BadInputError(
            "The quantised tables and those they are compared with differ in number or shape."
        )
    largest, total, square, reference, count = 0.0, 0.0, 0.0, 0.0, 0
    for number, original in enumerate(originals):
        for begin in range(0, len(original), _CHUNK):
            wanted = original[begin : begin + _CHUNK].detach().double()
            rows = torch.arange(begin, begin + len(wanted), device=wanted.device)
            apart = (quantised.dequantise(number, rows).double() - wanted).abs()
            largest = max(largest, float(apart.max()))
            total += float(apart.sum())
            square += float(apart.square().sum())
            reference += float(wanted.square().sum())
            count += apart.numel()
    scales = [float(pairs[:, 0].max()) for pairs in quantised.scale_bias if len(pairs)]
    return QuantisationError(
        max=largest,
        mean=total / max(count, 1),
        bound=max(scales, default=0.0) / 2,
        relative=(square / reference) ** 0.5 if reference else 0.0,
    )


def _known(dtype: str) -> str:
    if dtype not in LEVELS:
        raise BadInputError(f"Rows are quantised to {' or '.join(LEVELS)}, not to {dtype!r}.")
    return dtype


def _columns(dim: int) -> int:
    """The `dim` that somebody gave; BadInputError where it is no number of columns."""
    if dim < 1:
        raise BadInputError(f"dim: {dim} is less than 1.")
    return dim


def _common(tables: Any, *, as_bytes: bool, least: int = 1) -> int:
    """The number of columns that all tables have; BadInputError where they differ or are no such tables.

    `as_bytes`: quantised already, by somebody else.
    """
    if isinstance(tables, Tensor | QuantisedTables):
        raise BadInputError(f"A list of tables is needed, and this is a {type(tables).__name__}.")
    if not tables:
        raise BadInputError("There is no table to quantise.")
    for number, table in enumerate(tables):
        if not isinstance(table, Tensor):
            kind = type(table).__name__
            raise BadInputError(f"Table {number} is {kind}, and a tensor is needed, such as module.weight.")
        if (table.dtype != torch.uint8) if as_bytes else not table.is_floating_point():
            needed = "bytes (uint8)" if as_bytes else "floating-point numbers"
            raise BadInputError(f"Table {number} holds {table.dtype}, and {needed} are needed.")
        if table.dim() != 2 or table.size(1) < least:
            raise BadInputError(
                f"Table {number} has the shape {list(table.shape)}; it needs {least} columns or more."
            )
        if table.size(1) != tables[0].size(1):
            raise BadInputError(
                f"Table {number} has {table.size(1)} columns and table 0 has {tables[0].size(1)}; "
                "quantise tables of one width together."
            )
    return int(tables[0].size(1))


def _made(
    tables: Sequence[Tensor],
    rows: Callable[[Tensor], tuple[Tensor, Tensor]],
    dtype: QuantisedType,
    dim: int,
    index_remapping: Remapping | None = None,
) -> QuantisedTables:
    """`rows` makes q [rows, dim] and scale_bias [rows, 2] of some rows of a table."""
    data, pairs = [], []
    for number, table in enumerate(tables):
        stored = aligned(table.new_empty(len(table), row_bytes(dtype, dim), dtype=torch.uint8))
        scale_bias = table.new_empty(len(table), 2, dtype=torch.float16)
        for begin in range(0, len(table), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            q, scale_bias[chunk] = rows(table[chunk])
            stored[chunk] = packed(q, dtype)
        if not bool(scale_bias.isfinite().all()):
            raise BadInputError(
                f"Table {number} holds values that are infinite, no numbers, or too large for a scale "
                "and bias in float16."
            )
        data.append(stored)
        pairs.append(scale_bias)
    if index_remapping is not None:
        data, pairs = with_pruned_rows(data, pairs, index_remapping)
    return QuantisedTables(dtype, dim, tuple(data), tuple(pairs))


def _rounded(values: Tensor, low: Tensor, scale: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """q and scale_bias for values between `low` and low + levels × scale, all [rows, ...], float32.

    The bias is rounded down to float16 and the scale up, so the range still holds every value, and none is
    further than half a scale from the nearest q.
    """
    bias = _to_half(low, up=False).float()
    wider = torch.maximum(scale, (low + levels * scale - bias) / levels)
    step = _to_half(wider, up=True).float()
    q = ((values - bias) / torch.where(step > 0, step, 1)).round().clamp(0, levels)
    return q.to(torch.uint8), torch.cat([step, bias], dim=1).half()


def _to_half(values: Tensor, *, up: bool) -> Tensor:
    """The nearest float16 that is not below (`up`) or not above the value."""
    half = values.half()
    beyond = half.float() < values if up else half.float() > values
    # The bits of a positive number grow with it, those of a negative one as it falls.
    towards = torch.where((half.view(torch.int16) >= 0) == up, 1, -1).to(torch.int16)
    return torch.where(beyond, half.view(torch.int16) + towards, half.view(torch.int16)).view(torch.float16)


def _read(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """The bytes of every row as numbers of another type."""
    return rows.contiguous().view(dtype)
