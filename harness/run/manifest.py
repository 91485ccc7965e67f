"""What a run consisted of when it was complete: a hash of every file, of the sources behind it, of what it
looked up.

`manifest.json` is written when the last cell has its record, and again when a run that went on is complete.
What is made of a run later, such as a report, is no part of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from harness import cell_files, designs, wall
from harness.analysis import kind_demand
from harness.design_source import DESIGNS_DIR
from harness.errors import BadInputError
from harness.files import Folder
from harness.plan import Plan
from harness.records import SCHEMA_VERSION, Cell, SchemaVersion, to_json
from harness.run.attempt import recorded_hash
from harness.traces import demand, replay
from harness.traces.stretches import Stretches

FILE = "manifest.json"
MOST_BYTES = 2**26
_MOST_FILE = 2**36
_AT_ONCE = 2**20
_MOST_LOOKED_UP = 2**26
"""Rows and lookups of all tables that are made again for a hash: seconds."""
_CELL_FILES = (wall.CELL, wall.RECORD, wall.LOG)
PACKAGE = Path(__file__).resolve().parents[1]
MEASURING = ("bench", "patch", "traces")
"""What of the program is in every launch: the bench, the operator, the traces' replay."""


@dataclass(frozen=True)
class Manifest:
    """The file."""

    files: dict[str, str]
    """SHA-256 by path in the run's folder, packed or not."""
    sources: dict[str, str]
    """Of `MEASURING` and of every design that was measured, as the host had them at the end."""
    indices: dict[str, str] = field(default_factory=dict)
    """By dataset: of the row numbers that all tables look up in the first batch of the experiment's own
    workload, as int64. Not of what would take minutes to make."""
    schema_version: SchemaVersion = SCHEMA_VERSION


def write(plan: Plan, root: Folder) -> None:
    """Writes it anew."""
    names = {cell.design for cell in plan.cells}
    made = Manifest(dict(files(plan, root)), sources(names), dict(indices(plan, root.path)))
    root.write_whole(FILE, to_json(made))


def files(plan: Plan, root: Folder) -> Iterator[tuple[str, str]]:
    """Path and hash of every file that belongs to the run and is there; BadInputError where something else
    than a file has its name."""
    for name in (wall.EXPERIMENT, wall.PLAN, demand.FILE, kind_demand.FILE):
        if root.kind(name):
            yield name, _hashed(root, name)
    if root.kind(wall.TRACES):
        with root.inner(wall.TRACES) as traces:
            for name in sorted(traces.names()):
                yield f"{wall.TRACES}/{name}", _hashed(traces, name)
    with cell_files.opened(root) as cells:
        for cell in sorted(plan.cells, key=lambda cell: cell.id):
            for name in _CELL_FILES:
                if cells.kind(cell.id, name):
                    with cells.opened(cell.id, name, _MOST_FILE) as file:
                        yield f"{wall.CELLS}/{cell.id}/{name}", _hash_of(file)


def _hashed(folder: Folder, name: str) -> str:
    with os.fdopen(folder.opened(name, _MOST_FILE), "rb") as file:
        return _hash_of(file)


def _hash_of(file: IO[bytes]) -> str:
    """In blocks, for a trace may be larger than memory."""
    digest = hashlib.sha256()
    while block := file.read(_AT_ONCE):
        digest.update(block)
    return digest.hexdigest()


def sources(names: Iterable[str]) -> dict[str, str]:
    """Hashes of what measures, and of these designs as far as this checkout has them."""
    found = {f"harness/{part}": _of_folder(PACKAGE / part) for part in MEASURING}
    for name in sorted(names):
        if (DESIGNS_DIR / name / "design.toml").is_file():
            found[f"opt_designs/{name}"] = designs.get(name).source_hash
            if designs.get(name).measured_by_peer:
                found[recorded(name)] = recorded_hash(name)
    return found


def recorded(name: str) -> str:
    """Of which source records of a design tell the hash: of a library, of what binds it alone."""
    folder = f"opt_designs/{name}"
    here = (DESIGNS_DIR / name / "design.toml").is_file()
    return f"{folder}/{wall.PEER}" if here and designs.get(name).measured_by_peer else folder


def _of_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def indices(plan: Plan, root: Path) -> Iterator[tuple[str, str]]:
    """Dataset and hash of its row numbers, made anew from seed or trace file."""
    first = {cell.dataset.name: cell for cell in reversed(plan.cells) if not cell.point}
    for name, cell in sorted(first.items()):
        if cell.workload.tables * (cell.workload.rows + cell.workload.lookups) <= _MOST_LOOKED_UP:
            try:
                yield name, _looked_up(cell, root)
            except BadInputError:  # a run travels without its trace files
                continue


def _looked_up(cell: Cell, root: Path) -> str:
    digest, work = hashlib.sha256(), cell.workload
    stretches = Stretches.read(cell, root)
    recorded = any(group.trace for group in work.groups)
    for table, trace in enumerate(stretches.traces):
        # Of tables that differ as many as of one on average: so have it manifests of before there were
        # recorded traces in models, which are to be verified, too.
        begin = table * len(trace) // work.tables
        rows = stretches.rows(table, 0) if recorded else replay.taken(trace, begin, begin + work.lookups)
        digest.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
    return digest.hexdigest()
