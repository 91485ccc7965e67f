"""Kills runs at any moment, goes on with them, and counts what was lost, measured twice, or left at work.

Launches run `quick_launch.py` in place of the bench, which measures nothing and takes a fraction of a second
for a cell. For each record that it has left it notes the cell and a number that no other record has in a file
outside the run; so what ought to be in the run is known.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import plan, wall
from harness.experiment import Experiment, to_toml
from harness.progress import Progress
from harness.records import CellRecord, Timing, Variant, Workload, load
from harness.run.gpu import Gpu
from harness.run.local import LocalRunner

_HERE = Path(__file__).parent
GIVEN = Experiment(
    name="killed",
    title="Killed over and over",
    arms=(Variant("stock", "pytorch"),),
    reference="stock",
    datasets=("one_item", "random"),
    workload=Workload(tables=2, rows=100, dim=4, batch=4, pooling=2, device="cpu"),
    timing=Timing(max_seconds=0.1),
    replicates=4,
)
_RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from tests import killing
killing.run_here(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
"""


def run_here(kind: str, root: Path, noted: Path) -> None:
    """Starts the run or goes on with it, in this process, until all its cells are measured."""
    from harness import experiment
    from harness.build import images
    from harness.run import campaign, local
    from harness.run.docker import DockerRunner
    from harness.run.runner import Runner

    program = (_HERE / "quick_launch.py").read_text(encoding="utf-8")
    runner: Runner
    if kind == "docker":
        images.REGISTRY = "embedding-harness-test"
        runner = _quick_containers(DockerRunner, program, noted)()
    else:
        local._BENCH = local._TIED + f"sys.argv[1:1] = [{str(noted)!r}]\n" + program
        runner = LocalRunner() if kind == "local" else OnPretendedBoards(root)
    if not (root / wall.PLAN).exists():
        campaign.start(experiment.read(root.with_suffix(".toml")), runner, root)
    campaign.resume(root, runner)
    while any(record.status != "ok" for record in _records(root).values()):
        campaign.resume(root, runner, retry_failed=True)


def pretended(root: Path, count: int = 3) -> list[Gpu]:
    """Boards in name alone, which no other run knows."""
    of_run = hashlib.sha256(str(root).encode()).hexdigest()[:8]
    return [Gpu(n, f"GPU-{of_run}-{n}", "no such board", "", 2**36, 2**36) for n in range(count)]


class OnPretendedBoards(LocalRunner):
    """Local processes on the CPU, each told that it is on some board; boards are held as real ones are."""

    def __init__(self, root: Path, count: int = 3) -> None:
        super().__init__()
        self._pretended = pretended(root, count)

    def check(self, plan: plan.Plan, folder: Path, progress: Progress) -> None:
        super().check(plan, folder, progress)
        self.boards = self._pretended


def _records(root: Path) -> dict[str, CellRecord]:
    return {path.parent.name: load(CellRecord, path) for path in root.glob(f"{wall.CELLS}/*/{wall.RECORD}")}


def boards_of(root: Path) -> dict[int, set[str]]:
    """By replicate, the boards that measured it."""
    found: dict[int, set[str]] = {}
    for record in _records(root).values():
        assert record.environment is not None
        found.setdefault(record.cell.replicate, set()).add(record.environment.gpu_uuid)
    return found


def _quick_containers(docker_runner: type, program: str, noted: Path) -> type:
    """Containers of the quick program, which may write to one file of the test's besides its output."""
    from docker.types import Mount

    class Quick(docker_runner):  # type: ignore[misc]
        def _options(self, *arguments: object, **named: object) -> dict[str, object]:
            options: dict[str, object] = super()._options(*arguments, **named)
            mounts = [*options["mounts"], Mount("/noted", str(noted), type="bind")]  # type: ignore[misc]
            return options | {"entrypoint": ["python3", "-c", program, "/noted"], "mounts": mounts}

    return Quick


@dataclass
class Tally:
    """What came of all kills."""

    kills: int = 0
    runs: int = 0
    records: int = 0
    lost: int = 0
    """Records that were there once and are not in the run."""
    doubled: int = 0
    """Cells that were measured again although their record was there."""
    left_behind: int = 0
    """Processes or containers at work when nobody was left to wait for them."""
    by_kind: Counter[str] | None = None

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted((self.by_kind or {}).items()))
        return (
            f"{self.kills} kills ({kinds}) in {self.runs} runs: {self.records} records, {self.lost} lost, "
            f"{self.doubled} doubled, {self.left_behind} left behind"
        )


def killed_over_and_over(
    kind: str,
    kills: int,
    seed: int,
    folder: Path,
    at_work: Callable[[Path], int],
    kill_launch: Callable[[Path], bool],
) -> Tally:
    """Kills runs until so many kills have met a run at work.

    `at_work`: how many processes or containers of a run's launches there are; `kill_launch`: kills one of
    them, if there is one.
    """
    chance = random.Random(seed)
    tally = Tally(by_kind=Counter())
    while tally.kills < kills:
        root = folder / f"run{tally.runs}"
        root.with_suffix(".toml").write_text(to_toml(GIVEN), encoding="utf-8")
        noted = folder / f"noted{tally.runs}"
        noted.touch()
        noted.chmod(0o666)
        while (process := _begin(kind, root, noted)) is not None:
            if tally.kills < kills:
                _wait_for_a_moment(process, root, noted, chance)
            else:
                process.wait()
            if not _killed(process, root, chance, tally, at_work, kill_launch) and process.returncode == 0:
                break
        tally.runs += 1
        _count(root, noted, tally)
        tally.left_behind += at_work(root)
    return tally


def _begin(kind: str, root: Path, noted: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _RUN, kind, str(root), str(noted), str(_HERE.parent)]
    with (root.with_suffix(".log")).open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _wait_for_a_moment(
    process: subprocess.Popen[bytes], root: Path, noted: Path, chance: random.Random
) -> None:
    """Until the run has begun, has measured none, some or all of what it lacks, and a while has passed; or it
    has ended. So one that is killed again and again comes to its end, however slow the machine is."""
    measured = _measured(noted)
    left = max(0, len(plan.make(GIVEN).cells) - measured)
    wanted = measured + chance.randint(0, left)
    while process.poll() is None and not (root.exists() and _measured(noted) >= wanted):
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=chance.uniform(0, 1.5))


def _measured(noted: Path) -> int:
    """How many records the launches have left so far."""
    return noted.read_text(encoding="utf-8").count("\n")


def _killed(
    process: subprocess.Popen[bytes],
    root: Path,
    chance: random.Random,
    tally: Tally,
    at_work: Callable[[Path], int],
    kill_launch: Callable[[Path], bool],
) -> bool:
    """Whether the run was killed, in some way; it may have ended before that."""
    assert tally.by_kind is not None
    if process.poll() is not None:
        assert process.returncode in (0, 5, 130), root.with_suffix(".log").read_text(encoding="utf-8")[-3000:]
        return False
    how = chance.choice(("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT twice", "SIGTERM and SIGKILL", "launch"))
    if how == "launch":
        # The harness lives, and has to make something of it.
        killed = kill_launch(root)
        tally.kills += killed
        tally.by_kind[how] += killed
        process.wait()
        return False
    tally.kills += 1
    tally.by_kind[how] += 1
    if how == "SIGTERM and SIGKILL":
        process.terminate()
        time.sleep(chance.uniform(0, 0.5))
        process.kill()
    elif how == "SIGINT twice":
        process.send_signal(signal.SIGINT)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGINT)
    else:
        process.send_signal(signal.SIGKILL if how == "SIGKILL" else signal.SIGTERM)
    process.wait()
    # A moment later nothing of it is at work, though nobody has gone on with the run.
    for _ in range(600):
        if not (left := at_work(root)):
            break
        time.sleep(0.1)
    tally.left_behind += left
    return True


def _count(root: Path, noted: Path, tally: Tally) -> None:
    """What of all that was measured is in the run."""
    planned = {cell.id for cell in plan.make(GIVEN).cells}
    found = _records(root)
    assert set(found) == planned
    assert {record.status for record in found.values()} == {"ok"}
    assert not (root / wall.LAUNCHES).exists()
    lines = [line.split() for line in noted.read_text(encoding="utf-8").splitlines()]
    for cell_id, number in lines:
        tally.lost += found[cell_id].facts["number"] != float(number)
    measured = Counter(cell_id for cell_id, _ in lines)
    tally.doubled += sum(count - 1 for count in measured.values())
    tally.records += len(found)


def children_at_work(root: Path) -> list[int]:
    """Processes of this machine that run a launch of the run on the host."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"{root}/{wall.LAUNCHES}".encode() in b" ".join(words) and b"--output" in words:
            found.append(int(folder.name))
    return found


def kill_child(root: Path) -> bool:
    """Kills the process of a launch."""
    for pid in children_at_work(root):
        try:
            os.kill(pid, signal.SIGKILL)
            return True
        except ProcessLookupError:
            continue
    return False
