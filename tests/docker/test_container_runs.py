"""Runs in real containers, on machines with a GPU or without."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from harness import plan
from harness.build import engine
from harness.errors import MachineError
from harness.experiment import Experiment
from harness.files import Folder
from harness.plan import Launch
from harness.progress import Silent
from harness.records import CellRecord, Timing, Variant, Workload, load
from harness.run import attempt, campaign, owner
from harness.run import containers as containers_of_runs
from harness.run import docker as docker_runner
from harness.run.attempt import Attempt
from harness.run.containers import OWNER_LABEL, RUN_LABEL, UNTIL_LABEL
from harness.run.docker import DockerRunner
from harness.run.local import LocalRunner
from harness.run.runner import Outcome, Runner, Terms
from harness.signals import as_interrupt
from tests.pretended_runner import Heard

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("built"),
]
IMAGE = "embedding-harness-test/stock:pytorch"


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
def begun(tmp_path: Path) -> Iterator[Callable[[Launch], Attempt]]:
    """Makes an attempt at a launch of a run."""
    with Folder.open(tmp_path) as root, contextlib.ExitStack() as opened:
        yield lambda launch: opened.enter_context(attempt.begun(launch, root))


def first_launch(**changes: Any) -> Launch:
    return plan.make(experiment(**changes)).launches[0]


def run(made: Attempt, on_line: Callable[[str], None] = lambda line: None, **options: Any) -> Outcome:
    """Runs an attempt in a container; nothing of it is left."""
    runner = DockerRunner(gpu="0")
    return runner.run(made, Terms(120, Heard(on_line), **options))


def records(root: Path) -> dict[str, CellRecord]:
    return {path.parent.name: load(CellRecord, path) for path in root.glob("cells/*/record.json")}


def containers(client: docker.DockerClient, root: Path) -> list[Any]:
    """The containers of a run that are still there, running or not."""
    label = f"{RUN_LABEL}={root}"
    return list(client.containers.list(all=True, filters={"label": label}, ignore_removed=True))


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


def test_several_may_ask_for_a_gpu_at_once(client: docker.DockerClient) -> None:
    """Each with an image of its own."""
    with ThreadPoolExecutor(4) as several:
        answers = list(several.map(lambda _: engine.gpu_obstacle(client), range(12)))
    assert len(set(answers)) == 1


def test_a_gpu_is_asked_for_where_there_is_none(
    client: docker.DockerClient, begun: Callable[[Launch], Attempt]
) -> None:
    if obstacle := engine.gpu_obstacle(client):
        pytest.skip(f"needs a Docker that can give GPUs: {obstacle}")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("needs a machine without a GPU")
    launch = first_launch()
    on_cpu, cell = launch.cells
    on_gpu = replace(cell, workload=replace(cell.workload, device="cuda"))
    made = begun(replace(launch, cells=(on_cpu, on_gpu)))
    assert run(made).status == "ended"
    found = made.gather()
    assert found[on_cpu.id].status == "ok"
    assert found[on_gpu.id].status == "failed"
    assert re.search("GPU|CUDA", found[on_gpu.id].message)
    assert "Traceback" not in found[on_gpu.id].message


_PROBE = """
import json, os, resource
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
        p
        for p in ("/", "/opt", "/launch", "/launch/traces", "/launch/cells", "/launch/out", "/tmp")
        if writable(p)
    ],
    "seen": sorted(os.listdir("/launch") + os.listdir("/launch/cells") + os.listdir("/launch/out")),
    "largest": resource.getrlimit(resource.RLIMIT_FSIZE)[1],
    "interfaces": os.listdir("/sys/class/net"),
}))
"""


def test_a_container_is_shut_off(
    begun: Callable[[Launch], Attempt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "traces").mkdir()
    launch = first_launch()
    heard: list[str] = []
    with_entry(monkeypatch, ["python3", "-c", _PROBE])
    assert run(begun(launch), heard.append).status == "ended"
    user = os.getuid() or 1000
    assert json.loads("".join(heard)) == {
        "user": user,
        "capabilities": 0,
        "no_new_privileges": "1",
        "writable": ["/launch/out", "/tmp"],
        "seen": sorted(["cells", "out", "traces", "x", *(f"{cell.id}.json" for cell in launch.cells)]),
        "largest": 2**30,
        "interfaces": ["lo"],
    }


def with_entry(monkeypatch: pytest.MonkeyPatch, entry: list[str]) -> None:
    """Has containers begin with this in place of the bench."""
    options = DockerRunner._options

    def changed(self: DockerRunner, *arguments: Any, **named: Any) -> dict[str, Any]:
        return options(self, *arguments, **named) | {"entrypoint": entry}

    monkeypatch.setattr(DockerRunner, "_options", changed)


def test_limits_are_in_force(
    client: docker.DockerClient, begun: Callable[[Launch], Attempt], tmp_path: Path
) -> None:
    seen: list[dict[str, Any]] = []

    def look(line: str) -> None:
        if not seen:
            seen.extend(container.attrs for container in containers(client, tmp_path))

    launch = first_launch()
    run(begun(launch), look)
    host = seen[0]["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] == host["MemorySwap"] == docker_runner.memory_bytes(launch.cells[0].workload)
    assert host["PidsLimit"] == 4096
    assert not host["Privileged"]
    assert host["LogConfig"]["Type"] == "none"
    assert seen[0]["Config"]["User"] == (f"{os.getuid()}:{os.getgid()}" if os.getuid() else "1000:1000")
    assert containers(client, tmp_path) == []


def test_the_deadline(client: docker.DockerClient, tmp_path: Path) -> None:
    timing = Timing(max_seconds=600, min_passes=10**9, max_passes=10**9)
    given = experiment(arms=(Variant("stock", "pytorch"),), reference="stock", timing=timing, deadline_s=8.0)
    root = campaign.start(given, DockerRunner(), tmp_path / "run")
    first, second = (records(root)[cell.id] for cell in plan.make(given).cells)
    assert (first.status, second.status) == ("timeout", "timeout")
    assert first.message == "The launch was stopped at its deadline of 8 s."
    assert second.message.startswith("Not begun")
    assert containers(client, root) == []


def test_killed_from_outside(
    client: docker.DockerClient, begun: Callable[[Launch], Attempt], tmp_path: Path
) -> None:
    def kill(line: str) -> None:
        for container in containers(client, tmp_path):
            container.kill()

    outcome = run(begun(first_launch()), kill)
    assert outcome.status == "failed"
    assert "SIGKILL" in outcome.message
    assert containers(client, tmp_path) == []


def test_out_of_memory(
    client: docker.DockerClient,
    begun: Callable[[Launch], Attempt],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(docker_runner, "memory_bytes", lambda work: 48 * 2**20)
    assert run(begun(first_launch())).status == "oom"
    assert containers(client, tmp_path) == []


def test_an_error_in_between_leaves_no_container(
    client: docker.DockerClient, begun: Callable[[Launch], Attempt], tmp_path: Path
) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    made = begun(first_launch())
    with pytest.raises(KeyboardInterrupt):
        run(made, interrupt)
    assert made.over
    assert containers(client, tmp_path) == []


def test_signals_while_a_container_is_removed_wait_for_that(
    client: docker.DockerClient,
    begun: Callable[[Launch], Attempt],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever presses Ctrl-C twice, or three times, leaves no container either."""
    remove = containers_of_runs.remove

    def pressed_again(container: Any) -> bool:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        return remove(container)

    monkeypatch.setattr(containers_of_runs, "remove", pressed_again)

    def interrupt(line: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    made = begun(first_launch())
    with pytest.raises(KeyboardInterrupt), as_interrupt():
        run(made, interrupt)
    assert made.over
    assert containers(client, tmp_path) == []


_RUN = """
import sys
from pathlib import Path
from harness import experiment
from harness.build import images
from harness.run import campaign, lease
from harness.run.docker import DockerRunner
images.REGISTRY = "embedding-harness-test"
if entry := sys.argv[3:]:
    options = DockerRunner._options
    DockerRunner._options = lambda *a, **k: options(*a, **k) | {"entrypoint": ["python3", "-c", entry[0]]}
campaign.start(experiment.read(Path(sys.argv[1])), DockerRunner(), Path(sys.argv[2]))
"""


def begin(tmp_path: Path, *, entry: str = "") -> tuple[subprocess.Popen[bytes], Path]:
    """A run of six cells in a process of its own; `entry`: what its containers run in place of the bench."""
    from harness.experiment import to_toml

    given = experiment(replicates=3, arms=(Variant("stock", "pytorch"),), reference="stock")
    (tmp_path / "small.toml").write_text(
        to_toml(replace(given, timing=Timing(max_seconds=0.3, min_passes=3)))
    )
    root = tmp_path / "run"
    command = [sys.executable, "-c", _RUN, str(tmp_path / "small.toml"), str(root), *filter(None, [entry])]
    return subprocess.Popen(command, stderr=subprocess.PIPE), root


def wait_for_records(process: subprocess.Popen[bytes], root: Path, count: int) -> None:
    """Until so many of a run's cells are measured."""
    while len(list(root.glob("cells/*/record.json"))) < count:
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.fail(process.stderr.read().decode())
        time.sleep(0.05)


def test_a_killed_run_goes_on(client: docker.DockerClient, tmp_path: Path) -> None:
    process, root = begin(tmp_path)
    wait_for_records(process, root, 2)
    process.kill()
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in root.glob("cells/*/record.json")}
    campaign.resume(root, DockerRunner())
    assert containers(client, root) == []
    assert {record.status for record in records(root).values()} == {"ok"}
    assert len(records(root)) == 6
    assert before.items() <= {p: p.stat().st_mtime_ns for p in root.glob("cells/*/record.json")}.items()


@pytest.mark.parametrize("runner", [DockerRunner(), LocalRunner()])
def test_what_killed_runs_leave_is_removed_and_nothing_else(
    runner: Runner, client: docker.DockerClient, tmp_path: Path
) -> None:
    """At every start and resume, with containers or without: one of them may be on the same GPU."""
    gone = subprocess.run(
        [sys.executable, "-c", "from harness.run import owner; print(owner.mine())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    boot, namespace, pid, began = owner.mine().split()
    mine, run, late = owner.mine(), str(tmp_path / "run"), {UNTIL_LABEL: "1000000000"}
    left = {
        "of a process that is gone": {RUN_LABEL: "/other", OWNER_LABEL: gone},
        "of another boot": {RUN_LABEL: "/other", OWNER_LABEL: f"yesterday {namespace} {pid} {began}"},
        "of a number taken over": {RUN_LABEL: "/other", OWNER_LABEL: f"{boot} {namespace} {pid} 1"},
        "long late": {RUN_LABEL: "/other", OWNER_LABEL: mine} | late,
        "of this run": {RUN_LABEL: run, OWNER_LABEL: f"{boot} {namespace} 1 1"},
    }
    kept = {
        "of a process that lives": {RUN_LABEL: "/other", OWNER_LABEL: mine},
        "of who knows whom": {RUN_LABEL: "/other", OWNER_LABEL: f"{boot} pid:[1] {pid} {began}"},
        "somebody else's": {"another.label": run},
    }
    made = {
        name: client.containers.create(IMAGE, labels=labels, network_mode="none")
        for name, labels in (left | kept).items()
    }
    try:
        runner.clear(tmp_path / "run", Silent())
        there = {container.id for container in client.containers.list(all=True, ignore_removed=True)}
        assert {name for name, container in made.items() if container.id in there} == set(kept)
    finally:
        for container in made.values():
            containers_of_runs.remove(container)


def test_a_killed_harness_leaves_no_container_even_where_that_would_not_end(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    process, root = begin(tmp_path, entry="import time; print('here', flush=True); time.sleep(10**6)")
    while not (found := containers(client, root)) or found[0].status != "running":
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    while containers(client, root):
        time.sleep(0.05)


def test_a_polite_kill_cleans_up(client: docker.DockerClient, tmp_path: Path) -> None:
    process, root = begin(tmp_path)
    wait_for_records(process, root, 2)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1].decode()
    assert "InterruptedRunError" in said
    assert f"harness run --resume {root}" in said
    assert containers(client, root) == []


def test_a_missing_image_starts_nothing(tmp_path: Path) -> None:
    given = plan.make(experiment(arms=(Variant("combined", "13.0"),), reference="combined@13.0"))
    with pytest.raises(MachineError, match=r"combined:13\.0 is missing; run `harness build combined`"):
        DockerRunner().check(given, tmp_path, Silent())
