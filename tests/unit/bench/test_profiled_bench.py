"""What the profiler is shown: a mark per cell, then one pass, and nothing of the warm-up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import wall
from harness.bench import profile
from harness.bench.nvml import Watch
from harness.bench.stopwatch import GpuStopwatch
from harness.records import Cell, CellRecord, load, to_json


def test_a_cell_that_cannot_be_profiled_says_why_and_stops_nothing(
    cell: Callable[..., Cell], tmp_path: Path
) -> None:
    place = wall.Place(str(tmp_path), str(tmp_path), str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    for name in ("a", "b"):
        (tmp_path / wall.file_of(name)).write_text(to_json(cell(id=name)), encoding="utf-8")
    assert profile.main(wall.parse("profile", None, place.arguments(["a", "b"], 60))) == 0
    records = [load(CellRecord, tmp_path / "out" / wall.file_of(name)) for name in ("a", "b")]
    assert [record.status for record in records] == ["failed", "failed"]
    assert "Only lookups on a GPU" in records[0].message


def test_only_the_last_walk_is_watched(
    cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    watching: list[bool] = []

    @contextlib.contextmanager
    def watched() -> Iterator[None]:
        watching.append(True)
        yield
        watching.pop()

    class Marker:
        def __init__(self, ptx: Path, name: str) -> None:
            assert f".entry {name}(" in ptx.read_text(encoding="utf-8")

        def launch(self, blocks: int, threads: int, arguments: list[Any]) -> None:
            seen.append(f"mark {blocks}")

    class Walked(GpuStopwatch):
        def __init__(self) -> None:
            pass

        def walk(self, watched: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
            with watched():
                seen.append("watched" if watching else "unwatched")

    monkeypatch.setattr(profile, "_watched", watched)
    monkeypatch.setattr(profile, "Kernel", Marker)
    monkeypatch.setattr(torch, "zeros", lambda *size, **options: None)
    bench = profile.ProfiledBench(tmp_path)
    bench._cells = 3
    known: dict[str, Any] = {}
    bench._sample(cell(), known, Walked(), Watch(None))
    assert seen == ["unwatched", "unwatched", "mark 3", "watched"]
    assert known["status"] == "ok"
