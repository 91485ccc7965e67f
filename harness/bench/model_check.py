"""Every output of the whole model against float64, with what rounding may cost carried from layer to layer.

The pooled rows are taken as the design gives them, for `harness.bench.check` has compared them already. From
there on each step is done again in float64, and beside each value goes a bound on the variance of its error,
to first order and with roundings that are independent of each other. (A bound that holds for any roundings
grows by what cancels in every layer, and would pass anything after five.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from harness.bench import check
from harness.bench.check import Reference
from harness.bench.dlrm import Cross, Dlrm, Prediction
from harness.bench.failures import CellError
from harness.records import Check, Workload

DEVIATIONS = 8
"""What passes is within so many standard deviations; each of them is a bound already."""
_SIGMOID_ROUNDINGS = 8


@dataclass(frozen=True)
class Rounding:
    """Relative errors of the arithmetic: half a unit in the last place."""

    factors: float
    """Of what a product's factors lose when they are read; 0: nothing."""
    sums: float
    """Of the sums that products go to."""
    results: float
    """Of what is written."""


@dataclass(frozen=True)
class Known:
    """Values in float64, and bounds on the variance of their errors."""

    value: Tensor
    variance: Tensor


def rounding(dtype: torch.dtype, device: torch.device) -> Rounding:
    """That of matrix products of this type, as PyTorch is set."""
    tf32 = device.type == "cuda" and dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    return Rounding(2.0**-11 if tf32 else 0.0, 2.0**-24, torch.finfo(dtype).eps / 2)


def run(
    dlrm: Dlrm,
    dense: Tensor,
    pooled: Sequence[Tensor],
    predictions: Mapping[str, Prediction],
    batch: int = 0,
) -> Check:
    """Compares predictions, each under the name of how it was made, with the reference.

    `pooled`: what the embedding stage gives, [batch, some tables * dim] each. `batch`: its number. NaN and
    infinity count as errors without bound. CellError where right products do not fit the model's dtype.
    """
    unit = rounding(dense.dtype, dense.device)
    due = reference(dlrm, dense, pooled, unit)
    bag_name = partial(check.bag_name, batch)
    found = []
    for how, (logits, probabilities) in predictions.items():
        found.append(check.judge(logits, due, f"logits of the model, {how}", bag_name))
        # The sigmoid of the logits found: where it is nearly flat it would hide their error.
        sigmoid = logits.double().sigmoid()
        bound = torch.full_like(sigmoid, _SIGMOID_ROUNDINGS * unit.results)
        due_outputs = Reference(sigmoid, bound)
        found.append(check.judge(probabilities, due_outputs, f"outputs of the model, {how}", bag_name))
    return check.worst_of(found)


def reference(dlrm: Dlrm, dense: Tensor, pooled: Sequence[Tensor], unit: Rounding) -> Reference:
    """The logits and what rounding may cost them: [batch, last layer], a piece of the batch at a time."""
    tables = sum(part.shape[1] for part in pooled) // dlrm.dim
    step = max(1, check.CHUNK_BYTES // _bytes_per_bag(tables, dlrm.dim))
    pieces = []
    for first in range(0, len(dense), step):
        piece = slice(first, first + step)
        bottom = _mlp(dlrm.bottom, _exact(dense[piece]), unit)
        features = _features(bottom, torch.cat([part[piece] for part in pooled], dim=1), dlrm.dim)
        if dlrm.cross:
            entering = _crossed(dlrm.cross, features, unit)
        else:
            products = _products(features, unit)
            entering = Known(
                torch.cat([bottom.value, products.value], dim=1),
                torch.cat([bottom.variance, products.variance], dim=1),
            )
        if float(entering.value.abs().max()) > torch.finfo(dense.dtype).max:
            dtype = str(dense.dtype).removeprefix("torch.")
            what = "The cross network's products" if dlrm.cross else "The dot products"
            raise CellError(
                f"{what} of pooled rows are too large for {dtype}:"
                ' use dtype = "bfloat16" or "float32", mode = "mean", or less pooling.'
            )
        pieces.append(_mlp(dlrm.top, entering, unit))
    deviation = torch.cat([piece.variance for piece in pieces]).sqrt()
    return Reference(torch.cat([piece.value for piece in pieces]), DEVIATIONS * deviation)


def scratch_bytes(work: Workload) -> int:
    """What the reference takes at its peak."""
    return min(work.batch * _bytes_per_bag(work.tables, work.dim), check.CHUNK_BYTES)


def _bytes_per_bag(tables: int, dim: int) -> int:
    """Features, their squares, magnitudes and variances; products likewise; and copies on the way."""
    return 8 * (8 * (tables + 1) * dim + 8 * (tables + 1) ** 2)


def _exact(values: Tensor) -> Known:
    value = values.double()
    return Known(value, torch.zeros_like(value))


def _features(bottom: Known, pooled: Tensor, dim: int) -> Known:
    """[bags, tables + 1, dim]: the bottom's output, then each table's pooled rows."""
    rows = _exact(pooled.view(len(pooled), -1, dim))
    return Known(
        torch.cat([bottom.value[:, None], rows.value], dim=1),
        torch.cat([bottom.variance[:, None], rows.variance], dim=1),
    )


def _products(features: Known, unit: Rounding) -> Known:
    """Dot products of each feature with every one before it, feature after feature: [bags, pairs]."""
    value, variance = features.value, features.variance
    squares, magnitudes = value.square(), value.abs()
    crossed = squares @ variance.mT
    carried = crossed + crossed.mT
    if unit.factors:
        carried += 2 * unit.factors**2 * (squares @ squares.mT)
    arithmetic = _arithmetic(unit, value.shape[-1]) * (magnitudes @ magnitudes.mT).square()
    later, before = torch.tril_indices(value.shape[1], value.shape[1], -1, device=value.device)
    return Known((value @ value.mT)[:, later, before], (carried + arithmetic)[:, later, before])


def _crossed(layers: nn.ModuleList, features: Known, unit: Rounding) -> Known:
    """What a cross network makes of the features side by side: [bags, (tables + 1) * dim].

    Factors and terms of a layer share errors, so that these are added up as if they all had one sign."""
    first = Known(features.value.flatten(1), features.variance.flatten(1))
    known = first
    for layer in layers:
        assert isinstance(layer, Cross)
        factor = _linear(layer.up, _linear(layer.down, known, unit), unit)
        product = first.value * factor.value
        apart = first.value.abs() * factor.variance.sqrt() + factor.value.abs() * first.variance.sqrt()
        total = product + known.value
        carried = (apart + known.variance.sqrt()).square()
        known = Known(total, carried + unit.results**2 * (product.square() + total.square()))
    return known


def _mlp(layers: nn.Sequential, entering: Known, unit: Rounding) -> Known:
    known = entering
    for layer in layers:
        if isinstance(layer, nn.Linear):
            known = _linear(layer, known, unit)
        else:  # a ReLU moves no two values further apart
            known = Known(known.value.clamp(min=0), known.variance)
    return known


def _linear(layer: nn.Linear, entering: Known, unit: Rounding) -> Known:
    weight = layer.weight.double().T
    bias = torch.zeros_like(weight[0]) if layer.bias is None else layer.bias.double()
    carried = entering.variance @ weight.square()
    if unit.factors:
        carried += 2 * unit.factors**2 * (entering.value.square() @ weight.square())
    magnitude = entering.value.abs() @ weight.abs() + bias.abs()
    return Known(
        entering.value @ weight + bias, carried + _arithmetic(unit, len(weight)) * magnitude.square()
    )


def _arithmetic(unit: Rounding, terms: int) -> float:
    """Variance of the relative error of a sum of so many products, of the sum of their magnitudes."""
    return terms * unit.sums**2 + unit.results**2
