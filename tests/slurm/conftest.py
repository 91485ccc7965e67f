"""A cluster of three nodes on this machine: a real slurmctld, a slurmd for each node, and a munged."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.removing import remove_in_use

NODES = ("node1", "node2", "node3")
_CONF = """
ClusterName=harness-test
SlurmctldHost={host}
SlurmUser=root
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
JobRequeue=0
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1
SelectType=select/cons_tres
KillWait=2
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=60 State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster at work."""

    folder: Path

    def said(self, *command: str) -> str:
        """What one of Slurm's commands says."""
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def running(self) -> dict[str, str]:
        """The node of each job that runs."""
        lines = self.said("squeue", "--noheader", "--array", "--states=R", "--format=%i %N").splitlines()
        return {words[0]: words[1] for line in lines if len(words := line.split()) == 2}

    def queued(self) -> list[str]:
        """Jobs that run or wait."""
        return self.said("squeue", "--noheader", "--array", "--format=%i").split()


def _free_ports(count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    for one in taken:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in taken]
    for one in taken:
        one.close()
    return ports


@pytest.fixture(scope="session")
def _at_work() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="harness-slurm-"))
    ports = _free_ports(1 + len(NODES))
    host = socket.gethostname()
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=100"
        for name, port in zip(NODES, ports[1:], strict=True)
    )
    (folder / "state").mkdir()
    conf = folder / "slurm.conf"
    conf.write_text(
        _CONF.format(folder=folder, ports=ports, nodes=nodes, host=f"{host}(127.0.0.1)"),
        encoding="utf-8",
    )
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    folder.chmod(0o755)
    environment = os.environ | {"SLURM_CONF": str(conf)}
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munged += [f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log"]
    munged += [f"--seed-file={folder}/munged.seed"]
    commands = [munged, ["slurmctld", "-D"], *(["slurmd", "-D", "-N", name] for name in NODES)]
    started: list[subprocess.Popen[bytes]] = []
    with (folder / "log").open("wb") as log:
        try:
            for command in commands:
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
                if command is munged:
                    _wait_for(lambda: (folder / "munge.socket").exists(), folder)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SLURM_CONF", str(conf))
                cluster = Cluster(folder)
                _wait_for(lambda: _idle() == len(NODES), folder)
                yield cluster
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()
    remove_in_use(folder)


def _idle() -> int:
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--states=idle", "--format=%N"], capture_output=True, check=False
    )
    return len(done.stdout.split())


def _wait_for(what: object, folder: Path) -> None:
    for _ in range(300):
        if what():  # type: ignore[operator]
            return
        time.sleep(0.2)
    pytest.fail((folder / "log").read_text(encoding="utf-8", errors="replace")[-3000:])


@pytest.fixture
def cluster(_at_work: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, with nothing in its queue before and behind the test."""
    monkeypatch.setenv("SLURM_CONF", str(_at_work.folder / "slurm.conf"))
    yield _at_work
    if queued := _at_work.queued():
        _at_work.said("scancel", *queued)
    _wait_for(lambda: not _at_work.queued(), _at_work.folder)
