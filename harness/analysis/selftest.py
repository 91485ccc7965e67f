"""How often a verdict would be wrong: one design under two names, many times, with and without a slowdown.

The same design is measured in many fresh processes. A split picks some of them as A and as many others as B
and judges B against A exactly as `harness compare` would: same statistics, same threshold, same correction
for the number of datasets. Nothing differs, so every "faster" or "slower" is a false one.

Two orders of splits: *shuffled*, processes at random, as designs stand interleaved within one run; and
*consecutive*, A's processes one after another and B's so too, later, as two runs stand to each other. Drift
of the machine shows in the second alone.

A slowdown of s is injected by multiplying every sample of B by 1 + s before the statistics see it, on top of
the noise that is really there. A slowdown that adds noise of its own would be found less often.

Splits share processes, so they are not independent of each other. Each rate therefore has two intervals, both
exact binomial ones at 95 %: over the splits, which says how well the rate of *these processes* is known; and
a cautious one for processes yet to come, which counts as few comparisons as there are without a process in
common. The truth lies between: the mean over all splits varies less than the mean over the disjoint ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from harness.analysis import compare, processes, stats
from harness.analysis.compare import Side, Verdict
from harness.analysis.frame import LoadedRun, Series
from harness.analysis.stats import LEVEL, Sampled
from harness.errors import BadInputError
from harness.progress import Progress, Silent
from harness.records import Variant

Order = Literal["shuffled", "consecutive"]
SCHEMA_VERSION = 1
INJECTED = (0.0, 0.01, 0.02, 0.05)
"""Slowdowns; 0.05: B takes 5 % longer."""
ANY = "any"
"""In the place of a dataset: whether it happens on any of them, as a gate over all would see it."""
_TELLING: tuple[Verdict, ...] = ("slower", "faster", "inconclusive", "same")
MOST_FALSE = 0.05
LEAST_FOUND = {0.05: 0.95}
"""What is asked of the verdicts: share of false ones, and by slowdown share of found ones."""


@dataclass(frozen=True)
class Rate:
    """How splits of one order were judged on one dataset, or on any."""

    dataset: str
    order: Order
    injected: float
    splits: int
    verdicts: dict[Verdict, int]
    hits: int
    """Nothing injected: splits with a false "faster" or "slower". Otherwise: splits found "slower"."""
    rate: float
    low: float
    high: float
    """For these processes."""
    cautious_low: float
    cautious_high: float
    """For processes yet to come."""


@dataclass(frozen=True)
class SelfTest:
    """All rates of one variant of a run."""

    run: str
    variant: Variant
    metric: str
    processes: int
    left_out: int
    """Processes with a cell that failed or was throttled."""
    replicates: int
    """Processes on each side of a split."""
    threshold: float
    disjoint: int
    """Comparisons that can be made of these processes without one in common."""
    lag_1: dict[str, float]
    """By dataset how much each process resembles the one before it: their autocorrelation at lag 1."""
    rates: list[Rate]

    @property
    def cries_wolf(self) -> bool:
        """Whether any rate of false verdicts is above MOST_FALSE."""
        return any(rate.rate > MOST_FALSE for rate in self.rates if not rate.injected)

    @property
    def misses(self) -> bool:
        """Whether a slowdown that has to be found is found too rarely."""
        return any(rate.rate < LEAST_FOUND.get(rate.injected, 0.0) for rate in self.rates)


def exit_code(tests: Sequence[SelfTest]) -> int:
    """0: all as promised; 3: some verdicts cry wolf; 4: none do, but slowdowns are missed."""
    return 3 if any(test.cries_wolf for test in tests) else 4 if any(test.misses for test in tests) else 0


def examine(
    run: LoadedRun,
    variant: Variant,
    *,
    metric: str = "total_us",
    replicates: int = 3,
    splits: int = 500,
    threshold: float = compare.THRESHOLD,
    progress: Progress | None = None,
) -> SelfTest:
    """Judges many splits of one variant's processes. BadInputError where there are too few of them."""
    progress = progress or Silent()
    measured, left_out = _processes(run, variant, metric)
    count = len(next(iter(measured.values()), []))
    if count < 2 * replicates or replicates < 2:
        raise BadInputError(
            f"{run.name}: {count} processes of {variant.label} have every dataset measured; two sides of "
            f"{replicates} need {max(4, 2 * replicates)} (at least 2 on each side)."
        )
    chosen: dict[Order, list[_Split]] = {
        "shuffled": _shuffled(count, replicates, splits),
        "consecutive": _consecutive(count, replicates, splits),
    }
    progress.expect(sum(map(len, chosen.values())))
    disjoint = count // (2 * replicates)
    rates = []
    for order, every in chosen.items():
        judged: dict[tuple[str, float], list[Verdict]] = {}
        for number, split in enumerate(every):
            progress.now(f"{order} splits of {variant.label}")
            for place, verdict in _judged(measured, split, f"{order}/{number}", threshold).items():
                judged.setdefault(place, []).append(verdict)
            progress.advance()
        rates += [
            _rate(dataset, order, injected, found, disjoint) for (dataset, injected), found in judged.items()
        ]
    lag_1 = {
        dataset: processes.autocorrelation([processes.level(passes) for passes in of])
        for dataset, of in measured.items()
    }
    return SelfTest(run.name, variant, metric, count, left_out, replicates, threshold, disjoint, lag_1, rates)


def as_json(tests: Sequence[SelfTest]) -> dict[str, Any]:
    """JSON-ready data; `schema_version` grows when a key changes its meaning."""
    return {
        "schema_version": SCHEMA_VERSION,
        "method": {
            "split": "processes of one arm as A, others as B, judged as `harness compare` judges",
            "injection": "every sample of B multiplied by 1 + injected, before the statistics",
            "low, high": "exact binomial interval over splits, which share processes: for these processes",
            "cautious_low, cautious_high": "the same over disjoint comparisons only: for other processes",
            "level": LEVEL,
        },
        "most_false": MOST_FALSE,
        "least_found": {f"{slowdown:g}": share for slowdown, share in LEAST_FOUND.items()},
        "exit_code": exit_code(tests),
        "tests": [_as_json(test) for test in tests],
    }


def _as_json(test: SelfTest) -> dict[str, Any]:
    told = dataclasses.asdict(test)
    return {"run": told.pop("run"), "arm": test.variant.label} | {k: told[k] for k in told if k != "variant"}


_Split = tuple[Sequence[int], Sequence[int]]


def _processes(run: LoadedRun, variant: Variant, metric: str) -> tuple[dict[str, list[Series]], int]:
    """By dataset the passes of every process that has them on all datasets, in the order of processes."""
    side = Side(run, variant)
    found: dict[int, dict[str, Series]] = {}
    for dataset in run.datasets:
        for record in side.records(dataset):
            of = found.setdefault(record.cell.replicate, {})
            if record.status == "ok" and (series := compare.series_of([record], metric)):
                of[dataset] = series[0]
    whole = [found[n] for n in sorted(found) if len(found[n]) == len(run.datasets)]
    return {dataset: [of[dataset] for of in whole] for dataset in run.datasets}, len(found) - len(whole)


def _shuffled(count: int, replicates: int, splits: int) -> list[_Split]:
    rng = np.random.default_rng(0)
    picked = [rng.permutation(count)[: 2 * replicates].tolist() for _ in range(splits)]
    return [(each[:replicates], each[replicates:]) for each in picked]


def _consecutive(count: int, replicates: int, splits: int) -> list[_Split]:
    """Every pair of blocks, the later one as B; a random choice where there are more than `splits`."""
    last = count - replicates
    starts = [(a, b) for a in range(last + 1) for b in range(a + replicates, last + 1)]
    if len(starts) > splits:
        rng = np.random.default_rng(0)
        starts = [starts[n] for n in sorted(rng.choice(len(starts), splits, replace=False))]
    return [(range(a, a + replicates), range(b, b + replicates)) for a, b in starts]


def _judged(
    measured: dict[str, list[Series]], split: _Split, key: str, threshold: float
) -> dict[tuple[str, float], Verdict]:
    """Verdict by dataset (and ANY) and injected slowdown."""
    levels = {name: [processes.level(passes) for passes in of] for name, of in measured.items()}
    pool = processes.pool([[of[n] for n in picked] for picked in split] for of in levels.values())
    sides = {
        dataset: [
            stats.sample([series[n] for n in picked], f"{name}/{dataset}/{key}", pool=pool)
            for name, picked in zip("AB", split, strict=True)
        ]
        for dataset, series in measured.items()
    }
    found: dict[tuple[str, float], Verdict] = {}
    for injected in INJECTED:
        verdicts = [
            compare.contest(a, slowed(b, injected), len(sides), threshold)[2] for a, b in sides.values()
        ]
        found |= {(dataset, injected): v for dataset, v in zip(sides, verdicts, strict=True)}
        if len(sides) > 1:
            found[ANY, injected] = next(v for v in _TELLING if v in verdicts)
    return found


def slowed(sampled: Sampled, injected: float) -> Sampled:
    """What `stats.sample` makes of the same samples, each multiplied by 1 + injected."""
    more = math.log(1 + injected)
    return dataclasses.replace(sampled, log_time=sampled.log_time + more, levels=sampled.levels + more)


def _rate(dataset: str, order: Order, injected: float, found: list[Verdict], disjoint: int) -> Rate:
    counts: Counter[Verdict] = Counter(found)
    hits = counts["slower"] if injected else counts["slower"] + counts["faster"]
    rate = hits / len(found)
    return Rate(
        dataset,
        order,
        injected,
        len(found),
        dict(counts),
        hits,
        rate,
        *binomial(hits, len(found)),
        *binomial(rate * disjoint, disjoint),
    )


def binomial(hits: float, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's exact 95 % interval of a rate."""
    tail = (1 - LEVEL) / 2
    low = float(special.betaincinv(hits, trials - hits + 1, tail)) if hits > 0 else 0.0
    high = float(special.betaincinv(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return low, high
