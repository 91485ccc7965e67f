"""What crosses the container's wall: `cell.json` in, `record.json` out.

Plain data and nothing else, used on both sides, so only the standard library. Raw samples are kept and
nothing derived is stored: speedups, medians and intervals are computed later, from these values.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.errors import BadInputError

SCHEMA_VERSION = 1

Status = Literal["ok", "inconclusive", "failed", "timeout", "invalid", "oom"]
"""How a cell ended."""
MEASURED: tuple[Status, ...] = ("ok", "inconclusive")
"""Those that carry samples; "inconclusive": too many of them taken while the GPU was throttled."""
PYTORCH = "pytorch"
"""The toolchain of a design that brings no kernel of ours."""
STOCK = "stock"
"""The peer that is PyTorch itself."""
WORKLOAD, TUNABLES = "workload.", "tunables."
"""What the keys that a sweep varies begin with."""
DTYPE_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4}
"""Of one value in a table."""
INDEX_BYTES = {"int64": 8, "int32": 4}
QUANTISED = ("int8", "int4")
"""Dtypes whose rows carry a scale and a bias each: value = scale × stored + bias."""
SCALE_BIAS_BYTES = 4
"""float16 both, apart from the values."""
_ALIGNMENT = 16
"""Quantised rows begin at multiples of it, for loads of 16 bytes."""
T = TypeVar("T")
_FORBID_UNKNOWN = {"extra": "forbid"}  # read by pydantic where an experiment is validated


HotRows = Literal["held_out", "oracle"]
"""How rows to pin are chosen: the hottest of the accesses that are not timed, or of those that are."""


def arm_label(
    design: str, toolchain: str, tunables: Mapping[str, int], hot_rows: HotRows = "held_out"
) -> str:
    """A contestant's name in tables and file names, for example `rpf_optmt@12.1,distance=4`."""
    tuned = "".join(f",{name}={value}" for name, value in sorted(tunables.items()))
    known = f",{hot_rows}" if hot_rows != "held_out" else ""
    return design + (f"@{toolchain}" if toolchain != PYTORCH else "") + tuned + known


def is_torch_version(toolchain: str) -> bool:
    """Whether a toolchain is a PyTorch's version, such as 2.1.0+cu121: three numbers; an NVRTC's has two."""
    return re.fullmatch(r"\d+(\.\d+){2}[0-9A-Za-z.+-]*", toolchain) is not None


@dataclass(frozen=True)
class Workload:
    """The shape of one batch through the embedding stage."""

    __pydantic_config__ = _FORBID_UNKNOWN
    tables: int = 12
    rows: int = 500_000
    """Rows of every table."""
    dim: int = 128
    """Columns of every table."""
    batch: int = 2048
    """Bags per table in one batch."""
    pooling: int = 150
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
    `harness.bench.bags`."""

    @property
    def lookups(self) -> int:
        """Rows read per table and batch."""
        return self.batch * self.pooling

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
        return self._value_bytes + (SCALE_BIAS_BYTES if self.quantised else 0)

    @property
    def stored_row_bytes(self) -> int:
        """What a row takes in memory."""
        if not self.quantised:
            return self._value_bytes
        return -(-self._value_bytes // _ALIGNMENT) * _ALIGNMENT + SCALE_BIAS_BYTES

    @property
    def table_bytes(self) -> int:
        """Bytes of all tables together."""
        return self.tables * self.rows * self.stored_row_bytes

    @property
    def output_bytes(self) -> int:
        """Bytes of what one table's lookups give."""
        return self.batch * self.dim * DTYPE_BITS[self.output_dtype] // 8

    @property
    def asked_bytes(self) -> int:
        """Bytes of one table's indices and sample weights."""
        weight = DTYPE_BITS[self.sample_weight_dtype] // 8 if self.weighted else 0
        return self.lookups * (INDEX_BYTES[self.index_dtype] + weight)

    @property
    def _value_bytes(self) -> int:
        return -(-self.dim * DTYPE_BITS[self.dtype] // 8)


@dataclass(frozen=True)
class Model:
    """A recommendation model round the embedding stage, in the shape of facebookresearch/dlrm."""

    __pydantic_config__ = _FORBID_UNKNOWN
    dense_features: int = 13
    """Numbers that enter the bottom MLP with each sample of a batch."""
    bottom: tuple[int, ...] = (256, 128, 128)
    """Widths of its layers. The last is that of the tables' rows, for the two are multiplied."""
    top: tuple[int, ...] = (128, 64, 1)
    """Widths of the top MLP's layers, which take the dot products; the last ends in a sigmoid."""


@dataclass(frozen=True)
class Dataset:
    """Which rows are looked up: a synthetic trace by name, or a file's."""

    __pydantic_config__ = _FORBID_UNKNOWN
    name: str
    path: str | None = None
    """None: synthesised from the name. Otherwise a .npy of row numbers, relative to the run's folder."""
    origin: str = ""
    """Where the row numbers came from, for the reader of the report."""


@dataclass(frozen=True)
class Timing:
    """How a cell is sampled. One pass visits every table once."""

    __pydantic_config__ = _FORBID_UNKNOWN
    cache: Literal["steady", "cold"] = "steady"
    """"steady": tables in turn, L2 as the passes leave it.
    "cold": L2 flushed and pins reset before every sample."""
    warmup_passes: int = 5
    min_passes: int = 30
    max_passes: int = 2000
    max_seconds: float = 3.0
    """Sampling stops here at the latest, once `min_passes` are in."""
    relative_interval: float = 0.005
    """Sampling may stop when the 95 % interval of the median pass is this narrow (half width ÷ median)."""


@dataclass(frozen=True)
class Cell:
    """One (design, toolchain, dataset, workload), to be measured once in a launch."""

    __pydantic_config__ = _FORBID_UNKNOWN
    id: str
    design: str
    toolchain: str
    """NVRTC version; "pytorch" where the design brings no kernel; of `stock` the version of a PyTorch whose
    kernel runs in this one."""
    dataset: Dataset
    workload: Workload
    timing: Timing
    replicate: int
    seed: int
    """Makes tables, indices and sample weights. Equal for cells that are compared."""
    tunables: dict[str, int] = field(default_factory=dict)
    point: str = ""
    """Where a sweep puts this cell, for example "batch=16"; empty: the experiment's own workload and
    tunables."""
    swept: tuple[str, ...] = ()
    """What the sweep sets in cells of this arm, for example "workload.batch" and "tunables.distance"."""
    hot_rows: HotRows = "held_out"
    """Matters to designs that pin."""
    model: Model | None = None
    """None: the embedding stage is measured alone."""
    schema_version: int = SCHEMA_VERSION

    @functools.cached_property
    def arm(self) -> str:
        """Label of the contestant that this cell measures; what a sweep sets is no part of it."""
        own = {name: value for name, value in self.tunables.items() if TUNABLES + name not in self.swept}
        return arm_label(self.design, self.toolchain, own, self.hot_rows)


@dataclass(frozen=True)
class Check:
    """The comparison with the float64 reference, made before anything is timed."""

    passed: bool
    max_error: float
    """Largest |output − reference| ÷ (bound of the rounding error there); at most 1 passes."""
    worst: str
    """The worst element: table, bag, column, what came out and what should have."""
    elements: int
    """How many output elements were compared."""


@dataclass(frozen=True)
class KernelFacts:
    """What ran, as the compiler and PyTorch's side told it."""

    name: str
    """The design's name, or "pytorch"."""
    source_hash: str
    compiler: str
    """For example "NVRTC 12.1.105"."""
    arch: str
    """For example "sm_90"; what was loaded on this GPU."""
    registers: int
    spill_bytes: int
    shared_bytes: int
    occupancy: float
    """Theoretical: resident warps ÷ the most the multiprocessor holds."""
    cubin_sha256: str


@dataclass(frozen=True)
class GpuState:
    """One reading of the GPU through NVML."""

    after_pass: int
    """How many passes had been sampled when it was read; -1: before the first."""
    sm_clock_mhz: int
    memory_clock_mhz: int
    temperature_c: int
    power_w: float
    throttle_reasons: list[str]


@dataclass(frozen=True)
class Environment:
    """Where the record was made."""

    device: Literal["cuda", "cpu"]
    gpu: str
    gpu_uuid: str
    driver: str
    multiprocessors: int
    l2_bytes: int
    memory_bytes: int
    persisting_l2_bytes: int
    """Most L2 that can be set aside for persisting lines."""
    mig: bool
    other_processes: int
    """Other processes seen on the GPU when the cell began."""
    torch: str
    cuda: str
    python: str
    cpu: str
    runner: str
    """"docker" or "local"."""
    image: str
    """Image reference and digest, or empty."""
    git_commit: str
    git_dirty: bool
    hostname: str = ""
    mps: bool = False
    """Whether processes share the GPU through MPS."""
    display: bool = False
    """Whether the GPU draws a screen."""


@dataclass(frozen=True)
class CellRecord:
    """One cell, measured or failed, whole."""

    cell: Cell
    status: Status
    message: str = ""
    """Why there is no measurement, in one sentence; empty when there is one."""
    log_tail: str = ""
    """The end of the log where the status is not "ok"."""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Every sample by metric: `kernel_us` and `prepare_us` pass after pass, the tables of a pass in order;
    `stage_us` one a pass, prepare included. With a model also whole inferences, several a pass: `e2e_us`
    eager and by the wall clock, `e2e_graph_us` as a CUDA graph; and one a pass of its parts `bottom_us`,
    `interaction_us` and `top_us`."""
    check: Check | None = None
    kernel: KernelFacts | None = None
    environment: Environment | None = None
    gpu: list[GpuState] = field(default_factory=list)
    """Readings before, during and after the samples, in order."""
    throttled_passes: list[int] = field(default_factory=list)
    """Passes during which the GPU held back its clocks (heat, power brake, hardware slowdown)."""
    ceilings: dict[str, float] = field(default_factory=dict)
    """Of the same process: `stream_gbps`, `random_rows_gbps`, `l2_rows_gbps`; `event_floor_us`, the time
    between two events with nothing between them; `event_overhead_us`, what a pair adds to the time of a
    kernel, taken off every sample."""
    facts: dict[str, float] = field(default_factory=dict)
    """Of the trace as run, on average over the tables where theirs differ: `distinct_rows`, `accesses`,
    `hotness`; where rows are pinned, `pinned_rows` and `pinned_share`, the part of the timed accesses that
    meets one; and `sampling_s`, `cell_s`."""
    started_at: str = ""
    finished_at: str = ""
    schema_version: int = SCHEMA_VERSION


def to_json(value: Any, *, indent: int | None = 1) -> str:
    """A dataclass as JSON text, stable to the letter for equal values."""
    return json.dumps(dataclasses.asdict(value), indent=indent, sort_keys=True, allow_nan=False) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader sees all of it or nothing, also when killed in between."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load(kind: type[T], path: Path) -> T:
    """Reads a dataclass from a JSON file.

    Raises BadInputError, naming the file and the field, where the text is not what the class describes or
    was written by a newer version of this program.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise BadInputError(f"{path}: is not JSON: {error}.") from error
    if isinstance(raw, dict):
        version = raw.get("schema_version", SCHEMA_VERSION)
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise BadInputError(
                f"{path}: has schema_version {version}, this program reads up to {SCHEMA_VERSION}; update it."
            )
    try:
        return typing.cast(T, _decode(kind, raw, ""))
    except _MismatchError as error:
        raise BadInputError(f"{path}: {error}.") from error


class _MismatchError(Exception):
    pass


def _decode(kind: Any, raw: Any, where: str) -> Any:
    """`raw` (from JSON) as a value of the annotated type `kind`; `where` is the key path for messages."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return raw
    if dataclasses.is_dataclass(kind):
        return _decode_fields(kind, raw, where)
    if origin is Literal:
        if raw not in arguments:
            raise _MismatchError(f"{where}: {raw!r} is none of {', '.join(map(repr, arguments))}")
        return raw
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        return None if raw is None else _decode(inner[0], raw, where)
    if origin is list and isinstance(raw, list):
        if arguments[0] is float and set(map(type, raw)) <= {float}:
            return raw  # samples come in tens of thousands
        return [_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(raw)]
    if origin is tuple and isinstance(raw, list):
        return tuple(_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(raw))
    if origin is dict and isinstance(raw, dict):
        if arguments[1] is float and set(map(type, raw.values())) <= {float}:
            return raw
        return {str(key): _decode(arguments[1], item, f"{where}.{key}") for key, item in raw.items()}
    if kind is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    if isinstance(kind, type) and isinstance(raw, kind) and (kind is bool or not isinstance(raw, bool)):
        return raw
    name = getattr(kind, "__name__", str(kind))
    raise _MismatchError(f"{where or 'the file'}: {str(raw)[:60]!r} is not {name}")


def _decode_fields(kind: Any, raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        raise _MismatchError(f"{where or 'the file'}: is not an object")
    fields = _fields(kind)
    prefix = f"{where}." if where else ""
    if unknown := sorted(raw.keys() - fields.keys()):
        raise _MismatchError(f"{prefix}{unknown[0]}: is not a field of {kind.__name__}")
    values = {}
    for name, (hint, required) in fields.items():
        if name in raw:
            value = raw[name]
            # Most are what they should be already; runs of ten thousand records are read in one go.
            values[name] = value if type(value) is hint else _decode(hint, value, prefix + name)
        elif required:
            raise _MismatchError(f"{prefix}{name}: is missing")
    return kind(**values)


@functools.cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """A dataclass's fields: type, and whether there is no default."""
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    return {
        f.name: (hints[f.name], f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(kind)
    }
