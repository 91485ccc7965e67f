"""`python -m harness.run.reaper OWNER ENGINE`: takes away the containers of a process that was killed.

Whoever starts containers starts this beside itself, and holds the other end of its stdin. When that closes
without a farewell, nobody is left who would remove them, and a container whose code is somebody else's may
not be trusted to end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Literal

from harness.errors import MachineError
from harness.run.runner import REPOSITORY

Engine = Literal["docker", "podman"]
_FAREWELL = b"done"
_TRIES = 20
_PAUSE_S = 1.0
_QUIET_LOOKS = 5
"""A request that the dead process had sent may still become a container: this many looks must find none."""


@contextlib.contextmanager
def beside(owner: str, engine: Engine = "docker") -> Iterator[None]:
    """Has the containers of this owner removed if this process is killed meanwhile."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    with subprocess.Popen(
        [sys.executable, "-m", __name__, owner, engine],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what ends the whole group of a terminal ends this not
        env=os.environ | {"PYTHONPATH": path},
    ) as process:
        try:
            yield
        finally:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(_FAREWELL)
                process.stdin.flush()


def main(owner: str, engine: str) -> None:
    """Waits for the end of stdin, then removes what is labelled with this owner."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read() == _FAREWELL:
        return
    none_left = _none_left_in_podman if engine == "podman" else _none_left
    quiet = 0
    for _ in range(_TRIES):
        quiet = quiet + 1 if none_left(owner) else 0
        if quiet == _QUIET_LOOKS:
            return
        time.sleep(_PAUSE_S)


def _none_left(owner: str) -> bool:
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    from harness.build import engine
    from harness.run import containers

    try:
        with engine.connection() as client:
            found = client.containers.list(
                all=True, filters={"label": f"{containers.OWNER_LABEL}={owner}"}, ignore_removed=True
            )
            for container in found:
                containers.remove(container)
            return not found
    except (DockerException, RequestException, MachineError):
        return False


def _none_left_in_podman(owner: str) -> bool:
    from harness.build import podman
    from harness.run import containers

    try:
        found = podman.containers(f"{containers.OWNER_LABEL}={owner}")
        for container in found:
            podman.remove(container.id)
        return not found
    except MachineError:
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
