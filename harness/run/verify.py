"""Whether a run's folder is what it was made to be: all that can be recomputed from it is.

What a report says of a run rests on its records. Here they are checked against the plan that its experiment
makes, the manifest that it ended with, the traces that its seed gives, and what each record says of its own
samples.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import cell_files, wall
from harness import experiment as experiments
from harness import plan as plans
from harness.analysis import sources
from harness.cell_files import CellFiles
from harness.errors import BadInputError
from harness.files import Folder
from harness.moments import moment
from harness.plan import Plan
from harness.progress import Progress, Silent
from harness.records import MEASURED, Cell, CellRecord, load
from harness.run import contradictions, installed, looked_up, manifest
from harness.run import part as parts
from harness.run.findings import Finding, listed
from harness.run.manifest import Manifest


@dataclass(frozen=True)
class _Run:
    root: Path
    folder: Folder
    cells: CellFiles
    plan: Plan
    records: dict[str, CellRecord]

    @functools.cached_property
    def told(self) -> Manifest | None:
        """What the run ended with; None where there is no such file, BadInputError where it is damaged."""
        if not self.folder.kind(manifest.FILE):
            return None
        return load(Manifest, self.root / manifest.FILE, most_bytes=manifest.MOST_BYTES)


def verify(root: Path, progress: Progress | None = None) -> list[Finding]:
    """Every question and its answer; BadInputError where the folder holds no plan or experiment to read."""
    progress = progress or Silent()
    for name in (wall.PLAN, wall.EXPERIMENT):
        if not (root / name).is_file():
            raise BadInputError(f"{root}: is not the folder of a run to verify (it has no {name}).")
    plan = plans.read(root / wall.PLAN)
    found: list[Finding] = []
    with Folder.open(root) as folder, cell_files.opened(folder) as cells:
        there = [cell for cell in plan.cells if cells.kind(cell.id, wall.RECORD)]
        records = {cell.id: cell_files.record(cells, cell) for cell in there}
        run = _Run(root, folder, cells, plan, records)
        for question in _QUESTIONS:
            what = question.__name__.strip("_").replace("_", " ")
            progress.now(f"verifying {root.name}: {what}")
            try:
                found += question(run)
            except BadInputError as error:  # a file that is not what it should be
                found.append(Finding("broken", what, str(error)))
    return found


def _plan(run: _Run) -> Iterator[Finding]:
    made = plans.make(experiments.of_run(run.root))
    if made == run.plan:
        yield Finding("holds", "plan", f"is what {wall.EXPERIMENT} makes: {len(made.cells)} cells")
    else:
        yield Finding("broken", "plan", f"{wall.PLAN} is not the plan that {wall.EXPERIMENT} makes")


def _cells(run: _Run) -> Iterator[Finding]:
    """Exactly the planned ones, each as planned, each with its record."""
    planned = {cell.id for cell in run.plan.cells}
    broken = [f"{name}: nobody planned it" for name in run.cells.ids() if name not in planned]
    for cell in run.plan.cells:
        try:
            if cell_files.load(Cell, run.cells, cell.id, wall.CELL) != cell:
                broken.append(f"{cell.id}: {wall.CELL} is not what was planned")
        except BadInputError as error:
            broken.append(str(error))
    unusable = [r for r in run.records.values() if r.message.startswith("Its record cannot be used")]
    broken += [f"{record.cell.id}: {record.message}" for record in unusable]
    if broken:
        yield Finding("broken", "cells", listed(broken))
    pending = len(planned) - len(run.records)
    part = parts.read(run.folder)
    lost = [c.id for at in run.plan.launches if part.has(at) for c in at.cells if c.id not in run.records]
    if lost and run.folder.kind(manifest.FILE):
        text = f"{manifest.FILE} says that the run is complete, and these have no record: {listed(lost)}"
        yield Finding("broken", "cells", text)
    elif pending:
        yield Finding("not known", "cells", f"{pending} of {len(planned)} have no record yet")
    elif not broken:
        yield Finding("holds", "cells", f"the planned {len(planned)} and no other, each with its record")


def _manifest(run: _Run) -> Iterator[Finding]:
    """Every file is as it was when the run was complete."""
    told = run.told
    if told is None:
        text = f"there is no {manifest.FILE}: the run is not complete, or of a version that wrote none"
        yield Finding("not known", "files", text)
        return
    found = dict(manifest.files(run.plan, run.folder))
    missing = sorted(told.files.keys() - found.keys())
    # Reference measurements travel without traces and logs.
    left = [name for name in missing if name.startswith(f"{wall.TRACES}/") or name.endswith(f"/{wall.LOG}")]
    changed = [name for name in found if told.files.get(name, found[name]) != found[name]]
    added = [name for name in found.keys() - told.files.keys()]
    broken = [f"{name}: is gone" for name in missing if name not in left]
    broken += [f"{name}: has changed" for name in changed]
    broken += [f"{name}: is new" for name in sorted(added)]
    if broken:
        yield Finding("broken", "files", listed(broken))
    else:
        without = f"; {len(left)} logs and traces are not here" if left else ""
        yield Finding("holds", "files", f"{len(found)} are those of {manifest.FILE}{without}")


def _samples(run: _Run) -> Iterator[Finding]:
    """What a record says of its samples follows from them."""
    broken = [f"{r.cell.id}: {why}" for r in _measured(run) if (why := contradictions.of_samples(r))]
    gaps = [r.cell.id for r in _measured(run) if contradictions.leaves_gaps(r)]
    if broken:
        yield Finding("broken", "samples", listed(broken))
    elif gaps:
        text = f"kernels take less than {contradictions.FILLED:.0%} of their stage in {listed(gaps)}"
        yield Finding("not known", "samples", f"{text}: launches that the GPU waited for, or changed samples")
    elif _measured(run):
        yield Finding("holds", "samples", "their numbers and spreads are those that their records say")


def _outputs(run: _Run) -> Iterator[Finding]:
    broken = [f"{r.cell.id}: {why}" for r in run.records.values() if (why := contradictions.of_outcome(r))]
    if broken:
        yield Finding("broken", "outputs", listed(broken))
    elif _measured(run):
        yield Finding("holds", "outputs", "shown to be right before they were timed")


def _times(run: _Run) -> Iterator[Finding]:
    """Cells end after they begin, and those that a launch measured on one board follow one another: in what
    order, a cell that failed and was measured again does not tell, and one that its launch left without a
    record has the times of the whole launch."""
    broken = []
    for launch in run.plan.launches:
        spans = defaultdict(list)
        for record in (run.records[cell.id] for cell in launch.cells if cell.id in run.records):
            if record.status not in MEASURED and not (record.started_at and record.finished_at):
                continue
            began, ended = moment(record.started_at), moment(record.finished_at)
            if began is None or ended is None or ended < began:
                said = f"ended at {record.finished_at!r}, begun at {record.started_at!r}"
                broken.append(f"{record.cell.id}: {said}")
            elif record.status in MEASURED:
                spans[_place(record)].append((began, ended, record.cell.id))
        for at_one in spans.values():
            for before, behind in itertools.pairwise(sorted(at_one)):
                if behind[0] < before[1]:
                    broken.append(f"{behind[2]}: begun before {before[2]} ended, in the same launch")
    if broken:
        yield Finding("broken", "times", listed(broken))
    elif run.records:
        yield Finding("holds", "times", "cells ended after they began, those of a launch one after the other")


def _place(record: CellRecord) -> tuple[object, ...]:
    """Where one cell of a launch follows another: of a sweep each board may have some workloads
    (harness/run/boards.py). Parts of a board bear its name, so there a workload is at one place."""
    where = record.environment
    return (where.gpu_uuid, record.cell.workload if where.mig else None) if where else ()


def _looked_up(run: _Run) -> Iterator[Finding]:
    yield from looked_up.findings(run.root, run.plan, _measured(run), run.told)


def _sources(run: _Run) -> Iterator[Finding]:
    """Whether what measured is still what it was: no fault of a run where not."""
    today = manifest.sources({cell.design for cell in run.plan.cells})
    hashes: dict[str, set[str]] = {}
    for r in _measured(run):
        if r.kernel and r.kernel.source_hash:
            hashes.setdefault(manifest.recorded(r.kernel.name), set()).add(r.kernel.source_hash)
    if several := sorted(name for name, found in hashes.items() if len(found) > 1):
        yield Finding("broken", "sources", f"records tell of different ones: {listed(several)}")
        return
    then = {name: found.pop() for name, found in hashes.items()}
    if run.told:
        told = run.told.sources
        differ = [name for name in then if told.get(name, then[name]) != then[name]]
        if differ:
            yield Finding("broken", "sources", f"records and {manifest.FILE} differ: {listed(differ)}")
        if silent := [name for part in manifest.MEASURING if (name := f"harness/{part}") not in told]:
            yield Finding("not known", "sources", f"{manifest.FILE} does not tell those of {listed(silent)}")
        then = then | told
    older = sorted(name for name in then if today.get(name) != then[name])
    if older:
        yield Finding("not known", "sources", f"have changed since: {listed(older)}")
    elif then:
        yield Finding("holds", "sources", f"of {listed(sorted(then))} are those of today")


def _libraries(run: _Run) -> Iterator[Finding]:
    """What was measured beside ours was one build, and is what is installed here, where it is."""
    told = sources.libraries(_measured(run))
    if differ := [name for name, digests in told.items() if len(digests) > 1]:
        yield Finding("broken", "libraries", f"records tell of different builds: {listed(differ)}")
        return
    here = {name: installed.hash_of(name) for name in told}
    if absent := [name for name, digest in here.items() if digest is None]:
        yield Finding("not known", "libraries", f"are not installed here: {listed(absent)}")
    if others := [name for name, digest in here.items() if digest not in (None, *told[name])]:
        yield Finding("not known", "libraries", f"are of another build here: {listed(others)}")
    if told and not absent and not others:
        yield Finding("holds", "libraries", f"{len(told)} of others are those that are installed here")


def _commit(run: _Run) -> Iterator[Finding]:
    seen = [r.environment for r in _measured(run) if r.environment]
    commits = sorted({environment.git_commit[:12] for environment in seen if environment.git_commit})
    dirty = sum(environment.git_dirty for environment in seen)
    if dirty or len(commits) != 1:
        text = f"{', '.join(commits) or 'none is named'}; {dirty} cells with uncommitted changes"
        yield Finding("not known", "commit", text)
    else:
        yield Finding("holds", "commit", f"{commits[0]}, without changes")


def _measured(run: _Run) -> list[CellRecord]:
    return [record for record in run.records.values() if record.status in MEASURED]


_QUESTIONS: tuple[Callable[[_Run], Iterator[Finding]], ...] = (
    *(_plan, _cells, _manifest, _samples, _outputs, _times, _looked_up, _sources, _libraries, _commit),
)
