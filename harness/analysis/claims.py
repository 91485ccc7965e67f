"""The paper's claims (experiments/claims.toml) beside what the records say about each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.analysis import paper, results, stats
from harness.analysis.figures import Figure
from harness.analysis.paper import Match
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
class Row:
    """A claim and the one figure of ours that is measured as the paper measured it."""

    claim: str
    """Its id."""
    measured: str
    """What the paper timed."""
    metric: str
    """Ours that times the same."""
    arm: str
    """Label of ours that is the same contestant."""
    against: str
    """Label of what it is compared with; of a slowdown the arm itself."""
    differs: list[str]
    """Why the two figures may differ all the same, the weightiest first."""
    ours: Ours | None
    """Null where no run has what it needs."""


@dataclass(frozen=True)
class Beside:
    """The paper's claims, and what the runs say about them."""

    source: Source
    claims: list[Claim]
    rows: list[Row]
    """One per claim."""
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
    every = [one for claim in known.claims for one in beside(claim, runs)]
    return Beside(known.source, known.claims, list(rows(known.claims, runs)), every)


def rows(claims: Sequence[Claim], runs: Sequence[Measured]) -> Iterator[Row]:
    """Of every claim whose match is known the figure that is measured alike.

    From the run that has it on most datasets, the first of several; of a run on the CPU none.
    """
    known = paper.matches()
    for claim in claims:
        if match := known.get(claim.id):
            found = (_alike(claim, match, run) for run in runs if not run.run.on_cpu)
            ours = max((one for one in found if one), key=lambda one: len(one.others), default=None)
            yield Row(
                *(claim.id, match.measured, match.metric, match.arm, match.against),
                differs=list(match.differs),
                ours=ours,
            )


def _alike(claim: Claim, match: Match, found: Measured) -> Ours | None:
    labelled = {variant.label: variant for variant in found.run.variants}
    arm, against = labelled.get(match.arm), labelled.get(match.against)
    if arm is None or against is None:
        return None
    if claim.kind == "slowdown":
        slow, fast = (found.at(arm, dataset, match.metric) for dataset in (claim.slow, claim.fast))
        return _slowdown(claim, found.run.name, slow, fast) if slow and fast else None
    speedups = {
        dataset: results.speedup_over(theirs, ours)
        for dataset in found.run.datasets
        if (theirs := found.at(against, dataset, match.metric))
        and (ours := found.at(arm, dataset, match.metric))
    }
    return _largest(claim, found.run.name, arm, match.metric, speedups)


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
    return _largest(claim, found.run.name, variant, metric, speedups)


def _largest(
    claim: Claim, run: str, variant: Variant, metric: str, speedups: Mapping[str, Figure]
) -> Ours | None:
    """Of those on every dataset; None without any."""
    if not speedups:
        return None
    where, best = max(speedups.items(), key=lambda item: item[1].value)
    others = {dataset: speedup.value for dataset, speedup in speedups.items()}
    return Ours(claim.id, run, variant, where, metric, best.estimate, best.records, others)


def _slowdown(claim: Claim, run: str, slow: Measurement, fast: Measurement) -> Ours:
    ratio = stats.speedup(slow.sampled, fast.sampled)
    where = f"{slow.dataset} ÷ {fast.dataset}"
    return Ours(claim.id, run, slow.variant, where, slow.metric, ratio, slow.records + fast.records, {})
