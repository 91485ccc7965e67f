"""What crosses the container's wall: `cell.json` in, `record.json` out.

Plain data and nothing else, used on both sides, so only the standard library. Raw samples are kept and
nothing derived is stored: speedups, medians and intervals are computed later, from these values.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated, Literal

from harness.bounds import Amount, Count, Int32, Microseconds, Range

# Whoever knows records reads and writes them through this module.
from harness.codec import LATER
from harness.codec import SCHEMA_VERSION as SCHEMA_VERSION
from harness.codec import load as load
from harness.codec import to_json as to_json
from harness.files import write_whole as write_whole
from harness.workload import DTYPE_BITS as DTYPE_BITS
from harness.workload import INDEX_BYTES as INDEX_BYTES
from harness.workload import QUANTISED as QUANTISED
from harness.workload import Workload as Workload

SchemaVersion = Annotated[int, Range(1, SCHEMA_VERSION)]

Status = Literal["ok", "inconclusive", "failed", "timeout", "invalid", "oom"]
"""How a cell ended."""
MEASURED: tuple[Status, ...] = ("ok", "inconclusive")
"""Those that carry samples; "inconclusive": too many of them taken while the GPU was throttled."""
PYTORCH = "pytorch"
"""The toolchain of a design that brings no kernel of ours."""
STOCK = "stock"
"""The peer that is PyTorch itself."""
VALUES_WITHIN = 0.3
"""Tables hold values from minus this to this, those of records that do not say so themselves too."""
WORKLOAD, TUNABLES = "workload.", "tunables."
"""What the keys that a sweep varies begin with."""
MOST_SAMPLES = 4_000_000
"""Of all metrics in a record; sampling ends there, whatever `Timing` says."""
_FORBID_UNKNOWN = {"extra": "forbid"}  # read by pydantic where an experiment is validated


HotRows = Literal["held_out", "oracle"]
"""How rows to pin are chosen: the hottest of the accesses that are not timed, or of those that are."""


@dataclass(frozen=True)
class Variant:
    """What is measured against others: a design as one toolchain compiles it, and how it is set."""

    __pydantic_config__ = _FORBID_UNKNOWN
    design: str
    toolchain: str = PYTORCH
    """NVRTC version; as it is where the design brings no kernel to compile."""
    tunables: dict[str, Int32] = field(default_factory=dict)
    """Those that the variant sets itself; what a sweep sets is no part of it."""
    hot_rows: HotRows = "held_out"
    """Of designs that pin: how the rows are chosen."""

    def __hash__(self) -> int:
        return hash((self.design, self.toolchain, self.hot_rows, *sorted(self.tunables.items())))

    @property
    def label(self) -> str:
        """Its name in tables and files, for example `rpf_optmt@12.1,distance=4`; for people, never to be
        parsed."""
        tuned = "".join(f",{name}={value}" for name, value in sorted(self.tunables.items()))
        known = f",{self.hot_rows}" if self.hot_rows != "held_out" else ""
        return self.design + (f"@{self.toolchain}" if self.toolchain != PYTORCH else "") + tuned + known


def is_torch_version(toolchain: str) -> bool:
    """Whether a toolchain is a PyTorch's version, such as 2.1.0+cu121: three numbers; an NVRTC's has two."""
    return re.fullmatch(r"\d+(\.\d+){2}[0-9A-Za-z.+-]*", toolchain) is not None


Width = Annotated[int, Range(1, 2**20)]
"""Columns of a model's layer."""


@dataclass(frozen=True)
class Model:
    """A recommendation model round the embedding stage, in the shape of facebookresearch/dlrm, or of DCN v2:
    with a cross network in place of the dot products."""

    __pydantic_config__ = _FORBID_UNKNOWN
    dense_features: Width = 13
    """Numbers that enter the bottom MLP with each sample of a batch."""
    bottom: tuple[Width, ...] = (256, 128, 128)
    """Widths of its layers. The last is that of the tables' rows, for the two are multiplied."""
    top: tuple[Width, ...] = (128, 64, 1)
    """Widths of the top MLP's layers, which take the dot products; the last ends in a sigmoid."""
    cross_layers: Annotated[int, Range(0, 100)] = field(default=0, metadata=LATER)
    """Of a cross network over the bottom's output and all pooled rows side by side; 0: dot products."""
    cross_rank: Annotated[int, Range(0, 2**20)] = field(default=0, metadata=LATER)
    """Of each cross layer's matrix, which is the product of two."""

    def problem(self) -> str:
        """What is wrong with its parts, beginning with a field; empty where nothing is."""
        if empty := next((name for name in ("bottom", "top") if not getattr(self, name)), ""):
            return f"{empty}: is empty; give the width of each layer"
        if bool(self.cross_layers) != bool(self.cross_rank):
            return f"cross_rank: is {self.cross_rank} of {self.cross_layers} cross layers; give both, or none"
        return ""


def leads_out(path: str) -> bool:
    """Whether a path within a run's folder, as a file of the run names it, leads out of that."""
    return PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts


@dataclass(frozen=True)
class Dataset:
    """Which rows are looked up: a synthetic trace by name, or a file's."""

    __pydantic_config__ = _FORBID_UNKNOWN
    name: str
    path: str | None = None
    """None: synthesised from the name. Otherwise a .npy of row numbers, relative to the run's folder."""
    origin: str = ""
    """Where the row numbers came from, for the reader of the report."""

    def problem(self) -> str:
        """Why its file would not lie in the run's folder; empty where it does."""
        return "path: leads out of the run's folder" if leads_out(self.path or "") else ""


@dataclass(frozen=True)
class Timing:
    """How a cell is sampled. One pass visits every table once."""

    __pydantic_config__ = _FORBID_UNKNOWN
    cache: Literal["rotating", "steady", "cold"] = "rotating"
    """"rotating": distinct batches take turns, so many that L2 keeps nothing of a batch until its next turn
    but what others look up too. "steady": one batch again and again, L2 as the passes leave it.
    "cold": that batch, L2 flushed and pins reset before every sample."""
    warmup_passes: Annotated[int, Range(1, 2**31 - 1)] = 5
    min_passes: Annotated[int, Range(3, 2**31 - 1)] = 30
    max_passes: Annotated[int, Range(3, 2**31 - 1)] = 2000
    max_seconds: Annotated[float, Range(0, 1e7)] = 3.0
    """Sampling stops here at the latest, once `min_passes` are in."""
    relative_interval: Annotated[float, Range(0, 1e7)] = 0.005
    """Sampling may stop when the 95 % interval of the median pass is this narrow (half width ÷ median)."""

    def problem(self) -> str:
        """What is wrong with the numbers of passes, beginning with a field; empty where nothing is."""
        if self.max_passes < self.min_passes:
            return f"max_passes: {self.max_passes} is less than {self.min_passes} (timing.min_passes)"
        return ""


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
    replicate: Count
    seed: Count
    """Makes tables, indices and sample weights. Equal for cells that are compared."""
    tunables: dict[str, Int32] = field(default_factory=dict)
    point: str = ""
    """Where a sweep puts this cell, for example "batch=16"; empty: the experiment's own workload and
    tunables."""
    swept: tuple[str, ...] = ()
    """What the sweep sets in cells of this variant, for example "workload.batch" and "tunables.distance"."""
    hot_rows: HotRows = "held_out"
    """Matters to designs that pin."""
    model: Model | None = None
    """None: the embedding stage is measured alone."""
    schema_version: SchemaVersion = SCHEMA_VERSION

    @functools.cached_property
    def variant(self) -> Variant:
        """What this cell measures."""
        own = {name: value for name, value in self.tunables.items() if TUNABLES + name not in self.swept}
        return Variant(self.design, self.toolchain, own, self.hot_rows)


@dataclass(frozen=True)
class Check:
    """The comparison with the float64 reference, made before anything is timed."""

    passed: bool
    max_error: Annotated[float, Range(0, 1e300)]
    """Largest |output − reference| ÷ (bound of the rounding error there); at most 1 passes."""
    worst: str
    """The worst element: table, bag, column, what came out and what should have."""
    elements: Count
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
    registers: Count
    spill_bytes: Count
    shared_bytes: Count
    occupancy: Annotated[float, Range(0, 1)]
    """Theoretical: resident warps ÷ the most the multiprocessor holds."""
    cubin_sha256: str
    libraries: dict[str, str] = field(default_factory=dict, metadata=LATER)
    """Of another library than PyTorch: the SHA-256 of each of its shared libraries that the process had
    loaded, by path from where it is installed, such as `fbgemm_gpu/fbgemm.so`."""


@dataclass(frozen=True)
class GpuState:
    """One reading of the GPU through NVML."""

    after_pass: Annotated[int, Range(-1, 2**63 - 1)]
    """How many passes had been sampled when it was read; -1: before the first."""
    sm_clock_mhz: Count
    memory_clock_mhz: Count
    temperature_c: Annotated[int, Range(-273, 1000)]
    power_w: Amount
    throttle_reasons: list[str]


@dataclass(frozen=True)
class Environment:
    """Where the record was made."""

    device: Literal["cuda", "cpu"]
    gpu: str
    gpu_uuid: str
    driver: str
    multiprocessors: Count
    l2_bytes: Count
    memory_bytes: Count
    persisting_l2_bytes: Count
    """Most L2 that can be set aside for persisting lines."""
    mig: bool
    other_processes: Count
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
    samples: dict[str, list[Microseconds]] = field(default_factory=dict)
    """Every sample by metric: `kernel_us` and `prepare_us` pass after pass, the tables of a pass in order;
    `stage_us` one a pass, prepare included. With a model also whole inferences, several a pass: `e2e_us`
    eager and by the wall clock, `e2e_graph_us` as a CUDA graph; and one a pass of its parts `bottom_us`,
    `interaction_us` and `top_us`."""
    check: Check | None = None
    kernel: KernelFacts | None = None
    environment: Environment | None = None
    gpu: list[GpuState] = field(default_factory=list)
    """Readings before, during and after the samples, in order."""
    throttled_passes: list[Count] = field(default_factory=list)
    """Passes during which the GPU held back its clocks (heat, power brake, hardware slowdown)."""
    ceilings: dict[str, Amount] = field(default_factory=dict)
    """Of the same process: `stream_gbps`, `random_rows_gbps`, `l2_rows_gbps`, rows alone by the time between
    two events; the same as `stream_net_gbps`, `random_rows_net_gbps`, `l2_rows_net_gbps`, all bytes that are
    read and the events' own time taken off, as it is off every sample; `event_floor_us`, the time between two
    events with nothing between them; `event_overhead_us`, what a pair adds to the time of a kernel."""
    facts: dict[str, Amount] = field(default_factory=dict)
    """Of the trace as run, on average over the tables where theirs differ: `distinct_rows`, `accesses`,
    `distinct_share`, distinct rows ÷ rows of the table (older records call it `hotness`); of the first batch
    `batch_distinct_rows`. `batches` that take turns; on a GPU
    `bytes_between_turns`, what is touched between two turns of a batch, and `bytes_until_trace_repeats`,
    before rows come again because the trace wraps round (see `harness.bench.rotation`). Where rows are
    pinned, `pinned_rows` and `pinned_share`, the part of the timed accesses that meets one; `values_within`:
    tables hold values from minus this to this; and `sampling_s`, `cell_s`."""
    neighbours: list[str] = field(default_factory=list)
    """Other processes that the host saw on the GPU while the cell was measured, in words."""
    started_at: str = ""
    finished_at: str = ""
    schema_version: SchemaVersion = SCHEMA_VERSION
