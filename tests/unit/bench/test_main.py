"""The command that runs in the container, as a process."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import wall
from harness.bench.__main__ import main
from harness.records import Cell, CellRecord, Dataset, load, to_json


def place(folder: Path) -> wall.Place:
    """Where the tests' cells lie and their records go."""
    return wall.Place(str(folder), str(folder / "cells"), str(folder / "out"))


@pytest.fixture
def stored(cell: Callable[..., Cell], tmp_path: Path) -> Callable[..., Path]:
    """Hands a cell to the launch; returns where its record will be."""
    for name in ("cells", "out"):
        (tmp_path / name).mkdir()

    def store(cell_id: str, **changes: object) -> Path:
        text = to_json(cell(id=cell_id, **changes))
        (tmp_path / "cells" / wall.file_of(cell_id)).write_text(text, encoding="utf-8")
        return tmp_path / "out" / wall.file_of(cell_id)

    return store


def order(folder: Path, *cells: str) -> wall.Order:
    return wall.parse("test", None, place(folder).arguments(cells, 600))


def bench(
    root: Path, *cells: str, deadline_s: float = 600, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", wall.BENCH, *place(root).arguments(cells, deadline_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | (environment or {}),
    )


def test_cells_are_measured_in_order_and_a_failed_one_stops_nothing(
    stored: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    records = [
        stored("first"),
        stored("broken", dataset=Dataset("gone", "traces/gone.npy")),
        stored("last", mode="mean"),
    ]
    assert main(order(tmp_path, "first", "broken", "last")) == 0
    announced = [line for line in capfd.readouterr().out.splitlines() if line.startswith("::cell")]
    assert announced == ["::cell first", "::cell broken", "::cell last"]
    found = [load(CellRecord, path) for path in records]
    assert [record.status for record in found] == ["ok", "failed", "ok"]
    assert found[1].message.startswith("traces/gone.npy: cannot be read")
    assert "gone.npy" in found[1].log_tail
    assert not list(tmp_path.glob("out/.*")), "half-written files are left"


def test_a_cell_that_cannot_be_read_has_no_record_and_an_exit_code(
    stored: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = stored("good")
    assert main(order(tmp_path, "nowhere", "good")) == 1
    assert "nowhere.json: cannot be read" in capfd.readouterr().out
    assert load(CellRecord, good).status == "ok"


def test_all_that_was_said_is_read_and_the_exit_code_is_that_of_the_cells(
    stored: Callable[..., Path], tmp_path: Path
) -> None:
    good = stored("good")
    with bench(tmp_path, "good", "nowhere") as running:
        output = running.communicate(timeout=120)[0]
    assert running.returncode == 1
    assert output.splitlines()[-1].endswith("nowhere.json: cannot be read: No such file or directory.")
    assert load(CellRecord, good).status == "ok"


def test_what_native_code_said_is_read_too() -> None:
    said = "import ctypes; from harness.bench import ending; print('ours', end=''); "
    said += "ctypes.CDLL(None).printf(b' and theirs'); ending.now(3)"
    ended = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "ours and theirs", "")


def test_sigterm_ends_it_at_once_and_keeps_what_is_written(
    stored: Callable[..., Path], cell: Callable[..., Cell], tmp_path: Path
) -> None:
    done = stored("done")
    endless = dataclasses.replace(cell().timing, max_seconds=600, max_passes=10**9, relative_interval=0.0)
    never = stored("endless", timing=dataclasses.replace(endless, min_passes=10**9))
    running = bench(tmp_path, "done", "endless")
    assert running.stdout is not None
    try:
        assert any(line.startswith("::cell endless") for line in running.stdout)
        running.send_signal(signal.SIGTERM)
        assert running.wait() == 128 + signal.SIGTERM
    finally:
        running.kill()
        running.stdout.close()
        running.wait()
    assert load(CellRecord, done).status == "ok"
    assert not never.exists()


def test_a_launch_ends_itself_where_nobody_is_left_to_end_it(
    stored: Callable[..., Path], cell: Callable[..., Cell], tmp_path: Path
) -> None:
    endless = dataclasses.replace(cell().timing, max_seconds=600, max_passes=10**9, relative_interval=0.0)
    never = stored("endless", timing=dataclasses.replace(endless, min_passes=10**9))
    with bench(tmp_path, "endless", deadline_s=1) as running:
        output = running.communicate(timeout=120)[0]
    # Who tells where each thread was reads its frames while they change, and may fall over them at the end.
    assert running.returncode in (1, -signal.SIGSEGV)
    assert "Timeout" in output
    assert not never.exists()


def test_a_design_that_cannot_be_loaded_fails_every_cell_with_the_reason(
    stored: Callable[..., Path], tmp_path: Path
) -> None:
    records = [stored("one"), stored("two")]
    environment = {"HARNESS_DESIGN": str(tmp_path / "no-such-design"), "TORCH_DEVICE_BACKEND_AUTOLOAD": "1"}
    with bench(tmp_path, "one", "two", environment=environment) as running:
        output = running.communicate()[0]
    assert running.returncode == 0, output
    for path in records:
        record = load(CellRecord, path)
        assert record.status == "failed"
        assert "no-such-design" in record.message


def test_only_what_the_container_has_is_imported() -> None:
    listing = "import sys, harness.bench.cell; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    imported = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout
    assert not {"pydantic", "pandas", "click", "docker", "scipy", "rich"} & set(imported.split())
