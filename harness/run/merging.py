"""Joins runs of one plan, which several people or machines have measured in parts, into one run.

What is joined has been checked before anything is written: the same experiment and plan, the same traces, the
same sources and builds of libraries, GPUs of one model, no cell with two records, no comparison across
boards. Records are copied byte for byte."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import cell_files, wall
from harness import experiment as experiments
from harness import plan as plans
from harness.analysis import kind_demand
from harness.codec import parse
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.files import Folder
from harness.plan import Plan
from harness.progress import Progress, Silent
from harness.records import Cell, CellRecord, Workload, to_json
from harness.run import layout, lease, manifest
from harness.text import shown
from harness.traces import demand

_BESIDE = (wall.LOG, wall.PROFILE)
"""What goes with a record where it is there."""
_MOST_COPIED = 2**30


@dataclass(frozen=True)
class _Source:
    """A run to be joined."""

    root: Path
    experiment: Experiment
    plan: Plan
    traces: dict[str, str]
    """File → hash."""


@dataclass(frozen=True)
class _Found:
    """A record, where it lies and what it is."""

    source: _Source
    record: CellRecord
    digest: str


def merge(roots: Sequence[Path], output: Path, *, progress: Progress | None = None) -> int:
    """Joins the runs, one at least, in the new folder `output`; returns how many cells have a record there.

    BadInputError, before anything is written, where they do not belong together."""
    progress = progress or Silent()
    if len(roots) < 2:
        raise BadInputError(f"{roots[0]}: is one run; name those that it is to be joined with.")
    sources = [_source(root) for root in roots]
    first = sources[0]
    for other in sources[1:]:
        _require_same_work(first, other)
    found = _gathered(sources, progress)
    _require_same_sources(found.values())
    _require_same_libraries(found.values())
    _require_one_model(found.values())
    _require_whole_boards(found.values())
    with lease.run_folder(output), Folder.open(output) as folder:
        layout.require_empty(folder)
        _write(first, found, folder, progress)
        if len(found) == len(first.plan.cells):
            manifest.write(first.plan, folder)
    return len(found)


def _source(root: Path) -> _Source:
    for name in (wall.PLAN, wall.EXPERIMENT):
        if not (root / name).is_file():
            raise BadInputError(f"{root}: is not the folder of a run (it has no {name}).")
    with Folder.open(root) as folder:
        if folder.kind(wall.LAUNCHES):
            raise BadInputError(
                f"{root}: is at work, or was killed and holds what it has not taken in; wait for its end, or "
                f"go on with `harness run --resume {root}`."
            )
        traces = {}
        if folder.kind(wall.TRACES):
            with folder.inner(wall.TRACES) as inside:
                for name in sorted(inside.names()):
                    if (kind := inside.kind(name)) != "a file":
                        raise BadInputError(f"{inside.path / name}: is {kind} and not a file.")
                    with (inside.path / name).open("rb") as file:
                        traces[name] = hashlib.file_digest(file, "sha256").hexdigest()
    demand.check_traces(root)
    return _Source(root, experiments.of_run(root), plans.read(root / wall.PLAN), traces)


def _require_same_work(first: _Source, other: _Source) -> None:
    for field in dataclasses.fields(Experiment):
        if getattr(first.experiment, field.name) != getattr(other.experiment, field.name):
            raise BadInputError(
                f"{other.root}: is of another experiment than {first.root} (other {field.name}); `harness "
                f"report {first.root} {other.root}` shows both side by side."
            )
    if first.plan != other.plan:
        raise BadInputError(
            f"{other.root}: has another {wall.PLAN} than {first.root}, so another version of the program "
            f"made it; `harness report {first.root} {other.root}` shows both side by side."
        )
    if first.traces != other.traces:
        names = sorted(name for name, _ in set(first.traces.items()) ^ set(other.traces.items()))
        raise BadInputError(
            f"{other.root / wall.TRACES / names[0]}: is not the trace that {first.root} measured; runs to be "
            "joined replay the same."
        )


def _gathered(sources: Sequence[_Source], progress: Progress) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    progress.expect(len(sources))
    for source in sources:
        progress.now(f"reading {source.root.name}")
        for cell, content in _records(source):
            path = source.root / wall.CELLS / cell.id / wall.RECORD
            record = parse(CellRecord, content, path)
            if record.cell != cell:
                raise BadInputError(f"{path}: is the record of another cell, {record.cell.id[:100]}.")
            one = _Found(source, record, hashlib.sha256(content).hexdigest())
            there = found.setdefault(cell.id, one)
            if there.digest != one.digest:
                raise BadInputError(
                    f"{source.root}: has measured {cell.id}, and so has {there.source.root}; each cell is "
                    "measured once, so divide the replicates (--part 1/2 and --part 2/2), or leave one run "
                    "out."
                )
        progress.advance()
    if not found:
        raise BadInputError(f"{sources[0].root}: neither this run nor the others hold any record.")
    return found


def _records(source: _Source) -> Iterator[tuple[Cell, bytes]]:
    with cell_files.opened(source.root) as files:
        for cell in source.plan.cells:
            if files.kind(cell.id, wall.RECORD):
                yield cell, cell_files.read(files, cell.id, wall.RECORD, _most_bytes(cell))


def _most_bytes(cell: Cell) -> int:
    return wall.most_record_bytes(cell.workload.tables, cell.timing.max_passes)


def _require_same_sources(found: Iterable[_Found]) -> None:
    seen: dict[str, _Found] = {}
    for one in found:
        if (kernel := one.record.kernel) is None or one.record.cell.workload.device == "cpu":
            continue
        label = one.record.cell.variant.label
        there = seen.setdefault(label, one)
        known = there.record.kernel
        assert known is not None
        for what, own, other in (
            ("sources", kernel.source_hash, known.source_hash),
            ("compiler", kernel.compiler, known.compiler),
        ):
            if own != other:
                raise BadInputError(
                    f"{one.source.root}: {label} is of other {what} ({own[:40]}) than in {there.source.root} "
                    f"({other[:40]}); a run compares like with like."
                )


def _require_same_libraries(found: Iterable[_Found]) -> None:
    """Of each library that was measured beside ours one build, as `harness verify` asks of a whole run."""
    seen: dict[str, tuple[str, _Found]] = {}
    for one in found:
        for name, digest in (one.record.kernel.libraries if one.record.kernel else {}).items():
            known, there = seen.setdefault(name, (digest, one))
            if known != digest:
                raise BadInputError(
                    f"{one.source.root}: {shown(name)} is of another build ({digest[:12]}) than in "
                    f"{there.source.root} ({known[:12]}); a run compares like with like."
                )


def _require_one_model(found: Iterable[_Found]) -> None:
    seen: dict[tuple[str, int], _Found] = {}
    for one in found:
        if (where := one.record.environment) is not None and where.device == "cuda" and where.gpu:
            seen.setdefault((where.gpu, where.memory_bytes), one)
    if len(seen) > 1:
        (one, there), (gpu, _) = list(seen.values())[:2], list(seen)[1]
        raise BadInputError(
            f"{there.source.root}: is of another model of GPU ({gpu}) than {one.source.root}; `harness "
            f"report {one.source.root} {there.source.root}` shows both side by side."
        )


def _require_whole_boards(found: Iterable[_Found]) -> None:
    """What is compared, the variants of a replicate for one workload, comes from one board of one run."""
    seen: dict[tuple[int, Workload], _Found] = {}
    for one in found:
        where = one.record.environment
        if where is None or not where.gpu_uuid:
            continue
        there = seen.setdefault((one.record.cell.replicate, one.record.cell.workload), one)
        assert there.record.environment is not None
        if there.source is not one.source and there.record.environment.gpu_uuid != where.gpu_uuid:
            raise BadInputError(
                f"{one.source.root}: holds a part of replicate {one.record.cell.replicate + 1} from GPU "
                f"{where.gpu_uuid}, and {there.source.root} the rest from GPU "
                f"{there.record.environment.gpu_uuid}; what is compared is measured on one board, so leave "
                "one of the runs out."
            )


def _write(first: _Source, found: dict[str, _Found], output: Folder, progress: Progress) -> None:
    with Folder.open(first.root) as root:
        output.copy_in(wall.EXPERIMENT, root, wall.EXPERIMENT, plans.MOST_BYTES)
        for name in (demand.FILE, kind_demand.FILE):
            if root.kind(name):
                output.copy_in(name, root, name, plans.MOST_BYTES)
        if first.traces:
            with root.inner(wall.TRACES) as theirs, output.inner(wall.TRACES, create=True) as ours:
                os.fchmod(ours.fileno(), 0o755)  # read by a container's user, whatever the umask
                for name in first.traces:
                    progress.now(f"copying {name}")
                    ours.copy_in(name, theirs, name, theirs.size(name))
                    os.chmod(name, 0o644, dir_fd=ours.fileno())
    layout.lay_out_cells(first.plan, output)
    progress.expect(len(found))
    with contextlib.ExitStack() as held:
        cells = held.enter_context(output.inner(wall.CELLS))
        roots = dict.fromkeys(one.source.root for one in found.values())
        sources = {root: held.enter_context(cell_files.opened(root)) for root in roots}
        for name, one in found.items():
            files = sources[one.source.root]
            with cells.inner(name) as ours:
                for copied in (*_BESIDE, wall.RECORD):
                    if files.kind(name, copied):
                        with files.opened(name, copied, _MOST_COPIED) as reading:
                            ours.take(copied, reading, _MOST_COPIED)
            progress.advance()
    output.write_whole(wall.PLAN, to_json(first.plan))
