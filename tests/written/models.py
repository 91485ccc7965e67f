"""Blocks on real models: by batch, ours beside the fastest path of FBGEMM."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.analysis import limits
from harness.analysis.report import Run
from harness.analysis.stats import Estimate
from harness.records import STOCK, Variant, Workload
from harness.report import units
from tests.written import fetching, runs
from tests.written.runs import FBGEMM, FUSED, NotMeasuredError, Place, label, line, path, table

UNIFORM = "random"
BATCH = "workload.batch"


@dataclass(frozen=True)
class Row:
    """`fused` at one batch of a model, on one dataset."""

    model: str
    gpu: str
    dataset: str
    batch: int
    ours_us: float
    """Of the stage, for one batch."""
    theirs_us: float
    """Of FBGEMM, by its fastest path there."""
    path: str
    ratio: Estimate
    """FBGEMM ÷ ours."""


def by_model(place: Place, *names: str) -> str:
    """A row a model and batch, rows drawn uniformly; then where ours wins and loses, on every dataset."""
    folders = _there(place, names)
    rows = [row for folder in folders for row in _rows(folder)]
    called_of = _names(rows)
    shown, before = [], ""
    for row in rows:
        if row.dataset == UNIFORM:
            called = called_of(row)
            named = called if called != before else ""
            theirs = f"{units.us(row.theirs_us)} ({row.path})"
            shown.append([named, str(row.batch), units.us(row.ours_us), theirs, units.ratio(row.ratio.value)])
            before = called
    heads = ["batch", "`fused`, µs", "FBGEMM's fastest, µs", "`fused` ×"]
    return table(heads, shown) + _told(place, names, folders, rows)


def models_in_short(place: Place, *names: str) -> str:
    """Ours beside FBGEMM's fastest, a row a model, rows drawn uniformly; then as `by_model`."""
    folders = _there(place, names)
    rows = [row for folder in folders for row in _rows(folder)]
    called_of = _names(rows)
    ratios: dict[str, dict[int, str]] = {}
    for row in rows:
        if row.dataset == UNIFORM:
            ratios.setdefault(called_of(row), {})[row.batch] = units.ratio(row.ratio.value)
    batches = sorted({batch for of_model in ratios.values() for batch in of_model})
    lines = [[model, *(found.get(batch, "") for batch in batches)] for model, found in ratios.items()]
    return table(list(map(str, batches)), lines, "batch") + _told(place, names, folders, rows)


def by_batch(place: Place, *names: str) -> str:
    """A run in full: every arm at every batch, dataset after dataset."""
    folder = place.run(*names)
    points = _points(runs.analysed(folder), folder)
    return _in_full(folder, {f"batch {batch}": point for batch, point in points.items()})


def by_shape(place: Place, *names: str) -> str:
    """A run in full whose points are tables of several shapes."""
    folder = place.run(*names)
    heads = {
        f"{work.tables} × {work.dim} columns, {work.pooling} rows a bag": point
        for point, work in _shapes(folder).items()
    }
    return _in_full(folder, heads)


def shapes_in_short(place: Place, *names: str) -> str:
    """A sentence on a run whose points are tables of several bag lengths."""
    folder = place.run(*names)
    run = runs.analysed(folder)
    told = {
        str(work.pooling): units.ratio(beside[1].value)
        for point, work in _shapes(folder).items()
        if (beside := _beside(run, run.datasets[0], point, FBGEMM))
    }
    if not told:
        raise NotMeasuredError
    lengths, ratios = " and ".join(told), ", ".join(told.values())
    return f"{run.title}, {lengths} rows a bag: {ratios}. {runs.measured_on([folder])}\n"


def _in_full(folder: Path, points: dict[str, str]) -> str:
    """`points`: of the run's sweep, by what heads their columns."""
    run, fetch = runs.analysed(folder), fetching.told(folder)
    parts = [table(list(points), _lines(run, folder, d, points.values(), fetch), d) for d in run.datasets]
    machine = runs.board(folder).rstrip() + (fetching.by(folder, fetch) if fetch else "")
    return "\n".join([*parts, f"{machine}\n"])


def _lines(
    run: Run, folder: Path, dataset: str, points: Collection[str], fetch: dict[str, Any]
) -> list[list[str]]:
    """Of a dataset's table, with a column for each point."""
    shapes, of_lru = _shapes(folder), _of_lru_caches(folder)
    stages = {
        variant: {p: us for p in points if (us := _stage_us(run, variant, dataset, p, shapes[p].tables))}
        for variant in run.variants
    }
    lines = [line(f"{label(variant)}, µs", points, of, units.us) for variant, of in stages.items()]
    shares = {p: share for p in points if (share := run.figure(FUSED, dataset, "limit_share", p))}
    if shares:
        of_two = {p: share.value * of_lru[dataset, p] for p, share in shares.items()}
        lines.append(line("`fused`, of the limit", points, shares, units.text))
        lines.append(line("`fused`, of two LRU caches ¹", points, of_two, units.share))
    for library, named in ((FBGEMM, "FBGEMM's fastest"), (STOCK, "PyTorch of today")):
        if ratios := {p: one[1].value for p in points if (one := _beside(run, dataset, p, library))}:
            lines.append(line(f"`fused` × {named}", points, ratios, units.ratio))
    if fetch:
        limit = {p: share.value * stages[FUSED][p] for p, share in shares.items()}
        fastest = {p: stages[one[0]][p] for p in points if (one := _beside(run, dataset, p, FBGEMM))}
        lines += fetching.lines(folder, fetch, dataset, points, limit, fastest)
    return lines


def _shapes(folder: Path) -> dict[str, Workload]:
    """What was looked up at each point of a run, fewer tables and shorter bags first."""
    found = {record.cell.point: record.cell.workload for record in runs.loaded(folder).whole.records}
    return dict(sorted(found.items(), key=lambda each: (each[1].tables, each[1].pooling)))


def _stage_us(run: Run, variant: Variant, dataset: str, point: str, tables: int) -> float | None:
    """Of one batch. Where every arm takes tables that are alike in one launch, a sweep has that launch alone,
    for a table."""
    if stage := run.figure(variant, dataset, "stage_us", point):
        return stage.value
    kernel = run.figure(variant, dataset, "kernel_us", point)
    return kernel.value * tables if kernel else None


def _of_lru_caches(folder: Path) -> dict[tuple[str, str], float]:
    """By dataset and point: what two LRU caches would take that meet bags in order, ÷ the limit."""
    run = runs.loaded(folder)
    every = limits.by_workload(run)
    cells = (record.cell for record in run.whole.records)
    asked = ((cell.dataset.name, cell.point, every.get((cell.dataset.name, cell.workload))) for cell in cells)
    return {(dataset, point): limit.lru.us / limit.binding.us for dataset, point, limit in asked if limit}


def won_and_lost(rows: list[Row]) -> str:
    """A sentence on where `fused` is faster and slower than FBGEMM, by the 95 % interval of each alone."""
    if not rows:
        raise NotMeasuredError
    faster = [row for row in rows if row.ratio.low > 1]
    slower = [row for row in rows if row.ratio.high < 1]
    datasets = " and ".join(dict.fromkeys(row.dataset for row in rows))
    text = (
        f"Of {len(rows)} with {datasets} rows, each by its own interval, `fused` is faster in "
        f"{len(faster)}{runs.by_little(row.ratio for row in faster)}, slower in {len(slower)}"
    )
    if level := len(rows) - len(faster) - len(slower):
        text += f", level in {level}"
    if slower:
        worst = min(slower, key=lambda row: row.ratio.value)
        where = f"{worst.model}, batch {worst.batch}, {worst.dataset}"
        text += f"; at worst {units.ratio(worst.ratio.value)} ({where})"
    return text + "."


def _names(rows: list[Row]) -> Callable[[Row], str]:
    """What a row's model is called: where GPUs differ, with its own."""
    mixed = len({row.gpu for row in rows}) > 1
    return lambda row: f"{row.model}, on {row.gpu}" if mixed else row.model


def _told(place: Place, names: tuple[str, ...], folders: list[Path], rows: list[Row]) -> str:
    """Behind a table of models: where ours wins and loses, where it was measured, and what was not."""
    missing = [f"`{name}`" for name in names if not place.has(name)]
    lacking = f" Not measured yet on these sources: {', '.join(missing)}." if missing else ""
    return f"\n{won_and_lost(rows)} {runs.measured_on(folders)}{lacking}\n"


def _there(place: Place, names: tuple[str, ...]) -> list[Path]:
    found = [place.run(name) for name in names if place.has(name)]
    if not found:
        raise NotMeasuredError
    return found


def _rows(folder: Path) -> Iterator[Row]:
    """Dataset after dataset, batches ascending."""
    run = runs.analysed(folder)
    points, model, gpu = _points(run, folder), _model(folder), runs.gpus(folder)
    for dataset in run.datasets:
        for batch, point in points.items():
            found = _beside(run, dataset, point, FBGEMM)
            ours = run.figure(FUSED, dataset, "stage_us", point)
            if found is None or ours is None:
                continue
            variant, ratio = found
            theirs = run.figure(variant, dataset, "stage_us", point)
            if theirs is not None:
                yield Row(model, gpu, dataset, batch, ours.value, theirs.value, path(variant), ratio)


def _beside(run: Run, dataset: str, point: str, library: str) -> tuple[Variant, Estimate] | None:
    """A library's fastest path there, and how much longer it takes than `fused`."""
    swept = run.sweep.beside_peers if run.sweep else []
    for one in swept:
        if (one.variant, one.dataset, one.point, one.library) == (FUSED, dataset, point, library):
            return one.peer, one.ratio
    return None


def _points(run: Run, folder: Path) -> dict[int, str]:
    """The run's batches, ascending, and the points of its sweep that have them."""
    own = runs.loaded(folder).records[0].cell.workload.batch
    swept = run.sweep.points if run.sweep else {}
    found = {own: ""} | {int(sets[BATCH]): point for point, sets in swept.items() if list(sets) == [BATCH]}
    return dict(sorted(found.items()))


def _model(folder: Path) -> str:
    """What a run calls its model, and its rows' type where that is not float32."""
    run = runs.loaded(folder)
    row_type = run.records[0].cell.workload.dtype
    return run.title.partition(" by batch")[0] + (f", {row_type}" if row_type != "float32" else "")
