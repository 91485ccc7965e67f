"""Our designs beside other libraries, each by the path that is its fastest on that dataset."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis.figure_sources.inference import WAYS
from harness.analysis.figures import METRICS, speedup
from harness.analysis.peers import is_peer, over_peer, over_stock
from harness.analysis.report import Report, Run
from harness.records import STOCK, Variant
from harness.report import blocks, libraries, names, units
from harness.report.blocks import Block, Cell, Fold, Paragraph, Section, Table

PLACE = 20
_WHAT = """A library may look rows up by several paths; it stands here by the one that is its fastest on that
dataset, named below its time. A speedup over the compiler of 2023 says what changed since; what a user of
today gains is the one over PyTorch of today, and over the fastest library. The fastest is picked by the times
that are compared, which favours the libraries."""
_OVER_PEER = "over the fastest library"


def page(report: Report) -> Section | None:
    found = blocks.per_run(report, _of_run)
    title = "Beside other libraries"
    paths = [Paragraph(text, "aside") for text in _paths(report)]
    return Section("libraries", title, [Paragraph(_WHAT), *paths, *found]) if found else None


def _paths(report: Report) -> dict[str, None]:
    """What the names of paths mean, each once."""
    told = (
        f"{libraries.name(one.design)}'s {one.tunable}: {one.summary}"
        for run in report.runs
        for one in run.named
    )
    return dict.fromkeys(told)


def _of_run(run: Run) -> list[Block]:
    if not _ours(run, run.headline):
        return []
    found: list[Block] = [table(run, run.headline)]
    for way in WAYS:
        if _ours(run, way):
            found.append(Fold(f"The same by {METRICS[way]}", [table(run, way)]))
    return found


def _ours(run: Run, metric: str) -> list[Variant]:
    """Designs of ours that can be compared with a library."""
    return [
        variant
        for variant in run.variants
        if not is_peer(variant) and any(run.figure(variant, d, over_peer(metric)) for d in run.datasets)
    ]


def table(run: Run, metric: str) -> Table:
    """Every library's time and path; then over what each design of ours is how much faster."""
    rows = []
    for design in libraries.designs(run):
        paths = [_path(run, design, dataset, metric) for dataset in run.datasets]
        rows.append([Cell(f"fastest path of {libraries.name(design)}, {names.unit(metric)}"), *paths])
    for variant in _ours(run, metric):
        rows.append([Cell(variant.label)])
        for title, name in _speedups(run, variant, metric):
            rows.append([Cell(title), *_ratios(run, variant, name)])
    label = f"Designs beside the fastest path of every library, by {METRICS[metric]}"
    return Table(["time or speedup", *run.datasets], rows, label=label)


def _ratios(run: Run, variant: Variant, name: str) -> Iterator[Cell]:
    for dataset in run.datasets:
        figure = run.figure(variant, dataset, name)
        yield blocks.number(run, figure, figure.verdict) if figure else blocks.ABSENT


def _speedups(run: Run, variant: Variant, metric: str) -> Iterator[tuple[str, str]]:
    """Titles and names of the figures: those that a speedup over the run's reference never stands without. Is
    PyTorch the reference, the speedups over it are those."""
    if variant != run.reference and not is_peer(run.reference):
        yield f"over {run.reference.label}", speedup(metric)
    if run.reference.design != STOCK and any(run.peer(STOCK, d, metric) for d in run.datasets):
        yield "over PyTorch of today", over_stock(metric)
    if libraries.designs(run) != [STOCK]:
        yield _OVER_PEER, over_peer(metric)


def _path(run: Run, design: str, dataset: str, metric: str) -> Cell:
    peer = run.peer(design, dataset, metric)
    time = names.per_table(run, metric, run.figure(peer.variant, dataset, metric)) if peer else None
    if peer is None or time is None:
        return blocks.ABSENT
    detail = libraries.short_path(run, peer.variant, peer.ties) if peer.paths > 1 else ""
    return blocks.number(run, time, detail=detail)


def brief(report: Report, run: Run) -> Iterator[Block]:
    """The same on terminal and in Markdown, by the headline; which paths were the fastest, in words."""
    metric = run.headline
    ours = [variant for variant in _ours(run, metric) if variant != run.reference]
    if not ours:
        return
    rows: list[list[Cell]] = []
    for design in libraries.designs(run):
        times = [_time(run, design, dataset, metric) for dataset in run.datasets]
        rows.append([Cell(f"{libraries.name(design)}, {names.unit(metric)}"), *times])
    for name, title in {over_stock(metric): "over PyTorch", over_peer(metric): "over fastest"}.items():
        if any(name == told for _, told in _speedups(run, ours[0], metric)):
            rows.append([Cell(title, kind="aside"), *(Cell("") for _ in run.datasets)])
            rows += [[Cell(variant.label), *_ratios(run, variant, name)] for variant in ours]
    yield Table(
        ["design", *run.datasets],
        rows,
        title=f"{run.title}: beside other libraries",
        caption="time of a library, by its fastest path, ÷ time of the design; fastest: of all libraries",
        label=f"Beside the fastest path of every library, by {METRICS[metric]}.",
        kind="dense",
        only="markdown",
    )
    for design in libraries.designs(run):
        peers = [peer for d in run.datasets if (peer := run.peer(design, d, metric)) and peer.paths > 1]
        if peers:
            told = "; ".join(
                f"{peer.dataset} {libraries.short_path(run, peer.variant, peer.ties)}" for peer in peers
            )
            yield Paragraph(f"Fastest path of {libraries.name(design)}: {told}.")


def _time(run: Run, design: str, dataset: str, metric: str) -> Cell:
    peer = run.peer(design, dataset, metric)
    time = names.per_table(run, metric, run.figure(peer.variant, dataset, metric)) if peer else None
    return Cell(units.text(time), kind="number aside") if time else blocks.ABSENT
