"""The paper's claims (experiments/claims.toml) beside what the records say about each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.analysis import stats
from harness.analysis.frame import Run
from harness.analysis.results import Measurement, Results
from harness.analysis.stats import Estimate
from harness.experiment import EXPERIMENTS_DIR
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

    run: str
    arm: str
    dataset: str
    """Where the largest ratio was found."""
    metric: str
    ratio: Estimate
    records: list[str]
    others: dict[str, float]
    """The ratio on every dataset."""


def read(path: Path = CLAIMS_FILE) -> Claims:
    """The claims; BadInputError where the file is missing or does not fit."""
    return validated(Claims, read_toml(path), path)


def beside(claim: Claim, results: Results) -> list[Ours]:
    """What the runs say about a claim, a line per run, arm and metric; empty where nothing was measured."""
    metrics = claim.metrics or METRICS
    found = []
    for run in results.loaded.runs:
        for arm in run.arms:
            if arm.split("@")[0].split(",")[0] in claim.designs:
                lines = (_ours(claim, results, run, arm, metric) for metric in metrics)
                found += [line for line in lines if line is not None]
    return found


def _ours(claim: Claim, results: Results, run: Run, arm: str, metric: str) -> Ours | None:
    if claim.kind == "slowdown":
        slow = results.measurement(run, arm, claim.slow, metric)
        fast = results.measurement(run, arm, claim.fast, metric)
        if slow is None or fast is None:
            return None
        return _slowdown(slow, fast)
    speedups = [s for dataset in run.datasets if (s := results.speedup(run, arm, dataset, metric))]
    if not speedups or arm == run.reference:
        return None
    best = max(speedups, key=lambda s: s.ratio.value)
    others = {s.dataset: s.ratio.value for s in speedups}
    return Ours(run.name, arm, best.dataset, metric, best.ratio, best.records, others)


def _slowdown(slow: Measurement, fast: Measurement) -> Ours:
    ratio = stats.speedup(slow.sampled, fast.sampled)
    where = f"{slow.dataset} ÷ {fast.dataset}"
    return Ours(slow.run, slow.arm, where, slow.metric, ratio, slow.records + fast.records, {})
