"""The end of a run on the terminal: speedups per dataset, what won, and whether to believe it."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.analysis import limits, trust
from harness.analysis.frame import Run
from harness.analysis.limits import Limits
from harness.analysis.results import METRICS, Results
from harness.analysis.summary import summary
from harness.report import limit_shares, side_by_side, sweep_lines, units

__all__ = ["show", "summary", "view"]

_MARKS = {"good": ("✓", "green"), "note": ("!", "yellow"), "bad": ("✕", "red")}
NAME = 24
"""Columns of a terminal that a design's name may take before it is folded."""
_COLOURS = {"faster": "green", "slower": "red", "inconclusive": ""}


def show(derived: Results, console: Console | None = None) -> None:
    """Prints the summary of the runs to stdout, or to the console given."""
    (console or Console(highlight=False)).print(view(derived))


def view(derived: Results) -> RenderableType:
    """The summary as something that rich can print."""
    findings = trust.examine(derived)
    found = limits.find(derived)
    parts: list[RenderableType] = []
    for run in derived.loaded.runs:
        parts += [*_winners(derived, found, run), _speedups(derived, run), *_shares(found, run)]
        parts += [_line(finding) for finding in findings if finding.run == run.name]
    parts += map(Text, sweep_lines.of(derived))
    parts += side_by_side.renderables(derived)
    return Group(*parts)


def _speedups(derived: Results, run: Run) -> Table:
    """A row per arm; where it prepares, the kernel alone stands below prepare + kernel."""
    table = _table(
        run,
        f"{run.title}: speedup over {run.reference}",
        "time of the reference ÷ time of the design ± half its interval (95 %), in percent; pin time counted",
    )
    for arm in run.arms:
        headline = derived.headline(run)
        table.add_row(Text(arm), *(_cell(derived, run, arm, dataset, headline) for dataset in run.datasets))
        if any(derived.measurement(run, arm, dataset, "prepare_us") for dataset in run.datasets):
            alone = (_cell(derived, run, arm, dataset, "kernel_us") for dataset in run.datasets)
            table.add_row(Text("  kernel alone", "dim"), *alone)
    return table


def _table(run: Run, title: str, caption: str) -> Table:
    """A column per dataset."""
    table = _plain(title, caption, between=0)
    longest = max(map(len, run.arms), default=0)
    table.add_column("design", overflow="fold", min_width=min(max(14, longest), NAME))
    for dataset in run.datasets:
        table.add_column(Text(dataset), justify="right")
    return table


def _plain(title: str, caption: str, *, between: int = 1) -> Table:
    return Table(
        title=Text(title),
        caption=Text(caption),
        title_justify="left",
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, between, 0, 0),
        pad_edge=False,
    )


def _shares(found: Limits, run: Run) -> list[RenderableType]:
    """The least time per dataset, what binds, and each arm's share of it; nothing where none is known."""
    limits_known = limit_shares.limit_rows(found, run)
    if not limits_known:
        return []
    table = _table(run, "Share of the limit", limit_shares.EXPLAINED)
    for number, (name, *texts) in enumerate(limits_known):
        table.add_row(*(Text(text, "dim") for text in ("  " * (number > 0) + name, *texts)))
    for row in limit_shares.arm_rows(found, run):
        table.add_row(*map(Text, row))
    return [table]


def _cell(derived: Results, run: Run, arm: str, dataset: str, metric: str) -> Text:
    found = derived.speedup(run, arm, dataset, metric)
    if found is None:
        return Text(units.status(run, arm, dataset), "dim")
    if arm == run.reference:
        time = derived.measurements[run.name, arm, dataset, metric].time.value
        return Text(f"{units.us(time)} µs", "dim")
    text = Text(units.ratio(found.ratio.value), _COLOURS[found.verdict])
    return text.append(f" {units.within(found.ratio.relative_half_width)}", "dim")


def _winners(derived: Results, found: Limits, run: Run) -> list[RenderableType]:
    """The fastest arm per dataset, its speedup, and how near it comes to the limit."""
    won = [w for dataset in run.datasets if (w := derived.winner(run, dataset)) and w.rivals]
    if not won:
        return []
    table = _plain(
        f"{run.title}: the fastest, by {METRICS[derived.headline(run)]}, on {units.where(run)}",
        f"speedup over {run.reference}; share of the limit: {limit_shares.EXPLAINED}",
    )
    table.add_column("dataset", overflow="fold")
    table.add_column("fastest", overflow="fold", min_width=14)
    for name in ("speedup", "95 % interval", "µs", "of the limit"):
        table.add_column(name, justify="right")
    for winner in won:
        ratio = winner.speedup.ratio if winner.speedup else None
        share = found.share(run, winner.best.arm, winner.dataset)
        names = [winner.best.arm, *(f"or {arm}" for arm in winner.ties)]
        table.add_row(
            Text(winner.dataset),
            Text("\n".join(names)),
            Text(units.ratio(ratio.value) if ratio else units.NONE, _COLOURS["faster"]),
            Text(units.span(ratio) if ratio and winner.best.arm != run.reference else units.NONE),
            Text(units.us(winner.best.time.value)),
            Text(limit_shares.text(share)),
        )
    return [table]


def _line(finding: trust.Finding) -> Text:
    mark, colour = _MARKS[finding.level]
    return Text.assemble((f"{mark} ", colour), (f"{finding.what}: ", "dim"), finding.detail)
