"""Sweeps: charts along each axis, the best value of each tunable, who wins and loses where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from harness.analysis.figures import METRICS
from harness.analysis.report import Report, Run
from harness.analysis.stats import Estimate
from harness.analysis.sweeps import BesidePeer, Best, Line, Sweep
from harness.records import Variant
from harness.report import blocks, libraries, names, sweep_charts, units
from harness.report.blocks import (
    Block,
    Cell,
    Charts,
    Fold,
    Heading,
    Item,
    Items,
    Paragraph,
    Section,
    Source,
    Table,
)

PLACE = 40
_WHAT = """What changes with the workload and with a design's tunables, one axis at a time; both axes of a
chart go by factors. Vertical lines are {level} intervals. Every other section is about the experiment's own
workload and tunables."""
_IN_L2 = """All that a pass touches fits L2, which has it from the pass before, at least at: {points}. These
are times without memory, for which traffic that never repeats would have to wait."""
_EVENTS = """What two events cost decides at: {points}. There it is more than a third of what they surround
for some design, so how fast that is, and by how much, is known roughly."""


def page(report: Report) -> Section | None:
    found = blocks.per_run(report, lambda run: _of_run(run, run.sweep) if run.sweep else [])
    what = Paragraph(_WHAT.format(level=f"{report.method.level * 100:.0f} %"))
    return Section("sweeps", "Sweeps", [what, *found]) if found else None


def _of_run(run: Run, sweep: Sweep) -> list[Block]:
    shown = [line for line in sweep.lines if _is_curve(line, sweep.lines)]
    places = {(line.key, line.dataset, *line.held.items()) for line in shown}
    best = [b for b in sweep.best if (b.key, b.dataset, *b.held.items()) in places]
    found: list[Block] = []
    if sweep.in_l2:
        points = "; ".join(names.point(sweep, label) for label in sweep.in_l2)
        found.append(Paragraph(_IN_L2.format(points=points), "aside"))
    if sweep.events_decide:
        points = "; ".join(names.point(sweep, label) for label in sweep.events_decide)
        found.append(Paragraph(_EVENTS.format(points=points), "aside"))
    found += [_best(run, [b for b in best if b.key == key]) for key in dict.fromkeys(b.key for b in best)]
    if wins := _wins(run, sweep):
        found += [Heading("Where each design wins", 4), wins]
    if beside := _beside_peers(run, sweep):
        title = "Beside other libraries, each by the path that is its fastest there"
        found.append(Heading(f"{title}, by {METRICS[sweep.metric]}", 4))
        found.append(Items([Item(sentence) for sentence in beside], "sentences"))
        if losses := _losses(run, sweep):
            found.append(Fold("Every place where a design is slower than another library", [losses]))
    for key in dict.fromkeys(line.key for line in shown):
        found += _axis(run, sweep, key, [line for line in shown if line.key == key])
    return found


def _axis(run: Run, sweep: Sweep, key: str, lines: Sequence[Line]) -> Iterator[Block]:
    """The times and the speedups along it; folded away, the same with something else set than the
    experiment."""
    free = [line for line in lines if not line.held]
    held = [line for line in lines if line.held] if free else []
    name = names.key(key)
    yield Heading(f"By {name}", 4)
    yield Charts(sweep_charts.of(run, sweep, free or lines), numbers=True, wide=True)
    if drawn := sweep_charts.of(run, sweep, held):
        summary = f"By {name}, with something else set than the experiment has it"
        yield Fold(summary, [Charts(drawn, numbers=True, wide=True)])


def _is_curve(line: Line, lines: Sequence[Line]) -> bool:
    """Whether it has three values; of an axis that has nowhere as many, the line with nothing else set."""

    def values(one: Line) -> int:
        return max(len(curve.points) for curve in one.curves)

    same = [other for other in lines if (other.key, other.dataset) == (line.key, line.dataset)]
    return values(line) > 2 or (not line.held and all(values(other) < 3 for other in same))


def _best(run: Run, found: Sequence[Best]) -> Table:
    """The best value of a tunable: a row per variant, what else is set and metric; a column per dataset."""
    # Where nothing is prepared, prepare + kernel and the kernel alone are the same samples: told once.
    found = [b for b in found if b.metric != "kernel_us" or not run.prepares or _prepares(run, b)]
    metrics = list(dict.fromkeys(best.metric for best in found))
    datasets = [name for name in run.datasets if any(best.dataset == name for best in found)]
    by_place = {(b.variant, tuple(b.held.items()), b.metric, b.dataset): b for b in found}
    ordered = sorted(found, key=lambda best: run.variants.index(best.variant))
    rows = []
    for variant, held, metric in dict.fromkeys((b.variant, tuple(b.held.items()), b.metric) for b in ordered):
        cells = [by_place.get((variant, held, metric, dataset)) for dataset in datasets]
        besides = [METRICS[metric]] if len(metrics) > 1 else []
        besides += [names.settings(dict(held))] if held else []
        told = [_best_cell(run, best) if best else blocks.ABSENT for best in cells]
        rows.append([Cell(variant.label, ", ".join(besides)), *told])
    gpu = " or ".join(names.gpus([run])[:1])
    caption = (
        f"Best {names.key(found[0].key)}{' on ' + gpu if gpu else ''}. Below it: how much faster than with "
        "the design's default, and other values that cannot be told from the best."
    )
    return Table(["design", *datasets], rows, caption)


def _prepares(run: Run, best: Best) -> bool:
    return run.figure(best.variant, best.dataset, "prepare_us") is not None


def _best_cell(run: Run, best: Best) -> Cell:
    told = "the default" if best.value == best.default else _ratio(best.gain)
    told += f"; or {', '.join(map(names.value, sorted(best.ties)))}" if best.ties else ""
    time = run.figure(best.variant, best.dataset, best.metric, best.point)
    source = Source(run.name, time.records) if time else None
    kind = "number faster" if best.gain.low > 1 else "number"
    return Cell(names.value(best.value), told, kind=kind, source=source)


def _ratio(ratio: Estimate) -> str:
    return f"{units.ratio(ratio.value)} ({units.span(ratio)})"


def _wins(run: Run, sweep: Sweep) -> Table | None:
    """The fastest variant per workload and dataset; None where there is but one workload."""
    order = ["", *(label for line in sweep.lines for curve in line.curves for label in curve.points)]
    points = [label for label in dict.fromkeys(order) if any(win.point == label for win in sweep.wins)]
    if not points or points == [""]:
        return None  # tunables alone are swept: every other section tells who wins
    rows = []
    for label in points:
        row = [Cell(names.point(sweep, label))]
        for dataset in run.datasets:
            win = next((w for w in sweep.wins if (w.point, w.dataset) == (label, dataset)), None)
            if win is None:
                row.append(Cell(units.NONE, kind="absent"))
                continue
            time, ratio = run.timed(win.variant, dataset, sweep.metric, label)
            told = [_ratio(ratio.estimate)] if ratio else []
            if beside := _least(sweep, win.variant, dataset, label):
                told.append(f"{_ratio(beside.ratio)} over {libraries.path(run, beside.peer, beside.ties)}")
            if share := run.figure(win.variant, dataset, "limit_share", label):
                told.append(f"{units.text(share)} of the limit")
            told += [f"not separable from {names.labels(win.ties)}"] if win.ties else []
            source = Source(run.name, time.records) if time else None
            row.append(Cell(win.variant.label, "; ".join(told), source=source))
        rows.append(row)
    caption = f"The fastest by {METRICS[sweep.metric]}, and how much faster than {run.reference.label}"
    caption += " and the fastest other library" * bool(sweep.beside_peers)
    shares = any(run.figure(win.variant, win.dataset, "limit_share", win.point) for win in sweep.wins)
    caption += "; of the limit: by prepare + kernel." if shares else "."
    return Table(["point", *run.datasets], rows, caption, kind="compact")


def _least(sweep: Sweep, variant: Variant, dataset: str, point: str) -> BesidePeer | None:
    """A design of ours beside the fastest library there."""
    place = variant, dataset, point
    found = (one for one in sweep.beside_peers if (one.variant, one.dataset, one.point) == place)
    return min(found, key=lambda one: one.ratio.value, default=None)


_Places = dict[tuple[str, Variant], list[BesidePeer]]
"""By library and design of ours."""


def _by_library(found: Sequence[BesidePeer]) -> _Places:
    places: _Places = {}
    for beside in found:
        places.setdefault((beside.library, beside.variant), []).append(beside)
    return places


def _lost(sweep: Sweep) -> _Places:
    """Where a design is slower beyond doubt."""
    return _by_library([beside for beside in sweep.beside_peers if beside.ratio.high < 1])


def _beside_peers(run: Run, sweep: Sweep) -> list[str]:
    """How each design stands beside each library, a sentence each."""
    lost = _lost(sweep)
    told = []
    for (design, variant), found in _by_library(sweep.beside_peers).items():
        least = min(found, key=lambda beside: beside.ratio.value)
        where = f"{least.dataset}, {names.point(sweep, least.point)}"
        count, library = len(lost.get((design, variant), [])), libraries.name(design)
        said = f"slower than {library} in {count}" if count else f"nowhere slower than {library}"
        said += f" of {len(found)} places" if count else f" in {units.count(len(found), 'place')}"
        against = libraries.path(run, least.peer, least.ties)
        path = f", against {against}" if against != library else ""
        told.append(
            f"{variant.label}: {said}; least {units.ratio(least.ratio.value)} as fast ({where}{path})."
        )
    return told


def _losses(run: Run, sweep: Sweep) -> Table | None:
    """None where none loses."""
    rows: list[list[Cell]] = []
    for variant in dict.fromkeys(variant for _, variant in _lost(sweep)):
        rows.append([Cell(variant.label)])
        found = [loss for (_, ours), losses in _lost(sweep).items() if ours == variant for loss in losses]
        for loss in sorted(found, key=lambda loss: loss.ratio.value):
            own = run.figure(variant, loss.dataset, sweep.metric, loss.point)
            theirs = run.figure(loss.peer, loss.dataset, sweep.metric, loss.peer_point)
            if own is None or theirs is None:
                continue
            times = [Cell(units.text(time), units.interval(time), kind="number") for time in (own, theirs)]
            source = Source(run.name, [*own.records, *theirs.records])
            ratio = Cell(
                units.ratio(loss.ratio.value), units.span(loss.ratio), kind="number slower", source=source
            )
            library = Cell(libraries.path(run, loss.peer, loss.ties))
            rows.append([Cell(names.point(sweep, loss.point)), Cell(loss.dataset), library, *times, ratio])
    unit = names.unit_as_measured(sweep.metric)
    columns = ["point", "dataset", "library", f"design, {unit}", f"library, {unit}", "library ÷ design"]
    return Table(columns, rows, label="Where a design is slower than another library") if rows else None


def closing(report: Report) -> Iterator[Block]:
    """Best values of tunables, who wins and loses how often: a line each, on the terminal."""
    for run in report.runs:
        if run.sweep:
            for line in (*_best_lines(run, run.sweep), *_counted(run.sweep)):
                yield Paragraph(line, only="terminal")


def _best_lines(run: Run, sweep: Sweep) -> Iterator[str]:
    """Of each variant and dataset the values of its tunables, taken together, with which it is fastest."""

    def time(best: Best) -> float:
        figure = run.figure(best.variant, best.dataset, best.metric, best.point)
        return figure.value if figure else float("inf")

    own = [best for best in sweep.best if best.metric == sweep.metric]
    for variant in dict.fromkeys(best.variant for best in own):
        found = [best for best in own if best.variant == variant]
        keys = list(dict.fromkeys(best.key for best in found))
        told = []
        for dataset in dict.fromkeys(best.dataset for best in found):
            best = min((best for best in found if best.dataset == dataset), key=time)
            place = run.place(variant, dataset, best.point)
            values = ", ".join(str(place.settings[key]) for key in keys) if place else units.NONE
            told.append(f"{dataset} {values}{' (tied)' if best.ties else ''}")
        said = "; ".join(told) if len(keys) > 1 else ", ".join(told)
        yield f"Best {', '.join(map(names.key, keys))} of {variant.label}: {said}"


def _counted(sweep: Sweep) -> Iterator[str]:
    if len({win.point for win in sweep.wins}) > 1:
        wins = Counter(win.variant for win in sweep.wins)
        told = ", ".join(f"{variant.label} in {count}" for variant, count in wins.most_common())
        yield f"Fastest of {len(sweep.wins)} shapes and datasets: {told}"
    lost, places = _lost(sweep), _by_library(sweep.beside_peers)
    for design in dict.fromkeys(library for library, _ in places):
        told = ", ".join(
            f"{variant.label} in {len(lost.get((library, variant), []))} of {len(found)}"
            for (library, variant), found in places.items()
            if library == design
        )
        yield f"Slower than {libraries.name(design)}: {told}"
