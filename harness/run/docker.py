"""Runs a launch in a container of its design's image, shut off from all but its cells and one GPU."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import designs
from harness.build import engine, images
from harness.errors import MachineError
from harness.plan import Launch, Plan
from harness.progress import Progress
from harness.records import Workload
from harness.run import gpu as gpus
from harness.run import lease
from harness.run.ncu import PROFILED, Ncu, capability, report_of
from harness.run.runner import Outcome, check_machine, exit_sentence, follow, needs_gpu, provenance

if TYPE_CHECKING:
    from docker.models.containers import Container

RUN_LABEL = f"{images.LABEL}.run"
"""On every container: the run's folder, by which leftovers of killed runs are told from those at work."""
_UNPRIVILEGED = 1000
_GRACE_S = 30.0
"""How long the daemon may take to say that a container has ended whose log has."""
_POLL_S = 0.1


class DockerRunner:
    """Containers through the Docker SDK. With `build`, makes images that are missing or stale."""

    def __init__(self, *, gpu: str = "0", wait: bool = False, build: bool = False) -> None:
        self._choice = gpu
        self._wait = wait
        self._build = build
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

    @contextlib.contextmanager
    def hold(self, root: Path, progress: Progress) -> Iterator[None]:
        """Holds the GPU, and removes the containers of killed runs."""
        with contextlib.ExitStack() as held:
            if self._gpu is not None:
                held.enter_context(lease.gpu(self._gpu.uuid, root, wait=self._wait, progress=progress))
            _remove_leftovers(root)
            yield

    def run(
        self,
        launch: Launch,
        root: Path,
        *,
        deadline_s: float,
        on_line: Callable[[str], None],
        under: Ncu | None = None,
    ) -> Outcome:
        """Runs the launch in a fresh container, which is gone when this returns or raises."""
        from docker.errors import APIError, DockerException, ImageNotFound
        from requests.exceptions import RequestException

        target = images.Target(designs.get(launch.design), launch.toolchain)
        until = time.monotonic() + deadline_s
        with engine.connection() as client:
            try:
                image = client.images.get(target.reference)
            except ImageNotFound:
                raise MachineError(
                    f"The image {target.reference} is missing; run `harness build {launch.design}`."
                ) from None
            container = None
            try:
                environment = provenance("docker", f"{target.reference}@{image.id}")
                options = self._options(launch, root, user=_user(launch, root), environment=environment)
                if under is not None:
                    options = profiled(options, launch, root, under, self._gpu.driver if self._gpu else "")
                container = client.containers.create(image, **options)
                container.start()
                if not follow(container.logs(stream=True, follow=True), on_line, until):
                    return Outcome("timeout", f"The launch was stopped at its deadline of {deadline_s:g} s.")
                return _ending(container, until)
            except APIError as error:
                return Outcome("failed", f"Docker could not run the container: {error.explanation or error}.")
            except (DockerException, RequestException) as error:
                cause = type(error).__name__
                return Outcome(
                    "failed", f"The connection to the Docker daemon was lost ({cause}); was it restarted?"
                )
            finally:
                if container is not None:
                    _remove(container)

    def _options(
        self, launch: Launch, root: Path, *, user: str, environment: dict[str, str]
    ) -> dict[str, Any]:
        """What the container may do: write its cells, read the traces, use one GPU. Nothing else."""
        from docker.types import DeviceRequest, LogConfig, Mount

        mounts = [Mount("/launch/cells", str(root.absolute() / "cells"), type="bind")]
        if (traces := root.absolute() / "traces").is_dir():
            mounts.append(Mount("/launch/traces", str(traces), type="bind", read_only=True))
        devices = []
        if any(cell.workload.device == "cuda" for cell in launch.cells):
            chosen = self._gpu.uuid if self._gpu else self._choice
            devices.append(DeviceRequest(device_ids=[chosen], capabilities=[["gpu", "compute", "utility"]]))
        else:
            # CUDA's base images ask for every GPU, which some runtimes then give.
            environment = environment | {"NVIDIA_VISIBLE_DEVICES": "void"}
        memory = max(memory_bytes(cell.workload) for cell in launch.cells)
        return {
            "command": ["--root", "/launch", *(cell.id for cell in launch.cells)],
            "environment": environment,
            "labels": {RUN_LABEL: str(root.absolute())},
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
            # A daemon may be set up to keep no logs at all, or to send them elsewhere.
            "log_config": LogConfig(type=LogConfig.types.JSON),
        }


def profiled(options: dict[str, Any], launch: Launch, root: Path, ncu: Ncu, driver: str) -> dict[str, Any]:
    """The options of a container that runs the launch under a profiler: the host's, for the image has none.

    What it may write is the folder of profiles alone. Where the driver keeps the GPU's counters for
    administrators, it is root with that one capability, which Docker gives no other user.
    """
    from docker.types import Mount

    program = ["python3", *PROFILED, *options["command"]]
    entry, *command = ncu.command(f"/opt/ncu/{ncu.executable.name}", f"/launch/{report_of(launch)}", program)
    mounts = [Mount(m["Target"], m["Source"], type="bind", read_only=True) for m in options["mounts"]] + [
        Mount("/opt/ncu", str(ncu.folder), type="bind", read_only=True),
        Mount("/launch/profile", str(root.absolute() / "profile"), type="bind"),
    ]
    allowed = {"user": "0:0", "cap_add": [needed]} if (needed := capability(driver)) else {}
    return options | {"entrypoint": [entry], "command": command, "mounts": mounts} | allowed


def memory_bytes(work: Workload) -> int:
    """The container's memory limit: generous, so that it stops a leak and never a measurement.

    On the GPU the host holds traces and PyTorch's libraries; on the CPU tables and the reference too.
    """
    return 16 * 2**30 + (3 * work.table_bytes if work.device == "cpu" else 0)


def _user(launch: Launch, root: Path) -> str:
    """The user in the container: ours, so that the records are ours. For root an unprivileged one, who is
    handed this launch's cell folders."""
    if os.getuid():
        return f"{os.getuid()}:{os.getgid()}"
    for cell in launch.cells:
        os.chown(root / "cells" / cell.id, _UNPRIVILEGED, _UNPRIVILEGED)
    return f"{_UNPRIVILEGED}:{_UNPRIVILEGED}"


def _ending(container: Container, until: float) -> Outcome:
    """How a container ended whose log has ended."""
    patience = max(until, time.monotonic() + _GRACE_S)
    container.reload()
    while container.status not in ("exited", "dead"):
        if time.monotonic() > patience:
            return Outcome("timeout", "The container closed its log but did not end before the deadline.")
        time.sleep(_POLL_S)
        container.reload()
    state = container.attrs["State"]
    if state.get("OOMKilled"):
        limit = container.attrs["HostConfig"]["Memory"] / 2**30
        return Outcome("oom", f"The container reached its memory limit of {limit:.0f} GiB and was killed.")
    if code := int(state["ExitCode"]):
        return Outcome("failed", exit_sentence(code))
    return Outcome("ended")


def _remove(container: Container) -> None:
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    # Where the daemon is gone the container stays behind; the next start finds it by its label.
    with contextlib.suppress(DockerException, RequestException):
        container.remove(force=True, v=True)


def _remove_leftovers(root: Path) -> None:
    """Removes containers whose run no living process holds, and `root`'s own, which the caller holds."""
    with engine.connection() as client:
        for container in client.containers.list(all=True, filters={"label": RUN_LABEL}, ignore_removed=True):
            owner = Path(container.labels[RUN_LABEL])
            if owner == root.absolute() or not lease.in_use(owner):
                _remove(container)
