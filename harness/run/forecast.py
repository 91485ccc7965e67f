"""What a run would take, before it is begun: cells, images, memory, and time as far as records tell."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean, median

from harness.analysis import frame
from harness.errors import BadInputError, MachineError
from harness.moments import moment
from harness.plan import Plan
from harness.records import MEASURED, Cell, CellRecord
from harness.run.runner import gpu_bytes

SECONDS = "cell_s"
"""The fact of a record that says how long its cell took, with tables made and outputs checked."""


@dataclass(frozen=True)
class Forecast:
    """What a plan would take."""

    cells: int
    processes: int
    """Fresh ones, each a container unless the run is local."""
    gpu_bytes: int
    """About how much GPU memory the largest cell takes; 0 where none runs on a GPU."""
    seconds: float | None
    """Of the cells that records of others tell of, and of starting their processes; None where they tell of
    none. Building images is not counted."""
    told: int
    """Cells that records tell of."""
    measured_on: list[str]
    """GPUs, or CPUs, of those records."""
    images: dict[str, str] | None
    """State by image; None where the run is local, or Docker could not be asked."""


def forecast(plan: Plan, folders: Iterable[Path], images: dict[str, str] | None = None) -> Forecast:
    """What a plan would take, judged by the records in the folders of other runs. A cell takes as long as the
    same arm on the same dataset took for the same work and protocol; where there is none, as any arm did on
    average."""
    same: dict[object, list[float]] = {}
    alike: dict[object, list[float]] = {}
    starts: list[float] = []
    where: dict[str, None] = {}
    wanted = {_alike(cell) for cell in plan.cells}
    for records in map(_records, folders):
        for record in records:
            if _alike(record.cell) in wanted:
                seconds = record.facts[SECONDS]
                same.setdefault(_same(record.cell), []).append(seconds)
                alike.setdefault(_alike(record.cell), []).append(seconds)
                if record.environment:
                    where[record.environment.gpu or record.environment.cpu] = None
        starts += _between(records) if any(_alike(record.cell) in wanted for record in records) else []
    found = [same.get(_same(cell)) or alike.get(_alike(cell)) for cell in plan.cells]
    told = [fmean(seconds) for seconds in found if seconds]
    between = len(plan.launches) * (median(starts) if starts else 0)
    on_gpu = [cell.workload for cell in plan.cells if cell.workload.device == "cuda"]
    return Forecast(
        cells=len(plan.cells),
        processes=len(plan.launches),
        gpu_bytes=max(map(gpu_bytes, dict.fromkeys(on_gpu)), default=0),
        seconds=sum(told) + between if told else None,
        told=len(told),
        measured_on=list(where),
        images=images,
    )


def image_states(plan: Plan) -> dict[str, str] | None:
    """Whether each image of the plan is current, stale or missing; None where Docker cannot be asked."""
    from harness import designs
    from harness.build import engine, images

    arms = dict.fromkeys((launch.design, launch.toolchain) for launch in plan.launches)
    targets = [images.Target(designs.get(design), toolchain) for design, toolchain in arms]
    settings = images.Settings.from_environment()
    try:
        with engine.connection() as client:
            return {target.reference: images.state(client, target, settings) for target in targets}
    except MachineError:
        return None


def _records(folder: Path) -> list[CellRecord]:
    """Those of a run that say how long they took; a damaged run tells nothing."""
    try:
        records = frame.load_run(folder).whole.records
    except BadInputError:
        return []
    return [record for record in records if record.status in MEASURED and record.facts.get(SECONDS)]


def _between(records: Iterable[CellRecord]) -> list[float]:
    """Seconds from the end of each process of a run to the first cell of the next."""
    processes: dict[object, list[tuple[datetime, datetime]]] = {}
    for record in records:
        began, ended = moment(record.started_at), moment(record.finished_at)
        if began and ended:
            processes.setdefault((record.cell.variant.label, record.cell.replicate), []).append(
                (began, ended)
            )
    spans = sorted((min(cells)[0], max(end for _, end in cells)) for cells in processes.values())
    gaps = [(later[0] - sooner[1]).total_seconds() for sooner, later in itertools.pairwise(spans)]
    return [max(0.0, gap) for gap in gaps]


def _alike(cell: Cell) -> Sequence[object]:
    return cell.workload, dataclasses.astuple(cell.timing), str(cell.model)


def _same(cell: Cell) -> Sequence[object]:
    return cell.variant.label, cell.dataset.name, *_alike(cell)
