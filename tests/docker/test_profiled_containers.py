"""A container that a profiler looks into: the host's profiler, one capability, no folder to write."""

from __future__ import annotations

import os
from pathlib import Path

import docker
import pytest

from harness import plan, wall
from harness.experiment import Experiment
from harness.files import Folder
from harness.records import Variant, Workload
from harness.run import attempt, contained
from harness.run import docker as docker_runner
from harness.run.docker import DockerRunner
from harness.run.ncu import Ncu
from harness.run.runner import Terms
from tests.pretended_runner import Heard

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900), pytest.mark.usefixtures("built")]

BITS = {"PERFMON": 1 << 38, "SYS_ADMIN": 1 << 21}


EXPERIMENT = Experiment(
    name="small",
    title="A small one",
    arms=(Variant("baseline", "12.1"),),
    reference="baseline@12.1",
    datasets=("random",),
    workload=Workload(tables=2, rows=1000, dim=16, batch=8, pooling=4, device="cpu"),
    replicates=1,
)


def profiler(folder: Path, script: str) -> Ncu:
    """A profiler that is a script; what comes after --export and its file is the program."""
    path = folder / "nsight" / "ncu"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nwhile [ "$1" != --export ]; do shift; done\n{script}\n', encoding="utf-8")
    path.chmod(0o755)
    return Ncu(path, "2025.3.1")


def dangling(client: docker.DockerClient) -> set[str]:
    """Volumes of no container: what tests beside this one run has its own."""
    return {volume.name for volume in client.volumes.list(filters={"dangling": True})}


@pytest.mark.parametrize("capability", ["PERFMON", "SYS_ADMIN", ""])
def test_the_hosts_profiler_runs_the_program_inside(
    capability: str, client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_runner, "capability", lambda driver: capability)
    # Writes who it is where the report belongs, then runs what follows: the program.
    ncu = profiler(
        tmp_path, '{ id -u; sed -n "s/^CapEff:\\t//p" /proc/self/status; } > "$2"; shift 2; exec "$@"'
    )
    launch = plan.make(EXPERIMENT).launches[0]
    (cell,) = launch.cells
    heard = Heard()
    volumes = dangling(client)
    with Folder.open(tmp_path) as root, attempt.begun(launch, root, profiled=True) as made:
        runner = DockerRunner(allow_sys_admin=capability == "SYS_ADMIN")
        outcome = runner.run(made, Terms(120, heard, under=ncu))
        assert (outcome.status, outcome.message) == ("ended", ""), heard.lines
        report = made.output / wall.REPORT
        user, effective = report.read_text(encoding="utf-8").split()
        # On the CPU there is nothing to profile; the program says so where it would have told of its kernel.
        assert "Only lookups on a GPU" in made.gather()[cell.id].message
        assert report.stat().st_uid == os.getuid()
    assert int(effective, 16) == BITS.get(capability, 0)
    assert (user == "0") == bool(capability)
    assert dangling(client) <= volumes, "it goes with its container"


def test_a_profiled_container_that_is_root_leaves_nothing_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What root leaves there is never in a folder of the host's; what is fetched has no owner and no mode."""
    monkeypatch.setattr(docker_runner, "capability", lambda driver: "PERFMON")
    ncu = profiler(
        tmp_path,
        'out=$(dirname "$2"); for f in "$out/shell" "$2"; do cp /bin/sh "$f"; chmod 6755 "$f"; done\n'
        'for folder in /opt/ncu /launch/cells; do cp /bin/sh "$folder/shell" && echo "wrote $folder"; done\n'
        "mount -t tmpfs none /tmp && echo mounted; exit 0",
    )
    launch = plan.make(EXPERIMENT).launches[0]
    heard = Heard()
    with Folder.open(tmp_path) as root, attempt.begun(launch, root, profiled=True) as made:
        DockerRunner().run(made, Terms(120, heard, under=ncu))
        assert sorted(path.name for path in tmp_path.rglob("shell")) == []
        assert [path.name for path in made.output.iterdir()] == [wall.REPORT]
        assert (made.output / wall.REPORT).stat().st_mode & 0o7111 == 0
    assert not [line for line in heard.lines if line.startswith("wrote") or line == "mounted"]


@pytest.mark.parametrize(
    "left",
    [
        'ln -s /etc/passwd "$2"',
        'mkfifo "$2"',
        'mkdir "$2"',
        'truncate -s 2G "$2" || truncate -s 1G "$2"',
        ":",
    ],
)
def test_a_report_that_is_none_is_not_fetched(
    left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_runner, "capability", lambda driver: "")
    monkeypatch.setattr(contained, "MOST_REPORT_BYTES", 2**20)
    launch = plan.make(EXPERIMENT).launches[0]
    with Folder.open(tmp_path) as root, attempt.begun(launch, root, profiled=True) as made:
        ncu = profiler(tmp_path, left)
        heard = Heard()
        DockerRunner().run(made, Terms(120, heard, under=ncu))
        assert list(made.output.iterdir()) == []
