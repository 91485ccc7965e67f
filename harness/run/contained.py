"""The life of a container: its log, how it ended, what it left, and its removal."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness import wall
from harness.build import engine
from harness.errors import MachineError
from harness.run import containers
from harness.run.archive import fetch
from harness.run.attempt import MOST_REPORT_BYTES, Attempt
from harness.run.log import follow
from harness.run.runner import Outcome, Terms, exit_sentence
from harness.run.watch import Watch
from harness.signals import held_back

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

_ENDING_S = 10.0
"""How long the daemon may take, past the deadline if need be, to say that a container has ended."""
_KILLING_S = 30
_POLL_S = 0.1


@contextlib.contextmanager
def contained(
    client: docker.DockerClient, image: Any, options: dict[str, Any], attempt: Attempt
) -> Iterator[Container]:
    """A container that is gone behind this, whatever happens within, and then the attempt is over."""
    made: list[Container] = []
    attempt.over = False
    try:
        with held_back():
            made.append(client.containers.create(image, **options))
        yield made[0]
    finally:
        with held_back():
            attempt.over = _all_removed(client, attempt, made)
    if not attempt.over:
        raise MachineError(
            f"Docker does not remove the container {made[0].name}; look at `docker inspect "
            f"{made[0].name}`, and "
            "restart Docker if it hangs."
        )


def _all_removed(client: docker.DockerClient, attempt: Attempt, made: list[Container]) -> bool:
    """Where a request to make one broke off, the daemon may have made one all the same."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        found = made or containers.of_attempt(client, attempt.name)
    except (DockerException, RequestException) as error:
        engine.drop_sockets(error)
        return False
    return all([containers.remove(container) for container in found])


@contextlib.contextmanager
def log_of(client: docker.DockerClient, container: Container) -> Iterator[Iterator[bytes]]:
    """What a container will say, as it says it; asked for before it is started, so that nothing is missed.

    Behind this nobody reads it any more, and the daemon knows: it would wait for a reader before it removes
    the container.
    """
    from docker.utils.socket import frames_iter

    asked = {"stdout": 1, "stderr": 1, "stream": 1}
    connected = client.api.attach_socket(str(container.id), asked)
    try:
        yield (data for _, data in frames_iter(connected, tty=False))  # type: ignore[no-untyped-call]
    finally:
        with contextlib.suppress(OSError, AttributeError):
            connected._sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that may wait for more
        connected._response.close()  # which the socket was taken out of, and which closes both


def followed(
    container: Container,
    log: Iterator[bytes],
    terms: Terms,
    watch: Watch,
) -> Outcome:
    """Follows a started container until it ends or has to be stopped."""
    until = time.monotonic() + terms.deadline_s
    if not follow(log, terms.lines, terms.listener.line, until, watch.stop):
        return terms.overrun
    patience = max(until, time.monotonic() + _ENDING_S)
    container.reload()
    while not watch.stop() and container.status not in ("exited", "dead"):
        if time.monotonic() > patience:
            return Outcome("timeout", "The container closed its log but did not end before the deadline.")
        time.sleep(_POLL_S)
        container.reload()
    if watch.why:
        return Outcome("failed", f"The launch was stopped: {watch.why}.")
    return ending(container.attrs)


def ending(attrs: dict[str, Any]) -> Outcome:
    """How a container has ended, by what the daemon tells of it."""
    state = attrs["State"]
    if state.get("OOMKilled"):
        limit = attrs["HostConfig"]["Memory"] / 2**30
        return Outcome("oom", f"The container reached its memory limit of {limit:.0f} GiB and was killed.")
    if code := int(state["ExitCode"]):
        return Outcome("failed", exit_sentence(code))
    return Outcome("ended")


def fetch_output(container: Container, attempt: Attempt) -> None:
    """Brings what a profiled launch left into the attempt's own folder, once nothing of it runs any more."""
    from docker.errors import APIError

    with contextlib.suppress(APIError):  # it has already exited
        container.kill()
    container.wait(timeout=_KILLING_S)
    with attempt.written() as output:
        for cell in attempt.launch.cells:
            most = wall.most_record_bytes(cell.workload.tables, cell.timing.max_passes)
            fetch(container, wall.IN_CONTAINER.output, wall.file_of(cell.id), output, most)
        fetch(container, wall.IN_CONTAINER.output, wall.REPORT, output, MOST_REPORT_BYTES)
