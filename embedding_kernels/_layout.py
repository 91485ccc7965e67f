"""Where tables lie in one allocation, and how the operator is told: `TableRows` of
opt_designs/common/tables_args.h, as int64, and `Group` of csrc/lookup.h."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ROW_TYPES = ("float32", "float16", "bfloat16", "int8", "int4")
"""In the order of the library's numbers for them."""
KERNELS = ("fused", "vectorized")
"""In the order of the library's numbers for them, which it calls designs."""
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_AS_USUAL = -1
"""In the place of a limit."""
CROWDED_BITS = 24
"""`crowded_clocks` are fewer than two to the power of this."""
MODES = {"sum": 0, "mean": 1, "max": 2}
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
ALIGNMENT = 256
_VECTOR = 16  # bytes that kernels read at a time
_MOST_COUNTED = 2**31 - 1025
_MOST_APART = 2**32 - 1
_ALIKE, _LARGEST, _HUGE, _WHOLE = 1, 2, 4, 8


@dataclass(frozen=True)
class Shape:
    """One table: its rows, columns, and the type of its rows (one of ROW_TYPES)."""

    rows: int
    dim: int
    row_type: str

    @property
    def quantised(self) -> bool:
        """Whether each row has a scale and a bias."""
        return self.row_type in ("int8", "int4")

    @property
    def row_bytes(self) -> int:
        """Bytes of the values of a row."""
        if self.row_type == "int4":
            return (self.dim + 1) // 2
        return self.dim * _BYTES.get(self.row_type, 1)

    @property
    def stride(self) -> int:
        """Bytes from one row to the next: quantised ones begin at multiples of 16."""
        return _rounded(self.row_bytes, _VECTOR) if self.quantised else self.row_bytes

    def of_type(self, row_type: str) -> Shape:
        """With rows of another type, or "unchanged"."""
        return self if row_type == "unchanged" else Shape(self.rows, self.dim, row_type)


class Place(NamedTuple):
    """Where a table is in the allocation, in bytes; `scales` of quantised ones alone."""

    weights: int
    scales: int


class Slot(NamedTuple):
    """A table looked up: its number among the tables, whose bags those are, where its columns begin, and by
    which of KERNELS."""

    table: int
    feature: int
    column: int
    mode: str
    kernel: str = "fused"


class Limits(NamedTuple):
    """By what "fused" chooses among its kernels, and how `lookup_large` goes on; None: as usual. See
    `EmbeddingTables.use_limits`."""

    few_rows: int | None = None
    many_bags: int | None = None
    crowded_clocks: int | None = None

    def problem(self) -> str:
        """What is wrong with them, beginning with a name; empty where nothing is."""
        bits = {"few_rows": 31, "many_bags": 31, "crowded_clocks": CROWDED_BITS}
        for name, limit in self._asdict().items():
            known = limit is None or (type(limit) is int and 0 <= limit < 1 << bits[name])
            if not known:
                return f"{name}: is a count below 2^{bits[name]}, not {limit!r}"
        return ""

    def numbers(self) -> list[int]:
        """As the last ones of a `Group`."""
        return [_AS_USUAL if limit is None else limit for limit in self]


USUAL = Limits()


@dataclass(frozen=True)
class Described:
    """Slots as the operator takes them."""

    words: Tensor
    """int64 [slots, 6], on the CPU."""
    groups: list[int]
    """Of its `numbers` (csrc/lookup.h) those of the groups."""


def places(shapes: Sequence[Shape], alignment: int = ALIGNMENT) -> tuple[list[Place], int]:
    """Where tables lie one behind the other, each at a multiple of `alignment` bytes, and the bytes of the
    allocation. ValueError for what is too large."""
    found, at = [], 0
    for number, shape in enumerate(shapes):
        if shape.rows > 2**32 - 2 or shape.row_bytes > _MOST_COUNTED or shape.dim > _MOST_COUNTED:
            raise ValueError(f"Table {number} ({shape.rows} rows, {shape.dim} columns) is too large.")
        if shape.dim < 1:
            raise ValueError(f"Table {number} has no columns.")
        weights = _rounded(at, alignment)
        at = weights + shape.rows * shape.stride
        scales = _rounded(at, alignment) if shape.quantised else 0
        at = scales + shape.rows * 4 if shape.quantised else at
        found.append(Place(weights, scales))
    return found, _rounded(max(at, 1), alignment)


def described(
    shapes: Sequence[Shape],
    placed: Sequence[Place],
    slots: Sequence[Slot],
    limits: Limits = USUAL,
) -> Described:
    """Slots in groups of one type of rows and one kernel."""

    def kind(slot: Slot) -> tuple[int, int]:
        return ROW_TYPES.index(shapes[slot.table].row_type), KERNELS.index(slot.kernel)

    words, groups, first = [], [], 0
    for (row_type, kernel), of_kind in itertools.groupby(sorted(slots, key=kind), key=kind):
        group = list(of_kind)
        for slot in group:
            shape, place = shapes[slot.table], placed[slot.table]
            words.append(
                [
                    *(place.weights, place.scales, shape.rows, shape.stride),
                    _two_ints(slot.column, shape.dim),
                    _two_ints(MODES[slot.mode], slot.feature),
                ]
            )
        groups += [row_type, first, *_group(group, shapes, placed), kernel, *limits.numbers()]
        first += len(group)
    return Described(torch.tensor(words, dtype=torch.int64, device="cpu"), groups)


def _group(slots: list[Slot], shapes: Sequence[Shape], placed: Sequence[Place]) -> list[int]:
    """The numbers of a `Group` (csrc/lookup.h) from `count` to `flags`, in its order."""
    numbers = [slot.feature for slot in slots]
    ascending = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    of_slots = [(slot, shapes[slot.table], placed[slot.table]) for slot in slots]
    row_bits = column_bits = flags = 0
    whole = all(shape.row_bytes % _VECTOR == 0 for _, shape, _ in of_slots)
    alike = whole and len({shape.dim for _, shape, _ in of_slots}) == 1
    for place_in_group, (slot, shape, place) in enumerate(of_slots):
        row_bits |= place.weights | shape.stride | (0 if shape.quantised else shape.row_bytes)
        column_bits |= slot.column | shape.dim
        behind = slot.column == slots[0].column + place_in_group * shape.dim
        alike = alike and behind and slot.mode == slots[0].mode != "max"
        flags |= _LARGEST if slot.mode == "max" else 0
        if not 1 <= shape.rows < 2**31 - 1 or shape.stride > _MOST_APART:
            flags |= _HUGE
    flags |= _WHOLE if whole else 0
    flags |= _ALIKE if alike and not flags & _HUGE else 0
    widest = max(shape.dim for _, shape, _ in of_slots)
    first_number = numbers[0] if ascending else -1
    return [len(slots), first_number, widest, row_bits, column_bits, flags]


def _two_ints(low: int, high: int) -> int:
    return low | high << 32


def _rounded(number: int, multiple: int) -> int:
    return (number + multiple - 1) // multiple * multiple
