"""Carries out a plan launch by launch: every cell gets a record, and a run killed at any moment can go on."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from harness import cell_files, designs, wall
from harness import experiment as experiments
from harness import plan as plans
from harness.errors import BadInputError, InterruptedRunError, MachineError
from harness.experiment import Experiment
from harness.files import Folder
from harness.plan import Launch, Plan
from harness.progress import Progress, Silent
from harness.records import MEASURED, Cell, CellRecord, to_json
from harness.run import attempt as attempts
from harness.run import boards, layout, lease, manifest, packing
from harness.run import cells as folders
from harness.run import part as parts
from harness.run.attempt import recorded_hash
from harness.run.gpu import Gpu
from harness.run.launching import Launching
from harness.run.layout import new_folder as new_folder
from harness.run.log import MOST_RUN_BYTES, Allowance
from harness.run.part import WHOLE, Part
from harness.run.runner import Runner
from harness.signals import as_interrupt


def start(
    experiment: Experiment,
    runner: Runner,
    root: Path,
    *,
    measure: bool = True,
    part: Part = WHOLE,
    progress: Progress | None = None,
) -> Path:
    """Measures an experiment in the new folder `root` and returns that; without `measure` lays out all that a
    run is made from and leaves its cells to `resume`. `part`: which replicates are measured here at all.

    BadInputError where the folder holds a run already, MachineError where this machine cannot run it: in both
    cases nothing has been started. InterruptedRunError on Ctrl-C or SIGTERM.
    """
    progress = progress or Silent()
    if root.is_dir():
        with Folder.open(root) as folder:
            layout.require_empty(folder)
    experiment = layout.absolute(experiment)
    plan = plans.make(experiment)
    _check_designs(plan)
    traces = layout.check_traces(experiment, plan, progress)
    runner.check(plan, root, progress)
    with runner.hold(root, progress), spared(root), held(root) as folder:
        layout.require_empty(folder)  # again: while we waited, another may have begun and finished here
        runner.clear(root, progress)
        if part != WHOLE:
            parts.write(part, folder)
        layout.lay_out(experiment, plan, traces, folder, progress)
        if measure:
            launches = _pending(plan, {}, False, part)
            _carry_out(plan, launches, {}, runner, folder, experiment.deadline_s, progress)
            manifest.write(plan, folder)
    return root


def _check_designs(plan: Plan) -> None:
    """BadInputError where a design's sources cannot be read, before others have been measured."""
    for name in sorted({launch.design for launch in plan.launches}):
        _ = designs.get(name).source_hash


def resume(
    root: Path, runner: Runner, *, retry_failed: bool = False, progress: Progress | None = None
) -> Path:
    """Goes on with a run: measures its cells without a record, with `retry_failed` those that failed too.

    What a killed harness had measured and not yet taken into the run is taken into it first. BadInputError
    where the folder holds no run, another process is at it, its plan is not the one that its experiment
    makes, or a design has changed since its cells were measured."""
    from harness.traces import demand

    progress = progress or Silent()
    if not (root / wall.PLAN).is_file():
        raise BadInputError(f"{root}: is not the folder of a run that could go on (it has no {wall.PLAN}).")
    with held(root) as folder:
        for name in (wall.EXPERIMENT, wall.PLAN):
            if (kind := folder.kind(name)) not in ("a file", ""):
                raise BadInputError(f"{root / name}: is {kind} and not a file; a run holds its own files.")
        experiment = experiments.of_run(root)
        plan = plans.make(experiment)
        if not _is(folder, wall.PLAN, to_json(plan)):
            raise BadInputError(
                f"{root}: {wall.PLAN} is not the plan that its {wall.EXPERIMENT} makes; one of them was "
                "changed, or the run was made by another version. Start a new run."
            )
        part = parts.read(folder)
        with spared(root):
            done, left = folders.read(plan, folder), folder.kind(wall.LAUNCHES)
            if left or _pending(plan, done, retry_failed, part):
                runner.clear(root, progress)
                _take_in(plan, folder)
                done = folders.read(plan, folder) if left else done
            else:  # A complete run can be looked at on a machine that could run nothing.
                with contextlib.suppress(MachineError):
                    runner.clear(root, progress)
        check_sources(done, root)
        demand.check_traces(root)
        launches = _pending(plan, done, retry_failed, part)
        rest = dataclasses.replace(plan, launches=tuple(launches))
        if not launches:
            if not folder.kind(manifest.FILE):  # killed behind the last record
                with spared(root):
                    manifest.write(plan, folder)
            return root
        runner.check(rest, root, progress)
        with runner.hold(root, progress), spared(root):
            layout.lay_out_cells(rest, folder)  # again: what somebody deleted is wanted back
            folder.remove(manifest.FILE)  # of what the run was before it went on
            _carry_out(plan, launches, done, runner, folder, experiment.deadline_s, progress)
            manifest.write(plan, folder)
    return root


def _is(folder: Folder, name: str, text: str) -> bool:
    """Whether a file is this text and no longer one."""
    expected = text.encode()
    try:
        return folder.read(name, len(expected)) == expected
    except BadInputError:
        return False


@contextlib.contextmanager
def held(root: Path) -> Iterator[Folder]:
    """A run's folder, which nobody else works in meanwhile; BadInputError where its cells are packed, for no
    record is put among those."""
    with lease.run_folder(root), Folder.open(root) as folder:
        if cell_files.is_packed(folder):
            raise BadInputError(
                f"{root}: is packed, and nothing is added to a packed run; `harness unpack {root}` first."
            )
        packing.drop_copy(folder)
        yield folder


def check_sources(done: Mapping[str, CellRecord], root: Path) -> None:
    """A run compares like with like: all of a design's records are of the same sources. Those on the CPU,
    where PyTorch's operator runs whatever the design, are of none."""
    today: dict[str, str] = {}  # each is read once, however many records there are
    for record in done.values():
        told, design = record.kernel.source_hash if record.kernel else "", record.cell.design
        if told and design not in today:
            today[design] = recorded_hash(design)
        if told and told != today[design]:
            raise BadInputError(
                f"{root}: {record.cell.design} has changed since this run measured it; start a new run, or "
                "bring "
                f"opt_designs/{record.cell.design} back to what it was."
            )


def _pending(
    plan: Plan, done: Mapping[str, CellRecord], retry_failed: bool, part: Part = WHOLE
) -> list[Launch]:
    """The launches of the part with only those cells that are still to be measured."""

    def waits(cell: Cell) -> bool:
        record = done.get(cell.id)
        return record is None or (retry_failed and record.status not in MEASURED)

    own = filter(part.has, plan.launches)
    cut = [dataclasses.replace(x, cells=tuple(filter(waits, x.cells))) for x in own]
    return [launch for launch in cut if launch.cells]


def _take_in(plan: Plan, root: Folder) -> None:
    """Takes into the run what launches had measured when the harness was killed, each cell that has no
    record yet."""
    with attempts.left_behind(plan, root) as left:
        for attempt in left:
            found = attempt.gather()
            for cell in attempt.launch.cells:
                if cell.id not in found:
                    continue
                layout.lay_out_cells(Plan((dataclasses.replace(attempt.launch, cells=(cell,)),)), root)
                with folders.opened(root, cell) as folder:
                    if not folder.kind(wall.RECORD):
                        folder.write_whole(wall.RECORD, to_json(found[cell.id]))
            attempt.discard(root)


def _carry_out(
    plan: Plan,
    launches: Sequence[Launch],
    done: Mapping[str, CellRecord],
    runner: Runner,
    root: Folder,
    deadline_s: float,
    progress: Progress,
) -> None:
    shares = boards.shares(launches, done, runner.boards, root.path)
    progress.expect(len(plan.cells))
    progress.advance(len(plan.cells) - sum(len(launch.cells) for launch in launches))
    left_bytes = (MOST_RUN_BYTES - folders.log_bytes(plan, root)) // max(1, len(runner.boards))

    def at(board: Gpu | None, told: Progress, called_off: threading.Event) -> Callable[[Launch], None]:
        return Launching(runner, root, deadline_s, told, Allowance(left_bytes), board, called_off).measure

    boards.carry_out(shares, runner.boards, at, progress)


_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextlib.contextmanager
def spared(root: Path, go_on: Callable[[], str] | None = None) -> Iterator[None]:
    """What ends a run early (Ctrl-C, a signal, a full disk) ends it in a sentence that says how to go on:
    what `go_on` says behind the reason, by default how to measure the rest."""
    how = go_on or functools.partial(_go_on, root)
    try:
        with as_interrupt():
            yield
    except KeyboardInterrupt:
        raise InterruptedRunError(f"Interrupted{how()}") from None
    except MachineError as error:  # Docker went away, for example
        raise MachineError(f"{str(error).removesuffix('.')}{how()}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(f"{root}: the disk is full. Make room{how()}") from error
        if error.filename is None or not Path(os.fsdecode(error.filename)).absolute().is_relative_to(
            root.absolute()
        ):
            raise
        if error.errno in _GONE:
            raise MachineError(
                f"{error.filename}: is gone, while the run was at work; put it back{how()}"
            ) from error
        if error.errno in _REFUSED:
            raise MachineError(
                f"{error.filename}: cannot be written any more ({error.strerror}); mend that{how()}"
            ) from error
        raise


def _go_on(root: Path) -> str:
    try:
        if not (root / wall.PLAN).exists():
            return "; nothing had been measured."
        done = sum(1 for _ in root.glob(f"{wall.CELLS}/*/{wall.RECORD}"))
    except OSError:
        return f". Then go on with `harness run --resume {root}`."
    have = "1 cell has its record" if done == 1 else f"{done} cells have their records"
    return f"; {have}. Go on with `harness run --resume {root}`."
