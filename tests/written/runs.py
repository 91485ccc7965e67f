"""The runs that pages speak of, and how their figures are put into Markdown."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from harness import designs
from harness.analysis import boards, frame, sources
from harness.analysis.analyse import analyse
from harness.analysis.compare import THRESHOLD
from harness.analysis.frame import LoadedRun
from harness.analysis.report import Run
from harness.analysis.stats import Estimate
from harness.cli.shared import REFERENCE_DIR, SENT_DIR
from harness.records import MEASURED, CellRecord, Environment, Variant
from harness.report import summary, units

_Value = TypeVar("_Value")

FUSED = Variant("fused", "13.0")
FBGEMM = "fbgemm"
CACHES = {"rotating": "distinct batches in turn", "steady": "one batch repeated", "cold": "L2 flushed"}


class NotMeasuredError(Exception):
    """There is no such run, or the run has not what a block tells."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the runs are. Tests have one of their own."""

    folder: Path = REFERENCE_DIR
    sent: Path = SENT_DIR
    """Runs of others."""

    def files(self, name: str) -> list[Path]:
        """Those of this path below the folder of a GPU, by their path."""
        return sorted(self.folder.glob(f"*/{name}"))

    def sent_runs(self) -> list[Path]:
        """Folders of the runs that others have sent, by their path."""
        return sorted(path.parent for path in self.sent.glob("*/*/plan.json"))

    def has(self, name: str) -> bool:
        """Whether a run of this name is there."""
        return bool(self.files(f"{name}/plan.json"))

    def run(self, *names: str) -> Path:
        """The folder of the first of these runs that is there; of several GPUs the one measured last."""
        for name in names:
            if found := [path.parent for path in self.files(f"{name}/plan.json")]:
                return max(found, key=lambda folder: loaded(folder).began)
        raise NotMeasuredError


@functools.cache
def analysed(folder: Path) -> Run:
    """A run, as the reports have it."""
    return analyse([folder], tunables=designs.named_tunables()).runs[0]


@functools.cache
def loaded(folder: Path) -> LoadedRun:
    """A run's records."""
    return frame.load_run(folder)


@functools.cache
def _today() -> dict[str, str]:
    return dict(designs.source_hashes())


def older(folder: Path) -> list[str]:
    """Designs of a run that have changed since."""
    return sources.older(loaded(folder).whole.records, _today())


def environments(folder: Path) -> list[Environment]:
    """Where its cells were measured, one a cell. Not of failed ones: after a GPU was lost nothing of it can
    be read, and `tests.check_sent` holds the text of measured ones alone to be a name."""
    records = loaded(folder).whole.records
    found = [record.environment for record in records if record.status in MEASURED and record.environment]
    if not found:
        raise NotMeasuredError
    return found


def gpus(folder: Path) -> str:
    """The models of GPU that measured a run."""
    return " and ".join(sorted({one.gpu for one in environments(folder)}))


def gpu(folder: Path) -> str:
    """What measured a run, in short."""
    count = len({one.gpu_uuid for one in environments(folder)})
    return (f"{count} boards of " if count > 1 else "") + gpus(folder)


def changed_since(folder: Path) -> str:
    """A sentence where a run is of older sources than today's."""
    names = ", ".join(f"`{name}`" for name in older(folder))
    return f" Of older sources: {names} changed since." if names else ""


def measured_on(folders: Sequence[Path]) -> str:
    """A sentence on which machines measured these runs, and what else is to be known of any of them."""
    machines = " and ".join(dict.fromkeys(map(gpu, folders)))
    remarks = dict.fromkeys(tell(folder) for tell in (unfinished, changed_since) for folder in folders)
    return f"Measured on {machines}.{''.join(remarks)}"


def libraries(folder: Path) -> str:
    """The versions of FBGEMM that a run measured; empty where it measured none."""
    found = {
        record.kernel.compiler.partition(",")[0]
        for record in loaded(folder).whole.records
        if record.status in MEASURED and record.kernel and record.kernel.name == FBGEMM
    }
    return "".join(f", {version}" for version in sorted(found))


def by_little(faster: Iterable[Estimate]) -> str:
    """How many of those that are faster are so by less than `harness compare` usually calls a difference, in
    brackets; empty where none is."""
    count = sum(ratio.value < 1 + THRESHOLD for ratio in faster)
    return f" ({count} by less than {THRESHOLD:.0%})".replace("%", " %") if count else ""


def board(folder: Path) -> str:
    """Which machine measured a run, by its records, and whether what it measured is still the same."""
    records, seen = loaded(folder).whole.records, environments(folder)
    driver, torch = (
        " and ".join(sorted({str(getattr(one, what)) for one in seen})) for what in ("driver", "torch")
    )
    caches = " and ".join(sorted({CACHES[record.cell.timing.cache] for record in records}))
    measured = f"{gpu(folder)}, driver {driver}, PyTorch {torch}{libraries(folder)}"
    made = f"{measured}; {caches}; {_replicates(records)} replicates."
    return f"{made}{unfinished(folder)}{changed_since(folder)}\n"


def _replicates(records: Sequence[CellRecord]) -> str:
    """Of each cell that was measured: their number, or the fewest and the most."""
    cells = Counter((one.cell.variant, one.cell.dataset.name, one.cell.point) for one in records)
    return " to ".join(str(count) for count in sorted({min(cells.values()), max(cells.values())}))


def unfinished(folder: Path) -> str:
    """A sentence where cells of a run's plan have no record: whose, and who has none at all."""
    lacking = summary.missing(analysed(folder), label)
    return f" `{folder.name}` is not finished: {lacking}." if lacking else ""


def spread(folder: Path) -> boards.Spread | None:
    """How its boards differ; None where there is one."""
    run = loaded(folder)
    return boards.spread(run, boards.levels(run.whole.records), analysed(folder).headline)


def line(
    name: str, columns: Iterable[str], values: Mapping[str, _Value], shown: Callable[[_Value], str]
) -> list[str]:
    """Of a table: what is known by column."""
    return [name, *(shown(values[column]) if column in values else units.NONE for column in columns)]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], first: str = "") -> str:
    """A table in Markdown; the first column holds words, the others numbers."""
    head, *body = (f"| {' | '.join(cells)} |\n" for cells in ([first, *heads], *rows))
    return f"{head}|---{'|---:' * len(heads)}|\n{''.join(body)}"


def time(run: Run, variant: Variant, dataset: str, metric: str, per: int = 1, decimals: int = 0) -> str:
    """Microseconds; of the stage per table where `per` is their number."""
    measured = run.figure(variant, dataset, metric)
    return units.NONE if measured is None else f"{measured.value / per:.{decimals}f}"


def ratio(run: Run, variant: Variant, dataset: str, name: str) -> str:
    """A speedup."""
    return units.text(run.figure(variant, dataset, name))


def path(variant: Variant) -> str:
    """FBGEMM's by the name that its design.toml gives it; of what has no paths the label."""
    if variant.design != FBGEMM:
        return variant.label
    paths = designs.named_tunables()[FBGEMM]["path"]
    return paths.names[paths.values.index(variant.tunables.get("path", paths.default))]


def label(variant: Variant) -> str:
    """A variant in a table's first column."""
    return f"`{FBGEMM}`, {path(variant)}" if variant.design == FBGEMM else f"`{variant.label}`"


def tables_of(folder: Path) -> int:
    """How many tables a batch looks up in."""
    return loaded(folder).whole.records[0].cell.workload.tables
