"""What a run is made from, written into its folder before anything is measured."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from harness import cell_files, wall
from harness import experiment as experiments
from harness.analysis import kind_demand
from harness.errors import BadInputError
from harness.experiment import Experiment, dataset_of
from harness.files import Folder, part_of
from harness.groups import TableGroup
from harness.plan import Plan
from harness.progress import Progress
from harness.records import to_json


def new_folder(results: Path, experiment: Experiment) -> Path:
    """Where a run that starts now belongs: `results/<experiment>-<UTC time>`."""
    return results / f"{experiment.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def absolute(experiment: Experiment) -> Experiment:
    """Trace files by paths that mean the same when the run is resumed from another folder."""
    paths = {name: dataset_of(name).path for name in experiment.datasets}
    names = tuple(str(Path(name).absolute()) if path else name for name, path in paths.items())
    return dataclasses.replace(experiment, datasets=names)


def check_traces(experiment: Experiment, plan: Plan, progress: Progress) -> dict[str, Path]:
    """The traces that are no synthetic ones, by their path in the run; BadInputError with file and position
    where one is no trace for the run's tables."""
    found = [(dataset_of(name), name) for name in experiment.datasets]
    traces = {dataset.path: Path(name) for dataset, name in found if dataset.path is not None}
    for source in traces.values():
        progress.now(f"reading {source.name}")
        _check_trace(source, _fewest_rows(plan))
    from harness.traces import copies

    for table in _recorded(plan):
        progress.now(f"reading {Path(table.trace).name}")
        copies.check(table)
    return traces


def _recorded(plan: Plan) -> list[TableGroup]:
    """Tables that replay traces of their own, one for each trace."""
    from harness.traces import recorded

    works = {cell.workload.groups: None for cell in plan.cells}
    return recorded.traces_of(group for groups in works for group in groups)


def _fewest_rows(plan: Plan) -> int:
    """Of the smallest tables: all of them, in every cell of a sweep, replay the same trace."""
    return min(kind.rows for cell in plan.cells for kind in cell.workload.kinds)


def _check_trace(source: Path, rows: int) -> None:
    from harness.traces import formats

    for _ in formats.trace_blocks(source, rows):
        pass


def require_empty(root: Folder) -> None:
    """BadInputError where the folder holds a run already, or what is left of one."""
    if root.kind(wall.PLAN):
        raise BadInputError(
            f"{root.path}: holds a run already; go on with `harness run --resume {root.path}`."
        )
    with cell_files.opened(root) as files:
        if any(files.kind(cell_id, wall.RECORD) for cell_id in files.ids()):
            raise BadInputError(
                f"{root.path}: holds records of a run whose {wall.PLAN} is gone; choose another place, so "
                "that nothing of it is lost."
            )


def lay_out(
    experiment: Experiment, plan: Plan, traces: dict[str, Path], root: Folder, progress: Progress
) -> None:
    """Writes what a run is made from; the plan last, since its presence says that the rest is there.

    Traces are copied, not linked: a link would follow whatever is written into the original later, and the
    records would no longer be of the trace beside them.
    """
    from harness.traces import copies, demand

    def write(path: str, into: Callable[[Path], object]) -> None:
        """A file among the run's traces, whole or not at all."""
        with root.inner(wall.TRACES, create=True) as folder:
            os.fchmod(folder.fileno(), 0o755)  # read by a container's user, whatever the umask
            part = part_of(name := Path(path).name)
            try:
                out = folder.path / part
                into(out)
                out.chmod(0o644)
                folder.rename(part, name)
            finally:
                folder.remove(part)

    root.write_whole(wall.EXPERIMENT, experiments.to_toml(experiment))
    for path, source in traces.items():
        progress.now(f"copying {source.name} into the run")
        _copy(source, path, _fewest_rows(plan), write)
    for table in _recorded(plan):
        progress.now(f"copying {Path(table.trace).name} into the run")
        copies.copy(table, write)
    kinds = kind_demand.Collected()
    demand.write(plan.cells, root.path, progress, kinds.add)
    kinds.write(root.path)
    lay_out_cells(plan, root)
    root.write_whole(wall.PLAN, to_json(plan))


def _copy(source: Path, path: str, rows: int, write: Callable[[str, Callable[[Path], object]], None]) -> None:
    from harness.traces import formats
    from harness.traces.trace import write_array

    def into(out: Path) -> None:
        write_array(out, formats.trace_blocks(source, rows), rows=rows, origin=str(source))

    write(path, into)


def lay_out_cells(plan: Plan, root: Folder) -> None:
    """A folder for every cell, which says what is measured."""
    with root.inner(wall.CELLS, create=True) as cells:
        for cell in plan.cells:
            with cells.inner(cell.id, create=True) as folder:
                folder.write_whole(wall.CELL, to_json(cell))
