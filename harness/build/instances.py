"""Which template instances of a design's kernels the compiler is asked for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from harness import designs
from harness.designs import Design

CUDA_TYPES = {
    "float32": "float",
    "float16": "__half",
    "bfloat16": "__nv_bfloat16",
    "int8": "Int8Row",
    "int4": "Int4Row",
    "int32": "int",
    "int64": "long long",
}
"""By their names in design.toml, types in device code."""


@dataclass(frozen=True)
class Instance:
    """One template instance that is asked of the compiler."""

    function: str
    dtype: str
    index_dtype: str
    tunables: dict[str, int]
    output_dtype: str = ""
    generic: bool | None = None
    """The template argument of this name; None where the kernel has none."""

    @property
    def expression(self) -> str:
        """For example "lookup<float, long long, 2>", "lookup_tables<Int8Row, __half, int, false>"."""
        types = [CUDA_TYPES[name] for name in (self.dtype, self.output_dtype, self.index_dtype) if name]
        generic = [] if self.generic is None else [str(self.generic).lower()]
        return f"{self.function}<{', '.join([*types, *generic, *map(str, self.tunables.values())])}>"


def of(design: Design) -> list[Instance]:
    """Every template instance of the design: types first, then tunables in the order of design.toml."""
    templated = {name: tunable.values for name, tunable in design.tunables.items() if tunable.values}
    both = design.all_tables or design.fast
    found = [
        Instance(
            "lookup_tables" if design.all_tables else "lookup",
            dtype,
            index_dtype,
            dict(zip(templated, values, strict=True)),
            output_dtype,
            generic,
        )
        for dtype in design.supports.dtypes
        for output_dtype in (designs.OUTPUTS[dtype] if design.all_tables else ("",))
        for index_dtype in design.supports.index_dtypes
        for generic in ((False, True) if both else (None,))
        for values in itertools.product(*templated.values())
    ]
    found += [
        Instance(special.kernel, dtype, index_dtype, dict(zip(templated, values, strict=True)), output_dtype)
        for special in design.special
        for dtype in special.dtypes or design.supports.dtypes
        for output_dtype in designs.OUTPUTS[dtype]
        for index_dtype in design.supports.index_dtypes
        for values in itertools.product(*templated.values())
    ]
    if design.prepares:
        found += [Instance("prepare", dtype, "", {}) for dtype in design.supports.dtypes]
    return found


def usual(design: Design) -> list[Instance]:
    """Of these, float32 rows with int64 row numbers, and tunables at their defaults: what people look at."""
    defaults = {name: tunable.default for name, tunable in design.tunables.items()}
    return [
        instance
        for instance in of(design)
        if instance.dtype == "float32"
        and instance.index_dtype in ("int64", "")
        and instance.output_dtype in ("", "float32")
        and all(defaults[name] == value for name, value in instance.tunables.items())
    ]
