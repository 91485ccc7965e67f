"""Carries out a plan launch by launch: every cell gets a record, and a run killed at any moment can go on."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import signal
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from harness import designs
from harness import experiment as experiments
from harness import plan as plans
from harness.errors import BadInputError, InterruptedRunError, MachineError
from harness.experiment import Experiment, dataset_of
from harness.plan import Launch, Plan
from harness.progress import Progress, Silent
from harness.records import MEASURED, Cell, CellRecord, Status, load, to_json, write_whole
from harness.run import lease
from harness.run.runner import Outcome, Runner

ANNOUNCEMENT = "::cell "
"""Begins the line by which a launch says which cell is next."""
_TAIL_LINES = 40
LOG = "log.txt"


def new_folder(results: Path, experiment: Experiment) -> Path:
    """Where a run that starts now belongs: `results/<experiment>-<UTC time>`."""
    return results / f"{experiment.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def start(
    experiment: Experiment,
    runner: Runner,
    root: Path,
    *,
    measure: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Measures an experiment in the new folder `root` and returns that; without `measure` lays out all that a
    run is made from and leaves its cells to `resume`.

    BadInputError where the folder holds a run already, MachineError where this machine cannot run it: in both
    cases nothing has been started. InterruptedRunError on Ctrl-C or SIGTERM.
    """
    progress = progress or Silent()
    if (root / "plan.json").exists():
        raise BadInputError(f"{root}: holds a run already; go on with `harness run --resume {root}`.")
    experiment = _absolute(experiment)
    plan = plans.make(experiment)
    traces = _traces(experiment)
    for source in traces.values():
        progress.now(f"reading {source.name}")
        _check_trace(source, _fewest_rows(plan))
    runner.check(plan, root, progress)
    with runner.hold(root, progress), spared(root), lease.run_folder(root):
        _lay_out(experiment, plan, traces, root, progress)
        if measure:
            _carry_out(plan, plan.launches, runner, root, experiment.deadline_s, progress)
    return root


def resume(
    root: Path, runner: Runner, *, retry_failed: bool = False, progress: Progress | None = None
) -> Path:
    """Goes on with a run: measures its cells without a record, with `retry_failed` those that failed too.

    BadInputError where the folder holds no run, another process is at it, its plan is not the one that its
    experiment makes, or a design has changed since its cells were measured.
    """
    progress = progress or Silent()
    if not (root / "plan.json").is_file():
        raise BadInputError(f"{root}: is not the folder of a run that could go on (it has no plan.json).")
    with lease.run_folder(root):
        experiment = experiments.read(root / "experiment.toml")
        plan = plans.make(experiment)
        if (root / "plan.json").read_text(encoding="utf-8") != to_json(plan):
            raise BadInputError(
                f"{root}: plan.json is not the plan that its experiment.toml makes; one of them was "
                "changed, or the run was made by another version. Start a new run."
            )
        done = read_records(plan, root)
        check_sources(done, root)
        launches = _pending(plan, done, retry_failed)
        rest = dataclasses.replace(plan, launches=tuple(launches))
        if not launches:
            return root
        runner.check(rest, root, progress)
        with runner.hold(root, progress), spared(root):
            _lay_out_cells(rest, root)  # again: what somebody deleted is wanted back
            _carry_out(plan, launches, runner, root, experiment.deadline_s, progress)
    return root


def _absolute(experiment: Experiment) -> Experiment:
    """Trace files by paths that mean the same when the run is resumed from another folder."""
    paths = {name: dataset_of(name).path for name in experiment.datasets}
    names = tuple(str(Path(name).absolute()) if path else name for name, path in paths.items())
    return dataclasses.replace(experiment, datasets=names)


def _traces(experiment: Experiment) -> dict[str, Path]:
    """The traces that are no synthetic ones, by their path in the run."""
    found = [(dataset_of(name), name) for name in experiment.datasets]
    return {dataset.path: Path(name) for dataset, name in found if dataset.path is not None}


def _fewest_rows(plan: Plan) -> int:
    """Of the smallest tables: every cell of a sweep replays the same trace."""
    return min(cell.workload.rows for cell in plan.cells)


def _check_trace(source: Path, rows: int) -> None:
    """BadInputError with file and position where it is no trace for tables of so many rows."""
    from harness.traces import formats

    for _ in formats.trace_blocks(source, rows):
        pass


def _lay_out(
    experiment: Experiment, plan: Plan, traces: dict[str, Path], root: Path, progress: Progress
) -> None:
    """Writes what a run is made from; plan.json last, since its presence says that the rest is there.

    Traces are copied, not linked: a link would follow whatever is written into the original later, and the
    records would no longer be of the trace beside them.
    """
    from harness.traces import demand, formats
    from harness.traces.trace import write_array

    write_whole(root / "experiment.toml", experiments.to_toml(experiment))
    for path, source in traces.items():
        progress.now(f"copying {source.name} into the run")
        (root / path).parent.mkdir(exist_ok=True)
        rows = _fewest_rows(plan)
        write_array(root / path, formats.trace_blocks(source, rows), rows=rows, origin=str(source))
    progress.now("working out what each dataset asks of the memory system")
    demand.write(plan.cells, root)
    _lay_out_cells(plan, root)
    write_whole(root / "plan.json", to_json(plan))


def _lay_out_cells(plan: Plan, root: Path) -> None:
    """A folder for every cell, with what the measuring process reads."""
    for cell in plan.cells:
        folder = root / "cells" / cell.id
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "cell.json", to_json(cell))


def read_records(plan: Plan, root: Path) -> dict[str, CellRecord]:
    """The records that are there, by cell; BadInputError where one is damaged or another cell's."""
    found = {}
    for cell in plan.cells:
        path = _record_path(root, cell)
        if not path.exists():
            continue
        try:
            record = load(CellRecord, path)
        except BadInputError as error:
            raise BadInputError(f"{error} Delete the file to measure its cell again.") from error
        if record.cell.id != cell.id:
            raise BadInputError(f"{path}: is the record of {record.cell.id}; delete it to measure this cell.")
        found[cell.id] = record
    return found


def _record_path(root: Path, cell: Cell) -> Path:
    return root / "cells" / cell.id / "record.json"


def check_sources(done: dict[str, CellRecord], root: Path) -> None:
    """A run compares like with like: all of a design's records are of the same sources."""
    for record in done.values():
        design = designs.get(record.cell.design)
        if record.kernel is None or not design.compiled:
            continue
        if record.kernel.source_hash != design.source_hash:
            raise BadInputError(
                f"{root}: {design.name} has changed since this run measured it; start a new run, or bring "
                f"{design.folder} back to what it was."
            )


def _pending(plan: Plan, done: dict[str, CellRecord], retry_failed: bool) -> list[Launch]:
    """The launches with only those cells that are still to be measured."""

    def waits(cell: Cell) -> bool:
        record = done.get(cell.id)
        return record is None or (retry_failed and record.status not in MEASURED)

    cut = [dataclasses.replace(x, cells=tuple(filter(waits, x.cells))) for x in plan.launches]
    return [launch for launch in cut if launch.cells]


def _carry_out(
    plan: Plan, launches: Sequence[Launch], runner: Runner, root: Path, deadline_s: float, progress: Progress
) -> None:
    progress.expect(len(plan.cells))
    progress.advance(len(plan.cells) - sum(len(launch.cells) for launch in launches))
    for launch in launches:
        for cell in launch.cells:
            # A failed record that is to be tried again; from here on the cell counts as not measured.
            _record_path(root, cell).unlink(missing_ok=True)
            (root / "cells" / cell.id / LOG).unlink(missing_ok=True)
        began = _now()
        with _Log(launch, root, progress) as log:
            outcome = runner.run(launch, root, deadline_s=deadline_s, on_line=log.line)
        _record_missing(launch, outcome, root, log.begun, began)
        progress.advance(len(launch.cells) - log.finished)
        for cell in launch.cells:
            record = load(CellRecord, _record_path(root, cell))
            if record.status not in MEASURED:
                progress.say(f"{cell.id}: {record.status}: {record.message}")


def _record_missing(launch: Launch, outcome: Outcome, root: Path, begun: set[str], began: str) -> None:
    """Gives every cell that the launch left without a record one that says why."""
    status: Status = "failed" if outcome.status == "ended" else outcome.status
    why = outcome.message or "The measuring process ended without leaving a record of this cell."
    for cell in launch.cells:
        path = _record_path(root, cell)
        if path.exists():
            continue
        log = root / "cells" / cell.id / LOG
        tail = log.read_text(encoding="utf-8").splitlines()[-_TAIL_LINES:] if log.exists() else []
        message = why if cell.id in begun else f"Not begun, since the launch ended early: {why}"
        record = CellRecord(
            cell, status, message, log_tail="\n".join(tail), started_at=began, finished_at=_now()
        )
        write_whole(path, to_json(record))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Log:
    """Shares a launch's output out among its cells' log files, by the announcements in it."""

    def __init__(self, launch: Launch, root: Path, progress: Progress) -> None:
        self._cells = {cell.id: cell for cell in launch.cells}
        self._root = root
        self._progress = progress
        self._files = contextlib.ExitStack()
        self.begun: set[str] = set()
        """The cells announced."""

    @property
    def finished(self) -> int:
        """How many cells were followed by another."""
        return max(0, len(self.begun) - 1)

    def __enter__(self) -> _Log:
        # What is said before the first announcement (a failed import, most of all) goes to the first cell.
        first = next(iter(self._cells.values()))
        self._progress.now(f"{first.variant.label}, replicate {first.replicate + 1}: starting")
        self._write_to(first.id)
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def line(self, text: str) -> None:
        """One line of the launch's output."""
        cell = self._cells.get(text.removeprefix(ANNOUNCEMENT).strip())
        if not text.startswith(ANNOUNCEMENT) or cell is None:
            self._file.write(text + "\n")
            self._file.flush()
            return
        if self.begun:
            self._progress.advance()
        self.begun.add(cell.id)
        self._write_to(cell.id)
        what = ", ".join(filter(None, (cell.variant.label, cell.dataset.name, cell.point)))
        self._progress.now(f"{what}, replicate {cell.replicate + 1}")

    def _write_to(self, name: str) -> None:
        self._files.close()
        path = self._root / "cells" / name / LOG
        self._file = self._files.enter_context(path.open("a", encoding="utf-8"))


@contextlib.contextmanager
def spared(root: Path) -> Iterator[None]:
    """What ends a run early (Ctrl-C, a signal, a full disk) ends it in a sentence that says how to go on."""
    try:
        with _signals_as_interrupt():
            yield
    except KeyboardInterrupt:
        raise InterruptedRunError(f"Interrupted{_go_on(root)}") from None
    except MachineError as error:  # Docker went away, for example
        raise MachineError(f"{str(error).removesuffix('.')}{_go_on(root)}") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise MachineError(f"{root}: the disk is full. Make room{_go_on(root)}") from error


def _go_on(root: Path) -> str:
    if not (root / "plan.json").exists():
        return "; nothing had been measured."
    done = sum(1 for _ in root.glob("cells/*/record.json"))
    have = "1 cell has its record" if done == 1 else f"{done} cells have their records"
    return f"; {have}. Go on with `harness run --resume {root}`."


@contextlib.contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """A polite kill and a terminal that is closed unwind as Ctrl-C does, so that containers are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may set handlers.
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with contextlib.ExitStack() as restored:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup, which is to be obeyed
                restored.callback(signal.signal, number, signal.signal(number, interrupt))
        yield
