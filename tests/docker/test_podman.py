"""Podman's containers of the very images that Docker built, and as much shut off as Docker's are."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from harness import plan, wall
from harness.build import archives, images
from harness.build import podman as engine
from harness.build.images import Target
from harness.errors import MachineError
from harness.experiment import to_toml
from harness.files import Folder
from harness.progress import Silent
from harness.run import attempt, campaign
from harness.run import podman as podman_runner
from harness.run.containers import RUN_LABEL
from harness.run.docker import DockerRunner
from harness.run.podman import PodmanRunner
from harness.run.runner import Outcome, Runner, Terms
from tests.docker import hostile_launch
from tests.docker.test_container_runs import experiment, records
from tests.docker.test_hostile_containers import BELIEVED, SAID, SECRET, state
from tests.pretended_runner import Heard

pytestmark = [
    pytest.mark.docker,
    pytest.mark.podman,
    pytest.mark.timeout(1200),
    pytest.mark.xdist_group("podman"),
    pytest.mark.usefixtures("loaded"),
]


@pytest.fixture(scope="module")
def loaded(built: list[Target], own_names: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The images of baseline and stock in Podman, by way of a file. There they stay, as they do in Docker:
    what the next test run builds shares most layers with them, and loads in a fraction of the time."""
    before = {found.id for target in built if (found := engine.image(target.reference))}
    file = tmp_path_factory.mktemp("archive") / "images.tar"
    saved = archives.save(built, file, Silent())
    told = archives.restore(file, into_podman=True, progress=Silent())
    assert told == saved
    file.unlink()
    for superseded in before - set(saved.images.values()):
        engine.run("rmi", "--force", superseded)


def containers(root: Path) -> list[str]:
    """Those of a run that are still there, running or not."""
    return [one.id for one in engine.containers(f"{RUN_LABEL}={root}")]


def test_the_images_are_the_very_ones(client: docker.DockerClient, built: list[Target]) -> None:
    for target in built:
        found = engine.image(target.reference)
        assert found is not None
        assert found.id == client.images.get(target.reference).id


def test_cells_on_the_cpu(tmp_path: Path) -> None:
    root = campaign.start(experiment(), PodmanRunner(), tmp_path / "run")
    found = records(root)
    assert {name: (record.status, record.message) for name, record in found.items()} == {
        cell.id: ("ok", "") for cell in plan.make(experiment()).cells
    }
    for record in found.values():
        assert record.environment is not None
        assert record.environment.runner == "podman"
        assert "@sha256:" in record.environment.image
        assert (root / "cells" / record.cell.id / wall.LOG).exists()
    assert containers(root) == []


PROBE = """
import json, os, resource, socket
def tries(what):
    try:
        what()
        return "done"
    except OSError as error:
        return error.strerror
def write(path):
    return tries(lambda: open(path, "w").close())
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
mounts = {line.split()[4]: line.split()[5].split(",")[0] for line in open("/proc/self/mountinfo")}
def limit(*paths):
    return next((int(open(path).read()) for path in paths if os.path.exists(path)), None)
print("SEEN " + json.dumps({
    "capabilities": [status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no new privileges": status["NoNewPrivs"].strip(),
    "filter": status["Seccomp"].strip(),
    "user": [os.getuid(), os.getgid()],
    "root": write("/x"), "etc": write("/etc/x"), "run": write("/run/x"), "var": write("/var/tmp/x"),
    "tmp": write("/tmp/x"), "cells": write("/launch/cells/x"), "out": write("/launch/out/x"),
    "network": sorted(os.listdir("/sys/class/net")),
    "mounts": {path: how for path, how in mounts.items() if path[:7] in ("/", "/tmp", "/launch")},
    "memory": limit("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"),
    "swap": limit("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "/sys/fs/cgroup/memory.swap.max"),
    "processes": limit("/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/pids.max"),
    "file size": resource.getrlimit(resource.RLIMIT_FSIZE), "core": resource.getrlimit(resource.RLIMIT_CORE),
    "variables": sorted(n for n in os.environ if n.startswith("HARNESS_") or "PROXY" in n.upper()),
    "shared memory": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
}))
"""


def seen(runner: Runner, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a launch finds that it may do."""
    with monkeypatch.context() as patch:
        put_in_place(patch, ["python3", "-c", PROBE])
        with Folder.open(folder) as root, attempt.begun(plan.make(experiment()).launches[0], root) as made:
            heard = Heard()
            runner.run(made, Terms(120, heard))
            made.discard(root)
    (line,) = (line for line in heard.lines if line.startswith("SEEN "))
    found: dict[str, Any] = json.loads(line.removeprefix("SEEN "))
    return found


def put_in_place(patch: pytest.MonkeyPatch, entry: list[str]) -> None:
    """Has containers of both kinds run this in place of the bench."""
    ours, theirs = PodmanRunner._options, DockerRunner._options

    def of_podman(self: PodmanRunner, *given: Any) -> list[str]:
        return [*ours(self, *given), f"--entrypoint={json.dumps(entry)}"]

    def of_docker(self: DockerRunner, *given: Any, **named: Any) -> dict[str, Any]:
        return theirs(self, *given, **named) | {"entrypoint": entry}

    patch.setattr(PodmanRunner, "_options", of_podman)
    patch.setattr(DockerRunner, "_options", of_docker)


def test_as_much_shut_off_as_dockers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:1")
    ours = seen(PodmanRunner(), tmp_path, monkeypatch)
    theirs = seen(DockerRunner(), tmp_path, monkeypatch)
    assert ours == theirs
    assert set(ours["capabilities"]) == {"0" * 16}
    assert (ours["no new privileges"], ours["filter"], ours["network"]) == ("1", "2", ["lo"])
    assert {ours[place] for place in ("root", "etc", "run", "var", "cells")} == {"Read-only file system"}
    assert (ours["tmp"], ours["out"]) == ("done", "done")


def run(folder: Path, entry: list[str], monkeypatch: pytest.MonkeyPatch, deadline_s: float = 120) -> Outcome:
    with monkeypatch.context() as patch:
        put_in_place(patch, entry)
        with Folder.open(folder) as root, attempt.begun(plan.make(experiment()).launches[0], root) as made:
            outcome = PodmanRunner().run(made, Terms(deadline_s, Heard()))
            assert made.over
            assert containers(folder) == []
            return outcome


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ("sh -c 'exit 3'", ("failed",), "exit code 3"),
        ("python3 -c 'import ctypes; ctypes.string_at(0)'", ("failed",), "SIGSEGV"),
        ("/no-such-program", ("failed",), "could not run the container"),
        ("sh -c 'sleep 600'", ("timeout",), "stopped at its deadline of 2 s"),
        ("python3 -c 'bytearray(2**30).count(1)'", ("oom",), "reached its memory limit"),
    ],
)
def test_how_launches_end(
    program: str, status: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "oom" in status:
        monkeypatch.setattr(podman_runner, "memory_bytes", lambda work: 2**28)
    outcome = run(tmp_path, shlex.split(program), monkeypatch, 2 if "timeout" in status else 120)
    assert outcome.status in status, outcome
    assert said in outcome.message


@pytest.mark.parametrize(
    "trick",
    [
        "records_are_links_to_a_secret",
        "files_without_an_end",
        "pipes",
        "everybody_is_killed",
        "processes_without_an_end",
        "a_rivals_records",
        "other_provenance",
    ],
)
def test_code_that_is_out_for_harm(trick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "secret").write_text(SECRET, encoding="utf-8")
    (host / "secret").chmod(0o600)
    (host / "victim").write_text("precious", encoding="utf-8")
    before = state(host)
    program = Path(hostile_launch.__file__).read_text(encoding="utf-8")
    put_in_place(monkeypatch, ["python3", "-c", program, trick, str(host)])
    given = replace(experiment(arms=experiment().arms[1:], reference="stock"), deadline_s=15.0)
    root = campaign.start(given, PodmanRunner(), tmp_path / "run")
    assert state(host) == before
    assert containers(root) == []
    for record in records(root).values():
        assert SECRET not in str(record)
        if trick in BELIEVED:
            assert record.status == "ok"
            assert record.environment is not None
            assert record.environment.runner == "podman"
        else:
            assert record.status in ("failed", "timeout")
            said = SAID.get(trick, "").split("|")
            assert record.status == "timeout" or any(words in record.message for words in said), record


_KILLED = """
import sys
from pathlib import Path
from harness import experiment
from harness.build import images
from harness.run import campaign
from harness.run.podman import PodmanRunner
images.REGISTRY = "embedding-harness-test"
campaign.start(experiment.read(Path(sys.argv[1])), PodmanRunner(), Path(sys.argv[2]))
"""


def test_nothing_is_left_of_a_killed_run(tmp_path: Path) -> None:
    given = experiment()
    endless = replace(
        given, timing=replace(given.timing, max_seconds=600, min_passes=10**8, max_passes=10**9)
    )
    (tmp_path / "endless.toml").write_text(to_toml(endless), encoding="utf-8")
    root = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", _KILLED, tmp_path / "endless.toml", root])
    while not containers(root):
        assert process.poll() is None
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(300):
        if not containers(root):
            break
        time.sleep(0.2)
    assert containers(root) == []


def test_an_image_of_other_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = plan.make(experiment())
    monkeypatch.setattr(images, "build_hash", lambda *_: "of tomorrow")
    with pytest.raises(MachineError, match=r"was built from other sources than today's; where Docker is"):
        PodmanRunner().check(given, tmp_path, Silent())
    monkeypatch.setattr(images, "REGISTRY", "embedding-harness-nowhere")
    with pytest.raises(MachineError, match=r"embedding-harness-nowhere/.* is missing; where Docker is"):
        PodmanRunner().check(given, tmp_path, Silent())
