"""What a kernel is given: the structs of its contract, and the memory that their pointers lead to."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class LookupArgs(ctypes.Structure):
    """opt_designs/common/lookup_args.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "indices", "offsets", "sample_weights")),
        *((name, ctypes.c_void_p) for name in ("output", "offset2bag", "bag_size")),
        *((name, ctypes.c_int64) for name in ("n_indices", "n_bags", "dim", "rows", "row_stride")),
        *((name, ctypes.c_int64) for name in ("column_stride", "sample_weight_stride", "padding_idx")),
        ("mode", ctypes.c_int),
    )


class PrepareArgs(ctypes.Structure):
    """opt_designs/common/lookup_args.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "hot_rows")),
        *((name, ctypes.c_int64) for name in ("n_hot_rows", "row_bytes", "row_stride_bytes")),
    )


class TableRows(ctypes.Structure):
    """opt_designs/common/tables_args.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("weights", "scales", "rows", "row_stride_bytes")),
        *((name, ctypes.c_int) for name in ("column", "dim", "mode", "number")),
    )


class TablesArgs(ctypes.Structure):
    """opt_designs/common/tables_args.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("storage", "tables", "indices", "offsets")),
        *((name, ctypes.c_void_p) for name in ("sample_weights", "output", "faults", "tickets")),
        *((name, ctypes.c_int64) for name in ("n_indices", "n_bags", "n_tables", "dim", "output_stride")),
        ("rows_per_bag", ctypes.c_float),
        ("first_number", ctypes.c_int),
        ("crowded_clocks", ctypes.c_longlong),
    )


@dataclass(eq=False)
class Memory:
    """A buffer between guards, holding an array. One that is `written` gets what the kernel wrote."""

    name: str
    """For people, for example "the indices"."""
    array: Array
    """Its first axis counts what `unit` names; in memory in C's order."""
    unit: str = "element"
    remedy: str = ""
    """What whoever reads outside is told to do."""
    written: bool = False
    alignment: int = 0
    """Of its first byte; 0: as its elements need."""
    stride: int = 0
    """Bytes from one row to the next where they lie further apart than in the array; 0: they do not."""
    ends_at_guard: bool = True
    """Whether its last byte touches a guard, as far as the alignment lets it; otherwise its first does."""
    pointers: list[tuple[int, Memory]] = field(default_factory=list)
    """Where in it, in bytes, addresses of other memory stand."""

    @property
    def unit_bytes(self) -> int:
        """From one unit to the next."""
        return self.stride or max(self.array[:1].nbytes, 1)

    @property
    def span(self) -> int:
        """Bytes from its first to its last."""
        return max(len(self.array) - 1, 0) * self.unit_bytes + self.array[:1].nbytes

    def where(self, offset: int) -> str:
        """How messages describe an address so many bytes from its beginning."""
        number, count = offset // self.unit_bytes, len(self.array)
        if 0 <= number < count:
            return f"{self.name} between its {self.unit}s {number} and {number + 1}"
        return f"{self.name}, at {self.unit} {number} where there are {count}"


def packed(struct: type[ctypes.Structure], values: Mapping[str, Memory | int | None]) -> Packed:
    """The struct with these fields; those that are Memory become pointers, those that are None zeros."""
    numbers = {
        name: value for name, value in values.items() if value is not None and not isinstance(value, Memory)
    }
    pointers = [
        (getattr(struct, name).offset, value) for name, value in values.items() if isinstance(value, Memory)
    ]
    return Packed(bytes(struct(**numbers)), pointers)


@dataclass(frozen=True)
class Packed:
    """A struct as bytes, and where in it addresses belong."""

    content: bytes
    pointers: list[tuple[int, Memory]]


def table_list(tables: list[dict[str, Memory | int | None]]) -> Memory:
    """`TablesArgs.tables`: an array of TableRows."""
    parts = [packed(TableRows, table) for table in tables]
    size = ctypes.sizeof(TableRows)
    content = np.frombuffer(b"".join(part.content for part in parts), np.uint8).reshape(-1, size)
    pointers = [(n * size + at, memory) for n, part in enumerate(parts) for at, memory in part.pointers]
    return Memory("the list of tables", content, "table", alignment=16, pointers=pointers)
