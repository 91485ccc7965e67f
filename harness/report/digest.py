"""The comparison as Markdown, for a pull request: what the terminal shows, with intervals."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis import limits, trust
from harness.analysis.frame import Run
from harness.analysis.limits import Limits
from harness.analysis.results import METRICS, Results
from harness.report import limit_shares, side_by_side, units
from harness.report.markdown import escaped, table

_MARKS = {"good": "✓", "note": "**!**", "bad": "**✕**"}


def text(derived: Results) -> str:
    """The runs one after the other, as text that ends in a line break."""
    findings = trust.examine(derived)
    found = limits.find(derived)
    parts: list[str] = []
    for run in derived.loaded.runs:
        parts += [f"### {escaped(run.title)}\n", _intervals(derived, run), *_winners(derived, run)]
        parts += _shares(found, run)
        own = [finding for finding in findings if finding.run == run.name]
        parts.append("".join(f"- {_MARKS[f.level]} {escaped(f.what)}: {escaped(f.detail)}\n" for f in own))
    parts += side_by_side.markdown(derived)
    return "\n".join(part for part in parts if part)


def _intervals(derived: Results, run: Run) -> str:
    """Speedups with their intervals; where an arm prepares, the kernel alone stands below."""
    headline = derived.headline(run)
    rows = []
    for arm in run.arms:
        rows.append([arm, *(_cell(derived, run, arm, dataset, headline) for dataset in run.datasets)])
        if any(derived.measurement(run, arm, dataset, "prepare_us") for dataset in run.datasets):
            alone = (_cell(derived, run, arm, dataset, "kernel_us") for dataset in run.datasets)
            rows.append([f"{arm}, kernel alone", *alone])
    where = escaped(units.where(run))
    caption = (
        f"Speedup over {escaped(run.reference)} by {METRICS[headline]}, with its 95 % interval, on {where}.\n"
    )
    return table(["design", *run.datasets], rows) + "\n" + caption


def _cell(derived: Results, run: Run, arm: str, dataset: str, metric: str) -> str:
    found = derived.speedup(run, arm, dataset, metric)
    if found is None:
        return units.status(run, arm, dataset)
    if arm == run.reference:
        return f"{units.us(derived.measurements[run.name, arm, dataset, metric].time.value)} µs"
    return f"{units.ratio(found.ratio.value)} ({units.span(found.ratio)})"


def _winners(derived: Results, run: Run) -> Iterator[str]:
    won = [w for dataset in run.datasets if (w := derived.winner(run, dataset)) and w.rivals]
    if won:
        names = (f"{escaped(w.dataset)} **{escaped(w.best.arm)}**" + " (tied)" * bool(w.ties) for w in won)
        yield f"Fastest, by {METRICS[derived.headline(run)]}: {', '.join(names)}.\n"


def _shares(found: Limits, run: Run) -> Iterator[str]:
    if limits_known := limit_shares.limit_rows(found, run):
        rows = [*limits_known, *limit_shares.arm_rows(found, run)]
        yield table(["share of the limit", *run.datasets], rows)
        yield f"{limit_shares.EXPLAINED[0].upper()}{limit_shares.EXPLAINED[1:]}.\n"
