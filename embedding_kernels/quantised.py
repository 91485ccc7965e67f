"""Tables of int8 and int4, each row with a scale and a bias of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

RowType = Literal["int8", "int4"]
_STEPS: dict[str, int] = {"int8": 255, "int4": 15}
"""Between the least and the largest value of a row."""
_QUANTISABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_SMALLEST_NORMAL = torch.finfo(torch.float16).smallest_normal


@dataclass(frozen=True)
class QuantisedTable:
    """A row's values are its integers times its scale plus its bias."""

    row_type: RowType
    dim: int
    """Columns."""
    data: Tensor
    """uint8 [rows, dim]; of int4 [rows, dim / 2 rounded up], the first column of two in the lower half."""
    scale_bias: Tensor
    """float16 [rows, 2]."""

    def __post_init__(self) -> None:
        """ValueError where the tensors do not fit each other."""
        for tensor in (self.data, self.scale_bias):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"A quantised table is made of tensors, not of a {type(tensor).__name__}.")
        if self.data.device != self.scale_bias.device:
            raise ValueError(
                f"The data of a table is on {self.data.device}, and scale and bias on "
                f"{self.scale_bias.device}; move them to one device."
            )
        width = (self.dim + 1) // 2 if self.row_type == "int4" else self.dim
        rows = self.data.size(0)
        if self.row_type not in ("int8", "int4"):
            raise ValueError(f"Rows are quantised to int8 or int4, not {self.row_type!r}.")
        if self.data.dtype != torch.uint8 or self.data.shape != (rows, width):
            raise ValueError(
                f"The data of a table of {self.row_type} with {self.dim} columns is uint8 [rows, {width}], "
                f"not {self.data.dtype} {list(self.data.shape)}."
            )
        if self.scale_bias.dtype != torch.float16 or self.scale_bias.shape != (rows, 2):
            raise ValueError(f"Scale and bias of {rows} rows are float16 [{rows}, 2].")

    def dequantised(self) -> Tensor:
        """float32 [rows, dim]."""
        data = self.data
        if self.row_type == "int4":
            data = torch.stack((data & 15, data >> 4), dim=2).flatten(1)[:, : self.dim]
        scale_bias = self.scale_bias.float()
        return data.float() * scale_bias[:, :1] + scale_bias[:, 1:]


def quantise(weight: Tensor, row_type: RowType) -> QuantisedTable:
    """A table [rows, dim] quantised row by row, from its least to its largest value.

    ValueError for another shape or type of rows, and where float16 cannot hold the scale or bias that the
    rows need.
    """
    if row_type not in _STEPS:
        raise ValueError(f"Rows are quantised to int8 or int4, not {row_type!r}.")
    if not isinstance(weight, Tensor):
        raise TypeError(f"quantise takes a tensor, not a {type(weight).__name__}.")
    if weight.dim() != 2 or weight.size(1) == 0:
        raise ValueError(f"quantise takes a table [rows, columns], not {list(weight.shape)}.")
    if weight.layout is not torch.strided or weight.dtype not in _QUANTISABLE:
        kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in _QUANTISABLE)
        raise ValueError(f"quantise takes dense rows of {kinds}, not {weight.dtype} ({weight.layout}).")
    scale_bias = _scale_bias(weight, row_type)
    if why := _why_not_finite(scale_bias):
        raise ValueError(f"{why}.")
    steps, values = _STEPS[row_type], weight.detach().float()
    scale, bias = scale_bias.split(1, dim=1)
    divisor = torch.where(scale == 0, 1, scale).float()
    data = ((values - bias.float()) / divisor).round().clamp(0, steps).to(torch.uint8)
    dim = weight.size(1)
    if row_type == "int4":
        data = torch.nn.functional.pad(data, (0, dim % 2))
        data = data[:, 0::2] | data[:, 1::2] << 4
    return QuantisedTable(row_type, dim, data.contiguous(), scale_bias)


def why_not_quantised(weight: Tensor, row_type: RowType) -> str:
    """Why `quantise` refuses the values of a table; empty where it does not."""
    return _why_not_finite(_scale_bias(weight, row_type)) if weight.size(1) else ""


def _scale_bias(weight: Tensor, row_type: RowType) -> Tensor:
    least, most = weight.detach().aminmax(dim=1, keepdim=True)
    bias = _half_below(least)
    wanted = (most.float() - bias.float()) / _STEPS[row_type]
    scale = wanted.half()
    # Of the least scales that float16 has one is far from the next: rounded down, the row's largest values
    # would be cut off. The bits of the next larger one are one more.
    short = (scale.float() < wanted) & (wanted < _SMALLEST_NORMAL)
    scale = torch.where(short, (scale.view(torch.int16) + 1).view(torch.float16), scale)
    return torch.cat((scale, bias), dim=1)


def _half_below(values: Tensor) -> Tensor:
    """The nearest float16 that is not larger, for a bias above a row's least value would cut it off; where
    there is none, infinity, which is refused."""
    nearest = values.half()
    bits = nearest.view(torch.int16)
    lower = torch.where(bits > 0, bits - 1, torch.where(bits < 0, bits + 1, -0x7FFF)).view(torch.float16)
    above = (nearest.float() > values.float()) & nearest.isfinite()
    return torch.where(above, lower, nearest)


def _why_not_finite(scale_bias: Tensor) -> str:
    if scale_bias.is_meta or bool(scale_bias.isfinite().all()):
        return ""
    return "A row has values that are no numbers, or too large for a scale and bias of float16"
