"""The paper's claims (experiments/claims.toml) beside what the records say about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.analysis import stats
from harness.analysis.results import Measured, Measurement
from harness.analysis.stats import Estimate
from harness.experiment import EXPERIMENTS_DIR
from harness.records import Variant
from harness.validation import read_toml, validated

CLAIMS_FILE = EXPERIMENTS_DIR / "claims.toml"
METRICS = ("kernel_us", "total_us", "stage_us")
"""Those of ours that stand beside a claim, the paper's own way of timing first."""


@dataclass(frozen=True)
class Source:
    """Where all claims of the file come from."""

    title: str
    authors: str
    where: str
    url: str
    gpu: str
    """The GPU that the paper measured on."""
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """One figure that the paper reports."""

    id: str
    what: str
    claim: str
    """As the paper words it, for example "up to 53 % gain"."""
    value: float
    """The same as a ratio: a gain of 53 % is 1.53."""
    kind: Literal["speedup", "slowdown"]
    """A design against the reference, or one dataset against another of the same design."""
    designs: list[str]
    source: str
    slow: str = ""
    fast: str = ""
    metrics: list[str] = field(default_factory=list)
    """Metrics of its own; empty: the embedding stage and what it is made of."""
    caveat: str = ""


@dataclass(frozen=True)
class Claims:
    """The file."""

    source: Source
    claims: list[Claim] = field(default_factory=list)


@dataclass(frozen=True)
class Ours:
    """The nearest that a run has to a claim: its largest ratio over the datasets, as "up to" means."""

    claim: str
    """Its id."""
    run: str
    variant: Variant
    dataset: str
    """Where the largest ratio was found."""
    metric: str
    ratio: Estimate
    records: list[str]
    others: dict[str, float]
    """The ratio on every dataset."""


@dataclass(frozen=True)
class Beside:
    """The paper's claims, and what the runs say about them."""

    source: Source
    claims: list[Claim]
    ours: list[Ours]
    """A line per claim, run, variant and metric that was measured."""


def read(path: Path = CLAIMS_FILE) -> Claims:
    """The claims; BadInputError where the file is missing or does not fit."""
    return validated(Claims, read_toml(path), path)


def find(runs: Sequence[Measured]) -> Beside | None:
    """None without a file of claims."""
    if not CLAIMS_FILE.is_file():
        return None
    known = read()
    return Beside(known.source, known.claims, [one for claim in known.claims for one in beside(claim, runs)])


def beside(claim: Claim, runs: Sequence[Measured]) -> list[Ours]:
    """What the runs say about a claim."""
    return [
        line
        for found in runs
        for variant in found.run.variants
        if variant.design in claim.designs
        for metric in claim.metrics or METRICS
        if (line := _ours(claim, found, variant, metric))
    ]


def _ours(claim: Claim, found: Measured, variant: Variant, metric: str) -> Ours | None:
    if claim.kind == "slowdown":
        slow, fast = (found.at(variant, dataset, metric) for dataset in (claim.slow, claim.fast))
        return _slowdown(claim, found.run.name, slow, fast) if slow and fast else None
    if variant == found.run.reference:
        return None
    places = ((dataset, found.speedups.get((variant, dataset, metric))) for dataset in found.run.datasets)
    speedups = {dataset: speedup for dataset, speedup in places if speedup}
    if not speedups:
        return None
    where, best = max(speedups.items(), key=lambda item: item[1].value)
    others = {dataset: speedup.value for dataset, speedup in speedups.items()}
    return Ours(claim.id, found.run.name, variant, where, metric, best.estimate, best.records, others)


def _slowdown(claim: Claim, run: str, slow: Measurement, fast: Measurement) -> Ours:
    ratio = stats.speedup(slow.sampled, fast.sampled)
    where = f"{slow.dataset} ÷ {fast.dataset}"
    return Ours(claim.id, run, slow.variant, where, slow.metric, ratio, slow.records + fast.records, {})
