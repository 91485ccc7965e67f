"""What moved inside the kernels, for every design: counters beside the speed, for page and terminal."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import altair as alt
from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from harness.analysis import profiles
from harness.analysis.frame import Run
from harness.analysis.profiles import Figures, Move, Profiled
from harness.analysis.results import Results
from harness.report import charts, units
from harness.report.charts import Chart
from harness.report.tables import Cell, Table

REASONS = {
    "long_scoreboard": "for data from L1, L2 or memory",
    "lg_throttle": "for room in the load queue",
    "short_scoreboard": "for shared memory",
    "mio_throttle": "for room in the shared-memory queue",
    "math_pipe_throttle": "for an arithmetic unit",
    "barrier": "for other warps at a barrier",
    "wait": "for the instruction before",
    "not_selected": "ready, but another warp's turn",
    "selected": "at work",
    "no_instruction": "for instructions",
    "branch_resolving": "for a branch",
    "dispatch_stall": "for the dispatcher",
}
"""What a resident warp waits for, in words; by the profiler's names."""
WORK = "at work or ready"
CLASSES = {
    "long_scoreboard": "waiting for data",
    "lg_throttle": "load queue full",
    "mio_throttle": "load queue full",
    "short_scoreboard": "load queue full",
    "selected": WORK,
    "not_selected": WORK,
}
"""The chart's four colours; all other reasons are the fourth."""
REST = "anything else"
_WORDS = {
    "registers": "registers",
    "warps_resident": "resident warps",
    "instructions": "instructions",
    "l1_hits": "L1 hits",
    "l2_hits": "L2 hits",
    "l2_bytes": "out of L2",
    "dram_read_bytes": "out of memory",
    "dram_busy": "memory busy",
    "long_scoreboard": "time spent waiting for data",
}
_MOST_MOVES = 3


@dataclass(frozen=True)
class View:
    """The profiles of one run as the page shows them."""

    title: str
    table: Table
    charts: list[Chart]
    profiler: str
    outdated: list[str]
    failed: list[tuple[str, str]]
    """Cell, and why it has no profile."""


def views(results: Results) -> list[View]:
    """Of the runs that were profiled."""
    made = []
    for run in results.loaded.runs:
        found = profiles.find(run)
        failed = [(one.cell.id, one.message) for one in found.failed]
        if found.figures or failed:
            drawn = [chart for dataset in run.datasets if (chart := _chart(results, run, found, dataset))]
            table = _table(results, run, found)
            made.append(View(run.title, table, drawn, found.profiler, found.outdated, failed))
    return made


def _table(results: Results, run: Run, found: Profiled) -> Table:
    rows: list[list[Cell]] = []
    for dataset, group in _by_dataset(run, found):
        rows.append([Cell(dataset)])
        for figures in group:
            beside = ", ".join(f"{name} {units.us(us)} µs" for name, us in figures.beside.items())
            name = Cell(figures.arm, title=figures.kernel + (f"; beside it {beside}" if beside else ""))
            rows.append([name, *_row(results, run, figures), Cell(_moved(found, run, figures), kind="words")])
    return Table(["design", *COLUMNS, "what moved"], rows, label="Counters of the lookup kernel")


def _by_dataset(run: Run, found: Profiled) -> Iterator[tuple[str, list[Figures]]]:
    for dataset in run.datasets:
        group = [found.figures[arm, dataset] for arm in run.arms if (arm, dataset) in found.figures]
        if group:
            yield dataset, group


COLUMNS = (
    "µs",
    "registers",
    "warps",
    "L1 hits",
    "L2 hits",
    "from L2",
    "from memory",
    "rate",
    "instructions",
    "waiting",
)


def _row(results: Results, run: Run, of: Figures) -> list[Cell]:
    """The figures of every column."""
    measured = results.measurement(run, of.arm, of.dataset, "kernel_us")
    gained = results.speedup(run, of.arm, of.dataset, "kernel_us")
    time = (units.us(measured.time.value if measured else of.us), "" if measured else "under the profiler")
    if gained is not None and of.arm != run.reference:
        time = (time[0], units.ratio(gained.ratio.value))
    cells = [
        time,
        (_number(of.registers, "{:.0f}".format), ""),
        (_number(of.warps_resident, units.share), f"of {_number(of.warps_possible, units.share)}"),
        (_number(of.l1_hits, units.share), ""),
        (_number(of.l2_hits, units.share), ""),
        (_number(of.l2_bytes, units.megabytes), ""),
        (_number(of.dram_read_bytes, units.megabytes), ""),
        (_number(of.dram_gbps, units.gbps), f"{_number(of.dram_busy, units.share)} busy"),
        (_number(of.instructions, _millions), ""),
    ]
    shares = "; ".join(f"{REASONS.get(r, 'anything else')} {units.share(s)}" for r, s in of.stalls.items())
    waiting = Cell(_number(of.stalls.get("long_scoreboard"), units.share), kind="number", title=shares)
    return [*(Cell(text, detail, kind="number") for text, detail in cells), waiting]


def _number(value: float | None, shown: Callable[[float], str]) -> str:
    return units.NONE if value is None else shown(value)


def _moved(found: Profiled, run: Run, figures: Figures) -> str:
    reference = found.figures.get((run.reference, figures.dataset))
    if reference is None or figures.arm == run.reference:
        return ""
    moves = profiles.moves(figures, reference)[:_MOST_MOVES]
    return "; ".join(map(_move, moves)) or "nothing by a tenth"


def _move(move: Move) -> str:
    shown: Callable[[float], str] = units.share
    if move.name.endswith("_bytes"):
        shown = units.megabytes
    elif move.name == "registers":
        shown = "{:.0f}".format
    elif move.name == "instructions":
        shown = _millions
    return f"{_WORDS[move.name]} {shown(move.before)} → {shown(move.after)}"


def _millions(value: float) -> str:
    return f"{value / 1e6:.2f} M"


def _chart(results: Results, run: Run, found: Profiled, dataset: str) -> Chart | None:
    """Bars of where the resident warps' time went; None where that is not known."""
    rows: list[dict[str, Any]] = []
    for arm in run.arms:
        figures = found.figures.get((arm, dataset))
        shares = dict.fromkeys([*CLASSES.values(), REST], 0.0)
        for reason, share in (figures.stalls if figures else {}).items():
            shares[CLASSES.get(reason, REST)] += share
        name = results.loaded.contestant(run.name, arm)
        rows += [
            {"arm": arm, "name": name, "dataset": dataset, "part": part, "share": share}
            for part, share in shares.items()
            if figures and figures.stalls
        ]
    if not rows:
        return None
    title = f"Where the warps' time goes on {dataset}"
    spec = charts.with_rows(_bars(), rows, 26)
    return Chart(f"stalls-{run.name}-{dataset}", title, f"{title}; the table has the figures.", spec, dataset)


@functools.cache
def _bars() -> dict[str, Any]:
    parts = list(dict.fromkeys([*CLASSES.values(), REST]))
    bars = (
        alt.Chart(charts.ROWS)
        .mark_bar()
        .encode(
            y=charts.designs_axis(),
            x=alt.X(
                "share:Q",
                title="share of the resident warps' time",
                axis=alt.Axis(format="%", tickCount=5),
                scale=alt.Scale(domain=[0, 1]),
            ),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=parts, range="category"),
                legend=alt.Legend(columns=2, labelLimit=0),
            ),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("name:N", title="design"),
                alt.Tooltip("part:N", title="warps"),
                alt.Tooltip("share:Q", format=".1%"),
            ],
        )
        .transform_calculate(order=f"indexof({parts}, datum.part)")
    )
    return charts.spec(bars, 0, rows=[])


SHORT = ("µs", "regs", "warps", "L1", "L2", "L2 MB", "mem MB", "Minst", "waiting")


def show(results: Results, console: Console | None = None) -> None:
    """Prints the counters of every run that was profiled, in 80 columns."""
    out = console or Console(highlight=False)
    for run in results.loaded.runs:
        found = profiles.find(run)
        for dataset, group in _by_dataset(run, found):
            grid = Grid(
                title=Text(f"{run.title}: inside the kernels on {dataset}"),
                caption=Text(
                    "per table and batch; L1, L2: hits; L2 MB, mem MB: read from there; waiting: for data, "
                    "as share of the resident warps' time"
                ),
                title_justify="left",
                caption_justify="left",
                header_style="bold",
                box=box.SIMPLE_HEAD,
                padding=(0, 1, 0, 0),
                pad_edge=False,
            )
            grid.add_column("design", overflow="fold", min_width=14)
            for name in SHORT:
                grid.add_column(name, justify="right")
            for figures in group:
                grid.add_row(Text(figures.arm), *map(Text, _short(results, run, figures)))
            out.print(grid)
            for figures in group:
                if moved := _moved(found, run, figures):
                    out.print(Text.assemble((f"{figures.arm}: ", "dim"), moved))
        for arm in found.outdated:
            out.print(Text(f"! {arm}: its source has changed between profile and measurement.", "yellow"))


def _short(results: Results, run: Run, of: Figures) -> list[str]:
    measured = results.measurement(run, of.arm, of.dataset, "kernel_us")
    return [
        units.us(measured.time.value if measured else of.us),
        _number(of.registers, "{:.0f}".format),
        *(_number(value, units.share) for value in (of.warps_resident, of.l1_hits, of.l2_hits)),
        *(_number(value, lambda v: f"{v / 1e6:,.1f}") for value in (of.l2_bytes, of.dram_read_bytes)),
        _number(of.instructions, lambda value: f"{value / 1e6:.2f}"),
        _number(of.stalls.get("long_scoreboard"), units.share),
    ]
