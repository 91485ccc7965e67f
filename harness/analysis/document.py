"""The JSON of `harness report --format json`, key by key: what docs/report.schema.json is made from.

`python -m harness.analysis.document` writes that schema anew. `schema_version` grows when a key changes its
meaning or goes away; new keys may come at any time. Metrics: `kernel_us` and `prepare_us` per table and
batch, `total_us` their sum; per batch `stage_us`, and whole inferences with their parts. Times are in
microseconds; `records` are ids of cells, whose records lie in the run's folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.analysis.claims import Ours
from harness.analysis.hot_rows import Pair, Pinned
from harness.analysis.inference import Latency, Split
from harness.analysis.limits import Need
from harness.analysis.profiles import Figures
from harness.analysis.stats import Estimate

SCHEMA_VERSION = 2
SCHEMA_FILE = Path(__file__).resolve().parents[2] / "docs" / "report.schema.json"


_DESCRIBED = {"use_attribute_docstrings": True}
"""Read by pydantic: what stands below a field describes it in the schema, too."""
_BORROWED: tuple[Any, ...] = (Estimate, Figures, Latency, Need, Ours, Pair, Pinned, Split)
"""Parts of the report that the analysis has as they are."""


class _Described:
    __pydantic_config__ = _DESCRIBED


@dataclass(frozen=True)
class Method(_Described):
    """How speedups and intervals come about."""

    speedup: str
    time: str
    interval: str
    level: float
    """Of every interval, for example 0.95."""
    draws: int
    """Of the bootstrap."""
    headline: str
    """The metric that arms are compared by which all launch alike."""
    metrics: dict[str, str]
    """Name → what it is."""


@dataclass(frozen=True)
class Finding(_Described):
    """One question about a run and its answer."""

    level: Literal["good", "note", "bad"]
    what: str
    detail: str
    records: list[str]


@dataclass(frozen=True)
class EnvironmentDifference(_Described):
    """A field of the environment that is not the same in all records of a run."""

    field: str
    values: dict[str, list[str]]
    """Value → the records that have it."""


@dataclass(frozen=True)
class Run(_Described):
    """One run."""

    name: str
    title: str
    reference: str
    """The arm that speedups are taken against."""
    headline: str
    """The metric that its arms are compared by: the stage where only some take all tables in one launch."""
    arms: list[str]
    datasets: list[str]
    planned: int
    """Cells."""
    measured: int
    """Cells with a measurement."""
    verdict: Literal["good", "note", "bad"]
    """"note": read with care; "bad": do not cite."""
    findings: list[Finding]
    environment_differences: list[EnvironmentDifference]


@dataclass(frozen=True)
class Interval(_Described):
    """A figure with its interval."""

    value: float
    low: float
    high: float
    covers_processes: bool
    """Whether the interval knows how processes differ; it does not where there is one process."""


@dataclass(frozen=True)
class _Place(_Described):
    run: str
    arm: str
    dataset: str
    metric: str


@dataclass(frozen=True)
class Time(Interval, _Place):
    """An arm's typical time on a dataset, µs."""

    replicates: list[float]
    """Median of each process, µs."""
    records: list[str]


@dataclass(frozen=True)
class Speedup(Interval, _Place):
    """Time of the reference ÷ time of the arm."""

    reference: str
    verdict: Literal["faster", "slower", "inconclusive"]
    """"inconclusive": the interval holds 1. For "same", and for thresholds, see `harness compare`."""
    records: list[str]


@dataclass(frozen=True)
class Winner(_Described):
    """The fastest arm of a run on a dataset, with its speedup; null where the reference was not measured."""

    run: str
    dataset: str
    metric: str
    arm: str
    ties: list[str]
    """Other arms whose interval does not separate them from it."""
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Limit(_Described):
    """The least time of a lookup of one table and batch."""

    run: str
    dataset: str
    us: float
    part: str
    """What binds: "memory", "L2" or "L1"."""
    needs: list[Need]
    """What each part of the memory system must move with bags in order, and how long that takes."""
    any_order: list[Need]
    """The same with rows in any order: each distinct one passes once from memory and from L2."""
    any_order_us: float
    compulsory_bytes: float
    every_lookup_us: float
    """Every row from L2, without help from L1."""
    batch_distinct_rows: float
    tables_examined: list[int]


@dataclass(frozen=True)
class Share(Interval):
    """Limit ÷ prepare + kernel."""

    run: str
    arm: str
    dataset: str
    part: str
    kernel_share: float
    """Limit ÷ kernel alone."""
    any_order_share: float
    """The least time with rows in any order ÷ prepare + kernel."""
    beats_limit: bool
    """Faster beyond doubt than bags in order allow."""
    beats_any_order: bool
    """Faster beyond doubt than any order allows: an assumption does not hold."""
    records: list[str]


@dataclass(frozen=True)
class Pin(_Described):
    """What pinning costs and gains."""

    run: str
    arm: str
    without: str
    """The arm that does the same without pinning."""
    dataset: str
    prepare_us: float
    saved_us: float
    lookups: Interval | None
    """Lookups per pin from which on it pays; null where it never does."""
    records: list[str]


@dataclass(frozen=True)
class Claim(_Described):
    """A figure that the paper reports, as a ratio, and ours beside it."""

    id: str
    claim: str
    value: float
    ours: list[Ours]


@dataclass(frozen=True)
class Point(Interval):
    """An arm on a dataset at one point of a sweep; its time in µs."""

    arm: str
    dataset: str
    point: str
    settings: dict[str, Any]
    """Key → value, of what the sweep varies."""
    metric: str
    speedup: Interval | None
    """Over the reference at the same point."""
    records: list[str]


@dataclass(frozen=True)
class Best(_Described):
    """The best value of a tunable."""

    arm: str
    dataset: str
    metric: str
    key: str
    held: dict[str, Any]
    """What the rest of the sweep was held at."""
    value: Any
    ties: list[Any]
    default: Any
    gain: Interval
    """Time with the default ÷ time with the best."""


@dataclass(frozen=True)
class Win(_Described):
    """Who is fastest at a point."""

    dataset: str
    point: str
    metric: str
    arm: str
    ties: list[str]


@dataclass(frozen=True)
class Loss(_Described):
    """A design that is slower than PyTorch as it is."""

    dataset: str
    point: str
    metric: str
    arm: str
    ratio: Interval
    """PyTorch ÷ arm."""


@dataclass(frozen=True)
class Sweep(_Described):
    """What a run sweeps."""

    run: str
    gpu: str
    points: list[Point]
    best: list[Best]
    wins: list[Win]
    losses: list[Loss]
    against_stock: int
    """How many measurements were held against PyTorch as it is."""


@dataclass(frozen=True)
class Cell(_Described):
    """One planned cell, measured or not. Times are the median over passes, µs."""

    run: str
    id: str
    record: str
    """Path in the run's folder; empty where there is none yet."""
    arm: str
    design: str
    toolchain: str
    dataset: str
    point: str
    """Of a sweep; empty where nothing is swept."""
    replicate: int
    status: Literal["ok", "inconclusive", "failed", "timeout", "invalid", "oom", "pending"]
    message: str
    kernel_us: float | None
    prepare_us: float | None
    total_us: float | None
    stage_us: float | None
    e2e_us: float | None
    """A whole inference; the next, the same as a CUDA graph; then its parts."""
    e2e_graph_us: float | None
    bottom_us: float | None
    interaction_us: float | None
    top_us: float | None
    passes: int
    samples: int
    throttled_passes: int
    check_passed: bool | None
    check_max_error: float | None
    """Largest |output − reference| ÷ the bound of its rounding error."""
    quantisation_error: float | None
    """Of tables of a smaller type: how far they are off float32 ones, root of the mean square ÷ that of the
    values."""
    registers: int | None
    spill_bytes: int | None
    shared_bytes: int | None
    occupancy: float | None
    """Theoretical."""
    kernel: str
    compiler: str
    arch: str
    source_hash: str
    device: str
    gpu: str
    sm_clock_mhz_min: int | None
    sm_clock_mhz_max: int | None
    temperature_c_max: int | None
    seed: int
    started_at: str


@dataclass(frozen=True)
class Report(_Described):
    """What the report shows."""

    schema_version: Literal[2]
    method: Method
    runs: list[Run]
    times: list[Time]
    speedups: list[Speedup]
    winners: list[Winner]
    limits: list[Limit]
    shares: list[Share]
    pins: list[Pin]
    latencies: list[Latency]
    """Of whole inferences."""
    splits: list[Split]
    hot_rows: list[Pair]
    """What it costs to choose pinned rows beforehand."""
    claims: list[Claim]
    sweeps: list[Sweep]
    """One per run that sweeps."""
    profiles: list[Figures]
    """Of the cells that were profiled; see `harness profile`."""
    cells: list[Cell]


def schema() -> str:
    """The JSON Schema of the report, as text that ends in a line break."""
    from pydantic import TypeAdapter

    for kind in _BORROWED:
        kind.__pydantic_config__ = _DESCRIBED
    made = TypeAdapter(Report).json_schema()
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema(), encoding="utf-8")
