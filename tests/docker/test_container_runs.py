"""Runs in real containers, on machines with a GPU or without."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from harness import plan
from harness.build import engine
from harness.build.images import Target
from harness.errors import MachineError
from harness.experiment import Experiment
from harness.plan import Launch
from harness.progress import Silent
from harness.records import CellRecord, Timing, Variant, Workload, load, to_json, write_whole
from harness.run import campaign, lease
from harness.run import docker as docker_runner
from harness.run.docker import RUN_LABEL, DockerRunner

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("built"),
]


def experiment(**changes: Any) -> Experiment:
    """Baseline and stock on two datasets, small and on the CPU."""
    made = Experiment(
        name="small",
        title="A small one",
        arms=(Variant("baseline", "12.1"), Variant("stock", "pytorch")),
        reference="baseline@12.1",
        datasets=("one_item", "random"),
        workload=Workload(tables=2, rows=1000, dim=16, batch=8, pooling=4, device="cpu"),
        timing=Timing(max_seconds=0.1),
        replicates=1,
    )
    return replace(made, **changes)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The folder of a run that this test holds, so that no other takes its containers for leftovers."""
    folder = tmp_path / "held"
    folder.mkdir()
    with lease.run_folder(folder):
        yield folder


def laid_out(root: Path, given: Experiment) -> Launch:
    """The first launch of an experiment, its cells ready in `root`."""
    launch = plan.make(given).launches[0]
    for cell in launch.cells:
        (root / "cells" / cell.id).mkdir(parents=True)
        write_whole(root / "cells" / cell.id / "cell.json", to_json(cell))
    return launch


def records(root: Path) -> dict[str, CellRecord]:
    return {path.parent.name: load(CellRecord, path) for path in root.glob("cells/*/record.json")}


def containers(client: docker.DockerClient, root: Path) -> list[Any]:
    """The containers of a run that are still there, running or not."""
    return list(client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={root}"}))


def test_cells_on_the_cpu(client: docker.DockerClient, tmp_path: Path) -> None:
    root = campaign.start(experiment(), DockerRunner(), tmp_path / "run")
    found = records(root)
    assert {name: (record.status, record.message) for name, record in found.items()} == {
        cell.id: ("ok", "") for cell in plan.make(experiment()).cells
    }
    for record in found.values():
        assert record.environment is not None
        assert record.environment.runner == "docker"
        assert "@sha256:" in record.environment.image
        assert len(record.environment.git_commit) == 40
    assert containers(client, root) == []


def test_a_gpu_is_asked_for_where_there_is_none(client: docker.DockerClient, root: Path) -> None:
    if obstacle := engine.gpu_obstacle(client):
        pytest.skip(f"needs a Docker that can give GPUs: {obstacle}")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("needs a machine without a GPU")
    launch = laid_out(root, experiment())
    on_cpu, cell = launch.cells
    on_gpu = replace(cell, workload=replace(cell.workload, device="cuda"))
    write_whole(root / "cells" / cell.id / "cell.json", to_json(on_gpu))
    launch = replace(launch, cells=(on_cpu, on_gpu))
    outcome = DockerRunner(gpu="0").run(launch, root, deadline_s=120, on_line=lambda line: None)
    assert outcome.status == "ended"
    found = records(root)
    assert found[on_cpu.id].status == "ok"
    assert found[on_gpu.id].status == "failed"
    assert re.search("GPU|CUDA", found[on_gpu.id].message)
    assert "Traceback" not in found[on_gpu.id].message


_PROBE = """
import json, os
def writable(path):
    try:
        open(os.path.join(path, "x"), "w").close()
        return True
    except OSError:
        return False
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "user": os.getuid(),
    "capabilities": int(status["CapBnd"], 16) | int(status["CapEff"], 16),
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "writable": [
        p for p in ("/", "/opt", "/launch", "/launch/traces", "/launch/cells/a", "/tmp") if writable(p)
    ],
    "interfaces": os.listdir("/sys/class/net"),
}))
"""


def test_a_container_is_shut_off(client: docker.DockerClient, built: list[Target], tmp_path: Path) -> None:
    (tmp_path / "cells" / "a").mkdir(parents=True)
    (tmp_path / "traces").mkdir()
    (tmp_path / "cells" / "a").chmod(0o777)
    launch = plan.make(experiment()).launches[0]
    options = DockerRunner()._options(launch, tmp_path, user="1000:1000", environment={})
    options |= {"entrypoint": ["python3", "-c", _PROBE], "command": []}
    with lease.run_folder(tmp_path):  # another run that starts now must not take it for a leftover
        found = json.loads(client.containers.run(built[0].reference, remove=True, **options))
    assert found == {
        "user": 1000,
        "capabilities": 0,
        "no_new_privileges": "1",
        "writable": ["/launch/cells/a", "/tmp"],
        "interfaces": ["lo"],
    }


def test_limits_are_in_force(client: docker.DockerClient, root: Path) -> None:
    seen: list[dict[str, Any]] = []

    def look(line: str) -> None:
        if not seen:
            seen.extend(container.attrs for container in containers(client, root))

    launch = laid_out(root, experiment())
    DockerRunner().run(launch, root, deadline_s=120, on_line=look)
    host = seen[0]["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] == host["MemorySwap"] == docker_runner.memory_bytes(launch.cells[0].workload)
    assert host["PidsLimit"] == 4096
    assert not host["Privileged"]
    assert seen[0]["Config"]["User"] == (f"{os.getuid()}:{os.getgid()}" if os.getuid() else "1000:1000")
    assert containers(client, root) == []


def test_the_deadline(client: docker.DockerClient, tmp_path: Path) -> None:
    timing = Timing(max_seconds=600, min_passes=10**9, max_passes=10**9)
    given = experiment(arms=(Variant("stock", "pytorch"),), reference="stock", timing=timing, deadline_s=8.0)
    root = campaign.start(given, DockerRunner(), tmp_path / "run")
    first, second = (records(root)[cell.id] for cell in plan.make(given).cells)
    assert (first.status, second.status) == ("timeout", "timeout")
    assert first.message == "The launch was stopped at its deadline of 8 s."
    assert second.message.startswith("Not begun")
    assert containers(client, root) == []


def test_killed_from_outside(client: docker.DockerClient, root: Path) -> None:
    launch = laid_out(root, experiment())

    def kill(line: str) -> None:
        for container in containers(client, root):
            container.kill()

    outcome = DockerRunner().run(launch, root, deadline_s=120, on_line=kill)
    assert outcome.status == "failed"
    assert "SIGKILL" in outcome.message
    assert containers(client, root) == []


def test_out_of_memory(client: docker.DockerClient, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_runner, "memory_bytes", lambda work: 48 * 2**20)
    launch = laid_out(root, experiment())
    outcome = DockerRunner().run(launch, root, deadline_s=120, on_line=lambda line: None)
    assert outcome.status == "oom"
    assert containers(client, root) == []


def test_an_error_in_between_leaves_no_container(client: docker.DockerClient, root: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    launch = laid_out(root, experiment())
    with pytest.raises(KeyboardInterrupt):
        DockerRunner().run(launch, root, deadline_s=120, on_line=interrupt)
    assert containers(client, root) == []


_RUN = """
import sys
from pathlib import Path
from harness import experiment
from harness.build import images
from harness.run import campaign, lease
from harness.run.docker import DockerRunner
images.REGISTRY = "embedding-harness-test"
campaign.start(experiment.read(Path(sys.argv[1])), DockerRunner(), Path(sys.argv[2]))
"""


def begin(tmp_path: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A run in a process of its own, two of its six cells measured."""
    from harness.experiment import to_toml

    given = experiment(replicates=3, arms=(Variant("stock", "pytorch"),), reference="stock")
    (tmp_path / "small.toml").write_text(
        to_toml(replace(given, timing=Timing(max_seconds=1.0, min_passes=3)))
    )
    root = tmp_path / "run"
    command = [sys.executable, "-c", _RUN, str(tmp_path / "small.toml"), str(root)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    for _ in range(1200):
        if len(list(root.glob("cells/*/record.json"))) >= 2:
            return process, root
        if process.poll() is not None:
            pytest.fail(process.communicate()[1].decode())
        time.sleep(0.05)
    process.kill()
    pytest.fail("The run measured nothing within a minute.")


def test_a_killed_run_goes_on(client: docker.DockerClient, tmp_path: Path) -> None:
    process, root = begin(tmp_path)
    process.kill()
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in root.glob("cells/*/record.json")}
    campaign.resume(root, DockerRunner())
    assert containers(client, root) == []
    assert {record.status for record in records(root).values()} == {"ok"}
    assert len(records(root)) == 6
    assert before.items() <= {p: p.stat().st_mtime_ns for p in root.glob("cells/*/record.json")}.items()


def test_what_a_killed_run_leaves_is_removed(client: docker.DockerClient, root: Path, tmp_path: Path) -> None:
    left = client.containers.create(
        "embedding-harness-test/stock:pytorch",
        labels={RUN_LABEL: str(tmp_path / "gone")},
        network_mode="none",
    )
    with DockerRunner().hold(root, Silent()):
        pass
    with pytest.raises(docker.errors.NotFound):
        left.reload()


def test_a_polite_kill_cleans_up(client: docker.DockerClient, tmp_path: Path) -> None:
    process, root = begin(tmp_path)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1].decode()
    assert "InterruptedRunError" in said
    assert f"harness run --resume {root}" in said
    assert containers(client, root) == []


def test_a_missing_image_starts_nothing(tmp_path: Path) -> None:
    given = plan.make(experiment(arms=(Variant("combined", "13.0"),), reference="combined@13.0"))
    with pytest.raises(MachineError, match=r"combined:13\.0 is missing; run `harness build combined`"):
        DockerRunner().check(given, tmp_path, Silent())
