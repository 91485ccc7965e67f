"""The one result of the analysis: what the JSON of `harness report --format json` is, key by key.

`python -m harness.analysis.report` writes docs/report.schema.json anew. `schema_version` grows when a key
changes its meaning or goes away; new keys and figures may come at any time. Times are in microseconds;
`records` are ids of cells, whose records lie in the run's folder. Every printer takes this value and nothing
else.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.analysis.claims import Beside as ClaimsBeside
from harness.analysis.differences import Difference
from harness.analysis.figures import HEADLINE, METRICS, Figure, Place, speedup
from harness.analysis.kinds import Kind
from harness.analysis.limits import Limit, Machine
from harness.analysis.peers import Peer
from harness.analysis.pins import Pin
from harness.analysis.profiles import Profiled
from harness.analysis.provenance import Ceiling, CellRow, Protocol, Trace
from harness.analysis.results import Winner
from harness.analysis.side_by_side import Beside
from harness.analysis.stats import DRAWS, LEVEL
from harness.analysis.sweeps import Sweep
from harness.analysis.trust import Finding, Level
from harness.records import KernelFacts, Variant

SCHEMA_VERSION: Literal[4] = 4
SCHEMA_FILE = Path(__file__).resolve().parents[2] / "docs" / "report.schema.json"
Ratios = list[list[list[list[float] | None]]]


@dataclass(frozen=True)
class Method:
    """How speedups and intervals come about."""

    speedup: str = "time of the run's reference ÷ time of the variant, per dataset"
    time: str = "geometric mean over replicates of the median over passes"
    interval: str = "hierarchical bootstrap: replicates, then passes"
    level: float = LEVEL
    """Of every interval, for example 0.95."""
    draws: int = DRAWS
    """Of the bootstrap."""
    headline: str = HEADLINE
    """The metric that variants are compared by which all launch alike."""
    metrics: dict[str, str] = field(default_factory=METRICS.copy)
    """Name → what it is."""


@dataclass(frozen=True)
class Named:
    """A tunable whose values people call by names."""

    design: str
    tunable: str
    values: list[int]
    """Those that a variant of the run sets."""
    names: list[str]
    """Theirs, in the same order."""
    summary: str


@dataclass(frozen=True)
class Run:
    """One run."""

    name: str
    """Its folder's; with the parent's where two are called the same."""
    folder: str
    """Its folder's."""
    title: str
    reference: Variant
    """What speedups are taken against."""
    headline: str
    """The metric that its variants are compared by: the stage where only some take all tables in one
    launch."""
    compared: list[str]
    """The metrics that say something of their own about its variants, the headline first."""
    variants: list[Variant]
    datasets: list[str]
    on_cpu: bool
    """Whether it ran on the CPU, where every design is PyTorch's own operator."""
    planned: int
    """Cells."""
    measured: int
    """Cells with a measurement."""
    verdict: Level
    """"note": read with care; "bad": do not cite."""
    findings: list[Finding]
    environment_differences: list[Difference]
    protocol: Protocol
    places: list[Place]
    """At the experiment's own workload and tunables; variants, then datasets, in order."""
    winners: list[Winner]
    peers: list[Peer]
    """Of every other library the fastest path, by dataset and metric; on the CPU none."""
    fastest_peers: list[Peer]
    """The same of all other libraries together."""
    ratios: dict[str, Ratios]
    """By metric: speedups over each variant, [reference][variant][dataset], of value, low and high; null
    where one of the two was not measured."""
    limits: list[Limit]
    machine: Machine | None
    """What the limits were computed with."""
    pins: list[Pin]
    """What pinning costs and gains."""
    sweep: Sweep | None
    profile: Profiled | None
    """What `harness profile` saw."""
    traces: list[Trace]
    ceilings: list[Ceiling]
    environment: dict[str, list[str | int | bool]]
    """Field → the values that its records have."""
    cells: list[CellRow]
    kinds: list[Kind]
    """Of tables in the model; empty where all are alike."""
    named: list[Named]
    """Tunables that stand on the pages by the names of their values."""

    @functools.cached_property
    def _places(self) -> dict[tuple[Variant, str, str], Place]:
        swept = self.sweep.places if self.sweep else []
        return {(place.variant, place.dataset, place.point): place for place in [*self.places, *swept]}

    def place(self, variant: Variant, dataset: str, point: str = "") -> Place | None:
        """None where nothing is known of it."""
        return self._places.get((variant, dataset, point))

    def figure(self, variant: Variant, dataset: str, name: str, point: str = "") -> Figure | None:
        """None where it was not measured, or is not known."""
        place = self.place(variant, dataset, point)
        return place.figure(name) if place else None

    def timed(
        self, variant: Variant, dataset: str, metric: str, point: str = ""
    ) -> tuple[Figure | None, Figure | None]:
        """The time by a metric, and the speedup by it."""
        place = self.place(variant, dataset, point)
        return (place.figure(metric), place.figure(speedup(metric))) if place else (None, None)

    @functools.cached_property
    def _winners(self) -> dict[tuple[str, str], Winner]:
        return {(winner.dataset, winner.metric): winner for winner in self.winners}

    def winner(self, dataset: str, metric: str) -> Winner | None:
        """The fastest variant; None where nothing was measured, and on the CPU."""
        return self._winners.get((dataset, metric))

    def peer(self, design: str, dataset: str, metric: str = "") -> Peer | None:
        """The fastest path of a library by a metric, the headline where none is named; None where it was not
        measured."""
        asked = design, dataset, metric or self.headline
        return next((one for one in self.peers if (one.design, one.dataset, one.metric) == asked), None)

    def fastest_peer(self, dataset: str, metric: str = "") -> Peer | None:
        """The same of all other libraries together; `design` is that of the fastest."""
        asked = dataset, metric or self.headline
        return next((one for one in self.fastest_peers if (one.dataset, one.metric) == asked), None)

    @functools.cached_property
    def _cells(self) -> dict[tuple[Variant, str], list[CellRow]]:
        found: dict[tuple[Variant, str], list[CellRow]] = {}
        for cell in self.cells:
            if not cell.point:
                found.setdefault((cell.variant, cell.dataset), []).append(cell)
        return found

    def cells_at(self, variant: Variant, dataset: str = "") -> list[CellRow]:
        """At the experiment's own workload and tunables, measured or not; without a name on every dataset."""
        datasets = [dataset] if dataset else self.datasets
        return [cell for name in datasets for cell in self._cells.get((variant, name), [])]

    def kernels(self, variant: Variant) -> list[KernelFacts]:
        """What its cells ran."""
        return [cell.kernel for cell in self.cells_at(variant) if cell.kernel]

    def limit(self, dataset: str) -> Limit | None:
        """None where it is not known."""
        return next((limit for limit in self.limits if limit.dataset == dataset), None)

    @property
    def prepares(self) -> bool:
        """Whether any variant prepares, so that prepare + kernel is not the kernel alone."""
        return any(place.figure("prepare_us") for place in self.places)


@dataclass(frozen=True)
class Report:
    """What every printer shows."""

    schema_version: Literal[4]
    method: Method
    runs: list[Run]
    beside: list[Beside]
    """The first run beside each other that shares a variant with it."""
    claims: ClaimsBeside | None
    """The paper's claims beside ours."""

    def run(self, name: str) -> Run:
        """The run of that name."""
        return next(run for run in self.runs if run.name == name)


def _parts(kind: Any, known: set[type]) -> set[type]:
    """Every dataclass that a type is made of, itself among them."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind not in known:
        known.add(kind)
        for part in typing.get_type_hints(kind).values():
            _parts(part, known)
    for part in typing.get_args(kind):
        _parts(part, known)
    return known


def schema() -> str:
    """The JSON Schema of the report, as text that ends in a line break."""
    from pydantic import TypeAdapter

    for kind in _parts(Report, set()):
        # Read by pydantic: what stands below a field describes it in the schema, too.
        own = getattr(kind, "__pydantic_config__", {})
        kind.__pydantic_config__ = {**own, "use_attribute_docstrings": True}  # type: ignore[attr-defined]
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **TypeAdapter(Report).json_schema()}
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema(), encoding="utf-8")
