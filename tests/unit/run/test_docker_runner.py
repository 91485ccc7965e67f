"""What a container is allowed, and sentences for what goes wrong. A real engine: tests/docker."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import plan
from harness.experiment import Experiment
from harness.plan import Launch
from harness.records import Workload
from harness.run import docker as docker_runner
from harness.run import gpu as gpus
from harness.run.docker import DockerRunner, memory_bytes
from harness.run.runner import choose


def options(launch: Launch, root: Path, runner: DockerRunner | None = None) -> dict[str, Any]:
    return (runner or DockerRunner(gpu="1"))._options(launch, root, user="7:7", environment={"A": "b"})


def on_gpu(experiment: Experiment) -> Launch:
    return plan.make(replace(experiment, workload=replace(experiment.workload, device="cuda"))).launches[0]


def test_a_container_may_do_nothing_but_measure(experiment: Experiment, tmp_path: Path) -> None:
    launch = plan.make(experiment).launches[0]
    given = options(launch, tmp_path)
    assert given["network_mode"] == "none"
    assert given["read_only"] is True
    assert given["cap_drop"] == ["ALL"]
    assert given["security_opt"] == ["no-new-privileges"]
    assert given["mem_limit"] == given["memswap_limit"] == memory_bytes(experiment.workload)
    assert given["pids_limit"] > 0
    assert given["user"] == "7:7"
    assert given["command"] == ["--root", "/launch", *(cell.id for cell in launch.cells)]


def test_only_cells_can_be_written(experiment: Experiment, tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    given = options(plan.make(experiment).launches[0], tmp_path)
    assert {m["Target"]: m["ReadOnly"] for m in given["mounts"]} == {
        "/launch/cells": False,
        "/launch/traces": True,
    }
    assert given["mounts"][0]["Source"] == str(tmp_path / "cells")


def test_one_gpu_and_only_where_it_is_used(experiment: Experiment, tmp_path: Path) -> None:
    assert options(plan.make(experiment).launches[0], tmp_path)["device_requests"] == []
    (request,) = options(on_gpu(experiment), tmp_path)["device_requests"]
    assert request["DeviceIDs"] == ["1"]
    runner = DockerRunner(gpu="1")
    runner._gpu = gpus.Gpu(1, "GPU-77", "H100", "580", 1, 1)
    (request,) = options(on_gpu(experiment), tmp_path, runner)["device_requests"]
    assert request["DeviceIDs"] == ["GPU-77"]


def test_memory_grows_with_tables_on_the_cpu_only() -> None:
    small, big = Workload(device="cpu", tables=1), Workload(device="cpu", tables=20)
    assert memory_bytes(big) - memory_bytes(small) == 3 * (big.table_bytes - small.table_bytes)
    assert memory_bytes(Workload(tables=1)) == memory_bytes(Workload(tables=20))


def test_the_user_is_ours_or_an_unprivileged_one(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = plan.make(experiment).launches[0]
    handed: list[tuple[Path, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, user, group: handed.append((path, user, group)))
    monkeypatch.setattr(os, "getuid", lambda: 501)
    monkeypatch.setattr(os, "getgid", lambda: 20)
    assert docker_runner._user(launch, tmp_path) == "501:20"
    assert handed == []
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert docker_runner._user(launch, tmp_path) == "1000:1000"
    assert handed == [(tmp_path / "cells" / cell.id, 1000, 1000) for cell in launch.cells]


class Container:
    """A container that has ended in some way."""

    status = "exited"

    def __init__(self, **state: Any) -> None:
        self.attrs = {"State": state, "HostConfig": {"Memory": 2**34}}

    def reload(self) -> None: ...


@pytest.mark.parametrize(
    ("state", "status", "said"),
    [
        ({"ExitCode": 0}, "ended", ""),
        ({"ExitCode": 137, "OOMKilled": True}, "oom", "memory limit of 16 GiB"),
        ({"ExitCode": 137, "OOMKilled": False}, "failed", "SIGKILL"),
        ({"ExitCode": 3}, "failed", "exit code 3"),
    ],
)
def test_how_a_container_ended(state: dict[str, Any], status: str, said: str) -> None:
    outcome = docker_runner._ending(Container(**state), 0.0)  # type: ignore[arg-type]
    assert outcome.status == status
    assert said in outcome.message


def test_the_command_line_chooses_the_runner() -> None:
    assert type(choose(local=False, gpu="0", wait=False, build=True)).__name__ == "DockerRunner"
    assert type(choose(local=True, gpu="0", wait=False, build=True)).__name__ == "LocalRunner"
