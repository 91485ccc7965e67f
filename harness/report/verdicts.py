"""Comparisons and self-tests as blocks: for the terminal, or as Markdown for a pull request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from harness.analysis.compare import Comparison, Outcome, Verdict
from harness.analysis.figures import METRICS
from harness.analysis.selftest import ANY, LEAST_FOUND, MOST_FALSE, Rate, SelfTest
from harness.analysis.stats import Estimate
from harness.report import units
from harness.report.blocks import Block, Cell, Item, Items, Paragraph, Strong, Table

_VERDICTS: tuple[Verdict, ...] = ("faster", "slower", "same", "inconclusive")
_KINDS: dict[Verdict, str] = {"faster": "faster", "slower": "slower", "same": "", "inconclusive": "unsure"}


def comparison(outcome: Outcome) -> Iterator[Block]:
    """A sentence per pair, a row per comparison, then what a reader has to know besides."""
    remarks = list(_remarks(outcome))
    every = outcome.comparisons
    metrics = {METRICS[found.metric]: None for found in every}
    runs = f"{outcome.b} against {outcome.a}" if outcome.a != outcome.b else f"B against A in {outcome.a}"
    headline = f"{runs}, {', '.join(metrics)}: {outcome.verdict}"
    pairs: dict[tuple[str, str], list[Comparison]] = {}
    for found in every:
        pairs.setdefault((found.a.label, found.b.label), []).append(found)
    told = [_sentence(outcome, pair) for pair in pairs.values()]
    # Columns that do not say the same in every row.
    columns = ["design"] if all(found.a == found.b for found in every) else ["A", "B"]
    columns += ["dataset"] + ["metric"] * (len(metrics) > 1)
    columns += ["A µs", "B µs", "time", "95 % interval"] + ["corrected"] * (len(every) > 1)
    columns.append("verdict")
    rows = [[cells[name] for name in columns] for cells in map(_cells, every)]
    yield Paragraph([Strong(outcome.verdict), f" — {headline}"], only="markdown")
    batches = any(found.metric.startswith(("stage", "e2e")) for found in every)
    tables = any(not found.metric.startswith(("stage", "e2e")) for found in every)
    per = " or ".join(["table"] * tables + ["batch (stage, inference)"] * batches)
    yield Paragraph(f"{headline}. Times in µs per {per}.\n", only="terminal")
    yield Items([Item(sentence) for sentence in told])
    yield Table(columns, rows, only="markdown")
    yield _short(pairs, told, several_metrics=len(metrics) > 1)
    yield Paragraph("\n".join([*_reasons(every), *remarks]), only="terminal")
    yield Items([Item(remark) for remark in remarks])


def _sentence(outcome: Outcome, pair: Sequence[Comparison]) -> str:
    """How many times as fast B is as A, over the datasets of a pair."""
    a, b = pair[0].a.label, pair[0].b.label
    names = (f"{b} of {outcome.b}", f"that of {outcome.a}") if a == b and outcome.a != outcome.b else (b, a)
    known = [found for found in pair if found.ratio]
    if not known:
        return f"{names[0]} and {names[1]} could not be compared."
    if len(known) == 1:
        ratio = known[0].ratio
        assert ratio is not None
        half = (1 / ratio.low - 1 / ratio.high) / 2
        fast = f"{1 / ratio.value:.2f} ± {max(half, 0.005):.2f}"
        return f"{names[0]} is {fast} times as fast as {names[1]} on {known[0].dataset}: {known[0].verdict}."
    speeds = [1 / found.ratio.value for found in known if found.ratio]
    counts = Counter(found.verdict for found in pair)
    told = ", ".join(f"{verdict} in {counts[verdict]}" for verdict in _VERDICTS if counts[verdict])
    of = f" of {len(pair)}"
    low, high = f"{min(speeds):.2f}", f"{max(speeds):.2f}"
    span = low if low == high else f"{low} to {high}"
    return f"{names[0]} is {span} times as fast as {names[1]}: {told}{of}."


def _short(
    pairs: Mapping[tuple[str, str], Sequence[Comparison]], told: Sequence[str], several_metrics: bool
) -> Table:
    """For 80 columns: a pair's sentence heads its rows, and reasons stand below the table."""
    columns = ["dataset"] + ["metric"] * several_metrics
    columns += ["A µs", "B µs", "time", "95 % interval", "corrected", "verdict"]
    rows: list[list[Cell]] = []
    for sentence, found in zip(told, pairs.values(), strict=True):
        rows.append([Cell(sentence)])
        for cells in map(_cells, found):
            verdict = replace(cells["verdict"], detail="")
            rows.append([cells[name] if name != "verdict" else verdict for name in columns])
    return Table(columns, rows, kind="firm dense", only="terminal")


def _reasons(every: Sequence[Comparison]) -> Iterator[str]:
    """Why comparisons are inconclusive, each reason once."""
    places: dict[str, list[str]] = {}
    for found in every:
        if found.reason:
            places.setdefault(found.reason, []).append(f"{found.b.label} on {found.dataset}")
    for reason, where in places.items():
        yield f"Inconclusive, {reason}: {', '.join(where)}."


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
    """A ratio of times as a change, for example "+2.10 %": B takes so much longer."""
    change = (ratio - 1) * 100
    return f"{change:+.{2 if abs(change) < 10 else 1}f} %".replace("-", "−")


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
