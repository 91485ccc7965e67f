"""Runs in containers, killed at any moment: nothing is lost, doubled or left at work."""

from __future__ import annotations

import os
from pathlib import Path

import docker
import pytest

from tests.docker.test_container_runs import containers
from tests.killing import killed_over_and_over

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("built")]

KILLS = int(os.environ.get("HARNESS_HOSTILE_KILLS", "2"))


@pytest.mark.timeout(60 + 60 * KILLS)
def test_runs_in_containers(client: docker.DockerClient, tmp_path: Path) -> None:
    def kill_container(root: Path) -> bool:
        for container in containers(client, root):
            try:
                container.kill()
                return True
            except docker.errors.APIError:
                continue  # it has ended meanwhile
        return False

    def at_work(root: Path) -> int:
        return len(containers(client, root))

    tally = killed_over_and_over("docker", KILLS, 2, tmp_path, at_work, kill_container)
    print(f"\nruns in containers: {tally}")
    assert (tally.lost, tally.doubled, tally.left_behind) == (0, 0, 0), tally
    assert tally.kills >= KILLS
