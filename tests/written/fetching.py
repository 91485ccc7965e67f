"""Lines of a model's table on its rows, fetched and not added up; see docs/measurement.md."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import fetched
from harness.report import units
from tests.written import runs
from tests.written.runs import line

_ENOUGH = 64 * 24
"""Lookups of a batch for each multiprocessor, of which every resident warp gets 64, as `harness.fetched`
deals them out. Where there are fewer, it is warps that lack and not memory."""


def told(folder: Path) -> dict[str, Any]:
    """What was measured of the run's rows where nobody adds them up; empty where nothing was."""
    path = folder / fetched.FILE
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def lines(
    folder: Path,
    found: dict[str, Any],
    dataset: str,
    points: Collection[str],
    limit: Mapping[str, float],
    fastest: Mapping[str, float],
) -> Iterator[list[str]]:
    """Of a table with a column for each point: times where every warp had rows to fetch, and how near to the
    limit and how far ahead of FBGEMM's fastest path a lookup in that order would be that took no longer.
    `limit` and `fastest`: these two's times by point, in µs, where they are known."""
    enough = {
        record.cell.point
        for record in runs.loaded(folder).whole.records
        if record.environment
        and record.cell.workload.all_lookups >= _ENOUGH * record.environment.multiprocessors
    }
    cells = {cell["point"]: cell for cell in found["cells"] if cell["dataset"] == dataset}
    in_order, ordered = (
        {p: min(cells[p][order].values()) for p in points if p in enough & cells.keys()}
        for order in ("in_order", "sorted")
    )
    of_limit, ahead = (
        {p: times[p] / us for p, us in in_order.items() if p in times} for times in (limit, fastest)
    )
    yield line("rows fetched, in order, µs ²", points, in_order, units.us)
    yield line("the same, of the limit", points, of_limit, units.share)
    yield line("the same × FBGEMM's fastest", points, ahead, units.ratio)
    yield line("rows fetched, sorted, µs ²", points, ordered, units.us)


def by(folder: Path, found: dict[str, Any]) -> str:
    """A sentence on where rows were fetched."""
    boards = {one.gpu_uuid for one in runs.environments(folder)}
    board = "the same board" if found["gpu_uuid"] in boards else f"another board ({found['gpu']})"
    return f" Rows fetched by one process on {board}, commit {found['commit'][:12]}."
