"""Blocks on one run of kernels side by side. Each is of the first run of those named that is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from harness.analysis.boards import in_words
from harness.analysis.figure_sources.inference import PERCENTILES, WAYS, percentile
from harness.analysis.figures import speedup
from harness.analysis.peers import over_peer, over_stock
from harness.analysis.report import Run
from harness.analysis.stats import Estimate
from harness.records import STOCK, CellRecord, Variant
from harness.report import reads, shares, units
from tests.written import runs
from tests.written.runs import FBGEMM, FUSED, NotMeasuredError, Place, label, path, ratio, table, time

_WORST = 2
"""So many losses are named where there are more."""


def board(place: Place, *names: str) -> str:
    """Which machine measured it."""
    return runs.board(place.run(*names))


def speedups(place: Place, *names: str) -> str:
    """Times of the reference, then speedups over it with the pin counted and, in brackets, not."""
    folder = place.run(*names)
    run = runs.analysed(folder)
    stage = run.headline == "stage_us"
    rows = []
    for variant in sorted(run.variants, key=lambda one: one != run.reference):
        if variant == run.reference:
            metric, per = ("stage_us", runs.tables_of(folder)) if stage else ("kernel_us", 1)
            times = [time(run, variant, dataset, metric, per) for dataset in run.datasets]
            rows.append([f"{label(variant)}, µs per table", *times])
            continue
        cells = []
        for dataset in run.datasets:
            counted = ratio(run, variant, dataset, speedup(run.headline))
            alone = not stage and run.figure(variant, dataset, "prepare_us") is not None
            kernel = ratio(run, variant, dataset, speedup("kernel_us"))
            cells.append(f"{counted} ({kernel})" if alone else counted)
        rows.append([label(variant), *cells])
    return table(run.datasets, rows)


def whole_model(place: Place, *names: str) -> str:
    """The model as a CUDA graph: the reference's times, then speedups over it."""
    run = runs.analysed(place.run(*names))
    rows = []
    for variant in run.variants:
        if variant == run.reference:
            times = [time(run, variant, dataset, "e2e_graph_us") for dataset in run.datasets]
            rows.append([f"{label(variant)}, µs", *times])
        else:
            found = [ratio(run, variant, dataset, speedup("e2e_graph_us")) for dataset in run.datasets]
            rows.append([label(variant), *found])
    return table(run.datasets, rows)


def latencies(place: Place, *names: str) -> str:
    """Whole inferences, eager and as CUDA graphs: what 50, 95 and 99 % take at most, and samples a second;
    and whether ours can be told from the fastest of other libraries, process by process."""
    folder = place.run(*names)
    run, rows = runs.analysed(folder), []
    for dataset in run.datasets:
        for variant in run.variants:
            cells = []
            for way in WAYS:
                found = [run.figure(variant, dataset, percentile(way, percent)) for percent in PERCENTILES]
                rate = run.figure(variant, dataset, f"{way}_samples_per_second")
                cells += [" / ".join(map(units.text, found)), units.text(rate)]
            if any(run.figure(variant, dataset, way) for way in WAYS):
                rows.append([f"{dataset}, {label(variant)}", *cells])
    if not rows:
        raise NotMeasuredError
    heads = [f"{how}: {what}" for how in WAYS.values() for what in ("p50 / p95 / p99, µs", "samples/s")]
    apart = [f"{dataset}, {gain}" for dataset in run.datasets for gain in _gains(run, dataset)]
    told = f"\n`fused` × the fastest library, process by process: {'; '.join(apart)}.\n" if apart else ""
    return table(heads, rows) + f"{told}\n{runs.board(folder)}"


def whole_in_short(place: Place, *names: str) -> str:
    """What whole inferences gain over the fastest of other libraries on the first dataset, in a sentence."""
    folder = place.run(*names)
    run = runs.analysed(folder)
    if not (gains := list(_gains(run, run.datasets[0]))):
        raise NotMeasuredError
    batch = runs.loaded(folder).records[0].cell.workload.batch
    return (
        f"{run.title.partition(',')[0]}, batch {batch:,}, `fused` × the fastest library: {'; '.join(gains)}. "
        f"{runs.measured_on([folder])}\n"
    )


def _gains(run: Run, dataset: str) -> Iterator[str]:
    """Of `fused` over the fastest of other libraries, by the ways in which whole inferences run."""
    for way, how in WAYS.items():
        if ours := run.figure(FUSED, dataset, over_peer(way)):
            yield f"{how}, {units.text(ours)} ({units.interval(ours).replace('–', ' to ')})"


def peers(place: Place, *names: str) -> str:
    """`fused` beside PyTorch of today and the fastest path of FBGEMM, µs per table of the stage."""
    folder = place.run(*names)
    run, per = runs.analysed(folder), runs.tables_of(folder)
    theirs = []
    for dataset in run.datasets:
        fastest = run.peer(FBGEMM, dataset, "stage_us")
        shown = units.NONE
        if fastest is not None:
            shown = f"{time(run, fastest.variant, dataset, 'stage_us', per, 1)} ({path(fastest.variant)})"
        theirs.append(shown)

    def ours(variant: Variant) -> list[str]:
        return [time(run, variant, dataset, "stage_us", per, 1) for dataset in run.datasets]

    def over(name: str) -> list[str]:
        return [ratio(run, FUSED, dataset, name) for dataset in run.datasets]

    stock = Variant(STOCK) in run.variants
    rows = [["PyTorch of today", *ours(Variant(STOCK))]] if stock else []
    rows.append(["FBGEMM by its fastest path", *theirs])
    rows.append(["`fused`", *ours(FUSED)])
    if stock:
        rows.append(["`fused` × PyTorch of today", *over(over_stock("stage_us"))])
    libraries = (STOCK, FBGEMM) if stock else (FBGEMM,)
    # Where one has no time, the fastest is that of the others alone.
    whole = {d for d in run.datasets if all(run.peer(library, d, "stage_us") for library in libraries)}
    if whole:
        rivals = "the fastest of both" if stock else "FBGEMM's fastest"
        ratios = zip(run.datasets, over(over_peer("stage_us")), strict=True)
        rows.append([f"`fused` × {rivals}", *(told if d in whole else units.NONE for d, told in ratios)])
    if run.reference.design not in (STOCK, FBGEMM):
        named = "the paper's baseline" if run.reference.design == "baseline" else label(run.reference)
        rows.append([f"`fused` × {named}", *over(speedup("stage_us"))])
    return table(run.datasets, rows, "µs per table")


def in_short(place: Place, *names: str) -> str:
    """Against the libraries, and the board."""
    return f"{peers(place, *names)}\n{board(place, *names)}"


def limit(place: Place, *names: str) -> str:
    """What share of the limit `fused` reaches."""
    run = runs.analysed(place.run(*names))
    found = {d: shared for d in run.datasets if (shared := shares.of(run, FUSED, d))}
    if not found:
        raise NotMeasuredError
    told = ", ".join(f"{units.text(shared.share)} on {dataset}" for dataset, shared in found.items())
    return f"`fused` reaches of the limit, each row once: {told}.\n"


def comparison(place: Place, *names: str) -> str:
    """All that a run of kernels side by side says: against the libraries, every arm, the limit, the board."""
    run = runs.analysed(place.run(*names))
    parts = [peers(place, *names)]
    if len(run.variants) > 2:  # else the same figures once more
        parts.append(speedups(place, *names))
    if any(shares.of(run, FUSED, dataset) for dataset in run.datasets):
        parts.append(limit(place, *names))
    return "\n".join([*parts, board(place, *names)])


def memory_read(place: Place, *names: str) -> str:
    """Who reads how much from memory, as the profiler counted it."""
    run = runs.analysed(place.run(*names))
    told = list(reads.sentences(run, run.profile)) if run.profile else []
    if not told:
        raise NotMeasuredError
    return "".join(f"- {sentence}\n" for sentence in told)


def losses(place: Place, *names: str) -> str:
    """Of all datasets of several runs, where `fused` is slower than the fastest of the other libraries."""
    there = [name for name in names if place.has(name)]
    found = [one for name in there for one in _beside_fastest(runs.analysed(place.run(name)), name)]
    if not found:
        raise NotMeasuredError
    slower = sorted(((ratio.value, where) for where, ratio in found if ratio.high < 1))
    faster = sum(ratio.low > 1 for _, ratio in found)
    level = len(found) - faster - len(slower)
    by_little = runs.by_little(ratio for _, ratio in found if ratio.low > 1)
    told = [f"faster in {faster}{by_little}", *([f"level in {level}"] if level else [])]
    told.append(f"slower in {len(slower)}")
    worst = [where for _, where in slower[:_WORST]]
    which = (": " if len(worst) == len(slower) else ", worst ") + "; ".join(worst) if worst else ""
    runs_of = ", ".join(f"`{name}`" for name in there)
    return (
        f"Over {runs_of}, {len(found)} datasets in all, `fused` beside the fastest of the other libraries is "
        f"{', '.join(told)}{which}. {runs.measured_on([place.run(name) for name in there])}\n"
    )


def _beside_fastest(run: Run, name: str) -> Iterator[tuple[str, Estimate]]:
    """By dataset of a run: where, by how much and beside whom in words; the fastest library ÷ `fused`."""
    for rival in run.fastest_peers:
        figure = run.figure(FUSED, rival.dataset, over_peer("stage_us"))
        if figure is not None and rival.metric == "stage_us":
            where = f"`{name}` on {rival.dataset}"
            yield f"{where}, {units.text(figure)} ({_rival(rival.variant)})", figure.estimate


def _rival(variant: Variant) -> str:
    return f"FBGEMM {path(variant)}" if variant.design == FBGEMM else "PyTorch of today"


def boards(place: Place) -> str:
    """How boards of one model differ, in every run that was measured on several."""
    told = []
    for plan in place.files("*/plan.json"):
        if spread := runs.spread(plan.parent):
            told.append(f"- `{plan.parent.name}`: {in_words(spread)}.\n")
    if not told:
        raise NotMeasuredError("No run here is of several boards.\n")
    return "".join(told)


def cost(place: Place, name: str) -> str:
    """What a run takes."""
    folder = place.run(name)
    records: Sequence[CellRecord] = runs.loaded(folder).whole.records
    begin = min(datetime.fromisoformat(record.started_at) for record in records if record.started_at)
    end = max(datetime.fromisoformat(record.finished_at) for record in records if record.finished_at)
    in_cells, sampling = (sum(r.facts.get(what, 0) for r in records) for what in ("cell_s", "sampling_s"))
    boards = {one.gpu_uuid for one in runs.environments(folder)}
    where = f"an {runs.gpu(folder)}" if len(boards) == 1 else runs.gpu(folder)
    return (
        f"The run `{name}`, {len(records)} cells, took {(end - begin).total_seconds():.0f} s on {where}, of "
        f"which {in_cells:.0f} s were spent in cells and {sampling:.0f} s in sampling.\n"
    )


def selftest(place: Place) -> str:
    """How often the comparison was wrong, by what was injected; shuffled order / consecutive."""
    file = place.run("selftest") / "selftest.json"
    (tested,) = json.loads(file.read_text(encoding="utf-8"))["tests"]
    rate = {(r["injected"], r["dataset"], r["order"]): r["rate"] for r in tested["rates"]}
    datasets = ("one_item", "medium", "random")
    titles = {
        0.0: "nothing injected (false verdicts)",
        0.01: "1 % slower",
        0.02: "2 % slower",
        0.05: "5 % slower",
    }
    rows = []
    for injected, title in titles.items():
        pairs = [[f"{rate[injected, d, o]:.1%}" for o in ("shuffled", "consecutive")] for d in datasets]
        rows.append([title, *(" / ".join(pair).replace("%", " %") for pair in pairs)])
    return table(datasets, rows)
