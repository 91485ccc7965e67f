"""Has a cluster's Slurm measure a run: a job for every replicate, submitted as an array, followed, tried
again.

The run's folder lies where every node sees it. Which jobs were submitted stands there in `slurm.json`, so
whoever follows them may die and come back."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import plan as plans
from harness import wall
from harness.codec import SCHEMA_VERSION, parse
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.files import Folder
from harness.plan import Plan
from harness.progress import Progress
from harness.records import Cell, CellRecord, Status, to_json
from harness.run import at_node, campaign, squeue
from harness.run import cells as folders
from harness.run.ahead import Ahead
from harness.run.at_node import JOBS
from harness.signals import held_back

JOURNAL = "slurm.json"
MOST_TRIES = 3
"""Jobs for one replicate."""
POLL_S = 5.0
"""How often Slurm is asked: it serves a whole cluster."""
_LATE_LOOKS = 3
"""How often a job that succeeded is checked for records that the shared folder does not show yet."""
_STATUS: Mapping[str, Status] = {"TIMEOUT": "timeout", "DEADLINE": "timeout", "OUT_OF_MEMORY": "oom"}
_MOST_BYTES = 2**24
_MOST_LOG_BYTES = 2**30
_Left = dict[str, tuple[CellRecord, bytes]]
"""By cell, what a job left: the record and the log."""


@dataclass(frozen=True)
class Job:
    """The latest job for a replicate."""

    id: str
    tries: int


@dataclass(frozen=True)
class Journal:
    """What was asked of Slurm."""

    name: str
    """Of all jobs of this run, and of no other's."""
    options: dict[str, str]
    local: bool
    podman: bool
    jobs: dict[str, Job] = field(default_factory=dict)
    """By replicate."""
    schema_version: int = SCHEMA_VERSION


def start(
    experiment: Experiment,
    root: Path,
    options: Mapping[str, str],
    *,
    local: bool,
    podman: bool,
    progress: Progress,
) -> Path:
    """Submits a run's replicates, and follows them to their end; see `campaign.start`."""
    campaign.start(experiment, Ahead(), root, measure=False, progress=progress)
    name = f"harness-{secrets.token_hex(6)}"
    with campaign.held(root) as folder:
        folder.write_whole(JOURNAL, to_json(Journal(name, dict(options), local, podman)))
    return follow(root, progress=progress)


def is_of_slurm(root: Path) -> bool:
    """Whether the run's cells are measured by jobs."""
    return (root / JOURNAL).is_file()


def cancel(root: Path) -> int:
    """Cancels the run's jobs; returns how many there were."""
    with campaign.held(root) as folder:
        found = squeue.named(_read(folder).name)
        squeue.cancel(found)
        return len(found)


def follow(root: Path, *, progress: Progress) -> Path:
    """Follows a run's jobs until every cell has a record, submitting those that are missing and trying those
    again that came to nothing. When interrupted it leaves the jobs running."""
    squeue.require()
    with campaign.held(root) as folder, campaign.spared(root):
        plan = plans.read(root / wall.PLAN)
        done = folders.read(plan, folder)
        campaign.check_sources(done, root)
        following = _Following(root.absolute(), folder, plan, done, _read(folder), progress)
        following.forget_strays()
        while following.missing:
            if not following.look():
                time.sleep(POLL_S)
        folder.remove(JOBS)
    return root


class _Following:
    """What is known of a run's jobs."""

    def __init__(
        self,
        place: Path,
        root: Folder,
        plan: Plan,
        done: Mapping[str, CellRecord],
        journal: Journal,
        progress: Progress,
    ) -> None:
        self._place = place
        self._root = root
        self._journal = journal
        self._progress = progress
        self._looks: Counter[str] = Counter()
        replicates: dict[int, list[Cell]] = {}
        for cell in plan.cells:
            replicates.setdefault(cell.replicate, []).append(cell)
        self._of = len(replicates)
        waiting = {n: [cell for cell in cells if cell.id not in done] for n, cells in replicates.items()}
        self.missing = {number: cells for number, cells in waiting.items() if cells}
        """By replicate, the cells without a record."""
        progress.expect(len(plan.cells))
        progress.advance(len(plan.cells) - sum(map(len, self.missing.values())))

    def forget_strays(self) -> None:
        """Cancels jobs that were submitted by a process which died before it could say so."""
        known = {job.id for job in self._journal.jobs.values()}
        squeue.cancel([name for name in squeue.named(self._journal.name) if name not in known])

    def look(self) -> bool:
        """Takes in what has come, and submits what has to be; whether anything was submitted."""
        states = squeue.states(job.id for job in self._journal.jobs.values())
        again = [number for number in list(self.missing) if self._has_to_be_submitted(number, states)]
        if again:
            self._submit(again)
        elif self.missing:
            jobs = [job.id for number, job in self._journal.jobs.items() if int(number) in self.missing]
            counts = Counter(states.get(name, "gone").lower() for name in jobs)
            self._progress.now(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
        return bool(again)

    def _has_to_be_submitted(self, number: int, states: Mapping[str, str]) -> bool:
        job = self._journal.jobs.get(str(number))
        if job is None:
            return True
        state = states.get(job.id, "")
        if state in squeue.AT_WORK:
            return False
        cells = self.missing[number]
        found = _left(self._root, cells, number)
        if len(found) < len(cells):
            self._looks[job.id] += 1
            if state == "COMPLETED" and self._looks[job.id] <= _LATE_LOOKS:
                return False
            why = _why(self._root, number, job, state)
            self._progress.say(f"Replicate {number + 1}: {why}")
            if job.tries < MOST_TRIES:
                return True
            status = _STATUS.get(state, "failed")
            for cell in cells:
                lost = CellRecord(cell, status, f"{why} {MOST_TRIES} jobs were submitted for it.")
                found.setdefault(cell.id, (lost, b""))
        _take_in(self._root, found, number)
        self._progress.advance(len(cells))
        del self.missing[number]
        return False

    def _submit(self, numbers: Sequence[int]) -> None:
        self._root.inner(JOBS, create=True).close()
        journal = self._journal
        each = [[str(self._place), n, self._of, journal.local, journal.podman] for n in numbers]
        folder = self._place / JOBS / "log"
        with held_back():
            ids = squeue.submit(
                at_node.measure, each, name=journal.name, options=journal.options, folder=folder
            )
            before = {n: job.tries if (job := journal.jobs.get(str(n))) else 0 for n in numbers}
            made = {str(n): Job(name, before[n] + 1) for n, name in zip(numbers, ids, strict=True)}
            self._journal = dataclasses.replace(journal, jobs=journal.jobs | made)
            self._root.write_whole(JOURNAL, to_json(self._journal))


def _left(root: Folder, cells: Sequence[Cell], replicate: int) -> _Left:
    """The records of these cells that the replicate's job left, with their logs."""
    found: _Left = {}
    with contextlib.ExitStack() as opened:
        place = opened.enter_context(root.inner(JOBS, create=True))
        for name in (at_node.folder_of(replicate), wall.CELLS):
            if place.kind(name) != "a folder":
                return found
            place = opened.enter_context(place.inner(name))
        for cell in cells:
            if place.kind(cell.id) == "a folder":
                with place.inner(cell.id) as folder:
                    if one := _record(folder, cell):
                        found[cell.id] = one
    return found


def _record(folder: Folder, cell: Cell) -> tuple[CellRecord, bytes] | None:
    """None where there is none of this cell: a node that dies may leave anything."""
    if not folder.kind(wall.RECORD):
        return None
    most = wall.most_record_bytes(cell.workload.tables, cell.timing.max_passes)
    try:
        record = parse(CellRecord, folder.read(wall.RECORD, most), folder.path / wall.RECORD)
    except BadInputError:
        return None
    log = folder.read(wall.LOG, _MOST_LOG_BYTES) if folder.kind(wall.LOG) else b""
    return (record, log) if record.cell == cell else None


def _take_in(root: Folder, found: _Left, replicate: int) -> None:
    """Writes the records of a replicate into the run, and clears away what its job left."""
    for record, log in found.values():
        with folders.opened(root, record.cell) as folder:
            if log:
                folder.write_whole(wall.LOG, log.decode(errors="replace"))
            folder.write_whole(wall.RECORD, to_json(record))
    with root.inner(JOBS) as jobs:
        jobs.remove(at_node.folder_of(replicate))
        jobs.remove(at_node.words_of(replicate))


def _why(root: Folder, replicate: int, job: Job, state: str) -> str:
    """Why a job left less than it should have."""
    with root.inner(JOBS, create=True) as jobs:
        name = at_node.words_of(replicate)
        said = jobs.read(name, at_node.MOST_WORDS * 4).decode(errors="replace") if jobs.kind(name) else ""
        nothing = not jobs.kind(at_node.folder_of(replicate))
    text = f"Slurm's job {job.id} ended as {state or 'unknown to Slurm'}"
    if said:
        return f"{text}: {said}"
    if nothing and state in ("COMPLETED", "FAILED"):
        return f"{text} and left nothing in {root.path / JOBS}: do the nodes share this folder?"
    return f"{text}."


def _read(folder: Folder) -> Journal:
    return parse(Journal, folder.read(JOURNAL, _MOST_BYTES), folder.path / JOURNAL)
