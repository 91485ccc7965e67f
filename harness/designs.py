"""Reads `opt_designs/*/design.toml`: a folder is a design, named after it, and nothing else lists them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from harness import design_checks, design_source
from harness.bounds import Int32, Range
from harness.design_source import DESIGNS_DIR, LATER
from harness.errors import BadInputError
from harness.records import STOCK, Workload
from harness.text import meant
from harness.validation import FORBID_UNKNOWN, read_toml, validated

RowType = Literal["float32", "float16", "bfloat16", "int8", "int4"]
Positive = Annotated[int, Range(1, 2**31 - 1)]
OUTPUTS: dict[str, tuple[str, ...]] = {
    "float32": ("float32",),
    "float16": ("float16", "float32"),
    "bfloat16": ("bfloat16", "float32"),
    "int8": ("float16", "float32"),
    "int4": ("float16", "float32"),
}
"""By the type of the rows, what a design for all tables is compiled to write; the first is the usual."""


@dataclass(frozen=True)
class Launch:
    """How blocks follow from the work. `blocks` fixes their number; otherwise as many as cover it.

    Of a design that takes all tables the grid has two dimensions, blocks of one table and tables; with
    `blocks` or `blocks_per_sm` it has one, and the kernel strides over tables too.
    """

    __pydantic_config__ = FORBID_UNKNOWN
    threads: tuple[Int32, Int32] = (32, 8)
    """Threads of a block in x and y."""
    threads_y_of: dict[RowType, Int32] = field(default_factory=dict, metadata=LATER)
    """Threads in y for tables of some types, where others than those above suit their narrower rows."""
    blocks: Int32 = 0
    """A fixed number of blocks; 0: as many as the two fields below ask for."""
    bags_per_block: Positive = 1
    columns_per_block: Int32 = 0
    """0: one block covers all columns of its bags."""
    blocks_per_sm: Int32 = 0
    """Upper limit for a grid with a stride; 0: none."""


@dataclass(frozen=True)
class When:
    """Shapes of calls: at least the first number and less than the second, where 0 is no limit."""

    __pydantic_config__ = FORBID_UNKNOWN
    rows_per_bag: tuple[Int32, Int32] = (0, 0)
    """On average over all bags."""
    bags_per_sm: tuple[Int32, Int32] = (0, 0)
    """Bags of one table ÷ multiprocessors."""
    columns: tuple[Int32, Int32] = field(default=(0, 0), metadata=LATER)
    """Of the widest table."""
    alike: bool | None = None
    """Whether the tables are alike: of one width, their rows and outputs whole groups of 16 bytes."""


@dataclass(frozen=True)
class Special:
    """A further kernel of a design for all tables: for fast calls of some shapes. The first that fits is
    taken, and `lookup_tables` where none does."""

    __pydantic_config__ = FORBID_UNKNOWN
    kernel: str
    """Its name: a template of the types of rows, results and indices, then tunables."""
    launch: Launch
    when: tuple[When, ...]
    """Any of these."""
    tables_at_once: Int32 = 0
    """Of a launch, at most; 0: any number."""
    dtypes: tuple[RowType, ...] = ()
    """Those of the design's for which it is made; none: all of them."""


@dataclass(frozen=True)
class Tunable:
    """A number that a cell may set. With `values` it is a template argument, compiled for each of them."""

    __pydantic_config__ = FORBID_UNKNOWN
    default: Int32
    values: tuple[Int32, ...] = ()
    names: tuple[str, ...] = ()
    """What people call the values, in their order; none where numbers say it."""
    summary: str = ""


@dataclass(frozen=True)
class Supports:
    """What the kernel computes; everything else goes to PyTorch's own."""

    __pydantic_config__ = FORBID_UNKNOWN
    dtypes: tuple[RowType, ...] = ("float32", "float16")
    """Types of a table's rows. int8 and int4, quantised row by row, are for designs that take all tables."""
    index_dtypes: tuple[Literal["int32", "int64"], ...] = ("int32", "int64")
    modes: tuple[Literal["sum", "mean", "max"], ...] = ("sum", "mean")
    """max: only designs that take all tables."""
    weighted: bool = True
    padding: bool = True
    max_dim: Int32 = 0
    """0: any."""
    dim_multiple: Positive = 1


@dataclass(frozen=True)
class Design:
    """One kernel variant, as its folder describes it."""

    __pydantic_config__ = FORBID_UNKNOWN
    name: str
    title: str
    summary: str
    paper: str = ""
    """Where the paper describes it."""
    kind: Literal["design", "peer"] = "design"
    max_registers: Annotated[int, Range(0, 255)] = 0
    """Register cap for the compiler; 0: none."""
    compiler_options: tuple[str, ...] = ()
    launch: Launch = field(default_factory=Launch)
    tunables: dict[str, Tunable] = field(default_factory=dict)
    supports: Supports = field(default_factory=Supports)
    prepares: bool = False
    """Whether the kernel file has a `prepare` that pins rows before the lookup."""
    all_tables: bool = False
    """Whether one launch takes every table: then the kernel is `lookup_tables`, of `tables_args.h`."""
    fast: bool = field(default=False, metadata=LATER)
    """Whether `lookup` has a template argument `bool generic` after its types. The instance for false is
    launched where nothing unusual is asked for: no sample weights, no padding, rows of whole, aligned groups
    of 16 bytes."""
    output_only: bool = field(default=False, metadata=LATER)
    """Whether the kernel is to write nothing but the output where no gradient is wanted: offset2bag and
    bag_size are then null, and PyTorch gets empty tensors for them."""
    special: tuple[Special, ...] = field(default=(), metadata=LATER)
    """Kernels beside `lookup_tables`; the source is one."""
    folder: Path = Path()

    @property
    def compiled(self) -> bool:
        """Whether there is device code to compile (a peer brings its own)."""
        return self.kind == "design"

    @property
    def measured_by_peer(self) -> bool:
        """Whether it is another library, measured through its `peer.py`."""
        return self.kind == "peer" and self.name != STOCK

    @property
    def kernels(self) -> int:
        """How many template instances the compiler is asked for, per architecture."""
        takes, both = self.supports, self.all_tables or self.fast

        def typed(dtypes: tuple[RowType, ...]) -> int:
            written = sum(len(OUTPUTS[dtype]) if self.all_tables else 1 for dtype in dtypes)
            return written * len(takes.index_dtypes)

        shapes = typed(takes.dtypes) * (2 if both else 1)
        shapes += sum(typed(special.dtypes or takes.dtypes) for special in self.special)
        values = math.prod(len(tunable.values) or 1 for tunable in self.tunables.values())
        return shapes * values + (len(takes.dtypes) if self.prepares else 0)

    @property
    def source_hash(self) -> str:
        """Hash of what decides the machine code and the launch; comments and prose do not count."""
        return design_source.source_hash(self)

    @property
    def sources(self) -> list[Path]:
        """Its device code and every file of ours that this includes, directly or through another; of a peer
        what measures it."""
        return design_source.sources(self)


def unsupported(design: Design, work: Workload) -> str:
    """Why a design cannot do this work, as the end of a sentence that begins with its name; or "".

    On the CPU PyTorch's own operator stands in for a compiled design, and decides in its place.
    """
    takes = design.supports
    if design.compiled and work.device == "cpu":
        if work.quantised:
            return (
                f"does not take dtype {work.dtype} on the CPU, where PyTorch's own operator stands in for it"
            )
        return ""
    for what, asked, known in (
        ("dtype", work.dtype, takes.dtypes),
        ("index_dtype", work.index_dtype, takes.index_dtypes),
        ("mode", work.mode, takes.modes),
    ):
        if asked not in known:
            return f"does not take {what} {asked}; it takes: {', '.join(known)}"
    if work.weighted and not takes.weighted:
        return "takes no sample weights"
    if takes.max_dim and work.dim > takes.max_dim:
        return f"takes at most {takes.max_dim} columns, not {work.dim}"
    if odd := [dim for dim in work.dims if dim % takes.dim_multiple]:
        return f"takes columns in multiples of {takes.dim_multiple}, not {odd[0]}"
    if design.all_tables and work.index_dtype == "int32" and work.all_lookups >= 2**31:
        return "numbers the lookups of all tables together, which are more than int32 holds; use int64"
    return ""


def discover(folder: Path = DESIGNS_DIR) -> dict[str, Design]:
    """All designs by name, in alphabetical order, `baseline` first."""
    return {name: get(name, folder) for name in names(folder)}


def names(folder: Path = DESIGNS_DIR) -> list[str]:
    """Of all designs, in alphabetical order, `baseline` first."""
    found = [path.parent.name for path in folder.glob("*/design.toml")]
    if not found:
        raise BadInputError(f"{folder}: holds no design (a folder with a design.toml).")
    return sorted(found, key=lambda name: (name != "baseline", name))


def readable(folder: Path = DESIGNS_DIR) -> tuple[dict[str, Design], dict[str, str]]:
    """All designs but those whose files are wrong or cannot be read; and of these, by name, why."""
    found, broken = {}, {}
    for name in names(folder):
        try:
            design = get(name, folder)
            _ = design.source_hash
        except BadInputError as error:
            broken[name] = str(error)
        else:
            found[name] = design
    return found, broken


@functools.cache
def source_hashes() -> Mapping[str, str]:
    """Of every compiled design that can be read, by name; empty where the program came without designs."""
    try:
        found, _ = readable()
    except BadInputError:
        return {}
    return {name: design.source_hash for name, design in found.items() if design.compiled}


@functools.cache
def named_tunables() -> Mapping[str, Mapping[str, Tunable]]:
    """By design those tunables whose values people call by names; empty where the program came without
    designs."""
    try:
        found, _ = readable()
    except BadInputError:
        return {}
    named = {
        name: {key: tunable for key, tunable in design.tunables.items() if tunable.names}
        for name, design in found.items()
    }
    return {name: tunables for name, tunables in named.items() if tunables}


def get(name: str, folder: Path = DESIGNS_DIR) -> Design:
    """One design by name; BadInputError names the known ones where there is none."""
    known = names(folder)
    if name not in known:
        raise BadInputError(f"There is no design {name!r}; known: {', '.join(known)}.{meant(name, known)}")
    return _read(folder / name / "design.toml")


def _read(path: Path) -> Design:
    raw = read_toml(path)
    for derived in ("name", "folder"):
        if derived in raw:
            raise BadInputError(f"{path}: {derived}: follows from the folder; remove the line.")
    design = validated(Design, {**raw, "name": path.parent.name}, path)
    design = dataclasses.replace(design, folder=path.parent)
    design_checks.check(design, path)
    return design
