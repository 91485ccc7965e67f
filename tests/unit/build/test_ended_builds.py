"""A build that is told to end is at work no longer, nor is what it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import is_running

# As docker's command does, it hands the work to another program; this one is deaf to a polite kill.
_DOCKER = """#!/bin/sh
if [ "$1" = context ]; then
  echo '[{"Name": "default", "Endpoints": {"docker": {"Host": "unix:///nowhere"}}}]'
  exit
fi
sh -c 'trap "" TERM INT HUP; echo $$ > "$NOTED/plugin"; while :; do sleep 0.1; done' &
echo $$ > "$NOTED/command"
cat > /dev/null
wait
"""
_BUILD = """
import sys
from harness.build import images
from harness.progress import Silent
from harness.signals import as_interrupt
with as_interrupt():
    images._bake({}, Silent())
"""


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT], [signal.SIGHUP]])
def test_whatever_ends_it(numbers: list[int], tmp_path: Path) -> None:
    command = tmp_path / "docker"
    command.write_text(_DOCKER, encoding="utf-8")
    command.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "NOTED": str(tmp_path),
        "HARNESS_CACHE_DIR": str(tmp_path),
    }
    process = subprocess.Popen([sys.executable, "-c", _BUILD], env=environment, stderr=subprocess.PIPE)
    noted = [tmp_path / "plugin", tmp_path / "command"]
    while not all(path.exists() and path.read_text(encoding="utf-8").strip() for path in noted):
        assert process.poll() is None
        time.sleep(0.02)
    pids = [int(path.read_text(encoding="utf-8")) for path in noted]
    assert all(map(is_running, pids))
    for number in numbers:
        process.send_signal(number)
    assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert not any(map(is_running, pids))
