"""The end of a run on the terminal: speedups per dataset, what won, and whether to believe it."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.analysis import results, trust
from harness.analysis.frame import Loaded, Run
from harness.analysis.results import HEADLINE, Results
from harness.analysis.summary import summary
from harness.report import units

__all__ = ["show", "summary", "view"]

_MARKS = {"good": ("✓", "green"), "note": ("!", "yellow"), "bad": ("✕", "red")}
_COLOURS = {"faster": "green", "slower": "red", "same": ""}


def show(loaded: Loaded, console: Console | None = None) -> None:
    """Prints the summary of the runs to stdout, or to the console given."""
    (console or Console(highlight=False)).print(view(results.derive(loaded)))


def view(derived: Results) -> RenderableType:
    """The summary as something that rich can print."""
    findings = trust.examine(derived)
    parts: list[RenderableType] = []
    for run in derived.loaded.runs:
        parts += [_speedups(derived, run), *_winners(derived, run)]
        parts += [_line(finding) for finding in findings if finding.run == run.name]
    return Group(*parts)


def _speedups(derived: Results, run: Run) -> Table:
    """A row per arm; where it prepares, the kernel alone stands below prepare + kernel."""
    table = Table(
        title=Text(f"{run.title}: speedup over {run.reference}"),
        caption=Text(
            "time of the reference ÷ time of the design ± half its interval (95 %); pin time counted"
        ),
        title_justify="left",
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("design", overflow="fold", min_width=14)
    for dataset in run.datasets:
        table.add_column(Text(dataset), justify="right")
    for arm in run.arms:
        table.add_row(Text(arm), *(_cell(derived, run, arm, dataset, HEADLINE) for dataset in run.datasets))
        if any(derived.measurement(run, arm, dataset, "prepare_us") for dataset in run.datasets):
            alone = (_cell(derived, run, arm, dataset, "kernel_us") for dataset in run.datasets)
            table.add_row(Text("  kernel alone", "dim"), *alone)
    return table


def _cell(derived: Results, run: Run, arm: str, dataset: str, metric: str) -> Text:
    found = derived.speedup(run, arm, dataset, metric)
    if found is None:
        return Text(_status(run, arm, dataset), "dim")
    if arm == run.reference:
        time = derived.measurements[run.name, arm, dataset, metric].time.value
        return Text(f"{units.us(time)} µs", "dim")
    text = Text(units.ratio(found.ratio.value), _COLOURS[found.verdict])
    return text.append(f" ±{found.ratio.relative_half_width * found.ratio.value:.2f}", "dim")


def _status(run: Run, arm: str, dataset: str) -> str:
    statuses = [r.status for r in run.records if (r.cell.arm, r.cell.dataset.name) == (arm, dataset)]
    return statuses[0] if statuses else "not run"


def _winners(derived: Results, run: Run) -> list[Text]:
    """One line: the fastest per dataset, pin time counted."""
    won = [w for dataset in run.datasets if (w := derived.winner(run, dataset)) and w.rivals]
    if not won:
        return []
    names = [f"{w.dataset} {w.best.arm}" + (" (tied)" if w.ties else "") for w in won]
    return [Text(f"Fastest, prepare + kernel: {', '.join(names)}")]


def _line(finding: trust.Finding) -> Text:
    mark, colour = _MARKS[finding.level]
    return Text.assemble((f"{mark} ", colour), (f"{finding.what}: ", "dim"), finding.detail)
