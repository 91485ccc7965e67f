"""Takes a run's cells to Nsight Compute, launch by launch, and writes each cell's `profile.json`."""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness import experiment as experiments
from harness import plan as plans
from harness import wall
from harness.errors import BadInputError, MachineError
from harness.files import Folder
from harness.plan import Launch, Plan
from harness.profiles import KernelLaunch, Profile
from harness.progress import Progress, Silent
from harness.records import MEASURED, Cell, CellRecord, to_json
from harness.run import attempt as attempts
from harness.run import campaign
from harness.run import cells as folders
from harness.run.attempt import MOST_REPORT_BYTES, Attempt
from harness.run.ncu import Ncu, UnknownMetricsError, check_log, first_error
from harness.run.runner import Outcome, Runner, Terms
from harness.signals import held_back

_LONGER = 12
"""How many times the deadline of a launch: the program runs again for every pass of the counters."""


def profile(
    root: Path,
    runner: Runner,
    ncu: Ncu,
    *,
    arms: Sequence[str] = (),
    datasets: Sequence[str] = (),
    options: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Profile]:
    """Profiles the first replicate of a run's cells: those of these arms and datasets, or all.

    Returns them as they were written, each as soon as its launch has ended. BadInputError where the run has
    no such cell, MachineError where this machine cannot profile. InterruptedRunError on Ctrl-C or SIGTERM,
    with the command that goes on; `options`: what stands in it besides.
    """
    progress = progress or Silent()
    plan = plans.read(root / wall.PLAN)
    deadline_s = _LONGER * experiments.of_run(root).deadline_s
    launches = _chosen(plan, arms, datasets, root)
    rest = dataclasses.replace(plan, launches=tuple(launches))
    found: list[Profile] = []

    go_on = functools.partial(_go_on, [str(root), *options], launches, datasets, found)
    with campaign.held(root) as folder:
        campaign.check_sources(folders.read(plan, folder), root)
        runner.check(rest, root, progress)
        with runner.hold(root, progress), campaign.spared(root, go_on):
            runner.clear(root, progress)
            progress.expect(len(launches))
            for launch in launches:
                ncu = _profile(launch, folder, runner, ncu, deadline_s, progress, found)
                progress.advance()
    return found


def _go_on(
    words: Sequence[str], launches: Sequence[Launch], datasets: Sequence[str], found: Sequence[Profile]
) -> str:
    """What was kept of a profile that ends early, and the command for the arms that are left."""
    kept = {one.cell.id for one in found if one.status == "ok"}
    tried = {one.cell.id for one in found}
    cells = [cell for launch in launches for cell in launch.cells]
    left = dict.fromkeys(cell.variant.label for cell in cells if cell.id not in tried)
    have = f"; {len(kept)} of {len(cells)} cells have their profiles"
    if not left:
        return f"{have}, and no other is left."
    chosen = [word for label in left for word in ("--arm", label)]
    chosen += [word for name in datasets for word in ("--dataset", name)]
    return f"{have}. Go on with `{shlex.join(['harness', 'profile', *words, *chosen])}`."


def _chosen(plan: Plan, arms: Sequence[str], datasets: Sequence[str], root: Path) -> list[Launch]:
    for option, given, known in (
        ("--arm", arms, list(dict.fromkeys(cell.variant.label for cell in plan.cells))),
        ("--dataset", datasets, list(dict.fromkeys(cell.dataset.name for cell in plan.cells))),
    ):
        if unknown := [name for name in given if name not in known]:
            raise BadInputError(f"{option} {unknown[0]}: is not in {root}; it has: {', '.join(known)}.")

    def wanted(cell: Cell) -> bool:
        # Of a sweep the experiment's own point alone.
        return (
            not cell.point
            and (not arms or cell.variant.label in arms)
            and (not datasets or cell.dataset.name in datasets)
        )

    cut = [
        dataclasses.replace(launch, cells=tuple(filter(wanted, launch.cells)))
        for launch in plan.launches
        if launch.replicate == 0
    ]
    launches = [launch for launch in cut if launch.cells]
    if any(cell.workload.device == "cpu" for launch in launches for cell in launch.cells):
        raise BadInputError(f"{root}: is a run on the CPU, which Nsight Compute does not look at.")
    if not launches:
        raise BadInputError(f"{root}: has no cell of these arms on these datasets.")
    return launches


def _profile(
    launch: Launch,
    root: Folder,
    runner: Runner,
    ncu: Ncu,
    deadline_s: float,
    progress: Progress,
    found: list[Profile],
) -> Ncu:
    """One launch, whose profiles are written and added to `found`. Returns the profiler as it is to be asked
    from here on."""
    while True:
        with attempts.begun(launch, root, profiled=True) as attempt:
            log = _Log(launch, progress, ncu.about_passes)
            try:
                outcome = runner.run(attempt, Terms(deadline_s, log, under=ncu))
                check_log(log.lines)
                made = _read(attempt, root, ncu, outcome, log.lines)
                with held_back():  # what an arm's passes gave is kept, whatever ends us now
                    _write(made, root, progress)
                    found += made
                return ncu
            except UnknownMetricsError as error:
                left = ncu.without(error.names)
                if left.metrics == ncu.metrics:
                    raise
                ncu = left
                progress.say(f"{str(error).removesuffix('.')} on this GPU: left out.")
            finally:
                if attempt.over:  # else the next run, which sees to it that nothing of it runs, takes it away
                    with held_back():
                        attempt.discard(root)


def _write(profiles: Sequence[Profile], root: Folder, progress: Progress) -> None:
    for made in profiles:
        with folders.opened(root, made.cell) as folder:
            folder.write_whole(wall.PROFILE, to_json(made))
        if made.status != "ok":
            progress.say(f"{made.cell.id}: not profiled: {made.message}")


def _read(attempt: Attempt, root: Folder, ncu: Ncu, outcome: Outcome, lines: list[str]) -> list[Profile]:
    """What the launch left, as a profile per cell; the profiler's file is copied into the run."""
    launch = attempt.launch
    name = f"{launch.id}.ncu-rep"
    seen: dict[int, list[KernelLaunch]] = {}
    why = outcome.message if outcome.status != "ended" else ""
    with attempt.written() as output, root.inner(wall.PROFILES, create=True) as kept:
        if output.kind(wall.REPORT) == "a file":
            kept.copy_in(name, output, wall.REPORT, MOST_REPORT_BYTES)
            seen = by_cell(ncu.launches(kept.path / name))
        elif not why:
            why = "Nsight Compute left no report."
    if error := first_error(lines):
        why = f"{why} Nsight Compute said: {error}".strip()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    records = attempt.gather()
    found = []
    for number, cell in enumerate(launch.cells, 1):
        record = records.get(cell.id) or CellRecord(cell, "failed", why)
        launches = seen.get(number, []) if record.status in MEASURED else []
        found.append(
            Profile(
                cell=cell,
                status="ok" if launches else "failed",
                message="" if launches else record.message or why or "The profiler saw no launch of it.",
                launches=launches,
                kernel=record.kernel,
                environment=record.environment,
                profiler=f"Nsight Compute {ncu.version}",
                report=f"{wall.PROFILES}/{name}" if launches else "",
                profiled_at=now,
            )
        )
    return found


def by_cell(launches: Sequence[KernelLaunch]) -> dict[int, list[KernelLaunch]]:
    """Launches by the number of their cell, from 1: the blocks of the mark ahead of them.

    MachineError where something stands before the first mark.
    """
    found: dict[int, list[KernelLaunch]] = {}
    current: list[KernelLaunch] | None = None
    for launch in launches:
        if re.match(rf"{wall.MARK}\b", launch.name):
            current = found.setdefault(int(re.findall(r"\d+", launch.grid)[0]), [])
        elif current is None:
            raise MachineError(f"The profile begins with {launch.name}, and not with the mark of a cell.")
        else:
            current.append(launch)
    return found


class _Log:
    """Keeps a launch's output, and says which cell is being profiled in which run of the program."""

    def __init__(self, launch: Launch, progress: Progress, about_passes: int) -> None:
        self._cells = {cell.id: cell for cell in launch.cells}
        self._first = launch.cells[0].id
        self._progress = progress
        self._pass = 0
        self._about = about_passes
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        """One line."""
        self.lines.append(text)
        if cell := self._cells.get(wall.announced(text)):
            self._pass += cell.id == self._first
            of = f" of about {self._about}" if self._pass <= self._about else ""
            self._progress.now(
                f"{cell.variant.label}, {cell.dataset.name}, pass {self._pass}{of} of the counters"
            )

    def neighbours(self, names: Sequence[str]) -> None:
        """Others on the GPU take nothing from counters of a kernel; no time is told here."""
