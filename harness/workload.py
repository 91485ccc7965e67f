"""The shape of one batch through the embedding stage, and the bytes that follow. Standard library only."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from harness import groups
from harness.bounds import Range
from harness.codec import LATER
from harness.groups import MOST_LOOKUPS, Feature, TableGroup

DTYPE_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4}
"""Of one value in a table."""
INDEX_BYTES = {"int64": 8, "int32": 4}
QUANTISED = ("int8", "int4")
"""Dtypes whose rows carry a scale and a bias each: value = scale × stored + bias."""
SCALE_BIAS_BYTES = 4
"""float16 both, apart from the values."""
_ALIGNMENT = 16
"""Quantised rows begin at multiples of it, for loads of 16 bytes."""
_MOST_BAGS = 2**20
"""Of a feature and batch, where tables differ."""
_FORBID_UNKNOWN = {"extra": "forbid"}  # read by pydantic where an experiment is validated


@dataclass(frozen=True)
class Workload:
    """The shape of one batch through the embedding stage.

    Without `groups` all tables are alike. With them the tables are theirs, and what is said here of a table
    sums them up: `tables` counts features, `rows` and `dim` are the most, `pooling`, and every property that
    is per table, a mean.
    """

    __pydantic_config__ = _FORBID_UNKNOWN
    tables: Annotated[int, Range(1, 10_000)] = 12
    rows: Annotated[int, Range(1, 2**40)] = 500_000
    """Rows of every table."""
    dim: Annotated[int, Range(1, 2**16)] = 128
    """Columns of every table."""
    batch: Annotated[int, Range(1, 2**28)] = 2048
    """Bags per table in one batch."""
    pooling: Annotated[int, Range(1, 2**28)] = 150
    """Rows per bag; of ragged bags, on average."""
    dtype: Literal["float32", "float16", "bfloat16", "int8", "int4"] = "float32"
    """Of the tables. int8 and int4 are quantised row by row."""
    index_dtype: Literal["int64", "int32"] = "int64"
    mode: Literal["sum", "mean"] = "sum"
    weighted: bool = False
    """Whether every index carries a weight of its own."""
    device: Literal["cuda", "cpu"] = "cuda"
    bags: Literal["fixed", "ragged"] = "fixed"
    """"fixed": every bag holds `pooling` rows. "ragged": lengths from 0 up, a few of them long; see
    `harness.traces.bags`."""
    groups: tuple[TableGroup, ...] = field(default=(), metadata=LATER)
    """Of a model whose tables differ; see `harness.groups`."""
    model: str = field(default="", metadata=LATER)
    """The model's name."""
    max_rows: Annotated[int, Range(0, 2**40)] = field(default=0, metadata=LATER)
    """The model's larger tables were cut down to so many rows; 0: none was."""

    def problem(self) -> str:
        """What is wrong with the sizes taken together, beginning with a field; empty where nothing is."""
        if self.groups and (problem := self._problem_of_groups()):
            return problem
        if not self.groups and self.lookups > MOST_LOOKUPS:
            return (
                f"batch: {self.batch} bags of {self.pooling} rows (workload.pooling) are more than "
                f"{MOST_LOOKUPS} lookups in a table; make either smaller"
            )
        if not self.groups and self.max_rows not in (0, self.rows):
            return "max_rows: cuts down a model's tables, and there is no model; say workload.rows"
        if self.weighted and self.mode != "sum":
            return 'weighted: sample weights go with mode = "sum" only'
        if self.index_dtype == "int32" and max(self.rows, self.lookups) >= 2**31:
            return "index_dtype: int32 cannot number that many rows; use int64"
        return ""

    def _problem_of_groups(self) -> str:
        for number, group in enumerate(self.groups):
            if problem := group.problem():
                field_, _, what = problem.partition(": ")
                return f"groups.{number}.{field_}: {what}"
            if self.batch > _MOST_BAGS or self.batch * group.most_rows_per_bag > MOST_LOOKUPS:
                return (
                    f"batch: {self.batch} bags of group {number} of the model's tables may be more than "
                    f"{_MOST_BAGS} or look up more than {MOST_LOOKUPS} rows; make it smaller"
                )
        if problem := groups.problem(self.groups):
            return f"groups: {problem}"
        for name, value in summary(self.groups).items():
            if (own := getattr(self, name)) != value:
                return f"{name}: is {own}, and follows from the model's tables as {value}; leave it to them"
        if self.bags != "fixed":
            return "bags: follow from the model's tables; leave them to these"
        if self.quantised and len(self.dims) > 1:
            widths = f"{self.dims[0]} to {self.dims[-1]}"
            return f"dtype: {self.dtype} tables of {widths} columns are not looked up together; use float16"
        return ""

    @functools.cached_property
    def features(self) -> tuple[Feature, ...]:
        """Every lookup of a pass, in the order in which outputs stand side by side."""
        if self.groups:
            return groups.features(self.groups)
        return tuple(Feature(self.kinds[0], 0, table) for table in range(self.tables))

    @functools.cached_property
    def kinds(self) -> tuple[TableGroup, ...]:
        """The groups; of tables that are all alike one."""
        alike = TableGroup(self.rows, self.dim, self.tables, pooling=self.pooling, bags=self.bags)
        return self.groups or (alike,)

    @property
    def stored_tables(self) -> int:
        """Tables in memory: features may share one."""
        return sum(group.count for group in self.kinds)

    @property
    def dims(self) -> tuple[int, ...]:
        """How many columns there are to tables of any kind, ascending."""
        return tuple(sorted({group.dim for group in self.kinds}))

    @property
    def columns(self) -> int:
        """Of all features' outputs side by side."""
        return sum(group.all_features * group.dim for group in self.kinds)

    @property
    def all_lookups(self) -> int:
        """Rows read per batch."""
        if not self.groups:
            return self.tables * self.lookups
        return sum(group.all_features * group.lookups(self.batch) for group in self.groups)

    @property
    def most_lookups(self) -> int:
        """Rows read per batch of the table that most are read of."""
        return max(kind.lookups(self.batch) for kind in self.kinds)

    @property
    def lookups(self) -> int:
        """Rows read per table and batch."""
        return -(-self.all_lookups // self.tables) if self.groups else self.batch * self.pooling

    @property
    def quantised(self) -> bool:
        """Whether rows carry a scale and a bias."""
        return self.dtype in QUANTISED

    @property
    def output_dtype(self) -> str:
        """Of what a lookup gives."""
        return "float16" if self.quantised else self.dtype

    @property
    def sample_weight_dtype(self) -> str:
        """Of sample weights: the table's, as PyTorch wants it; float32 beside quantised ones."""
        return "float32" if self.quantised else self.dtype

    @property
    def row_bytes(self) -> int:
        """What one lookup must read of a row: its values, and scale and bias of a quantised one."""
        return self.row_bytes_of(self.dim)

    def row_bytes_of(self, dim: int) -> int:
        """The same of so many columns."""
        return self._value_bytes(dim) + (SCALE_BIAS_BYTES if self.quantised else 0)

    @property
    def loaded_bytes(self) -> int:
        """Bytes of the rows that one table's lookups read."""
        if not self.groups:
            return self.lookups * self.row_bytes
        each = (
            kind.all_features * kind.lookups(self.batch) * self.row_bytes_of(kind.dim) for kind in self.groups
        )
        return sum(each) // self.tables

    @property
    def stored_row_bytes(self) -> int:
        """What a row takes in memory."""
        return self.stored_row_bytes_of(self.dim)

    def stored_row_bytes_of(self, dim: int) -> int:
        """The same of so many columns."""
        if not self.quantised:
            return self._value_bytes(dim)
        return -(-self._value_bytes(dim) // _ALIGNMENT) * _ALIGNMENT + SCALE_BIAS_BYTES

    @property
    def table_bytes(self) -> int:
        """Bytes of all tables together."""
        return sum(kind.count * kind.rows * self.stored_row_bytes_of(kind.dim) for kind in self.kinds)

    @property
    def output_bytes(self) -> int:
        """Bytes of what one table's lookups give."""
        return self.all_output_bytes // self.tables

    @property
    def all_output_bytes(self) -> int:
        """Bytes of what all lookups give."""
        return self.batch * self.columns * DTYPE_BITS[self.output_dtype] // 8

    @property
    def asked_bytes(self) -> int:
        """Bytes of one table's indices and sample weights."""
        return self.lookups * self.asked_bytes_each

    @property
    def asked_bytes_each(self) -> int:
        """Bytes of one lookup's index and sample weight."""
        weight = DTYPE_BITS[self.sample_weight_dtype] // 8 if self.weighted else 0
        return INDEX_BYTES[self.index_dtype] + weight

    def _value_bytes(self, dim: int) -> int:
        return -(-dim * DTYPE_BITS[self.dtype] // 8)


def summary(tables: tuple[TableGroup, ...]) -> dict[str, int]:
    """What a workload says of a model's tables taken together, by field. The groups have no `problem`."""
    count = sum(group.all_features for group in tables)
    rows_per_bag = sum(group.all_features * group.rows_per_bag for group in tables) / count
    return {
        "tables": count,
        "rows": max(group.rows for group in tables),
        "dim": max(group.dim for group in tables),
        "pooling": max(1, math.ceil(rows_per_bag)),
    }
