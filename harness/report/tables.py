"""The page's tables as plain values: what stands in each cell, and which records it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.analysis import claims
from harness.analysis.frame import Run
from harness.analysis.limits import Limits
from harness.analysis.results import METRICS, Results, Winner
from harness.records import MEASURED, PYTORCH
from harness.report import limit_shares, units

Anchors = dict[tuple[str, str], str]
"""Run and cell id → the id of its row in the appendix of all cells."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    detail: str = ""
    """Smaller, below the text."""
    title: str = ""
    """Shown on hover: the records behind the figure."""
    anchor: str = ""
    """Row of the appendix with the first of those records."""
    kind: str = ""
    """A CSS class: "faster", "slower", "best", "absent", "number"."""
    ratio: str = ""
    """`ratio_key` where the figure is a speedup: it follows when the reader takes another reference."""
    ratio_at: str = "text"
    """Where that speedup stands: "text" or "detail"."""


@dataclass(frozen=True)
class Table:
    """A table with a header row; the first cell of a row names it. A row of one cell heads those after it."""

    columns: list[str]
    rows: list[list[Cell]]
    caption: str = ""
    label: str = "Table"
    """Read aloud where there is no caption."""


@dataclass(frozen=True)
class Card:
    """The winner on one dataset, for the first screen."""

    dataset: str
    arm: str
    speedup: str
    interval: str
    time: str
    ratio: str
    """As in a table's cell."""
    remarks: list[str] = field(default_factory=list)
    title: str = ""
    anchor: str = ""


def anchors(results: Results) -> Anchors:
    """Where each cell stands in the appendix."""
    cells = results.loaded.cells
    return {
        (run, cell): f"cell-{n}" for n, (run, cell) in enumerate(zip(cells["run"], cells["id"], strict=True))
    }


def source_of(records: Sequence[str], run: str, at: Anchors) -> dict[str, str]:
    """Title and anchor of a figure that comes from these records."""
    names = ", ".join(records[:8]) + (f" and {len(records) - 8} more" if len(records) > 8 else "")
    return {"title": f"from {names}", "anchor": at.get((run, records[0]), "")}


def ratio_key(results: Results, run: Run, metric: str, arm: str, dataset: str) -> str:
    """Where the page's script finds a speedup by one of the metrics that the run is compared by."""
    places = results.loaded.runs.index(run), run.arms.index(arm), run.datasets.index(dataset)
    return f"{places[0]}/{metric}/{places[1]}/{places[2]}"


def winners(results: Results, limits: Limits, run: Run, at: Anchors) -> list[Card]:
    """The fastest arm per dataset by the headline metric; nothing where only one arm was measured."""
    cards = []
    metric = results.compared(run)[0]
    for dataset in run.datasets:
        won = results.winner(run, dataset, metric)
        if won is None or won.rivals == 0:
            continue
        ratio = won.speedup.ratio if won.speedup else None
        cards.append(
            Card(
                dataset=dataset,
                arm=won.best.arm,
                speedup=units.ratio(ratio.value) if ratio else units.NONE,
                interval=units.span(ratio) if ratio and won.best.arm != run.reference else "",
                time=f"{units.us(won.best.time.value)} µs",
                ratio=ratio_key(results, run, metric, won.best.arm, dataset),
                remarks=_remarks(results, limits, run, dataset, won),
                **source_of(won.speedup.records if won.speedup else won.best.records, run.name, at),
            )
        )
    return cards


def _remarks(results: Results, limits: Limits, run: Run, dataset: str, won: Winner) -> list[str]:
    arm = won.best.arm
    share = limits.share(run, arm, dataset)
    remarks = [f"{limit_shares.text(share)} of the limit"] if share else []
    if won.ties:
        remarks.append(f"not separable from {', '.join(won.ties)}")
    if any(r.kernel and r.kernel.name == PYTORCH for r in run.at(arm, dataset)):
        remarks.append("PyTorch's own kernel")
    if arm == run.reference:
        remarks.append("nothing beats the reference")
    alone = results.winner(run, dataset, "kernel_us")
    if alone is not None and alone.best.arm != arm:
        ratio = f" at {units.ratio(alone.speedup.ratio.value)}" if alone.speedup else ""
        remarks.append(f"by kernel alone: {alone.best.arm}{ratio}")
    return remarks


def speedups(results: Results, run: Run, metric: str, at: Anchors) -> Table:
    """Arms in rows, datasets in columns: reference ÷ arm with its interval."""
    best = {d: won.best.arm for d in run.datasets if (won := results.winner(run, d, metric))}
    rows = []
    for arm in run.arms:
        row = [Cell(arm)]
        for dataset in run.datasets:
            found = results.speedup(run, arm, dataset, metric)
            if found is None:
                row.append(_absent(run, arm, dataset, at))
                continue
            own = arm == run.reference
            kind = f"number {'' if own else found.verdict}" + (" best" if best.get(dataset) == arm else "")
            row.append(
                Cell(
                    "1" if own else units.ratio(found.ratio.value),
                    "reference" if own else units.span(found.ratio),
                    kind=kind,
                    ratio=ratio_key(results, run, metric, arm, dataset),
                    **source_of(found.records, run.name, at),
                )
            )
        rows.append(row)
    return Table(["design", *run.datasets], rows, label=f"Speedup over {run.reference} by {METRICS[metric]}")


def times(results: Results, run: Run, metric: str, at: Anchors) -> Table:
    """Arms in rows, datasets in columns: µs with interval and how far replicates lie apart."""
    best = {d: won.best.arm for d in run.datasets if (won := results.winner(run, d, metric))}
    rows = []
    for arm in run.arms:
        row = [Cell(arm)]
        for dataset in run.datasets:
            found = results.measurement(run, arm, dataset, metric)
            if found is None:
                row.append(
                    Cell(units.NONE, kind="number absent")
                    if metric == "prepare_us"
                    else _absent(run, arm, dataset, at)
                )
                continue
            detail = units.us_span(found.time)
            if len(found.replicates) > 1:
                detail += f"; {units.spread(found.replicates)}"
            fastest = metric != "prepare_us" and best.get(dataset) == arm
            source = source_of(found.records, run.name, at)
            row.append(
                Cell(
                    units.us(found.time.value), detail, kind="number best" if fastest else "number", **source
                )
            )
        if metric != "prepare_us" or any(cell.text != units.NONE for cell in row[1:]):
            rows.append(row)
    per = "batch, all tables, prepare included" if metric == "stage_us" else "table and batch"
    return Table(["design", *run.datasets], rows, label=f"{METRICS[metric].capitalize()}, µs per {per}")


def _absent(run: Run, arm: str, dataset: str, at: Anchors) -> Cell:
    """Why there is no figure."""
    without = [r for r in run.at(arm, dataset) if r.status not in MEASURED]
    if without:
        first = without[0]
        return Cell(first.status, kind="number absent", **source_of([first.cell.id], run.name, at))
    if any(cell.arm == arm and cell.dataset.name == dataset for cell in run.pending):
        return Cell("not run yet", kind="number absent")
    return Cell(units.NONE, kind="number absent")


@dataclass(frozen=True)
class ClaimsView:
    """The paper's claims beside ours."""

    source: claims.Source
    table: Table | None
    """Per claim a line of its own, then a line per arm that answers it; None where none is answered."""
    missing: list[str]
    """Claims that no run answers."""


def claims_view(results: Results, at: Anchors) -> ClaimsView | None:
    """None without a file of claims."""
    if not claims.CLAIMS_FILE.is_file():
        return None
    known = claims.read()
    answered = [(claim, lines) for claim in known.claims if (lines := claims.beside(claim, results))]
    missing = [f"{c.what} ({c.claim})" for c in known.claims if all(c is not claim for claim, _ in answered)]
    if not answered:
        return ClaimsView(known.source, None, missing)
    metrics = list(
        dict.fromkeys(metric for claim, _ in answered for metric in claim.metrics or claims.METRICS)
    )
    rows = []
    for claim, lines in answered:
        names = list(dict.fromkeys((line.run, line.arm) for line in lines))
        rows.append(
            [Cell(f"{claim.what}: {claim.claim}", f"From the {claim.source}. {claim.caveat}".strip())]
        )
        paper = Cell(f"{claim.value:g}×", kind="number")
        for run, arm in names:
            row = [Cell(results.loaded.contestant(run, arm)), paper]
            for metric in metrics:
                line = next((o for o in lines if (o.run, o.arm, o.metric) == (run, arm, metric)), None)
                row.append(
                    Cell(units.NONE, kind="number absent")
                    if line is None
                    else Cell(
                        units.ratio(line.ratio.value),
                        units.span(line.ratio) + (f", {line.dataset}" if line.others else ""),
                        kind="number",
                        **source_of(line.records, run, at),
                    )
                )
            rows.append(row)
    here = " or ".join(gpus(results.loaded.runs)) or "no GPU"
    columns = [f"ours, {here}", f"paper, {known.source.gpu}", *(METRICS[metric] for metric in metrics)]
    caption = "Ours is the largest ratio over the datasets, as the paper's “up to” means."
    return ClaimsView(known.source, Table(columns, rows, caption), missing)


def gpus(runs: Sequence[Run]) -> list[str]:
    """The GPUs that the records name."""
    names = (r.environment.gpu for run in runs for r in run.records if r.environment)
    return [name for name in dict.fromkeys(names) if name]


def compilers(results: Results, at: Anchors) -> Table | None:
    """What the compiler made of each design beside its speed by kernel alone; None without kernel facts."""
    rows = []
    datasets = list(dict.fromkeys(name for run in results.loaded.runs for name in run.datasets))
    for run in results.loaded.runs:
        for arm in run.arms:
            record = next((r for r in run.records if r.cell.arm == arm and r.kernel), None)
            if record is None or record.kernel is None or run.on_cpu:
                continue
            kernel = record.kernel
            known = kernel.registers > 0  # PyTorch's own kernel was not looked into
            source = source_of([record.cell.id], run.name, at)
            row = [
                Cell(
                    results.loaded.contestant(run.name, arm), f"{kernel.compiler}, {kernel.arch}".strip(", ")
                ),
                Cell(str(kernel.registers) if known else units.NONE, kind="number", **source),
                Cell(units.bytes_(kernel.spill_bytes) if known else units.NONE, kind="number"),
                Cell(f"{kernel.occupancy * 100:.3g} %" if known else units.NONE, kind="number"),
            ]
            for dataset in datasets:
                time = results.measurement(run, arm, dataset, "kernel_us")
                ratio = results.speedup(run, arm, dataset, "kernel_us")
                row.append(
                    Cell(
                        units.us(time.time.value),
                        units.ratio(ratio.ratio.value) if ratio else "",
                        kind="number",
                        ratio=ratio_key(results, run, "kernel_us", arm, dataset) if len(run.arms) > 1 else "",
                        ratio_at="detail",
                        **source_of(time.records, run.name, at),
                    )
                    if time
                    else Cell(units.NONE, kind="number absent")
                )
            rows.append(row)
    columns = ["design", "registers", "spills", "occupancy", *datasets]
    caption = (
        "Registers per thread, bytes spilled, and theoretical occupancy (resident warps ÷ the most a "
        "multiprocessor holds), beside the kernel alone: µs, and speedup over the run's reference."
    )
    return Table(columns, rows, caption) if rows else None


def compiler_story(results: Results) -> list[str]:
    """Why OptMT's gain hangs on the compiler, told from the records; empty where they cannot tell."""
    sentences = []
    for run in results.loaded.runs:
        kernels = {r.cell.arm: r.kernel for r in run.records if r.kernel and r.status in MEASURED}
        for arm, plain in kernels.items():
            capped = kernels.get(arm.replace("baseline", "optmt", 1))
            if not arm.startswith("baseline@") or capped is None:
                continue
            twin = arm.replace("baseline", "optmt", 1)
            gains = [
                (dataset, s.ratio)
                for dataset in run.datasets
                if run.reference == arm and (s := results.speedup(run, twin, dataset, "kernel_us"))
            ]
            if not gains:
                continue
            where, most = max(gains, key=lambda gain: gain[1].value)
            spilled = f", spilling {units.bytes_(capped.spill_bytes)}" if capped.spill_bytes else ""
            resident, raised = (f"{kernel.occupancy * 100:.3g} %" for kernel in (plain, capped))
            sentences.append(
                f"{plain.compiler} gives the baseline {plain.registers} registers a thread, which lets "
                f"{resident} of the warps be resident; capped at {capped.registers}{spilled}: {raised}. "
                f"OptMT's best gain is {units.ratio(most.value)} ({units.span(most)}), on {where}."
            )
    return sentences
