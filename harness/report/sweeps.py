"""Sweeps on the page: charts along each axis, the best value of each tunable, who wins and loses where."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from harness.analysis import sweeps
from harness.analysis.results import METRICS, Results
from harness.analysis.stats import Estimate
from harness.analysis.sweeps import Beside, Best, Line, Swept, Value
from harness.records import PYTORCH, is_torch_version
from harness.records import Cell as MeasuredCell
from harness.report import charts, units
from harness.report.charts import Chart
from harness.report.tables import Anchors, Cell, Table, source_of

_HEIGHT = 220
_SHORT = "datum.value % 1000 ? format(datum.value, ',') : format(datum.value, '~s')"
"""Whole thousands as 100k and 10M, other values in full."""
OWN = "as the experiment has it"
"""Names the point around which everything is varied."""


@dataclass(frozen=True)
class AxisView:
    """One axis: the times and the speedups along it, a pair of charts per dataset and what else is set."""

    title: str
    charts: list[Chart]
    held: list[Chart]
    """The same with something else set than the experiment has it; empty where all of it has."""


@dataclass(frozen=True)
class SweepView:
    """What the page shows of one run's sweep."""

    title: str
    reference: str
    metric: str
    """In words."""
    axes: list[AxisView]
    best: list[Table]
    """The best value of each tunable."""
    wins: Table | None
    stock: list[str]
    """How each design stands beside PyTorch, a sentence per design."""
    losses: Table | None
    """Every place where a design loses to PyTorch."""
    from_l2: str
    """Where all that is looked up stays in L2 from pass to pass; empty where nowhere."""


def views(results: Results, at: Anchors) -> list[SweepView]:
    """Every run that sweeps anything."""
    return [_view(swept, at) for swept in sweeps.find(results)]


def _view(swept: Swept, at: Anchors) -> SweepView:
    shown = [line for line in swept.lines if _is_curve(line, swept.lines)]
    own = [line for line in shown if line.metric == swept.metric]
    places = {(line.key, line.dataset, line.metric, *line.held.items()) for line in shown}
    best = [b for b in swept.best if (b.key, b.dataset, b.metric, *b.held.items()) in places]
    keys = dict.fromkeys(b.key for b in best)
    return SweepView(
        title=swept.run.title,
        reference=swept.run.reference,
        metric=METRICS[swept.metric],
        axes=[
            _axis(swept, key, [line for line in own if line.key == key])
            for key in dict.fromkeys(line.key for line in own)
        ],
        best=[_best(swept, [b for b in best if b.key == key], at) for key in keys],
        wins=_wins(swept, at),
        stock=_beside_stock(swept),
        losses=_losses(swept, at),
        from_l2=_from_l2(swept),
    )


def _from_l2(swept: Swept) -> str:
    l2_bytes = next((r.environment.l2_bytes for r in swept.run.whole.records if r.environment), 0)
    steady = [place.cell for place in swept.places if place.cell.timing.cache == "steady"]
    stays = [_point(cell.point) for cell in sorted(steady, key=_touched) if _touched(cell) <= l2_bytes]
    if not stays:
        return ""
    return (
        "All that a pass touches fits L2, which has it from the pass before, at least at: "
        f"{'; '.join(dict.fromkeys(stays))}. These are times without memory, for which traffic "
        "that never repeats would have to wait."
    )


def _touched(cell: MeasuredCell) -> int:
    """Bytes of the rows of one pass if all are different, and of all that streams by."""
    work = cell.workload
    rows = min(work.lookups, work.rows) * work.row_bytes
    return work.tables * (rows + work.asked_bytes + work.output_bytes)


def _axis(swept: Swept, key: str, lines: Sequence[Line]) -> AxisView:
    free = [line for line in lines if not line.held]
    held = [line for line in lines if line.held] if free else []
    return AxisView(_name(key), _charts(swept, free or lines), _charts(swept, held))


def _is_curve(line: Line, lines: Sequence[Line]) -> bool:
    """Whether it has three values; of an axis that has nowhere as many, the line with nothing else set."""

    def values(one: Line) -> int:
        return max(map(len, one.places.values()))

    same = [other for other in lines if (other.key, other.dataset) == (line.key, line.dataset)]
    return values(line) > 2 or (not line.held and all(values(other) < 3 for other in same))


def _name(key: str) -> str:
    """A key as people say it: "batch", "pinned rows"."""
    return key.partition(".")[2].replace("_", " ")


def _value(value: Value) -> str:
    return f"{value:,}" if type(value) is int else str(value).lower()


def _point(point: str) -> str:
    """A place of the sweep as people say it: "rows 500,000, tables 1"."""
    said = []
    for part in point.split(",") if point else ():
        name, _, value = part.partition("=")
        said.append(f"{name.replace('_', ' ')} {int(value):,}" if value.isdecimal() else f"{name} {value}")
    return ", ".join(said) or OWN


def _held(held: dict[str, Value]) -> str:
    return ", ".join(f"{_name(key)} {_value(value)}" for key, value in held.items())


def _charts(swept: Swept, lines: Sequence[Line]) -> list[Chart]:
    # Colours are shared out among all of the run's designs, so that a design keeps its own in every chart.
    swept_by = (place.cell for place in swept.places)
    designs = tuple(dict.fromkeys(_design(cell) for cell in swept_by))
    found = []
    for line in lines:
        rows = [row for places in line.places.values() for row in _rows(line, places)]
        at = "-".join([swept.run.name, line.key, line.dataset, *map(str, line.held.values())])
        on = f"on {line.dataset}" + (f", {_held(line.held)}" if line.held else "")
        title = f"{METRICS[line.metric].capitalize()} by {_name(line.key)} {on}"
        found.append(_chart(f"sweep-time-{at}", title, line, rows, "time", designs))
        over = [row for row in rows if "speedup" in row]
        if any(row["arm"] != swept.run.reference for row in over):
            title = f"Speedup over {swept.run.reference} by {_name(line.key)} {on}"
            found.append(_chart(f"sweep-speedup-{at}", title, line, over, "speedup", designs))
    return found


def _rows(line: Line, places: Sequence[sweeps.Place]) -> list[dict[str, Any]]:
    rows = []
    for place in places:
        time, value = place.measurement.time, place.value(line.key)
        row = {
            "arm": place.cell.arm,
            "design": _design(place.cell),
            "compiler": _compiler(place.cell.toolchain),
            "dataset": line.dataset,
            "value": value if type(value) is int else str(value).lower(),
            **_bounds("time", time),
            "time µs": f"{units.us(time.value)} ({units.us_span(time)})",
        }
        if place.speedup is not None:
            ratio = place.speedup.ratio
            row |= {**_bounds("speedup", ratio), "speedup ×": f"{ratio.value:.2f} ({units.span(ratio)})"}
        rows.append(row)
    return rows


def _design(cell: MeasuredCell) -> str:
    """An arm without its compiler."""
    return cell.arm.replace(f"@{cell.toolchain}", "")


def _compiler(toolchain: str) -> str:
    if toolchain == PYTORCH:
        return "its own"
    return f"{'PyTorch' if is_torch_version(toolchain) else 'NVRTC'} {toolchain}"


def _bounds(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _chart(
    id_: str, title: str, line: Line, rows: Sequence[dict[str, Any]], what: str, designs: tuple[str, ...]
) -> Chart:
    ticks = tuple(sorted({row["value"] for row in rows}))
    present = tuple(dict.fromkeys(row["design"] for row in rows))
    compilers = tuple(dict.fromkeys(row["compiler"] for row in rows))
    made = _template(_name(line.key), ticks, line.metric, what, designs, present, compilers)
    description = f"{title}: a line per design, with its interval at every value."
    return Chart(id_, title, description, charts.with_rows(made, rows), line.dataset)


@functools.cache
def _template(
    name: str,
    ticks: tuple[Any, ...],
    metric: str,
    what: str,
    designs: tuple[str, ...],
    present: tuple[str, ...],
    compilers: tuple[str, ...],
) -> dict[str, Any]:
    """Both axes by factors, for times and sizes alike span several powers of ten."""
    per = "batch, all tables" if metric in ("stage_us", "e2e_us") else "table and batch"
    title = f"µs per {per}" if what == "time" else "times as fast"
    if all(type(tick) is int for tick in ticks):
        # Where nought is among the values there is no logarithm of it.
        scale = alt.Scale(type="symlog" if ticks[0] <= 0 else "log", nice=False)
        axis = alt.Axis(values=list(ticks), labelExpr=_SHORT, grid=False, labelOverlap=True)
        x: alt.X = alt.X("value:Q", title=name, scale=scale, axis=axis)
    else:
        x = alt.X("value:N", title=name, sort=list(ticks), axis=alt.Axis(labelAngle=0))
    y = alt.Scale(type="log", nice=False, padding=8)
    told = alt.Legend(orient="bottom", symbolType="stroke") if len(compilers) > 1 else None
    base = alt.Chart(charts.ROWS).encode(
        x=x,
        detail="arm:N",
        color=alt.Color(
            "design:N",
            scale=alt.Scale(domain=list(designs), scheme="tableau10"),
            legend=alt.Legend(values=list(present)),
        ),
        tooltip=[alt.Tooltip("arm:N"), alt.Tooltip("value:N", title=name), "time µs:N", "speedup ×:N"],
    )
    line = base.mark_line(strokeWidth=1.5).encode(
        y=alt.Y(f"{what}:Q", title=title, scale=y, axis=alt.Axis(format=",~r", tickCount=6)),
        strokeDash=alt.StrokeDash("compiler:N", sort=None, legend=told),
    )
    interval = base.mark_rule(strokeWidth=1).encode(y=f"{what}_low:Q", y2=f"{what}_high:Q")
    point = base.mark_point(size=36, opacity=1).encode(y=f"{what}:Q")
    layers: list[Any] = [line, interval, point]
    if what == "speedup":
        layers.insert(0, alt.Chart(charts.ROWS).mark_rule(strokeDash=[2, 3]).encode(y=alt.datum(1)))
    return charts.spec(alt.layer(*layers), _HEIGHT, rows=[])


def _best(swept: Swept, found: Sequence[Best], at: Anchors) -> Table:
    """A row per design, what else is set and metric; a column per dataset."""
    # Where nothing is prepared, prepare + kernel and the kernel alone are the same samples: told once.
    told = {id(best.best.measurement.sampled): best for best in reversed(found)}
    found = sorted(
        (best for best in found if told[id(best.best.measurement.sampled)] is best),
        key=lambda best: swept.run.arms.index(best.arm),
    )
    metrics = list(dict.fromkeys(best.metric for best in found))
    datasets = [name for name in swept.run.datasets if any(best.dataset == name for best in found)]
    rows = []
    for arm, held, metric in dict.fromkeys((b.arm, tuple(b.held.items()), b.metric) for b in found):
        besides = [METRICS[metric]] if len(metrics) > 1 else []
        besides += [_held(dict(held))] if held else []
        row = [Cell(arm, ", ".join(besides))]
        for dataset in datasets:
            place = (arm, held, metric, dataset)
            best = next(
                (b for b in found if (b.arm, tuple(b.held.items()), b.metric, b.dataset) == place), None
            )
            row.append(
                _best_cell(best, swept.run.name, at) if best else Cell(units.NONE, kind="number absent")
            )
        rows.append(row)
    name = _name(found[0].key)
    caption = (
        f"Best {name}{' on ' + swept.gpu if swept.gpu else ''}. Below it: how much faster than with the "
        "design's default, and other values that cannot be told from the best."
    )
    return Table(["design", *datasets], rows, caption)


def _best_cell(best: Best, run: str, at: Anchors) -> Cell:
    value = best.best.value(best.key)
    told = (
        "the default"
        if value == best.default
        else f"{units.ratio(best.gain.value)} ({units.span(best.gain)})"
    )
    told += f"; or {', '.join(_value(tie) for tie in sorted(best.ties))}" if best.ties else ""
    kind = "number faster" if best.gain.low > 1 else "number"
    return Cell(_value(value), told, kind=kind, **source_of(best.best.measurement.records, run, at))


def _wins(swept: Swept, at: Anchors) -> Table | None:
    """The fastest design per workload and dataset; None where there is but one workload."""
    order = ["", *(p.cell.point for line in swept.lines for places in line.places.values() for p in places)]
    points = [point for point in dict.fromkeys(order) if any(win.point == point for win in swept.wins)]
    if points == [""]:
        return None  # tunables alone are swept: every other section tells who wins
    rows = []
    for point in points:
        row = [Cell(_point(point))]
        for dataset in swept.run.datasets:
            win = next((w for w in swept.wins if (w.point, w.dataset) == (point, dataset)), None)
            if win is None:
                row.append(Cell(units.NONE, kind="absent"))
                continue
            speedup = win.best.speedup
            told = f"{units.ratio(speedup.ratio.value)} ({units.span(speedup.ratio)})" if speedup else ""
            tied = f"not separable from {', '.join(win.ties)}" if win.ties else ""
            source = source_of(win.best.measurement.records, swept.run.name, at)
            row.append(Cell(win.best.cell.arm, "; ".join(filter(None, (told, tied))), **source))
        rows.append(row)
    caption = f"The fastest by {METRICS[swept.metric]}, and how much faster than {swept.run.reference}."
    return Table(["point", *swept.run.datasets], rows, caption) if rows else None


def _by_arm(found: Sequence[Beside]) -> dict[str, list[Beside]]:
    by_arm: dict[str, list[Beside]] = {}
    for beside in found:
        by_arm.setdefault(beside.place.cell.arm, []).append(beside)
    return by_arm


def _beside_stock(swept: Swept) -> list[str]:
    lost = _by_arm(swept.losses)
    told = []
    for arm, found in _by_arm(swept.beside_stock).items():
        least = min(found, key=lambda beside: beside.ratio.value)
        where = f"{least.dataset}, {_point(least.place.cell.point)}"
        said = f"slower than PyTorch in {len(lost[arm])}" if arm in lost else "nowhere slower than PyTorch"
        said += f" of {len(found)} places" if arm in lost else f" in {units.count(len(found), 'place')}"
        told.append(f"{arm}: {said}; least {units.ratio(least.ratio.value)} as fast ({where}).")
    return told


def _losses(swept: Swept, at: Anchors) -> Table | None:
    """None where none loses."""
    rows = []
    for arm, found in _by_arm(swept.losses).items():
        rows.append([Cell(arm)])
        for loss in sorted(found, key=lambda loss: loss.ratio.value):
            own, theirs = loss.place.measurement, loss.stock
            source = source_of([*own.records, *theirs.records], swept.run.name, at)
            rows.append(
                [
                    Cell(_point(loss.place.cell.point)),
                    Cell(loss.dataset),
                    Cell(units.us(own.time.value), units.us_span(own.time), kind="number"),
                    Cell(units.us(theirs.time.value), units.us_span(theirs.time), kind="number"),
                    Cell(
                        units.ratio(loss.ratio.value), units.span(loss.ratio), kind="number slower", **source
                    ),
                ]
            )
    columns = ["point", "dataset", "design, µs", "PyTorch, µs", "PyTorch ÷ design"]
    return Table(columns, rows, label="Where a design is slower than PyTorch") if rows else None
