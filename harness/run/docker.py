"""Runs a launch in a container of its design's image, shut off from all but its cells, one GPU and its own
output."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import designs, wall
from harness.build import engine, images
from harness.errors import MachineError
from harness.files import Folder
from harness.plan import Plan
from harness.progress import Progress
from harness.records import Workload
from harness.run import containers, owner, reaper
from harness.run import gpu as gpus
from harness.run.archive import fetch
from harness.run.attempt import MOST_REPORT_BYTES, Attempt
from harness.run.log import Lines, follow
from harness.run.ncu import Ncu, capability
from harness.run.runner import (
    Listener,
    Outcome,
    check_machine,
    exit_sentence,
    held_gpu,
    needs_gpu,
    provenance,
)
from harness.run.watch import Neighbours, Watch, in_container
from harness.signals import held_back

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

_UNPRIVILEGED = 1000
_GRACE_S = 30.0
"""How much later than the host ends it a launch ends itself, so that it is the host which says why."""
_ENDING_S = 10.0
"""How long the daemon may take, past the deadline if need be, to say that a container has ended."""
_POLL_S = 0.1
_MOST_FILE_BYTES = MOST_REPORT_BYTES
_NCU = "/opt/ncu"


class DockerRunner:
    """Containers through the Docker SDK. With `build`, makes images that are missing or stale.
    `allow_sys_admin`: a profiled container may be given the capability CAP_SYS_ADMIN, and with it as good
    as the host."""

    def __init__(
        self, *, gpu: str = "0", wait: bool = False, build: bool = False, allow_sys_admin: bool = False
    ) -> None:
        self._choice = gpu
        self._wait = wait
        self._build = build
        self._allow_sys_admin = allow_sys_admin
        self._gpu: gpus.Gpu | None = None

    def check(self, plan: Plan, folder: Path, progress: Progress) -> None:
        """Docker, the GPU, the driver, memory, disk and images; MachineError before anything starts."""
        with engine.connection() as client:
            self._gpu = check_machine(plan, folder, self._choice)
            if needs_gpu(plan) and (obstacle := engine.gpu_obstacle(client)):
                raise MachineError(
                    f"Docker cannot give containers a GPU ({obstacle}); install the NVIDIA Container "
                    "Toolkit, then `sudo nvidia-ctk runtime configure --runtime=docker` and restart Docker."
                )
            arms = {(launch.design, launch.toolchain): None for launch in plan.launches}
            wanted = [images.Target(designs.get(design), toolchain) for design, toolchain in arms]
            # Whatever settings an image was built with: the sources decide whether it is today's.
            old = [(t, s) for t in wanted if (s := images.state(client, t)) != "current"]
        if old and not self._build:
            target, state = old[0]
            why = "is missing" if state == "missing" else "was built from other sources than today's"
            raise MachineError(
                f"The image {target.reference} {why}; run `harness build {target.design.name}`."
            )
        if old:
            images.build([target for target, _ in old], progress=progress)

    def clear(self, root: Path, progress: Progress) -> None:
        """Removes the containers of killed runs, and of this one."""
        containers.clear_leftovers(root)

    @contextlib.contextmanager
    def hold(self, root: Path, progress: Progress) -> Iterator[None]:
        """Holds the GPU; if this process is killed meanwhile, its containers are removed all the same."""
        with (
            held_gpu(self._gpu, root, wait=self._wait, progress=progress),
            reaper.beside(owner.mine()),
        ):
            yield

    def run(
        self,
        attempt: Attempt,
        *,
        deadline_s: float,
        lines: Lines,
        listener: Listener,
        under: Ncu | None = None,
    ) -> Outcome:
        """Runs the launch in a fresh container, which is gone when this returns; so it is when this raises,
        as far as the daemon can be reached."""
        from docker.errors import APIError, DockerException, ImageNotFound
        from requests.exceptions import RequestException

        launch = attempt.launch
        target = images.Target(designs.get(launch.design), launch.toolchain)
        with engine.connection() as client:
            try:
                image = client.images.get(target.reference)
                told = provenance("docker", f"{target.reference}@{image.id}")
                attempt.sign(told)
                options = self._options(attempt, user=_user(attempt), told=told, deadline_s=deadline_s)
                if under is not None:
                    needed = capability(self._gpu.driver if self._gpu else "")
                    options = profiled(options, under, needed, allow_sys_admin=self._allow_sys_admin)
                with _contained(client, image, options, attempt) as container:
                    neighbours = Neighbours(self._gpu, in_container(str(container.id)))
                    with _log_of(client, container) as log, Watch(attempt, neighbours, listener) as watch:
                        container.start()
                        outcome = _followed(container, log, lines, listener, deadline_s, watch)
                    if under is not None:
                        _fetch(container, attempt)
                return outcome
            except ImageNotFound:
                raise MachineError(
                    f"The image {target.reference} is missing; run `harness build {launch.design}`."
                ) from None
            except APIError as error:
                return Outcome("failed", f"Docker could not run the container: {error.explanation or error}.")
            except (DockerException, RequestException) as error:
                engine.drop_sockets(error)
                raise MachineError(
                    f"The connection to the Docker daemon was lost ({type(error).__name__}); was it "
                    "restarted?"
                ) from error

    def _options(
        self, attempt: Attempt, *, user: str, told: wall.Provenance, deadline_s: float
    ) -> dict[str, Any]:
        """What the container may do: read its cells and the traces, write its output, use one GPU. Nothing
        else."""
        from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

        launch, place = attempt.launch, wall.IN_CONTAINER
        environment = told.variables()
        mounts = [
            Mount(place.cells, str(attempt.cells), type="bind", read_only=True),
            Mount(place.output, str(attempt.output), type="bind"),
        ]
        with Folder.open(attempt.root) as root:
            if root.kind(wall.TRACES):
                root.inner(wall.TRACES).close()  # a folder, and no link to one of somebody else's choice
                traces = str(attempt.root / wall.TRACES)
                mounts.append(Mount(f"{place.root}/{wall.TRACES}", traces, type="bind", read_only=True))
        devices = []
        if any(cell.workload.device == "cuda" for cell in launch.cells):
            chosen = self._gpu.uuid if self._gpu else self._choice
            devices.append(DeviceRequest(device_ids=[chosen], capabilities=[["gpu", "compute", "utility"]]))
        else:
            # CUDA's base images ask for every GPU, which some runtimes then give.
            environment = environment | {"NVIDIA_VISIBLE_DEVICES": "void"}
        memory = max(memory_bytes(cell.workload) for cell in launch.cells)
        return {
            "command": place.arguments([cell.id for cell in launch.cells], deadline_s + _GRACE_S),
            "environment": environment,
            "labels": containers.labels(attempt.root, attempt.name, deadline_s),
            "user": user,
            "mounts": mounts,
            "device_requests": devices,
            "network_mode": "none",
            "read_only": True,
            "tmpfs": {"/tmp": "rw,nosuid,nodev,size=1g"},
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "mem_limit": memory,
            "memswap_limit": memory,  # equal to the limit: no swap, which would spoil every timing
            "pids_limit": 4096,  # PyTorch starts threads by the core; a fork bomb wants more
            "shm_size": "1g",
            "ulimits": [
                Ulimit(name="fsize", soft=_MOST_FILE_BYTES, hard=_MOST_FILE_BYTES),
                Ulimit(name="core", soft=0, hard=0),
            ],
            # The log is read as it is written, and kept by us: nothing of it fills the daemon's disk.
            "log_config": LogConfig(type="none"),
        }


def profiled(
    options: dict[str, Any], ncu: Ncu, needed: str, *, allow_sys_admin: bool = False
) -> dict[str, Any]:
    """The options of a container that runs the launch under a profiler: the host's, for the image has none.

    Where the driver keeps the GPU's counters for administrators, it is root with the one capability
    `needed`, which Docker gives no other user. So its output is no folder of the host's, where root could
    leave what others then run, but a volume that is read through the daemon and goes with the container.
    MachineError where that capability would be CAP_SYS_ADMIN and nobody allowed it."""
    from docker.types import Mount

    if needed == "SYS_ADMIN" and not allow_sys_admin:
        raise MachineError(
            "This driver lets a container read the GPU's counters only with the capability CAP_SYS_ADMIN, "
            "by which a "
            "design's code can mount file systems and has as good as root's rights on this machine; update "
            "the driver "
            "to 565 or newer, let everybody read counters (NVreg_RestrictProfilingToAdminUsers=0), profile "
            "with "
            "--local, or, where you trust every line of the designs, pass --allow-sys-admin."
        )
    place = wall.IN_CONTAINER
    program = ["python3", "-m", wall.PROFILED, *options["command"]]
    entry, *command = ncu.command(f"{_NCU}/{ncu.executable.name}", f"{place.output}/{wall.REPORT}", program)
    mounts = [mount for mount in options["mounts"] if mount["Target"] != place.output] + [
        Mount(_NCU, str(ncu.folder), type="bind", read_only=True),
        Mount(place.output, None, type="volume"),
    ]
    allowed = {"user": "0:0", "cap_add": [needed]} if needed else {}
    return options | {"entrypoint": [entry], "command": command, "mounts": mounts} | allowed


def memory_bytes(work: Workload) -> int:
    """The container's memory limit: generous, so that it stops a leak and never a measurement.

    On the GPU the host holds traces and PyTorch's libraries; on the CPU tables and the reference too.
    """
    return 16 * 2**30 + (3 * work.table_bytes if work.device == "cpu" else 0)


def _user(attempt: Attempt) -> str:
    """The user in the container: ours. For root an unprivileged one, who is handed the output folder."""
    if os.getuid():
        return f"{os.getuid()}:{os.getgid()}"
    attempt.hand_over(_UNPRIVILEGED, _UNPRIVILEGED)
    return f"{_UNPRIVILEGED}:{_UNPRIVILEGED}"


@contextlib.contextmanager
def _contained(
    client: docker.DockerClient, image: Any, options: dict[str, Any], attempt: Attempt
) -> Iterator[Container]:
    """A container that is gone behind this, whatever happens within, and then the attempt is over."""
    made: list[Container] = []
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
def _log_of(client: docker.DockerClient, container: Container) -> Iterator[Iterator[bytes]]:
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


def _followed(
    container: Container,
    log: Iterator[bytes],
    lines: Lines,
    listener: Listener,
    deadline_s: float,
    watch: Watch,
) -> Outcome:
    """Follows a container that was started to its end, or to where it has to be stopped."""
    until = time.monotonic() + deadline_s
    if not follow(log, lines, listener.line, until, watch.stop):
        return Outcome("timeout", f"The launch was stopped at its deadline of {deadline_s:g} s.")
    patience = max(until, time.monotonic() + _ENDING_S)
    container.reload()
    while not watch.stop() and container.status not in ("exited", "dead"):
        if time.monotonic() > patience:
            return Outcome("timeout", "The container closed its log but did not end before the deadline.")
        time.sleep(_POLL_S)
        container.reload()
    if watch.why:
        return Outcome("failed", f"The launch was stopped: {watch.why}.")
    return _ending(container.attrs)


def _ending(attrs: dict[str, Any]) -> Outcome:
    """How a container has ended, by what the daemon tells of it."""
    state = attrs["State"]
    if state.get("OOMKilled"):
        limit = attrs["HostConfig"]["Memory"] / 2**30
        return Outcome("oom", f"The container reached its memory limit of {limit:.0f} GiB and was killed.")
    if code := int(state["ExitCode"]):
        return Outcome("failed", exit_sentence(code))
    return Outcome("ended")


def _fetch(container: Container, attempt: Attempt) -> None:
    """Brings what a profiled launch left into the attempt's own folder, once nothing of it runs any more."""
    from docker.errors import APIError

    with contextlib.suppress(APIError):  # it has ended by itself
        container.kill()
    container.wait(timeout=_GRACE_S)
    with attempt.written() as output:
        for cell in attempt.launch.cells:
            most = wall.most_record_bytes(cell.workload.tables, cell.timing.max_passes)
            fetch(container, wall.IN_CONTAINER.output, wall.file_of(cell.id), output, most)
        fetch(container, wall.IN_CONTAINER.output, wall.REPORT, output, MOST_REPORT_BYTES)
