"""The wall between the host and a launch: what lies where on either side, and how a launch speaks.

Standard library only. The host and what runs in a container both import this, and no path, mark or line
that crosses the wall is spelt anywhere else. A launch reads CELLS/<id>.json and the run's traces, and
writes OUTPUT/<id>.json; its stdout is a log, in which it announces the cell that comes next."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ANNOUNCEMENT = "::cell "
"""Begins the line by which a launch says which cell is next."""
MARK = "read_rows"
"""The kernel by which a profiled launch says where a cell begins: the ceilings' own, without a row to read.
No design may call a kernel so."""
PEER = "peer.py"
"""The module of a peer, in its folder."""
REPORT = "report.ncu-rep"
"""The profiler's file, beside the records of the cells that it looked at."""
BENCH, PROFILED, SPARE = "harness.bench", "harness.bench.profile", "harness.bench.spare"
"""The modules that run on the far side."""

# A run's folder, as the host lays it out. No launch sees more of it than the cells and traces that are its
# own.
PLAN, EXPERIMENT = "plan.json", "experiment.toml"
CELLS, TRACES, LAUNCHES, PROFILES = "cells", "traces", "launches", "profile"
CELL, RECORD, LOG, PROFILE = "cell.json", "record.json", "log.txt", "profile.json"
"""In the folder of each cell."""
PACKED = "cells.zip"
"""In place of CELLS, the same files under the same names, once a run is packed."""

_PREFIX = "HARNESS_"
_RECORD_BYTES, _MOST_RECORD_BYTES = 8 * 2**20, 128 * 2**20
_SAMPLE_BYTES = 32
_SERIES = 16


@dataclass(frozen=True)
class Place:
    """Where a launch finds what it measures and leaves what it found, as it sees these folders itself."""

    root: str
    """Relative to it cells name their traces."""
    cells: str
    output: str

    def arguments(self, cells: Sequence[str], deadline_s: float) -> list[str]:
        """The command line of `BENCH` and `PROFILED`, which `parse` reads."""
        options = ["--root", self.root, "--cells", self.cells, "--output", self.output]
        return [*options, "--deadline", f"{deadline_s:g}", *cells]


@dataclass(frozen=True)
class Provenance:
    """What cannot be seen from within a launch: it is told, and of what it answers the host believes its
    own word."""

    runner: str
    """"docker" or "local"."""
    image: str = ""
    """Reference and digest."""
    git_commit: str = ""
    git_dirty: bool = False
    hostname: str = ""

    def variables(self) -> dict[str, str]:
        """As the launch's environment holds it."""
        values = dataclasses.asdict(self) | {"git_dirty": "1" if self.git_dirty else "0"}
        return {f"{_PREFIX}{name.upper()}": str(value) for name, value in values.items()}

    @classmethod
    def told(cls, variables: Mapping[str, str] = os.environ) -> Provenance:
        """What a launch was told; it is a local process that was told nothing otherwise."""
        names = [field.name for field in dataclasses.fields(cls)]
        given = {name: variables.get(f"{_PREFIX}{name.upper()}", "") for name in names}
        return cls(**given | {"runner": given["runner"] or "local", "git_dirty": given["git_dirty"] == "1"})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Told:
    """Which launch a `SPARE` is to be."""

    arguments: list[str]
    """Of `BENCH`."""
    environment: dict[str, str]

    def line(self) -> str:
        """As it is told."""
        return json.dumps([self.arguments, self.environment]) + "\n"

    @classmethod
    def of_line(cls, line: str) -> Told:
        """What a line tells."""
        return cls(*json.loads(line))


IN_CONTAINER = Place("/launch", f"/launch/{CELLS}", "/launch/out")


@dataclass(frozen=True)
class Order:
    """What a launch was told."""

    root: Path
    cells: Path
    output: Path
    deadline_s: float
    ids: list[str]


def parse(program: str, description: str | None, arguments: Sequence[str] | None = None) -> Order:
    """Reads the command line of a launch (None: this process's)."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("--root", type=Path, required=True, help="what the traces' paths are relative to")
    parser.add_argument("--cells", type=Path, required=True, help="holds <id>.json for each cell")
    parser.add_argument("--output", type=Path, required=True, help="gets <id>.json for each record")
    parser.add_argument("--deadline", type=float, required=True, help="seconds after which this process ends")
    parser.add_argument("ids", nargs="+", metavar="CELL_ID")
    given = parser.parse_args(arguments)
    return Order(given.root, given.cells, given.output, given.deadline, given.ids)


def file_of(cell_id: str) -> str:
    """A cell's file in CELLS, and its record's in OUTPUT."""
    return f"{cell_id}.json"


def announce(cell_id: str) -> str:
    """The line that says which cell is next."""
    return f"{ANNOUNCEMENT}{cell_id}"


def announced(line: str) -> str:
    """The cell that a line announces; empty where it announces none."""
    return line.removeprefix(ANNOUNCEMENT).strip() if line.startswith(ANNOUNCEMENT) else ""


def most_record_bytes(tables: int, max_passes: int) -> int:
    """The largest record of a cell that is believed: every sample that its timing allows, and generous
    room."""
    samples = max_passes * (2 * tables + _SERIES)
    return min(_MOST_RECORD_BYTES, _RECORD_BYTES + _SAMPLE_BYTES * samples)


def peer_hash(module: Path) -> str:
    """What records of a peer tell as their source: the hash of its module."""
    return hashlib.sha256(module.read_bytes()).hexdigest()[:16]
