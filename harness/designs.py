"""Reads `opt_designs/*/design.toml`: a folder is a design, named after it, and nothing else lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness import design_source
from harness.design_source import DESIGNS_DIR, LATER, PEER_FILES
from harness.errors import BadInputError
from harness.records import STOCK, Workload
from harness.validation import FORBID_UNKNOWN, read_toml, validated

RowType = Literal["float32", "float16", "bfloat16", "int8", "int4"]
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
    threads: tuple[int, int] = (32, 8)
    """Threads of a block in x and y."""
    threads_y_of: dict[RowType, int] = field(default_factory=dict, metadata=LATER)
    """Threads in y for tables of some types, where others than those above suit their narrower rows."""
    blocks: int = 0
    """A fixed number of blocks; 0: as many as the two fields below ask for."""
    bags_per_block: int = 1
    columns_per_block: int = 0
    """0: one block covers all columns of its bags."""
    blocks_per_sm: int = 0
    """Upper limit for a grid with a stride; 0: none."""


@dataclass(frozen=True)
class When:
    """Shapes of calls: at least the first number and less than the second, where 0 is no limit."""

    __pydantic_config__ = FORBID_UNKNOWN
    rows_per_bag: tuple[int, int] = (0, 0)
    """On average over all bags."""
    bags_per_sm: tuple[int, int] = (0, 0)
    """Bags of one table ÷ multiprocessors."""
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
    when: tuple[When, ...] = (When(),)
    """Any of these."""
    tables_at_once: int = 0
    """Of a launch, at most; 0: any number."""
    dtypes: tuple[RowType, ...] = ()
    """Those of the design's for which it is made; none: all of them."""


@dataclass(frozen=True)
class Tunable:
    """A number that a cell may set. With `values` it is a template argument, compiled for each of them."""

    __pydantic_config__ = FORBID_UNKNOWN
    default: int
    values: tuple[int, ...] = ()
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
    max_dim: int = 0
    """0: any."""
    dim_multiple: int = 1


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
    max_registers: int = 0
    """Register cap for the compiler; 0: none."""
    compiler_options: tuple[str, ...] = ()
    launch: Launch = field(default_factory=Launch)
    tunables: dict[str, Tunable] = field(default_factory=dict)
    supports: Supports = field(default_factory=Supports)
    prepares: bool = False
    """Whether the kernel file has a `prepare` that pins rows before the lookup."""
    all_tables: bool = False
    """Whether one launch takes every table: then the kernel is `lookup_tables`, of `tables_args.h`."""
    plain: bool = field(default=False, metadata=LATER)
    """Whether `lookup` has a template argument `bool general` after its types. The instance for false is
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
    if work.dim % takes.dim_multiple:
        return f"takes columns in multiples of {takes.dim_multiple}, not {work.dim}"
    if design.all_tables and work.index_dtype == "int32" and work.tables * work.lookups >= 2**31:
        return "numbers the lookups of all tables together, which are more than int32 holds; use int64"
    return ""


def discover(folder: Path = DESIGNS_DIR) -> dict[str, Design]:
    """All designs by name, in alphabetical order, `baseline` first."""
    found = {p.parent.name: _read(p) for p in sorted(folder.glob("*/design.toml"))}
    if not found:
        raise BadInputError(f"{folder}: holds no design (a folder with a design.toml).")
    return dict(sorted(found.items(), key=lambda item: (item[0] != "baseline", item[0])))


def get(name: str, folder: Path = DESIGNS_DIR) -> Design:
    """One design by name; BadInputError names the known ones where there is none."""
    known = discover(folder)
    if name not in known:
        raise BadInputError(f"There is no design {name!r}; known: {', '.join(known)}.")
    return known[name]


def _read(path: Path) -> Design:
    raw = read_toml(path)
    for derived in ("name", "folder"):
        if derived in raw:
            raise BadInputError(f"{path}: {derived}: follows from the folder; remove the line.")
    design = validated(Design, {**raw, "name": path.parent.name, "folder": path.parent}, path)
    if not re.fullmatch(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", design.name):
        raise BadInputError(
            f"{path.parent}: cannot name a design, whose image bears its name; use small letters, digits and "
            "single underscores, dots or dashes between them."
        )
    for launch in (design.launch, *(special.launch for special in design.special)):
        _check_launch(launch, path)
        if others := sorted(launch.threads_y_of.keys() - set(design.supports.dtypes)):
            raise BadInputError(f"{path}: launch.threads_y_of: {others[0]} is not among supports.dtypes.")
    if not 0 <= design.max_registers <= 255:
        raise BadInputError(f"{path}: max_registers: {design.max_registers} is not between 0 and 255.")
    if design.supports.dim_multiple < 1:
        raise BadInputError(f"{path}: supports.dim_multiple: {design.supports.dim_multiple} is less than 1.")
    if design.supports.max_dim < 0:
        raise BadInputError(f"{path}: supports.max_dim: {design.supports.max_dim} is negative.")
    _check_tables(design, path)
    if design.compiled and not (path.parent / "kernel.cuh").is_file():
        raise BadInputError(f'{path.parent}: has no kernel.cuh, which a design of kind "design" needs.')
    if not design.compiled:
        _check_peer(design, path)
    for name, tunable in design.tunables.items():
        if tunable.values and tunable.default not in tunable.values:
            raise BadInputError(
                f"{path}: tunables.{name}.default: {tunable.default} is not among its values."
            )
    return design


def _check_launch(shape: Launch, path: Path) -> None:
    """What no GPU could launch is refused here, and not by the driver in the midst of a run."""
    x, y = shape.threads
    for each in (y, *shape.threads_y_of.values()):
        if min(x, each) < 1 or x * each > 1024:
            raise BadInputError(f"{path}: launch.threads: {x} × {each} is not between 1 and 1024 threads.")
    for name in ("blocks", "columns_per_block", "blocks_per_sm"):
        if getattr(shape, name) < 0:
            raise BadInputError(f"{path}: launch.{name}: {getattr(shape, name)} is negative.")
    if shape.bags_per_block < 1:
        raise BadInputError(f"{path}: launch.bags_per_block: {shape.bags_per_block} is less than 1.")


def _check_tables(design: Design, path: Path) -> None:
    """What only one of the two kinds of kernel has."""
    supports = design.supports
    if design.all_tables:
        for name, given in (("plain", design.plain), ("output_only", design.output_only)):
            if given:
                raise BadInputError(f"{path}: {name}: a design for all tables always is; remove the line.")
        if design.prepares:
            raise BadInputError(f"{path}: prepares: a design for all tables pins no rows.")
        _check_special(design, path)
        return
    if design.special:
        raise BadInputError(f"{path}: special: is for designs with all_tables = true.")
    if not design.compiled:
        return
    if quantised := sorted({"int8", "int4"} & set(supports.dtypes)):
        raise BadInputError(
            f"{path}: supports.dtypes: {quantised[0]} is for designs with all_tables = true; PyTorch's "
            "EmbeddingBag has no such tables."
        )
    if "max" in supports.modes:
        raise BadInputError(f"{path}: supports.modes: max is for designs with all_tables = true.")


def _check_special(design: Design, path: Path) -> None:
    names: set[str] = set()
    for special in design.special:
        name = special.kernel
        if name == "lookup_tables" or not re.fullmatch(r"lookup_[a-z0-9_]+", name):
            raise BadInputError(
                f"{path}: special.kernel: {name!r} is no name such as lookup_large, small letters after "
                "lookup_, other than lookup_tables."
            )
        if name in names:
            raise BadInputError(f"{path}: special.kernel: {name!r} is there twice; its names have to differ.")
        names.add(name)
        if special.tables_at_once < 0:
            raise BadInputError(f"{path}: special.tables_at_once: {special.tables_at_once} is negative.")
        for when in special.when:
            _check_when(when, name, path)
        for dtype in special.dtypes:
            if dtype not in design.supports.dtypes:
                raise BadInputError(f"{path}: special.dtypes: {dtype} is not among supports.dtypes.")


def _check_when(when: When, name: str, path: Path) -> None:
    for field_name, (least, below) in (
        ("rows_per_bag", when.rows_per_bag),
        ("bags_per_sm", when.bags_per_sm),
    ):
        if least < 0 or (below != 0 and below <= least):
            raise BadInputError(f"{path}: special.when.{field_name}: {least} and {below} are not a range.")
    if when == When():
        raise BadInputError(
            f"{path}: special.when: {name}: is for every call; that is what lookup_tables is."
        )


def _check_peer(design: Design, path: Path) -> None:
    """A peer other than PyTorch itself comes with what measures it, and with what that needs."""
    if design.name == STOCK:
        return
    for name in PEER_FILES:
        if not (path.parent / name).is_file():
            raise BadInputError(f'{path.parent}: has no {name}, which a design of kind "peer" needs.')
    if not design.all_tables:
        raise BadInputError(f"{path}: all_tables: peer.py looks up all tables in one call; set it to true.")
