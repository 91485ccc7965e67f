#!/usr/bin/env python3
"""How often intervals of speedups hold the truth, and with which power, by the number of replicates.

Made-up runs whose processes differ as those of the reference runs do are put through the project's own
statistics: as they are (replicates compared block by block, the spread of processes no less than that of the
whole run), and as they were before (every variant for itself). Writes the table in docs/measurement.md;
`--check` only says whether it is there: exit code 1 if not. Takes some ten seconds; the seed is fixed.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness.analysis import processes, stats
from harness.analysis.stats import Estimate, Sampled, Series

PAGE = Path(__file__).resolve().parents[1] / "docs" / "measurement.md"
BEGIN = "<!-- made by scripts/simulate_intervals.py -->\n"
END = "<!-- end of scripts/simulate_intervals.py -->\n"

# As in the reference runs: the standard deviation of a process's time by dataset, and which parts of that
# variance are of its block (every launch of a replicate met the same drift), of its process on all datasets,
# and of that process on that dataset.
PROCESS_SD = {"one_item": 0.0033, "high": 0.0025, "medium": 0.0020, "low": 0.0016, "random": 0.0013}
BLOCK, PROCESS, OWN = 0.25, 0.45, 0.30
DRIFT = 0.65  # autocorrelation of blocks at lag 1, as of the self-test's processes
UNLIKE = 0.4  # standard deviation of the logarithm of how much more restless one variant is than another
PASSES, PASS_SD, WANDER = 32, 0.004, 0.5
VARIANTS, RUNS = 6, 24
REPLICATES = (2, 3, 4, 5, 7, 10)
GAIN = 0.01


def processes_of(rng: np.random.Generator, replicates: int) -> dict[str, list[list[Series]]]:
    """By dataset of every variant the passes of its replicates; in truth all take 1, the first 1 + GAIN."""
    block = np.zeros(replicates)
    for n in range(replicates):
        before = block[n - 1] if n else rng.normal()
        block[n] = DRIFT * before + np.sqrt(1 - DRIFT**2) * rng.normal()
    restless = np.exp(rng.normal(-(UNLIKE**2) / 2, UNLIKE, VARIANTS))
    process = rng.normal(size=(VARIANTS, replicates))
    found: dict[str, list[list[Series]]] = {}
    for dataset, spread in PROCESS_SD.items():
        own = rng.normal(size=(VARIANTS, replicates))
        common = np.sqrt(BLOCK) * block + np.sqrt(PROCESS) * process + np.sqrt(OWN) * own
        levels = spread * restless[:, None] * common
        levels[0] += np.log1p(GAIN)
        noise = rng.normal(size=(VARIANTS, replicates, PASSES))
        for n in range(1, PASSES):
            noise[..., n] = WANDER * noise[..., n - 1] + np.sqrt(1 - WANDER**2) * noise[..., n]
        passes = np.exp(levels[..., None] + PASS_SD * noise)
        found[dataset] = [list(of) for of in passes]
    return found


def estimates(made: dict[str, list[list[Series]]], key: str, *, now: bool) -> Iterator[Estimate]:
    """Of each variant over the next, on every dataset; between the first and the second is a gain to find."""
    logs = [[[float(np.median(np.log(p))) for p in own] for own in of] for of in made.values()]
    pool = processes.pool(logs) if now else None
    for dataset, every in made.items():
        sampled: list[Sampled] = [
            stats.sample(
                own,
                f"{key}/{dataset}/{n}",
                pool=pool,
                blocks=[f"{key}/{r}" for r in range(len(own))] if now else (),
            )
            for n, own in enumerate(every)
        ]
        for reference, design in itertools.pairwise(sampled):
            yield stats.speedup(reference, design)


def figures(replicates: int, *, now: bool) -> tuple[float, float, float]:
    """Share of intervals that hold the truth, the same of the narrowest tenth, share of gains found."""
    rng = np.random.default_rng(replicates)
    held, width, found = [], [], []
    for run in range(RUNS):
        for n, one in enumerate(estimates(processes_of(rng, replicates), f"run {run}", now=now)):
            first = n % (VARIANTS - 1) == 0
            truth = 1 + GAIN if first else 1.0
            held.append(one.low <= truth <= one.high)
            width.append(one.relative_half_width)
            if first:
                found.append(one.low > 1)
    narrow = np.argsort(width)[: len(width) // 10]
    return float(np.mean(held)), float(np.mean(np.array(held)[narrow])), float(np.mean(found))


def table() -> str:
    """As Markdown."""
    lines = [
        "| replicates | hold the truth | of the narrowest tenth | gains of 1 % found |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for replicates in REPLICATES:
        pairs = zip(*(figures(replicates, now=now) for now in (False, True)), strict=True)
        cells = [f"{before * 100:.0f} → {after * 100:.0f} %" for before, after in pairs]
        lines.append(f"| {replicates} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    made = f"{head}{BEGIN}\n{table()}\n{END}{tail}"
    if sys.argv[1:] == ["--check"]:
        return int(made != text)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
