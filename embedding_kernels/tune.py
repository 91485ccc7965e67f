"""`tune`: measures which lookup serves each group of a model's tables the fastest, on this GPU."""

from __future__ import annotations

import importlib.metadata
import itertools
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from embedding_kernels._asked import Asked, Call
from embedding_kernels._clock import Clock, GpuClock, Passes
from embedding_kernels._contenders import (
    Recorded,
    as_choice,
    bytes_between_turns,
    passes,
    record,
    why_wrong,
)
from embedding_kernels._contest import Blocks, By, Contender, decide, first_line, measure
from embedding_kernels._groups import shapes_of, why_not_converted
from embedding_kernels._layout import KERNELS, ROW_TYPES
from embedding_kernels._limits import moved
from embedding_kernels._memory import let_go
from embedding_kernels._statistics import LEAST_BLOCKS
from embedding_kernels.device import check
from embedding_kernels.optimize import as_modules, swappable
from embedding_kernels.plan import SCHEMA_VERSION, Choice, Group, Plan, Protocol

DEFAULT = Choice("fused", "unchanged")
"""What `optimize` does without a plan."""


def tune(
    model: Any,
    sample_batches: Sequence[Any],
    *,
    row_types: Sequence[str] = (),
    decide_by: By = "eager",
    blocks: int = 20,
    passes_each: int = 8,
    seed: int = 0,
    clock: Clock | None = None,
) -> Plan:
    """Which lookup serves each group of tables fastest on the GPU where they lie, as a plan for `optimize`.

    `model` is run on every one of `sample_batches`, a tuple of arguments, a dict of them or a single one, and
    what it then asks of its embedding modules is asked of each choice, in the very calls that the model
    makes. Given a list or dict of bags, batches are `(indices, offsets)` of all tables, as `EmbeddingTables`
    takes them. Give as many batches of real traffic as empty the GPU's L2 cache between two turns of one;
    the plan says whether they do.

    Choices are the kernels of this package and the module's own lookup; `row_types` ("float32", "float16",
    "bfloat16", "int8", "int4") allows rows to be converted, which changes numbers. Each output of each choice
    is compared with sums in float64 before anything is timed. `decide_by`: whether eager calls, the host's
    part included, or CUDA graphs decide. `blocks`: of `passes_each` passes of each choice, in an order that
    is drawn anew for each (11 at the least).

    The model is left as it is, but its weights are moved into one allocation per module, as `optimize` would
    do. RuntimeError, in a sentence, without a GPU that can run the kernels; ValueError for what does not fit.
    `clock` stands in for the GPU's in tests.
    """
    _require_right(row_types, decide_by, blocks, passes_each, sample_batches)
    whole = not isinstance(model, nn.Module)
    module = as_modules(model) if whole else model
    found = swappable(module)
    if not found or (whole and found[0].module is not module):
        raise ValueError("tune finds nothing here that optimize would swap; give it a model before optimize.")
    work = _Work(
        tuple(row_types),
        decide_by,
        Blocks(blocks, passes_each),
        clock or _gpu_clock(found[0].module),
        len(sample_batches),
        random.Random(seed),
    )
    for each in sample_batches if whole else ():
        if not isinstance(each, tuple | list) or not 2 <= len(each) <= 3:
            kind = type(each).__name__ + (f" of {len(each)}" if isinstance(each, tuple | list) else "")
            raise ValueError(
                f"Sample batches of a list or dict of bags are (indices, offsets) or (indices, offsets, "
                f"per_sample_weights), not a {kind}."
            )
    with torch.no_grad():
        groups = [Recorded(each, each.make(), whole) for each in found]
        let_go(module.parameters())  # `optimize` may take them afterwards
        if whole:
            groups[0].batches = [[Call(None, tuple(batch), {})] for batch in sample_batches]
        else:
            record(module, groups, sample_batches)
        asked_of = [group.asked() for group in groups]
        touched = [
            bytes_between_turns(group, own, _types(group, work))
            for group, own in zip(groups, asked_of, strict=True)
            if own
        ]
        tuned = [_tuned(*both, work) for both in zip(groups, asked_of, strict=True)]
    protocol = Protocol(
        decided_by=decide_by,
        batches=len(sample_batches),
        bytes_between_turns=min(touched, default=0),
        l2_bytes=work.clock.l2_bytes,
        blocks=blocks,
        passes=passes_each,
        seed=seed,
    )
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    gpu = work.clock.gpu
    return Plan(SCHEMA_VERSION, _version(), torch.__version__, now, gpu, protocol, tuple(tuned))


@dataclass(frozen=True)
class _Work:
    """What all groups share."""

    row_types: tuple[str, ...]
    decide_by: By
    blocks: Blocks
    clock: Clock
    samples: int
    """Batches."""
    drawn: random.Random


def _require_right(
    row_types: Sequence[str], decide_by: str, blocks: int, passes_each: int, batches: Sequence[Any]
) -> None:
    listed = isinstance(row_types, Iterable) and not isinstance(row_types, str)
    given = list(row_types) if listed else [row_types]
    if unknown := [each for each in given if not listed or each not in ROW_TYPES]:
        raise ValueError(f"row_types lists some of {', '.join(ROW_TYPES)}; got {unknown[0]!r}.")
    if decide_by not in ("eager", "graph"):
        raise ValueError(f'decide_by is "eager" or "graph", not {decide_by!r}.')
    if not isinstance(blocks, int) or not isinstance(passes_each, int):
        raise ValueError(f"tune takes whole blocks and passes, not {blocks!r} of {passes_each!r}.")
    if blocks < LEAST_BLOCKS or passes_each < 1:
        raise ValueError(
            f"tune takes {LEAST_BLOCKS} blocks of 1 pass at the least, not {blocks} of {passes_each}."
        )
    if not isinstance(batches, Sequence):
        raise ValueError(f"tune takes a list of sample batches, not a {type(batches).__name__}.")
    if len(batches) < 2:
        raise ValueError("tune takes two sample batches at the least, which take turns.")


def _gpu_clock(module: nn.Module) -> GpuClock:
    device = next(itertools.chain(module.parameters(), module.buffers())).device
    if device.type != "cuda":
        raise RuntimeError(
            f"tune measures on an NVIDIA GPU, and this model's tables are on the {device.type}; move them."
        )
    if not (ready := check(device)):
        raise RuntimeError(ready.why_not)
    return GpuClock(device)


def _tuned(group: Recorded, asked_of: list[list[Asked]], work: _Work) -> Group:
    module = group.found.module
    path, kind, shapes = group.found.path, type(module).__name__, shapes_of(module)
    if not group.batches:
        return Group(path, kind, shapes, 0.0, DEFAULT, (), ())
    lookups = sum(one.lookups for batch in asked_of for one in batch) / work.samples
    choices = _choices(group, asked_of, work)
    contenders = [_contender(group, choice, asked_of, work.clock) for choice in choices]
    order = itertools.cycle(range(len(group.batches)))
    measure(contenders, work.blocks, work.clock, order, work.drawn)
    chosen, same = decide(contenders, work.decide_by)
    candidates = tuple(contender.candidate() for contender in contenders)
    return Group(path, kind, shapes, lookups, chosen, same, candidates)


def _choices(group: Recorded, asked_of: list[list[Asked]], work: _Work) -> list[Choice]:
    calls = [one for batch in asked_of for one in batch]
    found = []
    for each in _types(group, work):
        found += [Choice(cast(Any, kernel), cast(Any, each)) for kernel in KERNELS]
        for limits in moved(group.tables, calls, each, work.clock):
            found.append(Choice("fused", cast(Any, each), *limits))
    return [*found, Choice("own", "unchanged")]


def _types(group: Recorded, work: _Work) -> list[str]:
    """What the group's rows are looked up as."""
    own = {shape.row_type for shape in group.tables._shapes}
    types = ["unchanged"]
    for row_type in dict.fromkeys(work.row_types):
        if own != {row_type} and not why_not_converted(group.found.module, row_type):
            types.append(row_type)
    return types


def _contender(group: Recorded, choice: Choice, asked_of: list[list[Asked]], clock: Clock) -> Contender:
    try:
        tables = as_choice(group, choice)
        made = passes(group, choice, tables)
        wrong, change = why_wrong(group, choice, tables, made, asked_of)
    except (RuntimeError, ValueError) as error:  # no such kernel, rows that cannot be quantised
        return Contender(choice, Passes(str(choice), []), wrong=first_line(error))
    contender = Contender(choice, made, change, wrong)
    if not wrong:
        contender.capture(clock)
    return contender


def _version() -> str:
    try:
        return importlib.metadata.version("embedding-kernels")
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout"
