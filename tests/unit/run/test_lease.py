"""One user at a time, told who the other is; locks end with their holder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import BadInputError, MachineError
from harness.run import lease

_HOLD = """
import sys
from pathlib import Path
from harness.run import lease
with lease.gpu("GPU-1", Path("/the/other/run"), folder=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds GPU-1."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_the_second_is_told_who_is_first(other: subprocess.Popen[str], tmp_path: Path) -> None:
    try:
        with (
            pytest.raises(MachineError, match=f"process {other.pid}, /the/other/run, since 20.*--wait"),
            lease.gpu("GPU-1", tmp_path / "mine", folder=tmp_path),
        ):
            pass
        with lease.gpu("GPU-2", tmp_path / "mine", folder=tmp_path):
            pass
    finally:
        end(other)


def test_a_killed_holder_holds_nothing(other: subprocess.Popen[str], tmp_path: Path) -> None:
    end(other)
    with lease.gpu("GPU-1", tmp_path / "mine", folder=tmp_path):
        pass


def test_waiting_ends_with_the_other_run(other: subprocess.Popen[str], tmp_path: Path) -> None:
    class EndsTheOther:
        """Hears that we wait; then the other run ends."""

        said = ""

        def say(self, line: str) -> None:
            self.said = line
            end(other)

        def expect(self, steps: int) -> None: ...
        def now(self, what: str) -> None: ...
        def advance(self, steps: int = 1) -> None: ...

    progress = EndsTheOther()
    with lease.gpu("GPU-1", tmp_path / "mine", wait=True, progress=progress, folder=tmp_path):
        assert progress.said.startswith("Waiting for GPU GPU-1")


def test_a_run_folder_has_one_user(tmp_path: Path) -> None:
    assert not lease.in_use(tmp_path)
    with lease.run_folder(tmp_path):
        assert lease.in_use(tmp_path)
        with pytest.raises(BadInputError, match=f"process {os.getpid()}"), lease.run_folder(tmp_path):
            pass
    assert not lease.in_use(tmp_path)
    assert not lease.in_use(tmp_path / "gone")
