"""Whether two sides can be compared: what has to be equal, what may differ but must be said."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.analysis.differences import as_text
from harness.analysis.frame import single_launch
from harness.analysis.work import wherever_traces_lie
from harness.records import CellRecord, Environment

_HARDWARE = ("multiprocessors", "l2_bytes", "memory_bytes", "persisting_l2_bytes", "mig", "mps", "display")
_TRACE = ("accesses", "distinct_rows", "batch_distinct_rows", "batches")
_CACHE = "timing.cache"
_ABSENT = "unknown"
_MOST_HASHED = 2**33
"""Bytes; larger files are held together by their size and by what the records say of their rows."""


Traits = Mapping[str, Mapping[str, None]]
"""What is known of a side: by trait every value that its records have, in their order."""


@dataclass(frozen=True)
class Source:
    """A record and the folder of the run that it comes from."""

    record: CellRecord
    folder: Path


@dataclass(frozen=True)
class Difference:
    """Something that is not the same on both sides, or not within one."""

    what: str
    """For example "driver", "workload.batch" or "distinct_rows of trace of medium"."""
    a: list[str]
    b: list[str]

    def __str__(self) -> str:
        return f"{self.what}: {' and '.join(self.a)} against {' and '.join(self.b)}"


def forbidding(a: Iterable[Source], b: Iterable[Source]) -> list[Difference]:
    """What makes times incomparable: another GPU or driver, other work, other rows, another protocol."""
    return differing(decisive(a), decisive(b))


def never_compared(differences: Iterable[Difference]) -> list[Difference]:
    """Those of `forbidding` that nobody can allow: times taken with another cache protocol are of another
    thing."""
    return [difference for difference in differences if difference.what == _CACHE]


def worth_saying(a: Iterable[Source], b: Iterable[Source]) -> list[Difference]:
    """What may be the very thing that is compared: sources, compilers, builds of libraries, PyTorch,
    commits, runners."""
    return differing(incidental(a), incidental(b))


def decisive(sources: Iterable[Source]) -> Traits:
    """What times depend on that is no kernel: machine, work, rows, protocol."""
    return _together(pair for source in sources for pair in _must_agree(source))


def incidental(sources: Iterable[Source]) -> Traits:
    """What a kernel is made of and runs under: see `worth_saying`."""
    return _together(pair for source in sources for pair in _may_differ(source))


def differing(a: Traits, b: Traits) -> list[Difference]:
    """Traits known on both sides that do not have one value everywhere."""
    return [
        Difference(name, list(a[name]), list(b[name]))
        for name in a
        if name in b and len({*a[name], *b[name]}) > 1
    ]


def commit(found: Environment) -> str:
    """The commit that a record is of, short, and whether the checkout differed from it; empty: unknown."""
    return found.git_commit[:12] + (" with changes" if found.git_dirty else "")


def _must_agree(source: Source) -> Iterator[tuple[str, str]]:
    record, cell = source.record, source.record.cell
    if (found := record.environment) is not None:
        yield from _machine(found)
    for field in dataclasses.fields(cell.workload):
        value = getattr(cell.workload, field.name)
        if field.name == "groups" and value:
            # All of them would fill pages.
            value = list(wherever_traces_lie(cell.workload).groups)
            digest = hashlib.sha256(repr(value).encode()).hexdigest()[:12]
            value = f"tables of {len(value)} kinds, {digest}"
        yield f"workload.{field.name}", as_text(value)
    for field in dataclasses.fields(cell.timing):
        yield f"timing.{field.name}", as_text(getattr(cell.timing, field.name))
    if "pinned_rows" in record.facts:
        # Before hot rows were told apart they were those of the whole trace, timed accesses among them.
        chosen = cell.hot_rows if "pinned_share" in record.facts else "of the whole trace"
        yield f"hot rows of {cell.variant.label}", chosen
    if cell.model is not None:
        yield "model", as_text(dataclasses.asdict(cell.model))
    # Samples of before the events' own time was measured and taken off are longer by microseconds.
    yield "events' own time taken off", as_text("event_overhead_us" in record.ceilings)
    yield "seed", str(cell.seed)
    trace = f"trace of {cell.dataset.name}"
    for name in _TRACE:
        if name in record.facts:
            yield f"{name} of {trace}", f"{record.facts[name]:.10g}"
    yield f"kind of {trace}", "file" if cell.dataset.path else "synthetic"
    # Reference measurements travel without their traces: only files that are there can be held together.
    path = source.folder / (cell.dataset.path or "")
    if cell.dataset.path and path.is_file() and not path.is_symlink():
        yield f"file of {trace}", _digest(path)


def _machine(found: Environment) -> Iterator[tuple[str, str]]:
    if found.device == "cpu":
        yield "CPU", found.cpu
        return
    yield "GPU", found.gpu
    # Two boards of one model differ by more than many a change of a kernel.
    yield "GPU's UUID", found.gpu_uuid
    yield "driver", found.driver
    for name in _HARDWARE:
        yield name, as_text(getattr(found, name))


def _may_differ(source: Source) -> Iterator[tuple[str, str]]:
    record = source.record
    if "kernel_us" in record.samples:
        # Then the stage compares them: it holds the gaps between launches.
        yield "a pass", "one launch for all tables" if single_launch(record) else "a launch per table"
    if (kernel := record.kernel) is not None:
        label = record.cell.variant.label
        yield f"source of {label}", kernel.source_hash
        yield f"compiler of {label}", kernel.compiler
        yield f"machine code of {label}", kernel.cubin_sha256[:12] or _ABSENT
        if kernel.libraries:  # which older records do not tell of
            built = repr(sorted(kernel.libraries.items())).encode()
            yield f"build of {label}", hashlib.sha256(built).hexdigest()[:12]
    if (found := record.environment) is not None:
        yield "PyTorch", found.torch
        yield "CUDA", found.cuda
        yield "runner", found.runner
        yield "commit", commit(found) or _ABSENT


def _together(pairs: Iterable[tuple[str, str]]) -> Traits:
    seen: dict[str, dict[str, None]] = {}
    for name, value in pairs:
        seen.setdefault(name, {})[value] = None
    return seen


def _digest(path: Path) -> str:
    if (size := path.stat().st_size) > _MOST_HASHED:
        return f"{size} bytes"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
