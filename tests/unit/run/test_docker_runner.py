"""What a container is allowed, and sentences for what goes wrong. A real engine: tests/docker."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import plan, wall
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.files import Folder
from harness.plan import Launch
from harness.records import Workload
from harness.run import attempt, contained
from harness.run import docker as docker_runner
from harness.run import gpu as gpus
from harness.run.attempt import Attempt
from harness.run.docker import DockerRunner, memory_bytes
from harness.run.runner import choose

TOLD = wall.Provenance("docker", "an-image")


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Callable[[Launch], Attempt]]:
    """Makes an attempt at a launch of the run in `tmp_path`."""
    with Folder.open(tmp_path) as root, contextlib.ExitStack() as opened:
        yield lambda launch: opened.enter_context(attempt.begun(launch, root))


def options(made: Attempt, runner: DockerRunner | None = None) -> dict[str, Any]:
    return (runner or DockerRunner(gpu="1"))._options(made, user="7:7", told=TOLD, deadline_s=60)


def on_gpu(experiment: Experiment) -> Launch:
    return plan.make(replace(experiment, workload=replace(experiment.workload, device="cuda"))).launches[0]


def test_a_container_may_do_nothing_but_measure(
    experiment: Experiment, begun: Callable[[Launch], Attempt]
) -> None:
    launch = plan.make(experiment).launches[0]
    given = options(begun(launch))
    assert given["network_mode"] == "none"
    assert given["read_only"] is True
    assert given["cap_drop"] == ["ALL"]
    assert given["security_opt"] == ["no-new-privileges"]
    assert given["mem_limit"] == given["memswap_limit"] == memory_bytes(experiment.workload)
    assert given["pids_limit"] > 0
    assert given["user"] == "7:7"
    assert {limit["Name"]: limit["Hard"] for limit in given["ulimits"]} == {"fsize": 2**30, "core": 0}
    assert given["log_config"]["Type"] == "none"
    asked = wall.parse("test", None, given["command"])
    assert asked.ids == [cell.id for cell in launch.cells]
    assert asked.deadline_s > 60, "the host is the first to end it, and says why"
    assert wall.Provenance.told(given["environment"]) == TOLD


def test_only_its_own_output_can_be_written_and_nothing_else_lies_there(
    experiment: Experiment, begun: Callable[[Launch], Attempt], tmp_path: Path
) -> None:
    (tmp_path / "traces").mkdir()
    launch = plan.make(experiment).launches[0]
    made = begun(launch)
    given = options(made)
    assert {m["Target"]: (m["Source"], m["ReadOnly"]) for m in given["mounts"]} == {
        "/launch/cells": (str(made.cells), True),
        "/launch/traces": (str(tmp_path / "traces"), True),
        "/launch/out": (str(made.output), False),
    }
    assert list(made.output.iterdir()) == []
    assert sorted(p.name for p in made.cells.iterdir()) == sorted(f"{cell.id}.json" for cell in launch.cells)


def test_traces_that_are_a_link_are_not_mounted(
    experiment: Experiment, begun: Callable[[Launch], Attempt], tmp_path: Path
) -> None:
    (tmp_path / "traces").symlink_to("/etc")
    with pytest.raises(BadInputError, match="traces: is a link where a folder belongs"):
        options(begun(plan.make(experiment).launches[0]))


def test_one_gpu_and_only_where_it_is_used(
    experiment: Experiment, begun: Callable[[Launch], Attempt]
) -> None:
    assert options(begun(plan.make(experiment).launches[0]))["device_requests"] == []
    made = begun(on_gpu(experiment))
    (request,) = options(made)["device_requests"]
    assert request["DeviceIDs"] == ["1"]
    runner = DockerRunner(gpu="1")
    runner.boards = [gpus.Gpu(1, "GPU-77", "H100", "580", 1, 1)]
    (request,) = options(made, runner)["device_requests"]
    assert request["DeviceIDs"] == ["GPU-77"]


def test_memory_grows_with_tables_on_the_cpu_only() -> None:
    small, big = Workload(device="cpu", tables=1), Workload(device="cpu", tables=20)
    assert memory_bytes(big) - memory_bytes(small) == 3 * (big.table_bytes - small.table_bytes)
    assert memory_bytes(Workload(tables=1)) == memory_bytes(Workload(tables=20))


def test_the_user_is_ours_or_an_unprivileged_one(
    experiment: Experiment, begun: Callable[[Launch], Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = begun(plan.make(experiment).launches[0])
    handed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda descriptor, user, group: handed.append((user, group)))
    monkeypatch.setattr(os, "getuid", lambda: 501)
    monkeypatch.setattr(os, "getgid", lambda: 20)
    assert docker_runner.user_of(made) == "501:20"
    assert handed == []
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert docker_runner.user_of(made) == "1000:1000"
    assert handed == [(1000, 1000)]


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
    outcome = contained.ending({"State": state, "HostConfig": {"Memory": 2**34}})
    assert outcome.status == status
    assert said in outcome.message


def test_the_command_line_chooses_the_runner() -> None:
    assert type(choose(local=False, gpu="0", wait=False, build=True)).__name__ == "DockerRunner"
    assert type(choose(local=True, gpu="0", wait=False, build=True)).__name__ == "LocalRunner"
