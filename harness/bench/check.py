"""Every output element against a float64 reference that shares no code with the operator under test."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from harness.bench.batch import Batch
from harness.records import Check, Workload

CHUNK_BYTES = 256 << 20
"""Most that one step of the reference gathers, as float64."""

_NOT_A_NUMBER = sys.float_info.max
"""Stands in for an error without bound (NaN, infinity): JSON has no word for it."""


def reference(batch: Batch, table: int) -> tuple[Tensor, Tensor]:
    """What the lookup should give, and the sum of the magnitudes of its terms: both float64 [batch, dim].

    Gathers rows and adds them in float64, a piece of the bags and of their rows at a time.
    """
    work, weights = batch.work, batch.weights[table]
    rows = batch.indices[table].view(work.batch, work.pooling).long()
    given = batch.sample_weights[table]
    scale = None if given is None else given.view(work.batch, work.pooling, 1)
    total = torch.zeros(work.batch, work.dim, dtype=torch.float64, device=weights.device)
    magnitude = torch.zeros_like(total)
    most_rows = max(1, CHUNK_BYTES // (8 * work.dim))
    depth = min(work.pooling, most_rows)
    width = max(1, most_rows // depth)
    for bag in range(0, work.batch, width):
        bags = slice(bag, bag + width)
        for first in range(0, work.pooling, depth):
            piece = slice(first, first + depth)
            terms = weights[rows[bags, piece]].double()
            if scale is not None:
                terms *= scale[bags, piece].double()
            total[bags] += terms.sum(1)
            magnitude[bags] += terms.abs_().sum(1)
    if work.mode == "mean":
        total /= work.pooling
        magnitude /= work.pooling
    return total, magnitude


def allowed_error(batch: Batch, expected: Tensor, magnitude: Tensor) -> Tensor:
    """The most that rounding may cost a lookup that adds up in float32, in any order: float64 [batch, dim].

    n terms and their products take at most n roundings on the way to the sum (Higham's gamma_n on the sum of
    magnitudes); a mean takes two more. float16 then rounds the result, on the CPU a mean twice.
    """
    mean = batch.work.mode == "mean"
    roundings = (batch.work.pooling + 2 * mean) * 2.0**-24
    allowed = magnitude * (roundings / (1 - roundings))
    if batch.work.dtype == "float16":
        for _ in range(1 + mean):
            allowed = allowed + (expected.abs() + allowed) * 2.0**-11 + 2.0**-25
    return allowed


def scratch_bytes(work: Workload) -> int:
    """What the comparison takes at its peak: rows and their float64 copy, a product; sums, bounds, ratios."""
    return 3 * min(CHUNK_BYTES, 8 * work.lookups * work.dim) + 8 * 8 * work.batch * work.dim


def run(batch: Batch, prepare: Callable[[int], None] | None = None) -> Check:
    """Looks up every table once, after its `prepare`, and compares every element with the reference.

    NaN and infinity count as errors without bound.
    """
    max_error, worst, elements = 0.0, "", 0
    for table in range(batch.work.tables):
        if prepare is not None:
            prepare(table)
        output = batch.lookup(table)
        wanted = (batch.work.batch, batch.work.dim)
        if output.shape != wanted or output.dtype != batch.weights[table].dtype:
            got = f"{list(output.shape)} {output.dtype}"
            worst = f"table {table}: the output is {got}, not {list(wanted)}"
            return Check(False, _NOT_A_NUMBER, worst, elements)
        expected, magnitude = reference(batch, table)
        allowed = allowed_error(batch, expected, magnitude)
        elements += output.numel()
        ratio = _ratio(output.double(), expected, allowed)
        at = int(ratio.argmax())
        error = float(ratio.flatten()[at])
        if table == 0 or error > max_error:
            max_error = error
            bag, column = divmod(at, batch.work.dim)
            came, due, bound = (float(values.flatten()[at]) for values in (output, expected, allowed))
            worst = f"table {table}, bag {bag}, column {column}: got {came!r}, expected {due!r} ± {bound:.3g}"
    return Check(max_error <= 1, max_error, worst, elements)


def _ratio(output: Tensor, expected: Tensor, allowed: Tensor) -> Tensor:
    """|output - expected| ÷ allowed, 0 where they agree to the bit, finite everywhere."""
    difference = (output - expected).abs()
    ratio = torch.where(difference == 0, 0.0, difference / allowed)
    return torch.nan_to_num(ratio, nan=_NOT_A_NUMBER, posinf=_NOT_A_NUMBER).clamp_(max=_NOT_A_NUMBER)


def sentence(check: Check) -> str:
    """Why a cell is invalid."""
    times = "infinitely" if check.max_error == _NOT_A_NUMBER else f"{check.max_error:.3g} times"
    return f"The design computes wrong values, off by {times} what rounding allows; {check.worst}."
