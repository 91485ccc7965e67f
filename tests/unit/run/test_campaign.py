"""Every cell gets a record, and a run that was ended early goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import plan, wall
from harness.errors import BadInputError, InterruptedRunError, MachineError
from harness.experiment import Experiment, read
from harness.records import Cell, CellRecord, KernelFacts, Variant, load, to_json, write_whole
from harness.run import campaign, lease
from harness.run.attempt import Attempt, recorded_hash
from harness.run.runner import Outcome, Terms
from harness.sweep import Axis
from harness.traces import demand
from harness.traces.trace import write_trace
from tests.pretended_runner import leave_record


def records(root: Path) -> dict[str, CellRecord]:
    return {path.parent.name: load(CellRecord, path) for path in root.glob("cells/*/record.json")}


def raising(error: BaseException) -> Callable[[Cell, Path], None]:
    def measure(cell: Cell, root: Path) -> None:
        raise error

    return measure


def test_a_run_is_its_folder(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run")
    made = plan.make(experiment)
    assert [name for name, _ in runner.launched] == [launch.id for launch in made.launches]
    assert read(root / "experiment.toml") == experiment
    assert (root / "plan.json").read_text(encoding="utf-8") == to_json(made)
    assert set(records(root)) == {cell.id for cell in made.cells}
    assert set(demand.read(root)) == {("one_item", ""), ("random", "")}
    first = made.cells[0].id
    assert (root / "cells" / first / "log.txt").read_text(
        encoding="utf-8"
    ) == f"starting\nmeasuring {first}\n"


def test_trace_files_are_kept_with_the_run(
    experiment: Experiment, runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.txt").write_text("3\n1\n4\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    root = campaign.start(replace(experiment, datasets=("mine.txt",)), runner, tmp_path / "run")
    monkeypatch.chdir("/")
    campaign.resume(root, runner)
    assert np.load(root / "traces" / "mine.npy").tolist() == [3, 1, 4]
    assert demand.read(root)["mine", ""].batch_distinct_rows == 3
    assert all(record.cell.dataset.path == "traces/mine.npy" for record in records(root).values())


@pytest.fixture
def three_traces(tmp_path: Path) -> tuple[str, ...]:
    """The same row numbers as text, as an array, and imported (with bags of its own)."""
    (tmp_path / "text.txt").write_text("3\n1\n4\n", encoding="utf-8")
    np.save(tmp_path / "array.npy", np.array([3, 1, 4], dtype=np.uint16))
    rows = [(np.array([3, 1, 4]), 1.0)]
    write_trace(tmp_path / "imported", rows, rows=1000, origin="here", offsets=np.array([0, 1, 3]))
    return tuple(str(tmp_path / name) for name in ("text.txt", "array.npy", "imported"))


def test_every_kind_of_trace_is_kept_with_the_run(
    experiment: Experiment, runner: Any, tmp_path: Path, three_traces: tuple[str, ...]
) -> None:
    root = campaign.start(replace(experiment, datasets=(*three_traces, "mixed")), runner, tmp_path / "run")
    kept = {path.name: np.load(path).tolist() for path in (root / "traces").iterdir()}
    assert kept == {f"{name}.npy": [3, 1, 4] for name in ("text", "array", "imported")}
    cells = [record.cell for record in records(root).values()]
    assert {(cell.dataset.name, cell.dataset.origin) for cell in cells} == {
        *zip(("text", "array", "imported"), three_traces, strict=True),
        ("mixed", "synthetic"),
    }
    assert len({cell.id for cell in cells}) == 16


def test_a_run_needs_the_originals_no_more(
    experiment: Experiment, runner: Any, tmp_path: Path, three_traces: tuple[str, ...]
) -> None:
    root = campaign.start(replace(experiment, datasets=three_traces), runner, tmp_path / "run")
    before = (root / "traces" / "array.npy").read_bytes()
    np.load(three_traces[1], mmap_mode="r+")[:] = 7
    assert (root / "traces" / "array.npy").read_bytes() == before, "a copy, not a link"
    (tmp_path / "imported").rename(tmp_path / "gone")
    for name in three_traces[:2]:
        Path(name).unlink()
    forgotten = next(root.glob("cells/*/record.json"))
    forgotten.unlink()
    campaign.resume(root, runner)
    assert forgotten.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine.txt", r"mine\.txt: line 2: 'x' is not a whole number"),
        ("mine.npy", r"mine\.npy: access 2: row 1000 is outside the table \(0 to 999\)"),
        ("large", r"large: access 1: row 1500 is outside the table"),
        ("cut", r"cut/indices\.npy: is cut short, or no plain NumPy array"),
        ("damaged", r"damaged: is damaged: its row numbers or bags are not those that were imported"),
    ],
)
def test_a_bad_trace_starts_nothing(
    experiment: Experiment, runner: Any, tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "mine.txt").write_text("3\nx\n", encoding="utf-8")
    np.save(tmp_path / "mine.npy", np.array([3, 1000]))
    for folder in ("large", "cut"):
        write_trace(tmp_path / folder, [(np.array([1500]), 1.0)], rows=2000, origin="here")
    write_trace(tmp_path / "damaged", [(np.array([3, 1, 4]), 1.0)], rows=1000, origin="here")
    np.load(tmp_path / "damaged" / "indices.npy", mmap_mode="r+")[1] = 5
    os.truncate(tmp_path / "cut" / "indices.npy", 100)
    experiment = replace(experiment, datasets=("random", str(tmp_path / name)))
    with pytest.raises(BadInputError, match=said):
        campaign.start(experiment, runner, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert runner.checked == []


def test_a_trace_must_fit_the_smallest_tables_of_a_sweep(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "mine.npy", np.array([3, 500]))
    experiment = replace(experiment, datasets=(str(tmp_path / "mine.npy"),))
    sweep = (Axis("workload.rows", (100, 2000)),)
    with pytest.raises(BadInputError, match=r"mine\.npy: access 2: row 500 is outside the table \(0 to 99\)"):
        campaign.start(replace(experiment, sweep=sweep), runner, tmp_path / "run")
    campaign.start(experiment, runner, tmp_path / "run")


def test_a_run_goes_on_with_the_traces_that_it_began_with(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "mine.npy", np.array([3, 1, 4]))
    experiment = replace(experiment, datasets=(str(tmp_path / "mine.npy"),))
    root = campaign.start(experiment, runner, tmp_path / "run")
    next(root.glob("cells/*/record.json")).unlink()
    kept = root / "traces" / "mine.npy"
    np.load(kept, mmap_mode="r+")[1] = 5
    with pytest.raises(BadInputError, match=r"traces/mine\.npy: has changed since the run began"):
        campaign.resume(root, runner)
    kept.unlink()
    with pytest.raises(BadInputError, match=r"traces/mine\.npy: cannot be read: No such file"):
        campaign.resume(root, runner)


def test_a_wrong_machine_starts_nothing(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    def refuse(*_: Any) -> None:
        raise MachineError("No Docker here.")

    runner.check = refuse
    with pytest.raises(MachineError, match="No Docker here"):
        campaign.start(experiment, runner, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("ending", "status", "said"),
    [
        (Outcome("ended"), "failed", "without leaving a record"),
        (Outcome("failed", "It crashed."), "failed", "It crashed."),
        (Outcome("timeout", "Too late."), "timeout", "Too late."),
        (Outcome("oom", "Too big."), "oom", "Too big."),
    ],
)
def test_cells_without_a_record_get_one(
    experiment: Experiment, runner: Any, tmp_path: Path, ending: Outcome, status: str, said: str
) -> None:
    runner.measure = lambda cell, root: None
    runner.ending = ending
    root = campaign.start(experiment, runner, tmp_path / "run")
    found = records(root)
    assert len(found) == 8
    for name, record in found.items():
        assert (record.status, said in record.message) == (status, True)
        assert f"measuring {name}" in record.log_tail


def test_cells_that_never_began_say_so(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    def run(attempt: Attempt, terms: Terms) -> Outcome:
        terms.listener.line(wall.announce(attempt.launch.cells[0].id))
        attempt.over = True
        return Outcome("timeout", "Too late.")

    runner.run = run
    root = campaign.start(experiment, runner, tmp_path / "run")
    found = records(root)
    for launch in plan.make(experiment).launches:
        first, second = (found[cell.id] for cell in launch.cells)
        assert first.message == "Too late."
        assert second.message == "Not begun, since the launch ended early: Too late."
        assert second.log_tail == ""


def test_interrupted_and_resumed(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    root = tmp_path / "run"
    order = [cell.id for cell in plan.make(experiment).cells]

    def measure(cell: Cell, output: Path) -> None:
        if cell.id == order[3]:
            os.kill(os.getpid(), signal.SIGTERM)
        leave_record(cell, output)

    runner.measure = measure
    with pytest.raises(InterruptedRunError, match=f"3 cells have their records.*--resume {root}") as raised:
        campaign.start(experiment, runner, root)
    assert raised.value.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    before = {name: (root / "cells" / name / "record.json").stat().st_mtime_ns for name in order[:3]}
    runner.measure, runner.launched = leave_record, []
    campaign.resume(root, runner)
    assert [name for _, names in runner.launched for name in names] == order[3:]
    assert before == {n: (root / "cells" / n / "record.json").stat().st_mtime_ns for n in order[:3]}
    assert set(records(root)) == set(order)


def test_a_sweep_is_resumed_where_it_was_stopped(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    axes = (Axis("workload.batch", (2, 8, 16)), Axis("workload.rows", (10, 100), {"tables": 1}))
    root = tmp_path / "run"
    campaign.start(replace(experiment, sweep=axes), runner, root)
    order = [name for _, names in runner.launched for name in names]
    assert len(set(order)) == 2 * 2 * 2 * (1 + 2 + 2)
    # Batches of 2, 8 and 16 bags of 4 rows, and twice 8 of them in smaller tables.
    for dataset in experiment.datasets:
        asked = [one.lookups for (name, _), one in demand.read(root).items() if name == dataset]
        assert sorted(asked) == [8, 32, 32, 32, 64]
    stopped = order[7:]
    for name in stopped:
        (root / "cells" / name / "record.json").unlink()
    runner.launched = []
    campaign.resume(root, runner)
    assert [name for _, names in runner.launched for name in names] == stopped
    assert {r.cell.workload.batch for r in records(root).values()} == {2, 8, 16}


def test_a_closed_terminal_ends_a_run_as_ctrl_c_does_unless_that_is_ignored(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    def measure(cell: Cell, output: Path) -> None:
        leave_record(cell, output)
        os.kill(os.getpid(), signal.SIGHUP)

    runner.measure = measure
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may be run under nohup
    try:
        with pytest.raises(InterruptedRunError, match="1 cell has its record"):
            campaign.start(experiment, runner, tmp_path / "run")
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        campaign.start(experiment, runner, tmp_path / "under nohup")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert len(records(tmp_path / "under nohup")) == 8


def test_what_somebody_deleted_from_a_run_is_laid_out_again(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run")
    cells = [cell.id for cell in plan.make(experiment).cells]
    shutil.rmtree(root / "cells" / cells[0])
    (root / "cells" / cells[1] / "record.json").unlink()
    (root / "cells" / cells[1] / "cell.json").unlink()
    campaign.resume(root, runner)
    assert set(records(root)) == set(cells)


def test_damaged_and_misplaced_records_are_not_taken_for_measurements(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run")
    one, other = (root / "cells" / cell.id / "record.json" for cell in plan.make(experiment).cells[:2])
    runner.launched = []
    for content, said in (
        (other.read_text(encoding="utf-8"), f"{one}: is the record of another cell, {other.parent.name}"),
        ("{", f"{one}: is not JSON"),
    ):
        one.write_text(content, encoding="utf-8")
        campaign.resume(root, runner)
        found = records(root)[one.parent.name]
        assert found.status == "failed"
        assert said in found.message
        assert one.with_name("record.damaged.json").read_text(encoding="utf-8") == content, "nothing is lost"
    assert runner.launched == []
    campaign.resume(root, runner, retry_failed=True)
    assert [names for _, names in runner.launched] == [[one.parent.name]]
    assert {record.status for record in records(root).values()} == {"ok"}


@pytest.mark.parametrize("place", ["file", "file/run", "missing/run"])
def test_a_place_where_no_run_can_be_written_is_bad_input(
    place: str, experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "missing").symlink_to("/proc/nowhere")
    with pytest.raises(BadInputError, match=f"{place}: is no folder that a run can write to: "):
        campaign.start(experiment, runner, tmp_path / place)
    assert runner.launched == []


def test_a_machine_that_fails_on_the_way_says_how_to_go_on(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    runner.measure = raising(MachineError("No Docker daemon answers; start it."))
    with pytest.raises(MachineError, match=f"answers; start it; 0 cells have their records.*--resume {root}"):
        campaign.start(experiment, runner, root)


def test_a_full_disk_ends_the_run_in_a_sentence(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    root = tmp_path / "run"
    runner.measure = raising(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(MachineError, match=f"the disk is full.*--resume {root}"):
        campaign.start(experiment, runner, root)
    runner.measure = leave_record
    campaign.resume(root, runner)
    assert len(records(root)) == 8


def test_other_errors_of_the_system_are_not_taken_for_a_full_disk(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    runner.measure = raising(OSError(errno.EIO, "Input/output error", "/elsewhere"))
    with pytest.raises(OSError, match="Input/output"):
        campaign.start(experiment, runner, tmp_path / "run")


def test_failed_cells_are_tried_again_only_when_asked(
    experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    bad = plan.make(experiment).cells[2].id
    runner.measure = lambda cell, root: None if cell.id == bad else leave_record(cell, root)
    campaign.start(experiment, runner, root)
    runner.measure, runner.launched = leave_record, []
    campaign.resume(root, runner)
    assert runner.launched == []
    campaign.resume(root, runner, retry_failed=True)
    assert [names for _, names in runner.launched] == [[bad]]
    assert records(root)[bad].status == "ok"


def test_a_run_is_not_started_over(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run")
    with pytest.raises(BadInputError, match="holds a run already"):
        campaign.start(experiment, runner, root)


def test_only_runs_are_resumed(runner: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no plan\.json"):
        campaign.resume(tmp_path, runner)


def test_a_changed_experiment_is_not_resumed(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run")
    text = (root / "experiment.toml").read_text(encoding="utf-8")
    (root / "experiment.toml").write_text(text.replace("replicates = 2", "replicates = 3"), encoding="utf-8")
    with pytest.raises(BadInputError, match=r"plan\.json is not the plan"):
        campaign.resume(root, runner)


def test_a_changed_design_is_not_resumed(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    facts, own = KernelFacts("baseline", "", "NVRTC", "sm_90", 1, 0, 0, 1.0, ""), recorded_hash("baseline")
    root = campaign.start(experiment, runner, tmp_path / "run")
    for source, said in (("of yesterday", "baseline has changed since"), (own, None)):
        for name, record in records(root).items():
            if record.cell.design == "baseline":
                kernel = replace(facts, source_hash=source)
                write_whole(root / "cells" / name / "record.json", to_json(replace(record, kernel=kernel)))
        with contextlib.ExitStack() as expected:
            if said:
                expected.enter_context(pytest.raises(BadInputError, match=said))
            campaign.resume(root, runner)


@pytest.mark.parametrize("design", ["baseline", "fbgemm", "stock"])
def test_records_on_the_cpu_are_of_no_source_and_are_resumed(
    design: str, experiment: Experiment, runner: Any, tmp_path: Path
) -> None:
    arm = Variant(design, "12.1" if design == "baseline" else "pytorch")
    root = tmp_path / "run"
    kernel = KernelFacts(
        design, recorded_hash(design) if design == "fbgemm" else "", "", "cpu", 0, 0, 0, 0.0, ""
    )
    runner.measure = lambda cell, output: leave_record(cell, output, kernel=kernel)
    campaign.start(replace(experiment, arms=(arm,), reference=arm.label), runner, root)
    assert {record.status for record in records(root).values()} == {"ok"}
    campaign.resume(root, runner)


def test_a_folder_in_use_is_refused(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    root = campaign.start(experiment, runner, tmp_path / "run")
    with (
        lease.run_folder(root),
        pytest.raises(BadInputError, match=f"in use by another process .process {os.getpid()}"),
    ):
        campaign.resume(root, runner)


def test_progress_counts_every_cell_once(experiment: Experiment, runner: Any, tmp_path: Path) -> None:
    class Count:
        expected = done = 0
        said: list[str]

        def __init__(self) -> None:
            self.said = []

        def expect(self, steps: int) -> None:
            self.expected = steps

        def now(self, what: str) -> None:
            pass

        def advance(self, steps: int = 1) -> None:
            self.done += steps

        def say(self, line: str) -> None:
            self.said.append(line)

    count = Count()
    bad = plan.make(experiment).cells[1].id
    runner.measure = lambda cell, root: None if cell.id == bad else leave_record(cell, root)
    root = campaign.start(experiment, runner, tmp_path / "run", progress=count)
    assert (count.expected, count.done) == (8, 8)
    assert [line.split(":")[0] for line in count.said] == [bad]
    again = Count()
    campaign.resume(root, runner, retry_failed=True, progress=again)
    assert (again.expected, again.done) == (8, 8)
