"""Every output element against a float64 reference that shares no code with the operator under test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.bench.batch import Batch
from harness.records import Check, Workload

CHUNK_BYTES = 256 << 20
"""Most that one step of the reference gathers, as float64."""

_NOT_A_NUMBER = sys.float_info.max
"""Stands in for an error without bound (NaN, infinity): JSON has no word for it."""


@dataclass(frozen=True)
class Reference:
    """What one lookup should give."""

    expected: Tensor
    """float64 [batch, dim]."""
    allowed: Tensor
    """The most that rounding may cost when adding up in float32, in any order: float64 [batch, dim]."""


def reference(batch: Batch, table: int) -> Reference:
    """Gathers rows and adds them up in float64, a piece of the indices at a time.

    The n terms of a bag and their products take at most n roundings on the way to the sum (Higham's gamma_n,
    on the sum of magnitudes); a mean takes two more. float16 then rounds the result, on the CPU a mean twice.
    """
    work, weights, indices = batch.work, batch.weights[table], batch.indices[table]
    positions = torch.arange(len(indices), device=weights.device)
    bag_of = torch.bucketize(positions, batch.offsets.long(), right=True) - 1
    terms_of = torch.bincount(bag_of, minlength=work.batch).double()[:, None]
    scale = batch.sample_weights[table]
    total = torch.zeros(work.batch, work.dim, dtype=torch.float64, device=weights.device)
    magnitude = torch.zeros_like(total)
    step = max(1, CHUNK_BYTES // (8 * work.dim))
    for first in range(0, len(indices), step):
        piece = slice(first, first + step)
        terms = weights[indices[piece].long()].double()
        if scale is not None:
            terms *= scale[piece, None].double()
        total.index_add_(0, bag_of[piece], terms)
        magnitude.index_add_(0, bag_of[piece], terms.abs_())
    mean = work.mode == "mean"
    if mean:
        total /= terms_of.clamp(min=1)
        magnitude /= terms_of.clamp(min=1)
    roundings = (terms_of + 2 * mean) * 2.0**-24
    allowed = magnitude * (roundings / (1 - roundings))
    if work.dtype == "float16":
        for _ in range(1 + mean):
            allowed = allowed + (total.abs() + allowed) * 2.0**-11 + 2.0**-25
    return Reference(total, allowed)


def ragged(batch: Batch) -> Batch:
    """The same tables and indices in bags of all lengths, an empty one first.

    The bags of a workload are all of one length, usually even, which hides kernels that go wrong at the end
    of a bag or at an empty one.
    """
    lookups = batch.work.lookups
    starts = torch.randint(0, lookups + 1, (batch.work.batch,), generator=torch.Generator().manual_seed(0))
    starts[:2] = 0
    return replace(batch, offsets=starts.sort().values.to(batch.offsets))


def scratch_bytes(work: Workload) -> int:
    """What the comparison takes at its peak: rows and their float64 copy, a product; sums, bounds, ratios."""
    return 3 * min(CHUNK_BYTES, 8 * work.lookups * work.dim) + 8 * 8 * work.batch * work.dim


def run(batch: Batch, prepare: Callable[[int], None] | None = None) -> Check:
    """Looks up every table once, after its `prepare`, then table 0 in ragged bags; compares every element.

    NaN and infinity count as errors without bound.
    """
    found = [_compare(batch, table, f"table {table}", prepare) for table in range(batch.work.tables)]
    found.append(_compare(ragged(batch), 0, "table 0 in ragged bags", prepare))
    worst = max(found, key=lambda check: check.max_error)
    return replace(worst, elements=sum(check.elements for check in found))


def _compare(batch: Batch, table: int, where: str, prepare: Callable[[int], None] | None) -> Check:
    """One lookup against its reference; `where` begins the name of the worst element."""
    if prepare is not None:
        prepare(table)
    output, wanted = batch.lookup(table), (batch.work.batch, batch.work.dim)
    if output.shape != wanted or output.dtype != batch.weights[table].dtype:
        got = f"{list(output.shape)} {output.dtype}"
        return Check(False, _NOT_A_NUMBER, f"{where}: the output is {got}, not {list(wanted)}", 0)
    due = reference(batch, table)
    ratio = _ratio(output, due)
    at = int(ratio.argmax())
    error = float(ratio.flatten()[at])
    bag, column = divmod(at, batch.work.dim)
    values = (float(tensor.flatten()[at]) for tensor in (output, due.expected, due.allowed))
    element = "got {!r}, expected {!r} ± {:.3g}".format(*values)
    return Check(error <= 1, error, f"{where}, bag {bag}, column {column}: {element}", output.numel())


def _ratio(output: Tensor, due: Reference) -> Tensor:
    """|output - expected| ÷ allowed, 0 where they agree to the bit, finite everywhere."""
    difference = (output.double() - due.expected).abs()
    # A sum too large for float16 is rightly infinite.
    too_large = due.expected.abs() + due.allowed >= torch.finfo(output.dtype).max
    right = output.isinf() & too_large & (output.sign() == due.expected.sign())
    ratio = torch.where((difference == 0) | right, 0.0, difference / due.allowed)
    return torch.nan_to_num(ratio, nan=_NOT_A_NUMBER, posinf=_NOT_A_NUMBER).clamp_(max=_NOT_A_NUMBER)


def sentence(check: Check) -> str:
    """Why a cell is invalid."""
    bounded = check.max_error < _NOT_A_NUMBER
    times = f"by {check.max_error:.3g} times what rounding allows" if bounded else "beyond any bound"
    return f"The design computes wrong values, off {times}; {check.worst}."
