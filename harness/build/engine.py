"""The way to Docker: connecting, and sentences for what is missing. Everything else asks here first."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import tarfile
import traceback
import warnings
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from harness.build import daemon as daemons
from harness.build.daemon import Daemon
from harness.errors import MachineError
from harness.text import readable

if TYPE_CHECKING:
    import docker

_NOWHERE = "/no-such-program"


@contextlib.contextmanager
def connection(*, timeout_s: int | None = None) -> Iterator[docker.DockerClient]:
    """A Docker client whose daemon, the one that the `docker` command means, answers; MachineError where none
    does, within `timeout_s` if that is given."""
    from docker.constants import DEFAULT_TIMEOUT_SECONDS

    client, daemon = None, daemons.find()
    try:
        client = daemon.client(timeout_s or DEFAULT_TIMEOUT_SECONDS)
        client.ping()
    except Exception as error:  # of the SDK, of what carries its requests, of certificates, of ssh
        if client is not None:
            client.close()
        told = _unreachable(daemon, error)
        drop_sockets(error)
        raise MachineError(told) from None
    try:
        yield client
    finally:
        client.close()


def drop_sockets(error: BaseException) -> None:
    """Frees the sockets that the SDK leaves open in the frames of a failed attempt to connect.

    Left to the garbage collector each would be a warning later, in the midst of something else.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        cause: BaseException | None = error
        while cause is not None:
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__cause__ or cause.__context__


def _reason(error: BaseException) -> str:
    """What the system said, which the SDK wraps up several times; or else what the SDK says."""
    said, inner = str(error), error.__cause__ or error.__context__
    while inner:
        if isinstance(inner, OSError) and inner.strerror:
            said = inner.strerror
        inner = inner.__cause__ or inner.__context__
    return " ".join(said.split()).rstrip(".")[:300] or type(error).__name__


def _unreachable(daemon: Daemon, error: Exception) -> str:
    from docker.errors import DockerException

    why = _reason(error)
    if type(error) is ValueError:
        return f"{daemon.called}: is no address of a Docker daemon ({why}); mend it."
    if not isinstance(error, DockerException | OSError):
        file = daemons.settings_folder() / "config.json"
        return f"{readable(file)}: is not what Docker's Python package expects ({why}); mend or remove it."
    if "Permission denied" in why:
        return (
            f"You may not use the Docker daemon at {daemon.called}; join its group with `sudo usermod -aG "
            "docker $USER`."
        )
    return (
        f"No Docker daemon answers at {daemon.called}: {why}; install Docker Engine "
        "(https://docs.docker.com/engine/install), start it (`sudo systemctl start docker`), name another "
        "(`docker context ls`), or measure without containers (`harness run --local`)."
    )


def require_buildx() -> str:
    """The version of Docker's buildx plugin; MachineError where there is none."""
    try:
        found = subprocess.run(
            ["docker", "buildx", "version"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError:
        raise MachineError(
            "There is no `docker` command; install Docker Engine (https://docs.docker.com/engine/install)."
        ) from None
    if found.returncode:
        raise MachineError(
            "Docker has no buildx plugin, which builds the images; install it "
            "(`sudo apt-get install docker-buildx-plugin`, or docker-buildx from Debian)."
        )
    return found.stdout.strip()


def gpu_obstacle(client: docker.DockerClient, labels: Mapping[str, str] = MappingProxyType({})) -> str:
    """Why containers here cannot be given a GPU; empty where they can. `labels`: of the container that asks.

    Asks the daemon itself: it looks for the GPU's driver before it finds that the probe, an empty image,
    holds no program. Configuration files would only say what somebody meant to set up.
    """
    from docker.errors import APIError
    from docker.types import DeviceRequest

    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    # Without a name: who asks at the same time has an image of their own.
    answer = client.api.import_image_from_data(empty.getvalue())
    probe = json.loads(answer.splitlines()[-1])["status"]
    everything = DeviceRequest(count=-1, capabilities=[["gpu"]])
    container = client.containers.create(
        probe, [_NOWHERE], network_mode="none", device_requests=[everything], labels=dict(labels)
    )
    try:
        container.start()
    except APIError as error:
        said = str(error.explanation or error)
        if _NOWHERE not in said:
            return said.strip()
    finally:
        container.remove(force=True)
        client.images.remove(probe, force=True)
    return ""
