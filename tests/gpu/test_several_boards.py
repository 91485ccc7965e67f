"""A run on the boards of this machine, up to four of them: replicates side by side, each on one board.

By the command line, in a process of its own, as a user starts it: nothing is measured in this process."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from harness.records import CellRecord, load
from tests.gpu.coverage import ROOT

pytestmark = [pytest.mark.gpu, pytest.mark.two_gpus, pytest.mark.alone]

MOST_BOARDS = 4
DATASETS = ("one_item", "medium", "random")
EXPERIMENT = """
title = "PyTorch on several boards"
arms = [{ design = "stock" }]
reference = "stock"
datasets = ["one_item", "medium", "random"]
timing = { min_passes = 10, max_seconds = 0.5 }
"""


def uuids() -> list[str]:
    """Of the boards that are used."""
    count = min(MOST_BOARDS, torch.cuda.device_count())
    names = [str(torch.cuda.get_device_properties(number).uuid) for number in range(count)]
    return [name if name.startswith("GPU-") else f"GPU-{name}" for name in names]


def begun(*arguments: object) -> subprocess.Popen[str]:
    """The harness, at work on these boards."""
    command = [sys.executable, "-m", "harness.cli", "run", "--local", "--gpu", ",".join(uuids())]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )


def of_new_run(root: Path, replicates: int) -> list[object]:
    """What asks for a run of PyTorch's own kernel, which needs no compiler."""
    path = root.with_suffix(".toml")
    path.write_text(f"replicates = {replicates}\n{EXPERIMENT}", encoding="utf-8")
    return [path, "--output", root]


def processes() -> set[int]:
    """At work on these boards, or at rest with a hold on them, as other workers of these tests are."""
    import pynvml

    pynvml.nvmlInit()
    found: set[int] = set()
    for board in uuids():
        handle = pynvml.nvmlDeviceGetHandleByUUID(board)
        found |= {int(process.pid) for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    return found


def records(root: Path) -> list[CellRecord]:
    return [load(CellRecord, path) for path in sorted(root.glob("cells/*/record.json"))]


def board_of(record: CellRecord) -> str:
    assert record.environment is not None, record.message
    return record.environment.gpu_uuid


def boards_of_replicates(found: list[CellRecord]) -> dict[int, set[str]]:
    return {
        replicate: {board_of(record) for record in found if record.cell.replicate == replicate}
        for replicate in {record.cell.replicate for record in found}
    }


def test_each_board_measures_a_replicate_while_the_others_do(tmp_path: Path) -> None:
    boards, before = uuids(), processes()
    process = begun(*of_new_run(tmp_path / "run", len(boards)))
    output, _ = process.communicate(timeout=400)
    # 7: measured, but what draws the report is not installed here.
    assert process.returncode in (0, 7), output
    found = records(tmp_path / "run")
    assert len(found) == len(boards) * len(DATASETS)
    assert {record.status for record in found} == {"ok"}, output
    assert sorted(boards_of_replicates(found).values(), key=str) == sorted(({one} for one in boards), key=str)
    begin = [min(r.started_at for r in found if board_of(r) == board) for board in boards]
    end = [max(r.finished_at for r in found if board_of(r) == board) for board in boards]
    assert max(begin) < min(end), "they were at work at the same time"
    came = {name for record in found for name in record.neighbours if int(name.split()[1]) not in before}
    assert not came, "and none on another's board"
    for dataset in DATASETS:
        times = [statistics.median(r.samples["kernel_us"]) for r in found if r.cell.dataset.name == dataset]
        assert max(times) < 1.1 * min(times), f"boards of one model, {dataset}: {times} µs"


def test_a_killed_run_goes_on_on_the_boards_that_began_it(tmp_path: Path) -> None:
    root = tmp_path / "run"
    process = begun(*of_new_run(root, 2 * len(uuids())))
    while process.poll() is None and not [*root.glob("launches/*/out/*.json"), *records(root)]:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = begun("--resume", root)
    output, _ = process.communicate(timeout=400)
    assert process.returncode in (0, 7), output
    found = records(root)
    assert len(found) == 2 * len(uuids()) * len(DATASETS)
    assert {record.status for record in found} == {"ok"}, output
    assert all(len(boards) == 1 for boards in boards_of_replicates(found).values())
    assert {board_of(record) for record in found} == set(uuids())
