"""What README.md and docs say of the reference runs, written from their records: `make results`.

A block of such a page stands between `<!-- results: NAME -->` and `<!-- end -->`; NAME is a function below,
what follows it its arguments. `test_written_results.py` refuses a page whose blocks say anything else.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path

from harness.analysis import frame
from harness.analysis.analyse import analyse
from harness.analysis.figures import speedup
from harness.analysis.frame import LoadedRun
from harness.analysis.peers import over_peer, over_stock
from harness.analysis.report import Run
from harness.cli.shared import REFERENCE_DIR
from harness.records import STOCK, CellRecord, Variant
from harness.report import shares, units

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/results.md", "docs/measurement.md")
BLOCK = re.compile(r"<!-- results: ([\w ]+) -->\n(.*?)<!-- end -->\n", re.DOTALL)

FUSED = Variant("fused", "13.0")
FBGEMM = "fbgemm"
PATHS = ("n-bit", "training v1", "training v2")
"""FBGEMM's paths by their number: the operator for inference, and the forward of that for training."""


@functools.cache
def run_of(name: str) -> Run:
    return analyse([_folder(name)]).runs[0]


@functools.cache
def loaded(name: str) -> LoadedRun:
    return frame.load_run(_folder(name))


def _folder(name: str) -> Path:
    (folder,) = REFERENCE_DIR.glob(f"*/{name}")
    return folder


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; the first column holds words, the others numbers."""
    lines = [["", *heads], ["---", *["---:"] * len(heads)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def time(run: Run, variant: Variant, dataset: str, metric: str, per: int = 1, decimals: int = 0) -> str:
    """Microseconds; of the stage per table where `per` is their number."""
    measured = run.figure(variant, dataset, metric)
    return units.NONE if measured is None else f"{measured.value / per:.{decimals}f}"


def ratio(run: Run, variant: Variant, dataset: str, name: str) -> str:
    return units.text(run.figure(variant, dataset, name))


def path(variant: Variant) -> str:
    return PATHS[variant.tunables.get("path", 0)] if variant.design == FBGEMM else variant.label


def label(variant: Variant) -> str:
    return f"`{FBGEMM}`, {path(variant)}" if variant.design == FBGEMM else f"`{variant.label}`"


def tables_of(name: str) -> int:
    return loaded(name).whole.records[0].cell.workload.tables


def board(name: str) -> str:
    """Which machine measured a run, by its records."""
    records = loaded(name).whole.records
    seen = [record.environment for record in records if record.environment]
    gpu, driver, torch = (
        " and ".join(sorted({str(getattr(one, what)) for one in seen})) for what in ("gpu", "driver", "torch")
    )
    protocol = {"rotating": "distinct batches in turn", "steady": "one batch repeated", "cold": "L2 flushed"}
    caches = " and ".join(sorted({protocol[record.cell.timing.cache] for record in records}))
    replicates = 1 + max(record.cell.replicate for record in records)
    return f"{gpu}, driver {driver}, PyTorch {torch}; {caches}; {replicates} replicates.\n"


def speedups(name: str) -> str:
    """A run's times of the reference, then speedups over it with the pin counted and, in brackets, not."""
    run = run_of(name)
    stage = run.headline == "stage_us"
    rows = []
    for variant in run.variants:
        if variant == run.reference:
            metric, per = ("stage_us", tables_of(name)) if stage else ("kernel_us", 1)
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


def whole_model(name: str) -> str:
    """The model as a CUDA graph: the reference's times, then speedups over it."""
    run = run_of(name)
    rows = []
    for variant in run.variants:
        if variant == run.reference:
            times = [time(run, variant, dataset, "e2e_graph_us") for dataset in run.datasets]
            rows.append([f"{label(variant)}, µs", *times])
        else:
            found = [ratio(run, variant, dataset, speedup("e2e_graph_us")) for dataset in run.datasets]
            rows.append([label(variant), *found])
    return table(run.datasets, rows)


def peers(name: str) -> str:
    """`fused` beside PyTorch of today and the fastest path of FBGEMM, µs per table of the stage."""
    run, per = run_of(name), tables_of(name)
    theirs = []
    for dataset in run.datasets:
        fastest = run.peer(FBGEMM, dataset)
        assert fastest is not None
        theirs.append(f"{time(run, fastest.variant, dataset, 'stage_us', per, 1)} ({path(fastest.variant)})")

    def ours(variant: Variant) -> list[str]:
        return [time(run, variant, dataset, "stage_us", per, 1) for dataset in run.datasets]

    def over(name: str) -> list[str]:
        return [ratio(run, FUSED, dataset, name) for dataset in run.datasets]

    rows = [
        ["PyTorch of today, µs per table", *ours(Variant(STOCK))],
        ["FBGEMM by its fastest path, µs per table", *theirs],
        ["`fused`, µs per table", *ours(FUSED)],
        ["`fused` × PyTorch of today", *over(over_stock("stage_us"))],
        ["`fused` × the fastest of both", *over(over_peer("stage_us"))],
    ]
    if run.reference != Variant(STOCK):
        rows.append(["`fused` × the paper's baseline", *over(speedup("stage_us"))])
    return table(run.datasets, rows)


def limit(name: str) -> str:
    """What share of the limit `fused` reaches."""
    run = run_of(name)
    found = {d: shared for d in run.datasets if (shared := shares.of(run, FUSED, d))}
    told = ", ".join(f"{units.text(shared.share)} on {dataset}" for dataset, shared in found.items())
    return f"`fused` reaches of the limit, each row once: {told}.\n"


def cost(name: str) -> str:
    """What a run takes."""
    records: Sequence[CellRecord] = loaded(name).whole.records
    begin = min(datetime.fromisoformat(record.started_at) for record in records)
    end = max(datetime.fromisoformat(record.finished_at) for record in records)
    in_cells, sampling = (sum(r.facts.get(what, 0) for r in records) for what in ("cell_s", "sampling_s"))
    gpu = next(r.environment.gpu for r in records if r.environment)
    return (
        f"The run `{name}`, {len(records)} cells, took {(end - begin).total_seconds():.0f} s on an {gpu}, of "
        f"which {in_cells:.0f} s were spent in cells and {sampling:.0f} s in sampling.\n"
    )


def selftest() -> str:
    """How often the comparison was wrong, by what was injected; shuffled order / consecutive."""
    (tested,) = json.loads((_folder("selftest") / "selftest.json").read_text(encoding="utf-8"))["tests"]
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


BLOCKS: dict[str, Callable[..., str]] = {
    made.__name__: made
    for made in (
        board,
        speedups,
        whole_model,
        peers,
        limit,
        cost,
        selftest,
    )
}


def written(page: str) -> str:
    """The page with its blocks as the records have them."""

    def anew(found: re.Match[str]) -> str:
        name, *arguments = found[1].split()
        return f"<!-- results: {found[1]} -->\n{BLOCKS[name](*arguments)}<!-- end -->\n"

    return BLOCK.sub(anew, page)


def main() -> None:
    for name in PAGES:
        page = ROOT / name
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
