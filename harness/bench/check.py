"""Every output element against a float64 reference that shares no code with the operator under test."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.bench.batch import Batch, Bind, Prepare, joined, per_table
from harness.bench.rotation import Turn
from harness.bench.tables import DTYPES
from harness.records import Check, Workload

CHUNK_BYTES = 256 << 20
"""Most that one step of the reference gathers, as float64."""

_NOT_A_NUMBER = sys.float_info.max
"""Stands in for an error without bound (NaN, infinity): JSON has no word for it."""


@dataclass(frozen=True)
class Reference:
    """What an output should be."""

    expected: Tensor
    """float64 [batch, columns]."""
    allowed: Tensor
    """The most that rounding may cost: float64 [batch, columns]."""


def reference(batch: Batch, table: int, *, values_in_float16: bool = False) -> Reference:
    """Gathers rows and adds them up in float64, a piece of the indices at a time.

    Sums are in float32, in any order. The n terms of a bag and their products take at most n roundings on
    the way to the sum (Higham's gamma_n, on the sum of magnitudes); a mean takes two more, and so do a
    quantised row's scale and bias, which may be added up apart. The result is then rounded to the output's
    type, on the CPU a mean twice.
    `values_in_float16`: each quantised value may be rounded to float16 before it is added up, too.
    """
    work, indices = batch.work, batch.indices[table]
    dim = work.features[table].group.dim
    positions = torch.arange(len(indices), device=indices.device)
    bag_of = torch.bucketize(positions, batch.starts(table).long(), right=True) - 1
    terms_of = torch.bincount(bag_of, minlength=work.batch).double()[:, None]
    scale = batch.sample_weights[table]
    total = torch.zeros(work.batch, dim, dtype=torch.float64, device=indices.device)
    magnitude = torch.zeros_like(total)
    rounded = torch.zeros_like(total)
    step = max(1, CHUNK_BYTES // (8 * dim))
    for first in range(0, len(indices), step):
        piece = slice(first, first + step)
        terms, magnitudes = batch.rows(table, indices[piece])
        if scale is not None:
            factors = scale[piece, None].double()
            terms *= factors
            magnitudes *= factors.abs()
        total.index_add_(0, bag_of[piece], terms)
        magnitude.index_add_(0, bag_of[piece], magnitudes)
        if values_in_float16 and work.quantised:
            rounded.index_add_(0, bag_of[piece], terms.abs_().mul_(2.0**-11).add_(2.0**-25))
    mean = work.mode == "mean"
    if mean:
        for sums in (total, magnitude, rounded):
            sums /= terms_of.clamp(min=1)
    roundings = (terms_of + 2 * mean + 2 * work.quantised) * 2.0**-24
    allowed = magnitude * (roundings / (1 - roundings)) + rounded
    if work.output_dtype != "float32":
        kind = torch.finfo(DTYPES[work.output_dtype])
        for _ in range(1 + mean):
            allowed = allowed + (total.abs() + allowed) * (kind.eps / 2) + kind.smallest_normal * kind.eps / 2
    return Reference(total, allowed)


def ragged(batch: Batch) -> Batch:
    """The same tables and indices in bags of all lengths, an empty one first.

    The bags of a workload may all be of one length, usually even, which hides kernels that go wrong at the
    end of a bag or at an empty one.
    """
    generator = torch.Generator().manual_seed(0)

    def starts(lookups: int) -> Tensor:
        made = torch.randint(0, lookups + 1, (batch.work.batch,), generator=generator)
        made[:2] = 0
        return made.sort().values

    if batch.offsets.dim() == 1:
        return replace(batch, offsets=starts(len(batch.indices[0])).to(batch.offsets))
    each = torch.stack([starts(len(indices)) for indices in batch.indices])
    return replace(batch, offsets=each.to(batch.offsets))


def scratch_bytes(work: Workload, batches: int = 1) -> int:
    """What comparing them takes at its peak: rows, their float64 copies, products; sums, bounds, ratios; and
    the indices and outputs of batches that are compared together."""
    together = min(_together(work), max(1, batches - 1))
    bags, lookups = together * work.batch, together * work.most_lookups
    more = together * work.tables * (work.asked_bytes + work.output_bytes) if together > 1 else 0
    return 4 * min(CHUNK_BYTES, 8 * lookups * work.dim) + 10 * 8 * bags * work.dim + more


def _together(work: Workload) -> int:
    """Batches to compare at once: of small ones many, for each comparison has a cost of its own."""
    most_of_one = max(
        8 * work.most_lookups * work.dim,
        10 * 8 * work.batch * work.dim,
        work.tables * (work.asked_bytes + work.output_bytes),
    )
    return max(1, CHUNK_BYTES // most_of_one)


def run(
    batch: Batch,
    prepare: Prepare | None = None,
    bind: Bind = per_table,
    *,
    values_in_float16: bool = False,
) -> Check:
    """Looks up every table once, after its `prepare`, then tables in ragged bags; compares every element.

    `bind`: makes of a batch what a pass calls. In ragged bags it is table 0 that is looked up, or, where one
    call takes all tables, the first and the last that are compared. `values_in_float16`: see `reference`.
    NaN and infinity count as errors without bound.
    """
    compare = _Comparison(values_in_float16)
    every = range(batch.work.tables)
    found = compare.of([batch], [Turn(bind(batch), prepare)], every)
    uneven = ragged(batch)
    turn = Turn(bind(uneven), prepare)
    last = batch.work.tables - 1 if len(turn.calls) == 1 else 0
    found += compare.of([uneven], [turn], sorted({0, last}), how=" in ragged bags")
    return worst_of(found)


def run_others(
    batches: Sequence[Batch], turns: Sequence[Turn], *, values_in_float16: bool = False
) -> list[Check]:
    """Compares every element of every batch but the first, which is `run`'s, as it is looked up in turn."""
    compare = _Comparison(values_in_float16)
    work, found = batches[0].work, []
    step = _together(work)
    for first in range(1, len(batches), step):
        some = slice(first, first + step)
        found += compare.of(batches[some], turns[some], range(work.tables), first=first)
    return found


def worst_of(found: Sequence[Check]) -> Check:
    """One check for all of these, that of the worst element."""
    worst = max(found, key=lambda check: check.max_error)
    return replace(worst, elements=sum(check.elements for check in found))


@dataclass(frozen=True)
class _Comparison:
    """How outputs are held against their references."""

    values_in_float16: bool

    def of(
        self,
        batches: Sequence[Batch],
        turns: Sequence[Turn],
        tables: Collection[int],
        *,
        how: str = "",
        first: int = 0,
    ) -> list[Check]:
        """Some tables' lookups. In the name of an element `how` follows its table's, and of a batch but the
        first its number is told: `first` is that of `batches[0]`."""
        work, found = batches[0].work, []
        single = len(turns[0].calls) < work.tables
        ends = list(itertools.accumulate(feature.group.dim for feature in work.features))
        outputs = [[turn.look_up(call) for call in ([0] if single else tables)] for turn in turns]
        whole = joined(batches)

        def name(bag: int) -> str:
            return bag_name(first + bag // work.batch, bag % work.batch)

        for place, table in enumerate(tables):
            parts = [given[0 if single else place] for given in outputs]
            dim = work.features[table].group.dim
            wanted = [work.batch, ends[-1] if single else dim]
            for part in parts:
                if list(part.shape) != wanted or part.dtype != DTYPES[work.output_dtype]:
                    got = f"the output is {list(part.shape)} {part.dtype}"
                    right = f"{wanted} {DTYPES[work.output_dtype]}"
                    return [Check(False, _NOT_A_NUMBER, f"table {table}{how}: {got}, not {right}", 0)]
            if single:
                parts = [part[:, ends[table] - dim : ends[table]] for part in parts]
            due = reference(whole, table, values_in_float16=self.values_in_float16)
            found.append(judge(torch.cat(parts), due, f"table {table}{how}", name))
        return found


def bag_name(batch: int, bag: int) -> str:
    """What messages call a bag: by its batch, too, where that is not the first."""
    return f"batch {batch}, bag {bag}" if batch else f"bag {bag}"


def judge(output: Tensor, due: Reference, where: str, name: Callable[[int], str]) -> Check:
    """An output [bags, columns] against its reference; `where` begins the name of the worst element, and
    `name` calls its bag."""
    ratio = _ratio(output, due)
    bag, column = divmod(int(ratio.argmax()), output.size(1))
    of_worst = [tensor[bag, column].double() for tensor in (ratio, output, due.expected, due.allowed)]
    error, *values = torch.stack(of_worst).tolist()  # together: each copy to the host waits for the GPU
    element = "got {!r}, expected {!r} ± {:.3g}".format(*values)
    return Check(error <= 1, error, f"{where}, {name(bag)}, column {column}: {element}", output.numel())


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
