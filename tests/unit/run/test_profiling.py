"""A run's cells under a profiler that is a script: which are looked at, and what is kept of each."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import plan, wall
from harness.errors import BadInputError, InterruptedRunError, MachineError
from harness.experiment import Experiment
from harness.files import Folder
from harness.profiles import KernelLaunch, Profile
from harness.progress import Silent
from harness.records import Cell, CellRecord, load, to_json, write_whole
from harness.run import attempt as attempts
from harness.run import campaign, profiling, spares
from harness.run import docker as docker_runner
from harness.run import ncu as profilers
from harness.run.attempt import Attempt
from harness.run.docker import DockerRunner
from harness.run.local import LocalRunner
from harness.run.ncu import Ncu
from harness.run.runner import Outcome, Terms
from harness.wall import Provenance
from tests.pretended_runner import Heard

RAW = Path(__file__).resolve().parents[2] / "data" / "ncu" / "raw.csv"


class Profiled:
    """Stands in for a runner whose profiler saw the launches of tests/data/ncu, of two cells."""

    def __init__(self, fake: Any) -> None:
        self.fake = fake
        self.check, self.hold, self.clear = fake.check, fake.hold, fake.clear
        self.asked: list[Ncu] = []
        self.says: list[list[str]] = []
        self.status: Callable[[Cell], str] = lambda cell: "ok"

    def run(self, attempt: Attempt, terms: Terms) -> Outcome:
        assert terms.under is not None
        self.asked.append(terms.under)
        attempt.sign(Provenance("docker"))
        for cell in attempt.launch.cells:
            terms.listener.line(wall.announce(cell.id))
            record = CellRecord(cell, self.status(cell), "It would not start." * (self.status(cell) != "ok"))  # type: ignore[arg-type]
            write_whole(attempt.output / wall.file_of(cell.id), to_json(record))
        for line in self.says.pop(0) if self.says else []:
            terms.listener.line(line)
        self.leave_report(attempt.output / wall.REPORT)
        attempt.over = True
        return Outcome("ended")

    @staticmethod
    def leave_report(path: Path) -> None:
        path.write_text("what the profiler wrote", encoding="utf-8")


@pytest.fixture
def ncu(tmp_path: Path) -> Ncu:
    path = tmp_path / "ncu"
    path.write_text(f"#!/bin/sh\ncat {RAW}\n", encoding="utf-8")
    path.chmod(0o755)
    return Ncu(path, "2025.3.1")


@pytest.fixture
def runner(runner: Any) -> Profiled:
    return Profiled(runner)


@pytest.fixture
def root(experiment: Experiment, runner: Profiled, tmp_path: Path) -> Path:
    work = dataclasses.replace(experiment.workload, device="cuda")
    what = dataclasses.replace(experiment, workload=work)
    return campaign.start(what, runner, tmp_path / "run", measure=False)  # type: ignore[arg-type]


def profile(root: Path, runner: Profiled, ncu: Ncu, **chosen: Any) -> list[Profile]:
    return profiling.profile(root, runner, ncu, **chosen)  # type: ignore[arg-type]


def test_laid_out_and_not_measured(root: Path, runner: Profiled) -> None:
    assert (root / "plan.json").is_file()
    assert runner.fake.launched == []
    assert list(root.glob("cells/*/record.json")) == []


def test_each_cell_gets_the_launches_behind_its_mark(root: Path, runner: Profiled, ncu: Ncu) -> None:
    made = profile(root, runner, ncu)
    # Two arms on two datasets; the first replicate only.
    assert len(made) == 4
    assert {one.cell.replicate for one in made} == {0}
    for one in made:
        assert load(Profile, root / "cells" / one.cell.id / "profile.json") == one
        assert (root / one.report).is_file()
    first, second = made[:2]
    assert [launch.name.split("<")[0] for launch in first.launches] == ["void prepare", "void lookup"] * 2
    assert len(second.launches) == 4
    assert [path.suffix for path in (root / wall.PROFILES).iterdir()] == [".ncu-rep"] * 2
    assert (root / first.report).read_text(encoding="utf-8") == "what the profiler wrote"
    assert not (root / wall.LAUNCHES).exists()


def test_each_pass_is_told_and_how_many_there_should_be(root: Path, runner: Profiled, ncu: Ncu) -> None:
    said: list[str] = []

    class Told(Silent):
        def now(self, what: str) -> None:
            said.append(what)

    shown = runner.run

    def three_passes(attempt: Attempt, terms: Terms) -> Outcome:
        for _ in range(2):
            for cell in attempt.launch.cells:
                terms.listener.line(wall.announce(cell.id))
        return shown(attempt, terms)

    runner.run = three_passes  # type: ignore[method-assign]
    asked = dataclasses.replace(ncu, metrics=profilers.COUNTERS["memory"])
    profile(root, runner, asked, arms=["stock"], datasets=["random"], progress=Told())
    told = [
        "pass 1 of about 2 of the counters",
        "pass 2 of about 2 of the counters",
        "pass 3 of the counters",
    ]
    assert said[-3:] == [f"stock, random, {words}" for words in told]


def test_only_what_was_chosen(root: Path, runner: Profiled, ncu: Ncu) -> None:
    (one,) = profile(root, runner, ncu, arms=["stock"], datasets=["random"])
    assert (one.cell.variant.label, one.cell.dataset.name) == ("stock", "random")
    with pytest.raises(BadInputError, match=r"--arm stokc: .* it has: .*stock"):
        profile(root, runner, ncu, arms=["stokc"])


def test_of_a_sweep_the_experiments_own_point(root: Path, runner: Profiled, ncu: Ncu) -> None:
    planned = load(plan.Plan, root / "plan.json")
    launch = planned.launches[0]
    cells = (launch.cells[0], dataclasses.replace(launch.cells[1], point="workload.batch=16"))
    cut = dataclasses.replace(planned, launches=(dataclasses.replace(launch, cells=cells),))
    write_whole(root / "plan.json", to_json(cut))
    (one,) = profile(root, runner, ncu)
    assert one.cell == cells[0]


def test_a_failed_cell_says_why_and_the_other_is_kept(root: Path, runner: Profiled, ncu: Ncu) -> None:
    runner.status = lambda cell: "failed" if cell.dataset.name == "random" else "ok"
    made = {one.cell.dataset.name: one for one in profile(root, runner, ncu, arms=["stock"])}
    assert (made["random"].status, made["random"].message) == ("failed", "It would not start.")
    assert made["one_item"].status == "ok"


def test_metrics_that_are_not_known_are_dropped_once_for_all(root: Path, runner: Profiled, ncu: Ncu) -> None:
    runner.says = [[r"==ERROR== Failed to find metric regex:^lts__t_sector_hit_rate\.pct(\.|$)"]]
    profile(root, runner, ncu)
    counts = [len(asked.metrics) for asked in runner.asked]
    assert counts == [len(profilers.METRICS), len(profilers.METRICS) - 1, len(profilers.METRICS) - 1]


def test_without_permission_nothing_goes_on(root: Path, runner: Profiled, ncu: Ncu) -> None:
    runner.says = [["==ERROR== ERR_NVGPUCTRPERM - no permission"]]
    with pytest.raises(MachineError, match="administrators"):
        profile(root, runner, ncu)
    assert len(runner.asked) == 1


def of_each(root: Path) -> dict[str, bool]:
    """By arm: whether its cells have their profiles."""
    cells = [cell for cell in load(plan.Plan, root / "plan.json").cells if cell.replicate == 0]
    return {c.variant.label: (root / "cells" / c.id / "profile.json").is_file() for c in cells}


def test_interrupted_it_keeps_the_arms_that_were_done_and_says_how_to_go_on(
    root: Path, runner: Profiled, ncu: Ncu, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Profiled.run

    def run(self: Profiled, attempt: Attempt, terms: Terms) -> Outcome:
        if self.asked:
            signal.raise_signal(signal.SIGTERM)
        return shown(self, attempt, terms)

    monkeypatch.setattr(Profiled, "run", run)
    with pytest.raises(InterruptedRunError) as caught:
        profile(root, runner, ncu, datasets=["random", "one_item"], options=["--counters", "memory"])
    done, left = of_each(root)
    assert of_each(root) == {done: True, left: False}
    assert str(caught.value) == (
        "Interrupted; 2 of 4 cells have their profiles. Go on with `harness profile "
        f"{root} --counters memory --arm {left} --dataset random --dataset one_item`."
    )
    assert not (root / wall.LAUNCHES).exists()
    runner.asked.clear()
    assert len(profile(root, runner, ncu, arms=[left])) == 2
    assert all(of_each(root).values())


def test_what_an_arms_passes_gave_is_kept_when_the_end_comes_behind_them(
    root: Path, runner: Profiled, ncu: Ncu, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = profiling._write

    def write(*given: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        written(*given)

    monkeypatch.setattr(profiling, "_write", write)
    with pytest.raises(InterruptedRunError, match=r"^Interrupted; 1 of 1 cells .*, and no other is left\.$"):
        profile(root, runner, ncu, arms=["stock"], datasets=["random"])
    assert load(Profile, next(root.glob("cells/*/profile.json"))).status == "ok"


def test_an_arm_with_tunables_is_one_word_of_the_command(root: Path) -> None:
    launches = load(plan.Plan, root / "plan.json").launches[:1]
    cells = tuple(dataclasses.replace(c, tunables={"path": 1, "bits": 32}) for c in launches[0].cells)
    label = cells[0].variant.label
    said = profiling._go_on(["a run"], [dataclasses.replace(launches[0], cells=cells)], [], [])
    command = said.split("`")[1]
    assert shlex.split(command) == ["harness", "profile", "a run", "--arm", label]


def test_a_run_on_the_cpu_is_refused(
    experiment: Experiment, runner: Profiled, ncu: Ncu, tmp_path: Path
) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run", measure=False)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="on the CPU"):
        profile(root, runner, ncu)


def test_launches_before_any_mark_belong_to_nobody() -> None:
    with pytest.raises(MachineError, match="begins with lookup"):
        profiling.by_cell([KernelLaunch("lookup", "(1, 1, 1)", "(1, 1, 1)")])


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_report_that_is_no_file_is_none(
    kind: str, root: Path, runner: Profiled, ncu: Ncu, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of the host", encoding="utf-8")
    make = {
        "link": lambda path: path.symlink_to(tmp_path / "secret"),
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
    }
    runner.leave_report = make[kind]  # type: ignore[method-assign]
    made = profile(root, runner, ncu)
    assert {(one.status, one.message) for one in made} == {("failed", "Nsight Compute left no report.")}
    assert list((root / wall.PROFILES).iterdir()) == []


def test_the_local_runner_starts_the_profiler_which_starts_the_program(
    experiment: Experiment, runner: Profiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: list[object] = []
    monkeypatch.setattr(spares, "may_load_beside", lambda launch, boards: True)
    monkeypatch.setattr(spares.Spares, "prepare", lambda self, board: beside.append(board))
    root = campaign.start(experiment, runner, tmp_path / "run", measure=False)  # type: ignore[arg-type]
    launch = plan.make(experiment).launches[0]
    script = tmp_path / "ncu"
    # What comes after --export and its file is the program.
    script.write_text(
        '#!/bin/sh\nwhile [ "$1" != --export ]; do shift; done\ntouch "$2"; shift 2; exec "$@"\n', "utf-8"
    )
    script.chmod(0o755)
    heard = Heard()
    local = LocalRunner()
    with (
        Folder.open(root) as folder,
        attempts.begun(launch, folder, profiled=True) as made,
        local.hold(root, Silent()),
    ):
        outcome = local.run(made, Terms(100, heard, under=Ncu(script, "2025.3.1")))
        assert beside == []  # nobody would take it
        assert (outcome.status, outcome.message) == ("ended", ""), heard.lines
        assert (made.output / wall.REPORT).is_file()
        assert "Only lookups on a GPU" in made.gather()[launch.cells[0].id].message


def test_a_profiled_container_writes_no_folder_of_the_hosts(root: Path) -> None:
    launch = load(plan.Plan, root / "plan.json").launches[0]
    ncu = Ncu(Path("/opt/nsight/ncu"), "2025.3.1")
    told = Provenance("docker")
    with Folder.open(root) as folder, attempts.begun(launch, folder, profiled=True) as made:
        plain = DockerRunner(gpu="1")._options(made, user="7:7", told=told, deadline_s=60)
        given = docker_runner.profiled(plain, ncu, "PERFMON")
    assert (given["user"], given["cap_add"], given["cap_drop"]) == ("0:0", ["PERFMON"], ["ALL"])
    assert given["network_mode"] == "none"
    assert given["entrypoint"] == ["/opt/ncu/ncu"]
    program = ["python3", "-m", wall.PROFILED, *plain["command"]]
    assert given["command"][-len(program) :] == program
    mounts = {m["Target"]: (m["Type"], m["Source"], m["ReadOnly"]) for m in given["mounts"]}
    assert mounts == {
        "/launch/cells": ("bind", str(made.cells), True),
        "/launch/out": ("volume", None, False),
        "/opt/ncu": ("bind", "/opt/nsight", True),
    }
    given = docker_runner.profiled(plain, ncu, "")
    assert given["user"] == "7:7"
    assert "cap_add" not in given
    assert "cap_add" not in plain


def test_nobody_gets_sys_admin_who_was_not_allowed_it() -> None:
    ncu = Ncu(Path("/opt/nsight/ncu"), "2025.3.1")
    plain: dict[str, Any] = {"command": [], "mounts": [], "user": "7:7"}
    with pytest.raises(MachineError, match=r"root's rights on this machine.*--allow-sys-admin"):
        docker_runner.profiled(plain, ncu, "SYS_ADMIN")
    assert docker_runner.profiled(plain, ncu, "SYS_ADMIN", allow_sys_admin=True)["cap_add"] == ["SYS_ADMIN"]
