"""Takes a run's cells to Nsight Compute, launch by launch, and writes each cell's `profile.json`."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness import experiment as experiments
from harness.errors import BadInputError, MachineError
from harness.plan import Launch, Plan
from harness.profiles import KernelLaunch, Profile, path_of
from harness.progress import Progress, Silent
from harness.records import MEASURED, Cell, CellRecord, load, to_json, write_whole
from harness.run import campaign, lease
from harness.run.ncu import FOLDER, Ncu, UnknownMetricsError, check_log, first_error, report_of
from harness.run.runner import Outcome, Runner

_MARK = "read_rows"
"""The kernel by which harness.bench.profile says where a cell begins."""
_LONGER = 12
"""How many times the deadline of a launch: the program runs again for every pass of the counters."""


def profile(
    root: Path,
    runner: Runner,
    ncu: Ncu,
    *,
    arms: Sequence[str] = (),
    datasets: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Profile]:
    """Profiles the first replicate of a run's cells: those of these arms and datasets, or all.

    Returns them as they were written. BadInputError where the run has no such cell, MachineError where this
    machine cannot profile.
    """
    progress = progress or Silent()
    plan = load(Plan, root / "plan.json")
    deadline_s = _LONGER * experiments.read(root / "experiment.toml").deadline_s
    launches = _chosen(plan, arms, datasets, root)
    rest = dataclasses.replace(plan, launches=tuple(launches))
    found: list[Profile] = []
    with lease.run_folder(root):
        campaign.check_sources(campaign.read_records(plan, root), root)
        runner.check(rest, root, progress)
        with runner.hold(root, progress), campaign.spared(root):
            progress.expect(len(launches))
            for launch in launches:
                ncu, profiles = _profile(launch, root, runner, ncu, deadline_s, progress)
                found += profiles
                progress.advance()
    return found


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
    launch: Launch, root: Path, runner: Runner, ncu: Ncu, deadline_s: float, progress: Progress
) -> tuple[Ncu, list[Profile]]:
    """One launch; with the profiler as it is to be asked from here on."""
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)  # a container that may read the counters is root without the rights of root
    with contextlib.ExitStack() as cleared:
        cleared.callback(_clear, launch, root)
        while True:
            _clear(launch, root)
            lines: list[str] = []
            log = _Log(launch, progress, lines)
            outcome = runner.run(launch, root, deadline_s=deadline_s, on_line=log.line, under=ncu)
            try:
                check_log(lines)
                break
            except UnknownMetricsError as error:
                left = ncu.without(error.names)
                if left.metrics == ncu.metrics:
                    raise
                ncu = left
                progress.say(f"{str(error).removesuffix('.')} on this GPU: left out.")
        profiles = _read(launch, root, ncu, outcome, lines)
    for made in profiles:
        write_whole(path_of(root, made.cell), to_json(made))
        if made.status != "ok":
            progress.say(f"{made.cell.id}: not profiled: {made.message}")
    return ncu, profiles


def _clear(launch: Launch, root: Path) -> None:
    for cell in launch.cells:
        (root / FOLDER / f"{cell.id}.json").unlink(missing_ok=True)


def _read(launch: Launch, root: Path, ncu: Ncu, outcome: Outcome, lines: list[str]) -> list[Profile]:
    """What the launch left, as a profile per cell."""
    report = root / report_of(launch)
    seen: dict[int, list[KernelLaunch]] = {}
    why = outcome.message if outcome.status != "ended" else ""
    if report.is_file():
        seen = by_cell(ncu.launches(report))
    elif not why:
        why = "Nsight Compute left no report."
    if error := first_error(lines):
        why = f"{why} Nsight Compute said: {error}".strip()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    found = []
    for number, cell in enumerate(launch.cells, 1):
        path = root / FOLDER / f"{cell.id}.json"
        record = load(CellRecord, path) if path.is_file() else CellRecord(cell, "failed", why)
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
                report=report_of(launch) if launches else "",
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
        if re.match(rf"{_MARK}\b", launch.name):
            current = found.setdefault(int(re.findall(r"\d+", launch.grid)[0]), [])
        elif current is None:
            raise MachineError(f"The profile begins with {launch.name}, and not with the mark of a cell.")
        else:
            current.append(launch)
    return found


class _Log:
    """Keeps a launch's output, and says which cell is looked at in which run of the program."""

    def __init__(self, launch: Launch, progress: Progress, lines: list[str]) -> None:
        self._cells = {cell.id: cell for cell in launch.cells}
        self._first = launch.cells[0].id
        self._progress = progress
        self._lines = lines
        self._pass = 0

    def line(self, text: str) -> None:
        """One line."""
        self._lines.append(text)
        cell = self._cells.get(text.removeprefix(campaign.ANNOUNCEMENT).strip())
        if text.startswith(campaign.ANNOUNCEMENT) and cell is not None:
            self._pass += cell.id == self._first
            self._progress.now(
                f"{cell.variant.label}, {cell.dataset.name}, pass {self._pass} of the counters"
            )
