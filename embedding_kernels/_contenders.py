"""The ways to look up one group of tables: what the model asked, asked again of each, and checked."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from embedding_kernels._asked import Asked, Call, anew, asked, sums
from embedding_kernels._clock import Passes
from embedding_kernels._groups import convert, use
from embedding_kernels.optimize import Swappable
from embedding_kernels.plan import Choice
from embedding_kernels.tables import EmbeddingTables

_ROUNDING = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
_TINY = 2.0**-24
"""The least step of float16."""


@dataclass
class Recorded:
    """A group, and what each sample batch that came there asked of it."""

    found: Swappable
    tables: EmbeddingTables
    """In whose storage the module's rows lie now."""
    whole: bool = False
    """A list that is called as one, which the module itself cannot be."""
    batches: list[list[Call]] = field(default_factory=list)
    _converted: dict[str, EmbeddingTables] = field(default_factory=dict)

    def in_type(self, row_type: str) -> EmbeddingTables:
        """The tables, or a copy of them with rows of another type: one, that all choices of it share.
        ValueError: see `convert`."""
        if row_type not in self._converted:
            made = copy.copy(self.tables)
            convert(made, row_type)
            self._converted[row_type] = made
        return self._converted[row_type]

    def asked(self) -> list[list[Asked]]:
        """By batch."""
        return [[asked(self.tables, call) for call in batch] for batch in self.batches]


def record(model: nn.Module, groups: Sequence[Recorded], batches: Sequence[Any]) -> None:
    """Runs the model on every batch, and keeps how it calls each group, of batches that come there."""
    for batch in batches:
        hooks = [hook for group in groups for hook in _listen(group)]
        try:
            if isinstance(batch, dict):
                model(**batch)
            else:
                model(*batch) if isinstance(batch, tuple) else model(batch)
        finally:
            for hook in hooks:
                hook.remove()
    for group in groups:
        group.batches = [batch for batch in group.batches if batch]


def _listen(group: Recorded) -> list[Any]:
    group.batches.append([])
    module = group.found.module
    parts: dict[nn.Module, int | None] = {module: None}
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        bags = list(module._modules.values())
        parts = {bag: number for number, bag in reversed(list(enumerate(bags))) if bag is not None}

    def heard(number: int | None, _: nn.Module, args: Any, kwargs: Any) -> None:
        # Made anew before anybody works anything out of them.
        call = Call(number, tuple(map(anew, args)), {name: anew(value) for name, value in kwargs.items()})
        asked(group.tables, call)  # before a kernel meets what is wrong
        group.batches[-1].append(call)

    return [
        part.register_forward_pre_hook(partial(heard, number), with_kwargs=True)
        for part, number in parts.items()
    ]


def as_choice(group: Recorded, choice: Choice) -> EmbeddingTables:
    """The group's tables looked up by this choice, in a storage that all choices of its row type share."""
    made = copy.copy(group.in_type(choice.row_type))
    use(made, choice)
    return made


def passes(group: Recorded, choice: Choice, tables: EmbeddingTables) -> Passes:
    """Of each batch, a pass through the group: of `tables`, or of the module itself."""
    target = None if choice.kernel == "own" else tables
    makers = [[_maker(group, target, call) for call in batch] for batch in group.batches]
    return Passes(str(choice), [partial(_begin, of_batch) for of_batch in makers])


def _begin(makers: Sequence[Callable[[], Callable[[], Any]]]) -> Callable[[], list[Any]]:
    calls = [make() for make in makers]
    return lambda: [call() for call in calls]


def _maker(group: Recorded, tables: EmbeddingTables | None, call: Call) -> Callable[[], Callable[[], Any]]:
    if group.whole and tables is None:
        return lambda: _one_by_one(group, call)
    target: Any = group.found.module if tables is None else tables
    if call.table is not None:
        target = list(target._modules.values())[call.table] if tables is None else tables[call.table]
    return lambda: partial(target, *map(anew, call.args), **{k: anew(v) for k, v in call.kwargs.items()})


def _one_by_one(group: Recorded, call: Call) -> Callable[[], Tensor]:
    """What is asked of all tables at once, of one nn.EmbeddingBag after the other."""
    whole = asked(group.tables, call)
    bags: list[Any] = list(group.found.module._modules.values())
    lookups = []
    for slot, bag in zip(whole.slots, bags, strict=True):
        ends = whole.ends(slot).to(whole.offsets.dtype)
        begin, end = int(ends[0]), int(ends[-1])
        starts = ends - begin if bag.include_last_offset else (ends - begin)[:-1]
        weights = None if whole.weights is None else whole.weights[begin:end].to(bag.weight.dtype)
        lookups.append(partial(bag, whole.indices[begin:end], starts, weights))
    return lambda: torch.cat([lookup() for lookup in lookups], dim=1)


def why_wrong(
    group: Recorded,
    choice: Choice,
    tables: EmbeddingTables,
    made: Passes,
    asked_of: Sequence[Sequence[Asked]],
) -> tuple[str, float]:
    """Every output held against sums in float64 of the rows that were looked up: what is wrong, empty where
    nothing is; and how far a change of row type moves the sums, as a share of the largest."""
    change = largest = 0.0
    for each, wanted in zip(made.of_batch, asked_of, strict=True):
        for output, one in zip(each()(), wanted, strict=True):
            values = (output if isinstance(output, Tensor) else output.values()).double()
            right, terms, counts = sums(tables, one)
            unit = _ROUNDING[(output if isinstance(output, Tensor) else output.values()).dtype]
            adding = 2.0**-24 if choice.kernel != "own" else _own_rounding(group.tables)
            allowed = 2 * unit * right.abs() + (counts + 4) * adding * terms + _TINY
            if values.shape != right.shape:
                return f"its output is {list(values.shape)}, not {list(right.shape)}", 0.0
            apart = (values - right).abs()
            if not bool((apart <= allowed).all()):
                worst = float((apart - allowed).nan_to_num(torch.inf).max())
                return f"its sums are off by {worst:.3g} beyond rounding", 0.0
            if choice.row_type != "unchanged":
                before = sums(group.tables, one)[0]
                change = max(change, float((right - before).abs().amax()) if before.numel() else 0.0)
                largest = max(largest, float(before.abs().amax()) if before.numel() else 0.0)
    return "", change / largest if largest else 0.0


def _own_rounding(tables: EmbeddingTables) -> float:
    """Modules may add up in the type of their rows, and unpack quantised ones into float16."""
    types = {shape.row_type for shape in tables._shapes}
    if "bfloat16" in types:
        return 2.0**-8
    return 2.0**-24 if types == {"float32"} else 2.0**-11


def bytes_between_turns(
    group: Recorded, asked_of: Sequence[Sequence[Asked]], row_types: Sequence[str]
) -> int:
    """What a group's passes touch, at the least, between two turns of a batch: each distinct row, the
    indices and the outputs of all other batches. `row_types`: those that rows are looked up in, of which the
    narrowest counts."""
    shapes = group.tables._shapes
    strides = [min(shape.of_type(row_type).stride for row_type in row_types) for shape in shapes]
    others = ([*asked_of[:turn], *asked_of[turn + 1 :]] for turn in range(len(asked_of)))
    return min(_touched(group.tables, strides, list(itertools.chain(*batches))) for batches in others)


def _touched(tables: EmbeddingTables, strides: Sequence[int], calls: Sequence[Asked]) -> int:
    touched = 0
    rows: dict[int, list[Tensor]] = {}
    for one in calls:
        touched += one.indices.numel() * one.indices.element_size()
        for slot in one.slots:
            ends = one.ends(slot)
            rows.setdefault(slot.table, []).append(one.indices[int(ends[0]) : int(ends[-1])])
            touched += one.bags * tables._shapes[slot.table].dim * tables.output_dtype.itemsize
    for table, numbers in rows.items():
        touched += torch.cat(numbers).unique().numel() * strides[table]
    return touched
