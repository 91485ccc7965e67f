"""Is B faster than A, slower, the same, or can that not be told? One verdict per dataset, and one for a gate.

Every verdict rests on the time of B ÷ the time of A, on its interval by the hierarchical bootstrap of
`harness.analysis.stats`, and on a threshold (1 % unless told otherwise) below which no difference matters:

* slower, faster: the estimate lies beyond the threshold, and the *corrected* interval leaves out 1. So a
  difference is there, it points this way, and our best estimate of it matters. A true difference of exactly
  the threshold is found in about half of all comparisons: half of the estimates lie beyond it.
* same: the whole 95 % interval lies within the threshold on either side (two one-sided tests, each at 2.5 %).
  A difference that is there but too small to matter is "same", too.
* inconclusive: anything else, always with the reason. More replicates help where the interval is too wide;
  where a cell failed, was throttled or has one process only, nothing is concluded from the rest.

The corrected interval answers for looking several times: with m comparisons each is made at the level
1 - 0.05/m (Bonferroni), so that if nothing changed, a false "faster" or "slower" appears anywhere in at most
5 of 100 runs. "same" needs no such correction: a gate passes only if every comparison is the same or faster,
and a wrong "all the same" needs each of them to go wrong.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.analysis import comparable, results, stats
from harness.analysis.comparable import Difference, Source
from harness.analysis.figures import METRICS
from harness.analysis.frame import LoadedRun, Series, passes
from harness.analysis.processes import Pools
from harness.analysis.provenance import PENDING
from harness.analysis.stats import LEVEL, Estimate, Sampled
from harness.errors import BadInputError
from harness.records import MEASURED, CellRecord, Variant
from harness.text import meant

Verdict = Literal["faster", "slower", "same", "inconclusive"]
SCHEMA_VERSION = 1
THRESHOLD = 0.01
EXIT_CODES: dict[Verdict, int] = {"faster": 0, "same": 0, "slower": 3, "inconclusive": 4}
_NO_REASON = ""


@dataclass(frozen=True)
class Side:
    """What stands on one side: a variant as a run measured it."""

    run: LoadedRun
    variant: Variant

    def records(self, dataset: str) -> list[CellRecord]:
        """Its records on a dataset, in the order of replicates."""
        return sorted(self.run.at(self.variant, dataset), key=lambda r: r.cell.replicate)

    def pending(self, dataset: str) -> int:
        """Its planned cells on a dataset that have no record."""
        return sum((c.variant, c.dataset.name) == (self.variant, dataset) for c in self.run.pending)


@dataclass(frozen=True)
class Comparison:
    """B against A on one dataset by one metric."""

    a: Variant
    b: Variant
    dataset: str
    metric: str
    verdict: Verdict
    reason: str = _NO_REASON
    """Why it is inconclusive."""
    time_a: Estimate | None = None
    time_b: Estimate | None = None
    """µs."""
    ratio: Estimate | None = None
    """Time of B ÷ time of A; 95 %."""
    corrected: Estimate | None = None
    """The same with the interval that answers for all comparisons together."""


@dataclass(frozen=True)
class Outcome:
    """Everything that was compared."""

    a: str
    b: str
    """Names of the runs."""
    comparisons: list[Comparison]
    threshold: float
    level: float
    """Of each corrected interval."""
    allowed: list[Difference]
    """What should have been equal and was not, but was allowed to differ."""
    differences: list[Difference]
    """What may differ, and does."""
    notes: list[str]

    @property
    def verdict(self) -> Verdict:
        """For a gate: slower if any is, else inconclusive if any is; the same unless all are faster."""
        found = {c.verdict for c in self.comparisons}
        worst: tuple[Verdict, ...] = ("slower", "inconclusive", "same", "faster")
        return next(verdict for verdict in worst if verdict in found)

    @property
    def exit_code(self) -> int:
        """0: nothing slower; 3: something is; 4: nothing shown to be, but not everything could be told."""
        return EXIT_CODES[self.verdict]


def judge(ratio: Estimate, corrected: Estimate, threshold: float) -> Verdict:
    """The rule. Both are the time of B ÷ the time of A, one with the corrected interval."""
    limit = 1 + threshold
    if ratio.value >= limit and corrected.low > 1:
        return "slower"
    if ratio.value <= 1 / limit and corrected.high < 1:
        return "faster"
    return "same" if 1 / limit < ratio.low and ratio.high < limit else "inconclusive"


def contest(a: Sampled, b: Sampled, comparisons: int, threshold: float) -> tuple[Estimate, Estimate, Verdict]:
    """Ratio, corrected ratio and verdict of one of so many comparisons."""
    ratio = stats.speedup(b, a)  # a speedup is reference ÷ design; here time of B ÷ time of A
    corrected = stats.speedup(b, a, corrected_level(comparisons))
    return ratio, corrected, judge(ratio, corrected, threshold)


def corrected_level(comparisons: int) -> float:
    """Level of each of so many intervals that together hold at 95 %."""
    return 1 - (1 - LEVEL) / comparisons


def pairs(run_a: LoadedRun, run_b: LoadedRun, a: str | None, b: str | None) -> list[tuple[Side, Side]]:
    """Which variants stand against each other.

    Two runs: each variant that both have, or those named by their labels. One run: each against the run's
    reference, or those named. BadInputError where one is not there or nothing is left to compare.
    """
    one = run_a is run_b
    named_a, named_b = (run.variant(label) if label else None for run, label in ((run_a, a), (run_b, b)))
    if one:
        first = named_a or run_a.reference
        found = [(first, other) for other in ([named_b] if named_b else run_a.variants) if other != first]
    elif only := named_a or named_b:
        found = [(named_a or only, named_b or only)]
        for run, variant in zip((run_a, run_b), found[0], strict=True):
            if variant not in run.variants:
                raise BadInputError(
                    f"{run.name}: has no arm {variant.label!r}; name both arms with --a and --b."
                )
    else:
        found = [(variant, variant) for variant in run_a.variants if variant in run_b.variants]
    if not found and one and len(run_a.variants) == 1:
        raise BadInputError(
            f"{run_a.name}: has no two arms to compare, only {_labels(run_a.variants)}; name a second run."
        )
    if not found:
        arms = _labels(run_a.variants) + ("" if one else f" against {_labels(run_b.variants)}")
        raise BadInputError(
            f"{run_a.name}: there are no two arms to compare ({arms}); name them with --a and --b."
        )
    return [(Side(run_a, x), Side(run_b, y)) for x, y in found]


def _labels(variants: Sequence[Variant]) -> str:
    return ", ".join(variant.label for variant in variants)


def compare(
    sides: Sequence[tuple[Side, Side]],
    *,
    metrics: Sequence[str],
    datasets: Sequence[str] = (),
    threshold: float = THRESHOLD,
    allow_different: bool = False,
) -> Outcome:
    """Every pair on every dataset (or those named) by every metric.

    BadInputError where a dataset is unknown, or what has to be equal is not and `allow_different` is not set;
    whatever is set, where the cache protocol is not the same.
    """
    run_a, run_b = sides[0][0].run, sides[0][1].run
    known = list(dict.fromkeys([*run_a.datasets, *run_b.datasets]))
    if unknown := [name for name in datasets if name not in known]:
        raise BadInputError(
            f"{unknown[0]}: is a dataset of neither run; they have: {', '.join(known)}."
            f"{meant(unknown[0], known)}"
        )
    wanted = [name for name in known if name in datasets or not datasets]
    sources_a, sources_b = (
        [Source(r, s.run.folder) for s in side for name in wanted for r in s.records(name) if _has(r)]
        for side in ([a for a, _ in sides], [b for _, b in sides])
    )
    forbidden = comparable.forbidding(sources_a, sources_b)
    if never := comparable.never_compared(forbidden):
        raise BadInputError(
            f"{run_a.name} and {run_b.name} cannot be compared. {'; '.join(map(str, never))}. Measure one of"
            " them again with the other's --set timing.cache=VALUE."
        )
    if forbidden and not allow_different:
        raise BadInputError(
            f"{run_a.name} and {run_b.name} cannot be compared. {'; '.join(map(str, forbidden))}. "
            f"With --allow-different they are compared all the same, and the output says so."
        )
    places = [
        (a, b, dataset, metric)
        for a, b in sides
        for dataset in wanted
        if _planned(a, dataset) or _planned(b, dataset)
        for metric in metrics
    ]
    if not places:
        raise BadInputError(f"{', '.join(wanted)}: neither side was to measure that.")
    pools = {run.name: results.pools(run.whole.records) for run in (run_a, run_b)}
    return Outcome(
        a=run_a.name,
        b=run_b.name,
        comparisons=[
            _compared(*place, pools=pools, comparisons=len(places), threshold=threshold) for place in places
        ],
        threshold=threshold,
        level=corrected_level(len(places)),
        allowed=forbidden,
        differences=comparable.worth_saying(sources_a, sources_b),
        notes=_notes(sides, [*sources_a, *sources_b]),
    )


def as_json(outcome: Outcome) -> dict[str, Any]:
    """What the table shows, as JSON-ready data; `schema_version` grows when a key changes its meaning."""
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": outcome.verdict,
        "exit_code": outcome.exit_code,
        "rule": "slower, faster: estimate beyond the threshold and corrected interval without 1; "
        "same: 95 % interval within the threshold; ratio = time of b ÷ time of a",
        "corrected_level": outcome.level,
        **{k: v for k, v in dataclasses.asdict(outcome).items() if k != "level"},
        "comparisons": [
            {**dataclasses.asdict(found), "a": found.a.label, "b": found.b.label}
            for found in outcome.comparisons
        ],
    }


def _has(record: CellRecord) -> bool:
    return record.status in MEASURED


def _planned(side: Side, dataset: str) -> bool:
    return bool(side.records(dataset)) or side.pending(dataset) > 0


def _compared(
    a: Side,
    b: Side,
    dataset: str,
    metric: str,
    *,
    pools: Mapping[str, Pools],
    comparisons: int,
    threshold: float,
) -> Comparison:
    """`pools`: by run what its processes say together."""
    place = (a.variant, b.variant, dataset, metric)
    reason = _lack(a, b, dataset)
    of_a, of_b = (sampled(side, dataset, metric, pools[side.run.name]) for side in (a, b))
    if of_a is None or of_b is None:
        return Comparison(*place, "inconclusive", reason or f"{METRICS[metric]} not measured")
    ratio, corrected, verdict = contest(of_a, of_b, comparisons, threshold)
    if reason:
        verdict = "inconclusive"
    elif verdict == "inconclusive":
        reason = _width(ratio, corrected, threshold)
    return Comparison(*place, verdict, reason, stats.time(of_a), stats.time(of_b), ratio, corrected)


def sampled(side: Side, dataset: str, metric: str, pools: Pools) -> Sampled | None:
    """A side's time on a dataset; `pools`: of its run. None where it was not measured."""
    records = side.records(dataset)
    if not (series := series_of(records, metric)):
        return None
    return stats.sample(
        series,
        f"{side.run.name}/{side.variant.label}/{dataset}/{metric}",
        pool=pools[metric],
        blocks=[results.block(side.run.name, record) for record in having(records, metric)],
    )


def having(records: Sequence[CellRecord], metric: str) -> list[CellRecord]:
    """Those that measured it."""
    return [record for record in records if _has(record) and metric in passes(record)]


def series_of(records: Sequence[CellRecord], metric: str) -> list[Series]:
    """The passes of every record that has them, µs."""
    return [passes(record)[metric] for record in having(records, metric)]


def _lack(a: Side, b: Side, dataset: str) -> str:
    """Why nothing can be concluded, whatever the figures say; empty where they can speak."""
    return lack(a, dataset, "A") or lack(b, dataset, "B")


def lack(side: Side, dataset: str, name: str) -> str:
    """The same of one side, which is called so in the sentence."""
    statuses = Counter[str](r.status for r in side.records(dataset) if r.status != "ok")
    statuses += Counter({PENDING: side.pending(dataset)})
    total = len(side.records(dataset)) + side.pending(dataset)
    if not total:
        return f"{name} did not measure it"
    if statuses:
        what = ", ".join(f"{n} {status}" for status, n in sorted(statuses.items()))
        return f"of {total} cells of {name}: {what}"
    if total == 1:
        return f"{name} has one process; how processes differ is not known"
    return _NO_REASON


def _width(ratio: Estimate, corrected: Estimate, threshold: float) -> str:
    beyond = ratio.value >= 1 + threshold or ratio.value <= 1 / (1 + threshold)
    if beyond:
        return "beyond the threshold, but the corrected interval allows for equality; measure more replicates"
    return "the interval reaches beyond the threshold; measure more replicates"


def _notes(sides: Sequence[tuple[Side, Side]], sources: Sequence[Source]) -> list[str]:
    """What a reader should know besides: arms left out, and cells to be read with care."""
    notes = []
    run_a, run_b = sides[0][0].run, sides[0][1].run
    if run_a is not run_b and all(a.variant == b.variant for a, b in sides):
        for run, compared in ((run_a, {a.variant for a, _ in sides}), (run_b, {b.variant for _, b in sides})):
            if left := [variant for variant in run.variants if variant not in compared]:
                notes.append(f"not compared: {_labels(left)} of {run.name}")
        before = {record.cell.id: record for record in run_a.records}
        if copied := sum(before.get(record.cell.id) == record for record in run_b.records):
            notes.append(f"both runs hold the very same {copied} records")
    records = list({id(source.record): source.record for source in sources}.values())
    cares = {
        "measured on the CPU with PyTorch's own operator": [r.cell.workload.device == "cpu" for r in records],
        "other processes were on the GPU": [
            r.environment is not None and r.environment.other_processes > 0 for r in records
        ],
        "output not shown to be right": [r.check is None or not r.check.passed for r in records],
    }
    return notes + [f"{what}: {sum(of)} of {len(of)} cells" for what, of in cares.items() if any(of)]
