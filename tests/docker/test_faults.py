"""What may befall a run from outside: each ends it in a sentence, loses nothing, and the run can go on."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from harness import designs, plan, wall
from harness.build import engine, images
from harness.build.images import Target
from harness.errors import MachineError
from harness.experiment import Experiment
from harness.progress import Silent
from harness.records import Variant
from harness.run import campaign
from harness.run.attempt import Attempt
from harness.run.docker import DockerRunner
from harness.run.runner import Terms
from tests.docker.hostile_launch import __file__ as program
from tests.docker.test_container_runs import begin, containers, experiment, records
from tests.pretended_runner import FakeRunner, leave_record
from tests.processes import is_running
from tests.removing import remove_in_use

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount a file system")


def small() -> Experiment:
    """Two launches of two cells each."""
    return experiment(arms=(Variant("stock", "pytorch"),), reference="stock", replicates=2)


@pytest.fixture
def quick(built: list[Target], monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers leave good records at once, in place of measuring."""
    options = DockerRunner._options
    text = Path(program).read_text(encoding="utf-8")

    def changed(self: DockerRunner, *arguments: Any, **named: Any) -> dict[str, Any]:
        entry = ["python3", "-c", text, "nothing_but_a_good_record", "/"]
        return options(self, *arguments, **named) | {"entrypoint": entry}

    monkeypatch.setattr(DockerRunner, "_options", changed)


class AtLine(DockerRunner):
    """Does something when the first line of a launch's log is heard, and once only."""

    def __init__(self, what: Callable[[Attempt], object]) -> None:
        super().__init__()
        self._what: Callable[[Attempt], object] | None = what

    def run(self, attempt: Attempt, terms: Terms) -> Any:
        listener: Any = terms.listener
        line = listener.line

        def heard(text: str) -> None:
            if self._what is not None:
                what, self._what = self._what, None
                what(attempt)
            line(text)

        listener.line = heard
        return super().run(attempt, terms)


class AtLaunch(Silent):
    """Does something when a launch of this number begins."""

    def __init__(self, number: int, what: Callable[[], object]) -> None:
        self._left = number
        self._what = what

    def now(self, what: str) -> None:
        if what.endswith("starting"):
            self._left -= 1
            if self._left == 0:
                self._what()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def all_measured(root: Path, given: Experiment) -> bool:
    found = records(root)
    planned = {cell.id for cell in plan.make(given).cells}
    return set(found) == planned and {record.status for record in found.values()} == {"ok"}


@needs_root
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("left", [0, 8 * 2**20])
def test_a_disk_that_runs_full(left: int, disk: Path, client: docker.DockerClient) -> None:
    root = disk / "run"

    def fill(_: object) -> None:
        free = os.statvfs(disk)
        with (disk / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - left)

    with pytest.raises(MachineError, match=f"{root}: the disk is full. Make room; .*--resume {root}"):
        campaign.start(small(), AtLine(fill), root)
    assert containers(client, root) == []
    assert "failed" not in {record.status for record in records(root).values()}, "nothing of its own failed"
    (disk / "filler").unlink()
    campaign.resume(root, DockerRunner())
    assert all_measured(root, small())


@needs_root
@pytest.mark.usefixtures("quick")
def test_results_that_become_read_only(client: docker.DockerClient, tmp_path: Path) -> None:
    root = tmp_path / "run"
    cells = str(root / wall.CELLS)

    def make_read_only() -> None:
        subprocess.run(["mount", "--bind", cells, cells], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", cells], check=True)

    with pytest.raises(MachineError, match=r"any more \(Read-only file system\); mend that; 2 cells"):
        campaign.start(small(), DockerRunner(), root, progress=AtLaunch(2, make_read_only))
    assert containers(client, root) == []
    subprocess.run(["umount", cells], check=True)
    campaign.resume(root, DockerRunner())
    assert all_measured(root, small())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("what", ["all of it", "its cells", "what the launch writes"])
def test_results_removed_while_running(what: str, client: docker.DockerClient, tmp_path: Path) -> None:
    root = tmp_path / "run"

    def remove(attempt: Attempt) -> None:
        gone = {"all of it": root, "its cells": root / wall.CELLS, "what the launch writes": attempt.output}
        remove_in_use(gone[what])

    with pytest.raises(
        MachineError, match=r"was moved, removed or replaced|is gone, while the run was at work"
    ):
        campaign.start(small(), AtLine(remove), root)
    assert containers(client, root) == []
    if what != "all of it":
        campaign.resume(root, DockerRunner())
        assert all_measured(root, small())


@pytest.mark.usefixtures("quick")
def test_an_image_removed_between_launches(
    client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = client.images.get(f"{images.REGISTRY}/stock:pytorch")
    monkeypatch.setattr(images, "REGISTRY", "embedding-harness-test-gone")
    name = f"{images.REGISTRY}/stock:pytorch"
    image.tag(name)
    root = tmp_path / "run"
    try:
        gone = AtLaunch(2, lambda: client.images.remove(name))
        with pytest.raises(MachineError, match=f"{name} is missing; run `harness build stock`; 2 cells have"):
            campaign.start(small(), DockerRunner(), root, progress=gone)
        image.tag(name)
        campaign.resume(root, DockerRunner())
        assert all_measured(root, small())
    finally:
        client.images.remove(name)


_FLOOD = "import os\nwhile True: os.write(1, b'x' * 65536)"


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("flood", [_FLOOD, _FLOOD.replace("'x'", "'\\n'")])
def test_a_signal_takes_effect_while_a_launch_floods_its_log(
    flood: str, client: docker.DockerClient, tmp_path: Path
) -> None:
    process, root = begin(tmp_path, entry=flood)
    log = root / wall.CELLS
    while not any(path.stat().st_size for path in log.glob(f"*/{wall.LOG}")) and not containers(client, root):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1].decode()
    assert "InterruptedRunError" in said
    assert containers(client, root) == []


# An engine of the test's own, which may go away.

# Ends when it is asked to: the engine gives one that is deaf ten seconds whenever it ends or comes back.
_SLEEPER = """
#include <signal.h>
#include <unistd.h>
static void end(int number) { _exit(0); }
int main() { signal(SIGTERM, end); write(1, "here\\n", 5); for (;;) pause(); }
"""


class Engine:
    """A Docker daemon with a socket, images and containers of its own."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix://{folder}/docker.sock"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        folder = self._folder
        where = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "-p", f"{folder}/pid"]
        network = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--userland-proxy=false"]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["dockerd", "-H", self.address, *where, *network],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while True:
            if self._process.poll() is not None:
                text = (folder / "log").read_text(encoding="utf-8", errors="replace")
                pytest.fail(f"dockerd ended:\n{text[-3000:]}")
            asked = ["docker", "-H", self.address, "version"]
            if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        made = docker.DockerClient(self.address)
        try:
            yield made
        finally:
            made.close()

    def kill(self) -> None:
        """Ends it at once, with what belongs to it but its containers."""
        assert self._process is not None
        told = self._folder / "exec" / "containerd" / "containerd.pid"
        containerd = int(told.read_text(encoding="utf-8"))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # It dies with its parent. Until the first process of all has reaped it, which may take seconds, the
        # next dockerd would believe its number, and wait for its answers before it starts another.
        while is_running(containerd):
            time.sleep(0.01)
        told.unlink()

    def stop(self) -> None:
        """Ends it with its containers."""
        assert self._process is not None
        if self._process.poll() is not None:
            self.start()
        self._process.terminate()
        self._process.wait()
        # One that was killed leaves what it had mounted on its own folder.
        unmount = ["umount", "-l", str(self._folder / "data")]
        while subprocess.run(unmount, capture_output=True, check=False).returncode == 0:
            pass


@pytest.fixture
def own_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine with an image of stock whose program says a line and waits for ever."""
    if shutil.which("dockerd") is None:
        pytest.skip("needs dockerd, to start an engine of its own")
    if os.getuid():
        pytest.skip("needs root, to start an engine of its own")
    with tempfile.TemporaryDirectory(prefix="engine-", dir="/tmp") as short:  # as names of sockets have to be
        made = Engine(Path(short))
        made.start()
        try:
            monkeypatch.setenv("DOCKER_HOST", made.address)
            sleeper(tmp_path)
            yield made
        finally:
            made.stop()


def sleeper(folder: Path) -> None:
    """Imports the image, with the labels of one that was built from today's sources."""
    (folder / "sleeper.c").write_text(_SLEEPER, encoding="utf-8")
    subprocess.run(["cc", "-static", "-o", folder / "sleeper", folder / "sleeper.c"], check=True)
    target = Target(designs.get("stock"), "pytorch")
    labels = {"build-hash": images.build_hash(target, ""), "build-arguments": ""}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(folder / "sleeper", "sleeper")
    with engine.connection() as client:
        client.api.import_image_from_data(
            packed.getvalue(),
            repository=target.reference.rpartition(":")[0],
            tag="pytorch",
            changes=[f"LABEL {images.LABEL}.{key}={value}" for key, value in labels.items()]
            + ['ENTRYPOINT ["/sleeper"]'],
        )


def test_an_engine_that_goes_away(own_engine: Engine, tmp_path: Path) -> None:
    """What was measured before counts, the rest is measured when the engine is back, nothing has failed."""
    root = tmp_path / "run"
    measured: list[str] = []

    def go_away(attempt: Attempt) -> None:
        cell = attempt.launch.cells[0]
        leave_record(cell, attempt.output)
        measured.append(cell.id)
        own_engine.kill()

    with pytest.raises(MachineError, match=f"connection to the Docker daemon was lost .*--resume {root}"):
        campaign.start(small(), AtLine(go_away), root)
    assert records(root) == {}, "nobody can know yet whether anything still writes there"
    with pytest.raises(MachineError, match="No Docker daemon answers"):
        campaign.resume(root, DockerRunner())

    own_engine.start()
    with own_engine.client() as client:
        assert len(containers(client, root)) == 1
        DockerRunner().clear(root, Silent())
        assert containers(client, root) == []
    rest = FakeRunner()
    campaign.resume(root, rest)
    assert [name for _, names in rest.launched for name in names] == [
        cell.id for cell in plan.make(small()).cells if cell.id not in measured
    ]
    assert all_measured(root, small())


def test_an_engine_that_goes_away_between_launches(own_engine: Engine, tmp_path: Path) -> None:
    root = tmp_path / "run"
    with pytest.raises(MachineError, match=f"No Docker daemon answers.*--resume {root}"):
        campaign.start(small(), DockerRunner(), root, progress=AtLaunch(1, own_engine.kill))
    assert records(root) == {}
    rest = FakeRunner()
    campaign.resume(root, rest)
    assert len(rest.launched) == 2
    assert all_measured(root, small())
