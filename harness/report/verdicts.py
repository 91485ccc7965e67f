"""Comparisons and self-tests as blocks: for the terminal, or as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis.compare import Comparison, Outcome, Verdict
from harness.analysis.figures import METRICS
from harness.analysis.selftest import ANY, LEAST_FOUND, MOST_FALSE, Rate, SelfTest
from harness.analysis.stats import Estimate
from harness.report import units
from harness.report.blocks import Block, Cell, Item, Items, Paragraph, Strong, Table

_VERDICTS: tuple[Verdict, ...] = ("faster", "slower", "same", "inconclusive")
_KINDS: dict[Verdict, str] = {"faster": "faster", "slower": "slower", "same": "", "inconclusive": "unsure"}


def comparison(outcome: Outcome) -> Iterator[Block]:
    """A row per comparison, then what a reader has to know besides."""
    remarks = list(_remarks(outcome))
    every = outcome.comparisons
    metrics = {METRICS[found.metric]: None for found in every}
    runs = f"{outcome.b} against {outcome.a}" if outcome.a != outcome.b else f"B against A in {outcome.a}"
    headline = f"{runs}, {', '.join(metrics)}: {outcome.verdict}"
    # Columns that do not say the same in every row.
    columns = ["design"] if all(found.a == found.b for found in every) else ["A", "B"]
    columns += ["dataset"] + ["metric"] * (len(metrics) > 1)
    columns += ["A µs", "B µs", "time", "95 % interval"] + ["corrected"] * (len(every) > 1)
    columns.append("verdict")
    rows = [[cells[name] for name in columns] for cells in map(_cells, every)]
    yield Paragraph([Strong(outcome.verdict), f" — {headline}"], only="markdown")
    yield Table(columns, rows, "\n".join(remarks), headline, kind="firm")
    yield Items([Item(remark) for remark in remarks])


def _cells(found: Comparison) -> dict[str, Cell]:
    numbers = {
        "A µs": units.us(found.time_a.value if found.time_a else None),
        "B µs": units.us(found.time_b.value if found.time_b else None),
        "time": _change(found.ratio.value) if found.ratio else units.NONE,
        "95 % interval": _interval(found.ratio),
        "corrected": _interval(found.corrected),
    }
    return {
        "design": Cell(found.a.label),
        "A": Cell(found.a.label),
        "B": Cell(found.b.label),
        "dataset": Cell(found.dataset),
        "metric": Cell(METRICS[found.metric]),
        **{name: Cell(text, kind="number") for name, text in numbers.items()},
        "verdict": Cell(found.verdict, found.reason, kind=f"verdict {_KINDS[found.verdict]}"),
    }


def _interval(ratio: Estimate | None) -> str:
    return f"{_change(ratio.low)[:-2]} … {_change(ratio.high)}" if ratio else units.NONE


def _change(ratio: float) -> str:
    """A ratio of times as a change, for example "+2.1 %": B takes so much longer."""
    return f"{(ratio - 1) * 100:+.2f} %".replace("-", "−")


def _remarks(outcome: Outcome) -> Iterator[str]:
    count = len(outcome.comparisons)
    yield (
        f"Threshold {outcome.threshold * 100:g} %. Slower or faster: the estimate lies beyond it, and the "
        f"interval corrected for {units.count(count, 'comparison')} ({outcome.level * 100:.4g} %) leaves out "
        f"0. Same: the 95 % interval lies within it."
    )
    for difference in outcome.allowed:
        yield f"COMPARED ALTHOUGH DIFFERENT (--allow-different): {difference}."
    for difference in outcome.differences:
        yield f"Differs: {difference}."
    yield from (f"Note: {note}." for note in outcome.notes)


def selftest(tested: SelfTest) -> Table:
    """How often the verdicts were wrong, and how often they found what was injected."""
    title = f"Self-test of {tested.variant.label} in {tested.run}"
    columns = ["order of processes", "dataset", "injected", *_VERDICTS, "rate", "95 % interval", "cautious"]
    rows = [_rate(rate) for rate in tested.rates]
    return Table(columns, rows, "\n".join(_selftest_remarks(tested)), title, kind="firm")


def _rate(rate: Rate) -> list[Cell]:
    least = LEAST_FOUND.get(rate.injected, 0.0)
    wrong = rate.rate < least if rate.injected else rate.rate > MOST_FALSE
    found = f"{rate.rate * 100:.1f} % {'found' if rate.injected else 'false'}"
    cautious = f"{rate.cautious_low * 100:.0f} – {rate.cautious_high * 100:.0f} %"
    injected = f"{rate.injected * 100:g} %" if rate.injected else "nothing"
    counts = (str(rate.verdicts.get(verdict, 0)) for verdict in _VERDICTS)
    return [
        Cell(rate.order),
        Cell("on any" if rate.dataset == ANY else rate.dataset),
        *(Cell(text, kind="number") for text in (injected, *counts)),
        Cell(found, kind="number slower" if wrong else "number"),
        Cell(f"{rate.low * 100:.1f} – {rate.high * 100:.1f} %", kind="number"),
        Cell(cautious, kind="number aside"),
    ]


def _selftest_remarks(tested: SelfTest) -> Iterator[str]:
    yield (
        f"{METRICS[tested.metric]}; {tested.processes} fresh processes of one design, {tested.replicates} "
        f"on each side, threshold {tested.threshold * 100:g} %."
    )
    if tested.left_out:
        yield f"{tested.left_out} further processes had a cell that failed or was throttled."
    yield (
        "Injected: every sample of B made longer by so much. Splits share processes: the interval holds for "
        f"these processes; the cautious one counts only {units.count(tested.disjoint, 'comparison')} without "
        "a process in common."
    )
    drift = ", ".join(f"{lag:.2f} on {dataset}" for dataset, lag in tested.lag_1.items())
    yield (
        f"Processes drift: how much each resembles the one before it (autocorrelation at lag 1): {drift}. "
        "So those of two runs differ more than those of one."
    )
    yield f"Verdicts {'CRY WOLF' if tested.cries_wolf else 'do not cry wolf'}: at most " + (
        f"{MOST_FALSE * 100:g} % false are allowed. Slowdowns are {'MISSED' if tested.misses else 'found'}: "
        + ", ".join(f"of {s * 100:g} % at least {share * 100:g} %" for s, share in LEAST_FOUND.items())
        + " have to be found."
    )
