"""One try at a launch: the folder that is made for it in the run, and how what it leaves there is read back.

    ROOT/launches/<launch>.<chance>/
      attempt.json   what the launch was told; the host's own
      cells/         its cells; a container sees them and cannot write them
      out/           all that it may write, and nothing else lies there

The folder goes when everything in it that counts is in the run. Where the harness is killed before, it
stays, and whoever resumes the run reads it back in the same way."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from harness import designs, wall
from harness.codec import SCHEMA_VERSION, parse
from harness.errors import BadInputError, InterruptedRunError
from harness.files import Folder
from harness.plan import Launch, Plan
from harness.records import MEASURED, Cell, CellRecord, to_json
from harness.run.gpu import Gpu
from harness.wall import Provenance

_NOTE, _CELLS, _OUTPUT = "attempt.json", "cells", "out"
_MOST_NOTE_BYTES = 16 * 2**20
_MOST_MESSAGE, MOST_TAIL = 2000, 64 * 2**10
MOST_REPORT_BYTES = 2**30
_making = threading.Lock()
"""Held while the folder of attempts is made or taken away: launches on other boards begin and end too."""


class CalledOffError(InterruptedRunError):
    """The run ends, so this launch does."""


@dataclass(frozen=True)
class Note:
    """What an attempt was made for."""

    launch: str
    provenance: Provenance
    source_hash: str
    """Of what it measures, as records tell it."""
    began: str
    profiled: bool = False
    """Whether a profiler looks on: then the records are no measurements."""
    schema_version: int = SCHEMA_VERSION


@dataclass
class Attempt:
    """A launch that is about to run, runs, or has run."""

    launch: Launch
    root: Path
    """The run's folder, where traces lie."""
    folder: Folder
    name: str
    profiled: bool = False
    """Whether a profiler looks on: records are then of cells without their model, and without samples."""
    over: bool = True
    """Whether nothing runs that could write into its output. While something may, nobody reads it."""
    note: Note | None = field(default=None)
    board: Gpu | None = None
    """Where it runs; None: on the runner's only board, or on the CPU."""
    called_off: threading.Event = field(default_factory=threading.Event)
    """Set from another thread: the launch is to end now."""

    @property
    def cells(self) -> Path:
        """Where the launch finds its cells."""
        return self.folder.path.absolute() / _CELLS

    @property
    def output(self) -> Path:
        """Where the launch leaves what it found."""
        return self.folder.path.absolute() / _OUTPUT

    def sign(self, provenance: Provenance) -> None:
        """Notes what the launch is told, before it begins."""
        expected = recorded_hash(self.launch.design)
        began = datetime.now(UTC).isoformat(timespec="seconds")
        self.note = Note(self.launch.id, provenance, expected, began, self.profiled)
        self.folder.write_whole(_NOTE, to_json(self.note))

    def written(self) -> Folder:
        """The output folder, whatever mode its launch gave it."""
        if self.folder.kind(_OUTPUT) == "a folder":
            with contextlib.suppress(PermissionError):  # another user's, as under a daemon that maps users
                os.chmod(_OUTPUT, 0o700, dir_fd=self.folder.fileno())
        return self.folder.inner(_OUTPUT)

    def hand_over(self, user: int, group: int) -> None:
        """Gives the output folder to the user that the launch runs as."""
        with self.folder.inner(_OUTPUT) as output:
            os.fchown(output.fileno(), user, group)

    def gather(self) -> dict[str, CellRecord]:
        """The records that the launch left, by cell, each as it is to be kept: what cannot be believed has
        become a failed one that says why. A cell without a file is not among them."""
        assert self.over
        found: dict[str, CellRecord] = {}
        if not self.folder.kind(_OUTPUT):
            return found  # taken away from outside
        with self.written() as output:
            for cell in self.launch.cells:
                try:
                    record = self._believed(output, cell)
                except FileNotFoundError:
                    continue
                except (BadInputError, OSError) as error:
                    said = (
                        str(error)
                        if isinstance(error, BadInputError)
                        else f"cannot be read: {error.strerror}"
                    )
                    said = said.replace(f"{output.path}{os.sep}", "").removesuffix(".")
                    record = CellRecord(
                        cell, "failed", f"What its launch left as its record does not count: {said}."
                    )
                found[cell.id] = record
        return found

    def _believed(self, output: Folder, planned: Cell) -> CellRecord:
        """BadInputError where the file is not the record of this cell, measured by this launch."""
        cell = dataclasses.replace(planned, model=None) if self.profiled else planned
        name = wall.file_of(cell.id)
        most = wall.most_record_bytes(cell.workload.tables, cell.timing.max_passes)
        record = parse(CellRecord, output.read(name, most), name)
        names = [field.name for field in dataclasses.fields(Cell)]
        if differing := [n for n in names if getattr(record.cell, n) != getattr(cell, n)]:
            raise BadInputError(
                f"{name}: is of another cell than the planned one (other {', '.join(differing)})."
            )
        if not self.profiled and record.status in MEASURED and (lacking := self._lacking(record)):
            raise BadInputError(f"{name}: says {record.status!r} and {lacking}.")
        if record.environment is not None and self.note is not None:
            told = dataclasses.asdict(self.note.provenance)
            record = dataclasses.replace(record, environment=dataclasses.replace(record.environment, **told))
        return dataclasses.replace(
            record,
            message=record.message[:_MOST_MESSAGE],
            log_tail=record.log_tail[-MOST_TAIL:],
        )

    def _lacking(self, record: CellRecord) -> str:
        """What a measurement has and this record has not."""
        if not (record.samples.get("kernel_us") and record.samples.get("stage_us")):
            return "holds no samples"
        if record.check is None or not record.check.passed:
            return "tells of no check that passed"
        if record.environment is None or record.environment.device != record.cell.workload.device:
            return "was not measured on the device that the cell asks for"
        if record.kernel is None:
            return "does not tell which kernel ran"
        expected = self.note.source_hash if self.note else ""
        if record.kernel.source_hash != expected and (
            record.kernel.source_hash or record.environment.device == "cuda"
        ):
            return f"is of sources {record.kernel.source_hash[:32]!a} where its launch was of {expected!r}"
        return ""

    def discard(self, runs: Folder) -> None:
        """Takes the folder away. `runs`: the run's."""
        with _making, runs.inner(wall.LAUNCHES) as launches:
            # The note first: without it the rest is nothing that anybody would read back.
            self.folder.remove(_NOTE)
            launches.remove(self.name)
            with contextlib.suppress(OSError):
                os.rmdir(wall.LAUNCHES, dir_fd=runs.fileno())


def recorded_hash(name: str) -> str:
    """What records of a design tell as its source; empty for PyTorch's own kernel."""
    design = designs.get(name)
    if design.compiled:
        return design.source_hash
    return wall.peer_hash(design.folder / wall.PEER) if design.measured_by_peer else ""


@contextlib.contextmanager
def begun(
    launch: Launch,
    root: Folder,
    *,
    profiled: bool = False,
    board: Gpu | None = None,
    called_off: threading.Event | None = None,
) -> Iterator[Attempt]:
    """A new attempt in the run. Its folder is not taken away here, but by `Attempt.discard`."""
    name = f"{launch.id}.{secrets.token_hex(4)}"
    with _making, root.inner(wall.LAUNCHES, create=True) as launches:
        made = launches.inner(name, create=True, mode=0o700)
    with made as folder:
        folder.inner(_OUTPUT, create=True, mode=0o700).close()
        with folder.inner(_CELLS, create=True) as cells:
            os.fchmod(cells.fileno(), 0o755)  # read by the container's user, whatever the umask
            for cell in launch.cells:
                with os.fdopen(cells.create(wall.file_of(cell.id)), "w", encoding="utf-8") as file:
                    os.fchmod(file.fileno(), 0o644)
                    file.write(to_json(cell))
        yield Attempt(
            launch,
            root.path.absolute(),
            folder,
            name,
            profiled,
            board=board,
            called_off=called_off or threading.Event(),
        )


@contextlib.contextmanager
def left_behind(plan: Plan, root: Folder) -> Iterator[list[Attempt]]:
    """What attempts of killed runs left, for whoever holds the run and has seen to it that nothing of them
    runs."""
    launches = {launch.id: launch for launch in plan.launches}
    with contextlib.ExitStack() as opened:
        found: list[Attempt] = []
        if root.kind(wall.LAUNCHES):
            inside = opened.enter_context(root.inner(wall.LAUNCHES))
            for name in sorted(inside.names()):
                if inside.kind(name) != "a folder":
                    inside.remove(name)
                    continue
                folder = opened.enter_context(inside.inner(name))
                # Of one that was killed before it began, or after all that counts of it was in the run,
                # nothing is wanted; nor of one that measured nothing.
                nothing = Launch(name, "", "", 0, ())
                note = _note(folder) if folder.kind(_NOTE) else None
                launch = nothing if note is None or note.profiled else launches.get(note.launch, nothing)
                found.append(Attempt(launch, root.path.absolute(), folder, name, note=note))
        yield found


def _note(folder: Folder) -> Note:
    try:
        return parse(Note, folder.read(_NOTE, _MOST_NOTE_BYTES), folder.path / _NOTE)
    except BadInputError as error:
        raise BadInputError(f"{error} Remove {folder.path} to go on without what is in it.") from error
