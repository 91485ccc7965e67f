"""What moved inside the kernels, for every design: counters beside the speed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from harness.analysis.figures import Figure
from harness.analysis.profiles import WAITING, Counters, Move, Profiled
from harness.analysis.report import Report, Run
from harness.analysis.trust import Finding
from harness.report import blocks, charts, libraries, names, reads, units
from harness.report.blocks import Block, Cell, Charts, Findings, Fold, Item, Items, Paragraph, Section, Table
from harness.report.charts import Chart

PLACE = 100
REASONS = {
    WAITING: "for data from L1, L2 or memory",
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
    WAITING: "waiting for data",
    "lg_throttle": "load queue full",
    "mio_throttle": "load queue full",
    "short_scoreboard": "load queue full",
    "selected": WORK,
    "not_selected": WORK,
}
"""The chart's four colours; all other reasons are the fourth."""
REST = "anything else"
_MOST_MOVES = 3
_WHAT = """Counters of the lookup kernel, taken by Nsight Compute in a run of their own: amounts are per table
and batch. The time is the one measured without a profiler; below it stands the speedup over the run's
reference. The program ran anew for every pass of the counters, so each launch found the caches as the
launches before it had left them; clocks were left alone. L2's hits count what passes between its two halves,
too."""
_WARPS = "Warps: resident, of those that registers and shared memory let in."
_WAITING = """Waiting: the share of the resident warps' time that goes into waiting for data; hovering tells
the other reasons."""
_MOVES = "What moved is against the run's reference."
_OUTDATED = "its source has changed between profile and measurement"


def page(report: Report) -> Section | None:
    found = blocks.per_run(report, lambda run: _of_run(report, run, run.profile) if run.profile else [])
    profiled = [(run, run.profile) for run in report.runs if run.profile]
    waits = any(_counted(profile, "waiting") for _, profile in profiled)
    moved = any(_any_moved(run, profile) for run, profile in profiled)
    title = "Inside the kernels: what moved" if moved else "Inside the kernels"
    terms = [_WARPS, *([_WAITING] if waits else []), *([_MOVES] if moved else [])]
    what = Paragraph(_WHAT), Paragraph(" ".join(terms))
    return Section("profile", title, [*what, *found], "Profile") if found else None


def _of_run(report: Report, run: Run, profile: Profiled) -> list[Block]:
    found: list[Block] = [
        Paragraph(f"{variant.label}: {_OUTDATED}; profile it again.", "aside") for variant in profile.outdated
    ]
    drawn = [chart for dataset in run.datasets if (chart := _chart(report, run, profile, dataset))]
    if told := list(reads.sentences(run, profile)):
        found.append(Items([Item(sentence) for sentence in told], "sentences"))
    found += [_table(run, profile), Charts(drawn, numbers=True)]
    if profile.failed:
        failed = Items([Item(f"{cell}: {why}") for cell, why in profile.failed.items()], "sentences")
        found.append(Fold(f"{units.count(len(profile.failed), 'cell')} without a profile", [failed]))
    return [*found, Paragraph(profile.profiler, "caption")]


_COLUMNS = {
    "registers": "registers",
    "warps": "warps_resident",
    "L1 hits": "l1_hits",
    "L2 hits": "l2_hits",
    "from L2": "l2_bytes",
    "from memory": "dram_read_bytes",
    "rate": "dram_gbps",
    "instructions": "instructions",
    "waiting": "waiting",
}
"""Of the page."""
MOVED = "what moved"


def _counted(profile: Profiled, figure: str) -> bool:
    """Whether anyone's profile has it: passes of the counters may have been left out."""
    return any(of.figure(figure) for of in profile.counters)


def _table(run: Run, profile: Profiled) -> Table:
    figures = {title: figure for title, figure in _COLUMNS.items() if _counted(profile, figure)}
    moved = [MOVED] if _any_moved(run, profile) else []
    rows: list[list[Cell]] = []
    for dataset, group in _by_dataset(run, profile):
        rows.append([Cell(dataset)])
        for of in group:
            beside = ", ".join(f"{name} {units.us(us)} µs" for name, us in of.beside.items())
            kernel = of.kernel + (f"; beside it {beside}" if beside else "")
            name = Cell(libraries.called(run, of.variant), title=kernel)
            counters = [_counter(of, figure) for figure in figures.values()]
            words = [Cell(_moved(run, profile, of), kind="words") for _ in moved]
            rows.append([name, _time(run, of), *counters, *words])
    return Table(
        ["design", "kernel, µs per table", *figures, *moved], rows, label="Counters of the lookup kernel"
    )


def _by_dataset(run: Run, profile: Profiled) -> Iterator[tuple[str, list[Counters]]]:
    for dataset in run.datasets:
        if group := [counters for counters in profile.counters if counters.dataset == dataset]:
            yield dataset, group


def _time(run: Run, of: Counters) -> Cell:
    """The time measured without a profiler, and how many times as fast as the reference."""
    time, ratio = run.timed(of.variant, of.dataset, "kernel_us")
    if time is None:
        return Cell(units.text(of.figure("us")), "under the profiler", kind="number")
    gained = units.text(ratio) if ratio and of.variant != run.reference else ""
    return Cell(units.text(time), gained, kind="number")


def _counter(of: Counters, name: str) -> Cell:
    detail = title = ""
    if name == "warps_resident":
        detail = f"of {units.text(of.figure('warps_possible'))}"
    elif name == "dram_gbps":
        detail = f"{units.text(of.figure('dram_busy'))} busy"
    elif name == "waiting":
        title = "; ".join(f"{REASONS.get(r, REST)} {units.share(s)}" for r, s in of.stalls.items())
    return Cell(units.text(of.figure(name)), detail, title, kind="number")


def _text(figure: Figure | None, shown: Callable[[float], str] | None = None) -> str:
    return shown(figure.value) if figure and shown else units.text(figure)


def _moved(run: Run, profile: Profiled, of: Counters) -> str:
    """Against the reference; nothing where that was not profiled."""
    known = any((one.variant, one.dataset) == (run.reference, of.dataset) for one in profile.counters)
    if not known or of.variant == run.reference:
        return ""
    moved = (_move(of.figure(move.name), move) for move in of.moved[:_MOST_MOVES])
    return "; ".join(moved) or "nothing by a tenth"


def _any_moved(run: Run, profile: Profiled) -> bool:
    return any(_moved(run, profile, of) for of in profile.counters)


def _move(after: Figure | None, move: Move) -> str:
    if after is None:
        return move.name
    before, now = (units.shown(after.hint, value) for value in (move.before, move.after))
    return f"{after.title} {before} → {now}"


def _chart(report: Report, run: Run, profile: Profiled, dataset: str) -> Chart | None:
    """Bars of where the resident warps' time went; None where that is not known."""
    rows: list[dict[str, Any]] = []
    for of in profile.counters:
        if of.dataset != dataset or not of.stalls:
            continue
        shares = dict.fromkeys([*CLASSES.values(), REST], 0.0)
        for reason, share in of.stalls.items():
            shares[CLASSES.get(reason, REST)] += share
        name = names.contestant(report, run, of.variant)
        shown = {"arm": of.variant.label, "name": name, "dataset": dataset}
        rows += [{**shown, "part": part, "share": share} for part, share in shares.items()]
    if not rows:
        return None
    title = f"Where the warps' time goes on {dataset}"
    spec = charts.with_rows(_bars(), rows, charts.BAR)
    waits = {row["name"]: row["share"] for row in rows if row["part"] == CLASSES[WAITING]}
    least = min(waits, key=lambda name: waits[name])
    told = f"{title}: least waiting for data is {least}, {units.share(waits[least])} of it."
    return Chart(f"stalls-{run.name}-{dataset}", title, told, spec, dataset, names.done(run))


@functools.cache
def _bars() -> dict[str, Any]:
    import altair as alt

    parts = list(dict.fromkeys([*CLASSES.values(), REST]))
    bars = (
        charts.blank()
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
                legend=charts.legend(parts, charts.NAMES),
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


_SHORT: dict[str, tuple[str, Callable[[float], str] | None]] = {
    "regs": ("registers", None),
    "warps": ("warps_resident", None),
    "L1": ("l1_hits", None),
    "L2": ("l2_hits", None),
    "L2 MB": ("l2_bytes", lambda value: f"{value / 1e6:,.1f}"),
    "mem MB": ("dram_read_bytes", lambda value: f"{value / 1e6:,.1f}"),
    "Minst": ("instructions", lambda value: f"{value / 1e6:.2f}"),
    "waiting": ("waiting", None),
}
"""Of the terminal, in 80 columns; those whose unit heads them with what they show."""


def shown(report: Report) -> Iterator[Block]:
    """The counters of every run that was profiled, for the terminal."""
    for run in report.runs:
        if run.profile is None:
            continue
        figures = {title: told for title, told in _SHORT.items() if _counted(run.profile, told[0])}
        waiting = "; waiting: for data, as share of the resident warps' time" if "waiting" in figures else ""
        for dataset, group in _by_dataset(run, run.profile):
            rows = []
            for of in group:
                counters = (
                    Cell(_text(of.figure(name), as_), kind="number") for name, as_ in figures.values()
                )
                name = Cell(libraries.called(run, of.variant))
                rows.append([name, Cell(_time(run, of).text, kind="number"), *counters])
            yield Table(
                ["design", "µs", *figures],
                rows,
                title=f"{run.title}: inside the kernels on {dataset}",
                caption=f"per table and batch; L1, L2: hits; L2 MB, mem MB: read from there{waiting}",
            )
            for of in group:
                if moved := _moved(run, run.profile, of):
                    yield Paragraph(f"{of.variant.label}: {moved}")
        yield from map(Paragraph, reads.sentences(run, run.profile))
        yield Findings([Finding("note", variant.label, f"{_OUTDATED}.") for variant in run.profile.outdated])
