"""One launch after the other on one board: each is run, what it left becomes records, and every cell gets
one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

from harness import wall
from harness.errors import MachineError
from harness.files import Folder
from harness.plan import Launch
from harness.progress import Progress
from harness.records import MEASURED, Cell, CellRecord, Status, to_json
from harness.run import attempt as attempts
from harness.run import cells as folders
from harness.run.attempt import Attempt
from harness.run.cells import Logs
from harness.run.gpu import Gpu
from harness.run.log import Allowance
from harness.run.runner import Outcome, Runner, Terms
from harness.signals import held_back


@dataclass(frozen=True)
class Launching:
    """Where and how a run's launches are measured."""

    runner: Runner
    root: Folder
    """The run's."""
    deadline_s: float
    progress: Progress
    allowance: Allowance
    board: Gpu | None = None
    """None: the runner's only one, or the CPU."""
    called_off: threading.Event = field(default_factory=threading.Event)
    """Set from outside: what runs here is to end."""

    def measure(self, launch: Launch) -> None:
        """Runs a launch and writes its cells' records. What ends it early is raised to the caller, once those
        records that it had left are written."""
        require_in_place(self.root)
        for cell in launch.cells:
            # A failed record that is to be tried again; from here on the cell counts as not measured.
            with folders.opened(self.root, cell) as folder:
                folder.remove(wall.RECORD)
                folder.remove(wall.LOG)
        began = _now()
        with (
            attempts.begun(launch, self.root, board=self.board, called_off=self.called_off) as attempt,
            Logs(launch, self.root, self.progress) as logs,
        ):
            try:
                terms = Terms(self.deadline_s, logs, self.allowance.of_launch())
                outcome = self.runner.run(attempt, terms)
            except BaseException:
                if attempt.over:
                    with held_back():
                        _settle(attempt, self.root, logs, None, began)
                raise
            with held_back():
                settled = _settle(attempt, self.root, logs, outcome, began)
        self.progress.advance(len(launch.cells) - logs.finished)
        for record in settled:
            if record.status not in MEASURED:
                self.progress.say(f"{record.cell.id}: {record.status}: {record.message}")


def _settle(
    attempt: Attempt, root: Folder, logs: Logs, outcome: Outcome | None, began: str
) -> list[CellRecord]:
    """Writes the records of an attempt that is over: those that it left, and with an outcome for every
    other cell a failed one that says why. Without an outcome, because the run ends here, the others
    stay to be measured."""
    require_in_place(root)
    os.stat(attempt.output)  # as long as it is there, what is missing in it was never written
    found = attempt.gather()
    settled = []
    for cell in attempt.launch.cells:
        record = found.get(cell.id)
        if record is None and outcome is not None:
            record = _missing(cell, outcome, logs, began)
        if record is None:
            continue
        if record.status == "failed" and not record.log_tail:
            record = dataclasses.replace(record, log_tail=logs.tail(cell))
        record = _marked(record, logs.seen_beside(cell))
        with folders.opened(root, cell) as folder:
            folder.write_whole(wall.RECORD, to_json(record))
        settled.append(record)
    attempt.discard(root)
    return settled


def _missing(cell: Cell, outcome: Outcome, logs: Logs, began: str) -> CellRecord:
    """The record of a cell that its launch left without one."""
    status: Status = "failed" if outcome.status == "ended" else outcome.status
    why = outcome.message or "The measuring process ended without leaving a record of this cell."
    message = why if cell.id in logs.begun else f"Not begun, since the launch ended early: {why}"
    return CellRecord(cell, status, message, logs.tail(cell), started_at=began, finished_at=_now())


def _marked(record: CellRecord, neighbours: list[str]) -> CellRecord:
    """The record, with whom the GPU served besides."""
    if not neighbours:
        return record
    environment = record.environment
    if environment is not None:
        most = max(environment.other_processes, len(neighbours))
        environment = dataclasses.replace(environment, other_processes=most)
    return dataclasses.replace(record, environment=environment, neighbours=neighbours)


def require_in_place(root: Folder) -> None:
    """MachineError where the run's folder is no longer where containers are told that it is."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.stat(root.path), os.fstat(root.fileno())):
            return
    raise MachineError(f"{root.path}: was moved, removed or replaced while its run was at work.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
