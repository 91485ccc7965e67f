"""Comparisons and self-tests as people read them: tables on the terminal, or Markdown for a pull request."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.compare import Comparison, Outcome, Verdict
from harness.analysis.results import METRICS
from harness.analysis.selftest import ANY, LEAST_FOUND, MOST_FALSE, SelfTest
from harness.analysis.stats import Estimate
from harness.report import units
from harness.report.markdown import escaped

_NUMBERS = ("A µs", "B µs", "time", "95 % interval", "corrected")
_VERDICTS: tuple[Verdict, ...] = ("faster", "slower", "same", "inconclusive")
_COLOURS: dict[Verdict, str] = {"faster": "green", "slower": "red", "same": "", "inconclusive": "yellow"}


def show(outcome: Outcome, console: Console | None = None) -> None:
    """Prints the comparison to stdout, or to the console given."""
    grid = _grid(_headline(outcome), _remarks(outcome))
    names = _columns(outcome)
    for name in names:
        number = name in _NUMBERS
        grid.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for found in outcome.comparisons:
        verdict = Text(found.verdict, _COLOURS[found.verdict])
        if found.reason:
            verdict.append(f": {found.reason}", "dim")
        cells = _cells(found)
        grid.add_row(*(verdict if name == "verdict" else Text(cells[name]) for name in names))
    _print(grid, console)


def show_selftest(tested: SelfTest, console: Console | None = None) -> None:
    """Prints how often the verdicts were wrong, and how often they found what was injected."""
    grid = _grid(f"Self-test of {tested.arm} in {tested.run}", _selftest_remarks(tested))
    for name in ("order of processes", "dataset", "injected", *_VERDICTS, "rate"):
        grid.add_column(name, justify="left" if name in ("order of processes", "dataset") else "right")
    grid.add_column("95 % interval", justify="right", no_wrap=True)
    grid.add_column("cautious", justify="right", no_wrap=True)
    for rate in tested.rates:
        least = LEAST_FOUND.get(rate.injected, 0.0)
        wrong = rate.rate < least if rate.injected else rate.rate > MOST_FALSE
        counts = [Text(str(rate.verdicts.get(verdict, 0))) for verdict in _VERDICTS]
        grid.add_row(
            Text(rate.order),
            Text("on any" if rate.dataset == ANY else rate.dataset),
            Text(f"{rate.injected * 100:g} %" if rate.injected else "nothing"),
            *counts,
            Text(f"{rate.rate * 100:.1f} % {'found' if rate.injected else 'false'}", "red" if wrong else ""),
            Text(f"{rate.low * 100:.1f} – {rate.high * 100:.1f} %"),
            Text(f"{rate.cautious_low * 100:.0f} – {rate.cautious_high * 100:.0f} %", "dim"),
        )
    _print(grid, console)


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
    yield f"Verdicts {'CRY WOLF' if tested.cries_wolf else 'do not cry wolf'}: at most " + (
        f"{MOST_FALSE * 100:g} % false are allowed. Slowdowns are {'MISSED' if tested.misses else 'found'}: "
        + ", ".join(f"of {s * 100:g} % at least {share * 100:g} %" for s, share in LEAST_FOUND.items())
        + " have to be found."
    )


def markdown(outcome: Outcome) -> str:
    """The comparison for a pull request."""
    names = _columns(outcome)
    lines = [f"**{outcome.verdict}** — {escaped(_headline(outcome))}", ""]
    lines.append(f"| {' | '.join(names)} |")
    lines.append(f"| {' | '.join('---:' if name in _NUMBERS else '---' for name in names)} |")
    for found in outcome.comparisons:
        verdict = f"**{found.verdict}**" + (f": {escaped(found.reason)}" if found.reason else "")
        cells = {name: escaped(text) for name, text in _cells(found).items()} | {"verdict": verdict}
        lines.append(f"| {' | '.join(cells[name] for name in names)} |")
    return "\n".join([*lines, "", *(f"- {escaped(remark)}" for remark in _remarks(outcome))]) + "\n"


def _grid(title: str, remarks: Iterable[str]) -> Table:
    return Table(
        title=Text(title),
        caption=Text("\n".join(remarks)),
        title_justify="left",
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _print(grid: Table, console: Console | None) -> None:
    # Beside a terminal (a log, a pull request) 80 columns would fold the numbers.
    width = None if sys.stdout.isatty() else 140
    (console or Console(highlight=False, width=width)).print(grid)


def _headline(outcome: Outcome) -> str:
    metrics = {METRICS[found.metric]: None for found in outcome.comparisons}
    runs = f"{outcome.b} against {outcome.a}" if outcome.a != outcome.b else f"B against A in {outcome.a}"
    return f"{runs}, {', '.join(metrics)}: {outcome.verdict}"


def _columns(outcome: Outcome) -> list[str]:
    """Those that do not say the same in every row."""
    every = outcome.comparisons
    names = ["design"] if all(found.a == found.b for found in every) else ["A", "B"]
    names += ["dataset"] + ["metric"] * (len({found.metric for found in every}) > 1)
    names += ["A µs", "B µs", "time", "95 % interval"] + ["corrected"] * (len(every) > 1)
    return [*names, "verdict"]


def _cells(found: Comparison) -> dict[str, str]:
    return {
        "design": found.a,
        "A": found.a,
        "B": found.b,
        "dataset": found.dataset,
        "metric": METRICS[found.metric],
        "A µs": units.us(found.time_a.value if found.time_a else None),
        "B µs": units.us(found.time_b.value if found.time_b else None),
        "time": _change(found.ratio.value) if found.ratio else units.NONE,
        "95 % interval": _interval(found.ratio),
        "corrected": _interval(found.corrected),
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
