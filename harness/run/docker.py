"""Runs a launch in a container of its design's image, shut off from all but its cells, one GPU and its own
output."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import designs, wall
from harness.build import engine, images
from harness.errors import MachineError
from harness.files import Folder
from harness.plan import Plan
from harness.progress import Progress
from harness.records import Workload
from harness.run import containers, owner, reaper
from harness.run import gpu as gpus
from harness.run.attempt import MOST_REPORT_BYTES, Attempt
from harness.run.contained import contained, fetch_output, followed, log_of
from harness.run.ncu import Ncu, capability
from harness.run.runner import (
    Outcome,
    Terms,
    check_machine,
    held_gpus,
    needs_gpu,
    provenance,
)
from harness.run.watch import Neighbours, Watch, in_container

_UNPRIVILEGED = 1000
_GRACE_S = 30.0
"""How much later than the host ends it a launch ends itself, so that it is the host which says why."""
_MOST_FILE_BYTES = MOST_REPORT_BYTES
_NCU = "/opt/ncu"


class DockerRunner:
    """Containers through the Docker SDK. With `build`, makes images that are missing or stale.
    `allow_sys_admin`: a profiled container may be given the capability CAP_SYS_ADMIN, which is as good as
    giving it the machine."""

    def __init__(
        self, *, gpu: str = "0", wait: bool = False, build: bool = False, allow_sys_admin: bool = False
    ) -> None:
        self._choice = gpu
        self._wait = wait
        self._build = build
        self._allow_sys_admin = allow_sys_admin
        self.boards: list[gpus.Gpu] = []

    def check(self, plan: Plan, folder: Path, progress: Progress) -> None:
        """Docker, the GPUs, the driver, memory, disk and images; MachineError before anything starts."""
        with engine.connection() as client:
            self.boards = check_machine(plan, folder, self._choice)
            asking = containers.labels(folder.absolute(), "probe", _GRACE_S)
            if needs_gpu(plan) and (obstacle := engine.gpu_obstacle(client, asking)):
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
        """Holds the GPUs; if this process is killed meanwhile, its containers are removed all the same."""
        with (
            held_gpus(self.boards, root, wait=self._wait, progress=progress),
            reaper.beside(owner.mine()),
        ):
            yield

    def run(self, attempt: Attempt, terms: Terms) -> Outcome:
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
                options = self._options(
                    attempt, user=user_of(attempt), told=told, deadline_s=terms.deadline_s
                )
                if terms.under is not None:
                    board = self._board(attempt)
                    needed = capability(board.driver if board else "")
                    options = profiled(options, terms.under, needed, allow_sys_admin=self._allow_sys_admin)
                with contained(client, image, options, attempt) as container:
                    neighbours = Neighbours(self._board(attempt), in_container(str(container.id)))
                    with (
                        log_of(client, container) as log,
                        Watch(attempt, neighbours, terms.listener) as watch,
                    ):
                        container.start()
                        outcome = followed(container, log, terms, watch)
                    if terms.under is not None:
                        fetch_output(container, attempt)
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

    def _board(self, attempt: Attempt) -> gpus.Gpu | None:
        return attempt.board or next(iter(self.boards), None)

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
            board = self._board(attempt)
            chosen = board.uuid if board else self._choice
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


def user_of(attempt: Attempt) -> str:
    """The user in the container: ours. For root an unprivileged one, who is handed the output folder."""
    if os.getuid():
        return f"{os.getuid()}:{os.getgid()}"
    attempt.hand_over(_UNPRIVILEGED, _UNPRIVILEGED)
    return f"{_UNPRIVILEGED}:{_UNPRIVILEGED}"
