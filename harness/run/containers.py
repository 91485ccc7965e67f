"""Containers of runs, told by their labels from all others: taken away for sure, and found again after a
kill."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.build import engine, images
from harness.errors import MachineError
from harness.progress import Progress
from harness.run import owner

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

RUN_LABEL = f"{images.LABEL}.run"
"""The run's folder."""
OWNER_LABEL = f"{images.LABEL}.owner"
"""The process that started it; see `harness.run.owner`."""
UNTIL_LABEL = f"{images.LABEL}.until"
"""When it is to be gone whatever else is known, in seconds since 1970."""
ATTEMPT_LABEL = f"{images.LABEL}.attempt"
_GRACE_S = 60.0
"""How long the daemon may take to remove a container; a GPU that hangs takes its time."""
_POLL_S = 0.2
_QUICK_S = 5
"""How long a daemon may take to answer whom a local run asks about leftovers."""


def labels(root: Path, attempt: str, deadline_s: float) -> dict[str, str]:
    """Of a container that this process starts now."""
    return {
        RUN_LABEL: str(root),
        OWNER_LABEL: owner.mine(),
        UNTIL_LABEL: f"{time.time() + deadline_s + 2 * _GRACE_S:.0f}",
        ATTEMPT_LABEL: attempt,
    }


def remove(container: Container) -> bool:
    """Whether the container is gone for sure, with the volumes that came with it."""
    from docker.errors import APIError, DockerException, NotFound
    from requests.exceptions import RequestException

    patience = time.monotonic() + _GRACE_S
    while time.monotonic() < patience:
        try:
            container.remove(force=True, v=True)
        except NotFound:
            return True
        except APIError:  # being removed already, most of all
            time.sleep(_POLL_S)
        except (DockerException, RequestException) as error:
            engine.drop_sockets(error)
            return False  # Where the daemon is gone the container may stay; the next start finds it.
    return False


def of_attempt(client: docker.DockerClient, attempt: str) -> list[Container]:
    """The containers of one attempt, whatever became of the request that made them."""
    return client.containers.list(
        all=True, filters={"label": f"{ATTEMPT_LABEL}={attempt}"}, ignore_removed=True
    )


def clear_leftovers(root: Path) -> None:
    """Removes containers whose process is gone or whose time is long up, and the run's own, which the
    caller holds.

    MachineError where no daemon answers, or one of them does not go.
    """
    with engine.connection() as client:
        _clear(client, root)


def clear_leftovers_if_any(root: Path, progress: Progress) -> None:
    """The same for a run without containers: where no daemon answers there are none that could be in its
    way."""
    with contextlib.suppress(MachineError), engine.connection(timeout_s=_QUICK_S) as client:
        try:
            _clear(client, root)
        except MachineError as error:
            progress.say(str(error))


def _clear(client: docker.DockerClient, root: Path) -> None:
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        found = client.containers.list(all=True, filters={"label": RUN_LABEL}, ignore_removed=True)
        for container in found:
            if is_left(container.labels, root) and not remove(container):
                raise MachineError(
                    f"The container {container.name} of a run that was killed does not go; remove it with "
                    f"`docker rm -f {container.name}`, or restart Docker."
                )
    except (DockerException, RequestException) as error:
        engine.drop_sockets(error)
        raise MachineError(
            f"The Docker daemon does not answer ({type(error).__name__}); is it at work?"
        ) from error


def is_left(told: Mapping[str, str], root: Path) -> bool:
    """Whether a container with these labels is nobody's any more, or of the run that the caller holds."""
    held_by_us = told.get(RUN_LABEL) == str(root.absolute())
    return held_by_us or owner.is_gone(told.get(OWNER_LABEL, "")) or _late(told.get(UNTIL_LABEL, ""))


def _late(until: str) -> bool:
    return until.isdecimal() and int(until[:15]) < time.time()
