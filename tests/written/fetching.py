"""Lines of a model's table on its rows, fetched and not added up; see docs/measurement.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import fetched
from harness.report import units
from tests.written import runs

_ENOUGH = 64 * 24
"""Lookups of a batch for each multiprocessor, of which every resident warp gets 64, as `harness.fetched`
deals them out. Where there are fewer, it is warps that lack and not memory."""


@dataclass(frozen=True)
class Held:
    """What the time to fetch a point's rows is held against, in µs; None: not known."""

    limit: float | None
    fastest: float | None
    """FBGEMM's fastest path."""


def told(folder: Path) -> dict[str, Any]:
    """What was measured of the run's rows where nobody adds them up; empty where nothing was."""
    path = folder / fetched.FILE
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def lines(folder: Path, found: dict[str, Any], dataset: str, points: dict[str, Held]) -> Iterator[list[str]]:
    """Of a table with a column for each point: times where every warp had rows to fetch, and how near to the
    limit and how far ahead of FBGEMM a lookup in that order would be that took no longer."""
    enough = {
        record.cell.point
        for record in runs.loaded(folder).whole.records
        if record.environment
        and record.cell.workload.all_lookups >= _ENOUGH * record.environment.multiprocessors
    }
    cells = {cell["point"]: cell for cell in found["cells"] if cell["dataset"] == dataset}

    def fastest_form(point: str, order: str) -> float | None:
        return min(cells[point][order].values()) if point in enough & cells.keys() else None

    in_order = {point: fastest_form(point, "in_order") for point in points}
    yield ["rows fetched, in order, µs ²", *(units.us(us) if us else units.NONE for us in in_order.values())]
    held = [(us, points[point]) for point, us in in_order.items()]
    shares = (units.share(of.limit / us) if us and of.limit else units.NONE for us, of in held)
    yield ["the same, of the limit", *shares]
    ratios = (units.ratio(of.fastest / us) if us and of.fastest else units.NONE for us, of in held)
    yield ["the same × FBGEMM's fastest", *ratios]
    times = (fastest_form(point, "sorted") for point in points)
    yield ["rows fetched, sorted, µs ²", *(units.us(us) if us else units.NONE for us in times)]


def by(folder: Path, found: dict[str, Any]) -> str:
    """A sentence on where rows were fetched."""
    boards = {one.gpu_uuid for one in runs.environments(folder)}
    board = "the same board" if found["gpu_uuid"] in boards else f"another board ({found['gpu']})"
    return f" Rows fetched by one process on {board}, commit {found['commit'][:12]}."
