"""What every command shares: mistakes end in one sentence and an exit code, never in a traceback."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest


def harness(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run", "nothing"], 2, "nothing: is neither an experiment's file nor one of those in experiments/"),
        (["run", "--design", "basline"], 2, "There is no design 'basline'; known: baseline"),
        (["run", "paper", "--design", "optmt"], 2, "Give one of"),
        (["run", "paper", "--retry-failed"], 2, "--retry-failed goes with --resume"),
        (["run", "paper", "--set", "workload.tabels=3"], 2, "workload.tabels: is not a known key"),
        (["report", "nowhere"], 2, "nowhere: is not the folder of a run"),
    ],
)
def test_a_users_mistake_is_one_sentence(arguments: list[str], code: int, sentence: str) -> None:
    done = harness(*arguments)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = harness("report", "reference", "--output", str(tmp_path / "file" / "page.html"))
    assert done.returncode == 2
    assert f"{tmp_path}/file" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_answers_at_once() -> None:
    # The quickest of several: other work on the machine delays one or another.
    times = []
    for _ in range(5):
        begin = time.monotonic()
        assert "A first walk" in harness("--help").stdout
        times.append(time.monotonic() - begin)
    assert min(times) < 0.3
