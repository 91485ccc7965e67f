"""Parts of a run that were measured apart are joined, and what does not belong together is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from harness import plan, wall
from harness.cli import cli
from harness.errors import BadInputError
from harness.experiment import Experiment
from harness.records import CellRecord, KernelFacts, Workload, load, to_json, write_whole
from harness.run import campaign, manifest, merging, part
from harness.traces import demand
from tests.pretended_runner import FakeRunner, leave_record


def records(root: Path) -> dict[str, CellRecord]:
    return {path.parent.name: load(CellRecord, path) for path in root.glob("cells/*/record.json")}


@pytest.fixture
def halves(experiment: Experiment, tmp_path: Path) -> tuple[Path, Path]:
    """The two replicates of an experiment with a trace of its own, each measured by itself."""
    np.save(tmp_path / "mine.npy", np.array([3, 1, 4]))
    given = replace(experiment, datasets=("random", str(tmp_path / "mine.npy")))
    roots = tmp_path / "one", tmp_path / "other"
    for number, root in enumerate(roots, 1):
        campaign.start(given, FakeRunner(), root, part=part.Part(number, 2))
    return roots


def test_a_part_is_some_replicates_and_is_remembered(experiment: Experiment, tmp_path: Path) -> None:
    experiment = replace(experiment, replicates=5)
    runner = FakeRunner()
    root = campaign.start(experiment, runner, tmp_path / "run", part=part.Part(2, 3))
    assert {record.cell.replicate for record in records(root).values()} == {1, 4}
    runner.launched = []
    campaign.resume(root, runner)
    assert runner.launched == []
    next(root.glob("cells/*/record.json")).unlink()
    campaign.resume(root, runner)
    assert len(runner.launched) == 1


def test_joined_runs_are_the_whole_one(halves: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = halves
    output = tmp_path / "whole"
    assert merging.merge([one, other], output) == 8
    joined = {p.relative_to(output): p.read_bytes() for p in output.rglob("*") if p.is_file()}
    for half in halves:
        for path in (p for p in half.rglob("*") if p.is_file()):
            if path.name not in (".lock", ".lock.json", part.FILE, manifest.FILE):
                assert joined[path.relative_to(half)] == path.read_bytes(), path
    assert (output / manifest.FILE).is_file(), "it is complete"
    assert (output / wall.TRACES).stat().st_mode & 0o777 == 0o755
    demand.check_traces(output)
    runner = FakeRunner()
    campaign.resume(output, runner)
    assert runner.launched == []
    # Joining what was joined already, or a run with itself, adds nothing and loses nothing.
    assert merging.merge([output, one], tmp_path / "again") == 8


def test_what_is_missing_is_measured_later(experiment: Experiment, tmp_path: Path) -> None:
    given = replace(experiment, replicates=3)
    for number in (1, 2):
        campaign.start(given, FakeRunner(), tmp_path / str(number), part=part.Part(number, 3))
    assert merging.merge([tmp_path / "1", tmp_path / "2"], tmp_path / "whole") == 8
    runner = FakeRunner()
    campaign.resume(tmp_path / "whole", runner)
    assert len(records(tmp_path / "whole")) == 12
    assert {name[-1] for name, _ in runner.launched} == {"2"}


def changed(root: Path, change: Callable[[CellRecord], CellRecord]) -> None:
    """Every record of a run, changed."""
    for name, record in records(root).items():
        write_whole(root / wall.CELLS / name / wall.RECORD, to_json(change(record)))


def on_gpu(uuid: str, gpu: str = "H100") -> Callable[[CellRecord], CellRecord]:
    def change(record: CellRecord) -> CellRecord:
        assert record.environment is not None
        return replace(record, environment=replace(record.environment, device="cuda", gpu=gpu, gpu_uuid=uuid))

    return change


def test_boards_of_one_model_are_joined(halves: tuple[Path, Path], tmp_path: Path) -> None:
    for number, half in enumerate(halves):
        changed(half, on_gpu(f"GPU-{number}"))
    assert merging.merge(halves, tmp_path / "whole") == 8


def other_trace(one: Path, other: Path) -> None:
    path = other / wall.TRACES / "mine.npy"
    np.save(path, np.array([3, 1, 5]))
    told = json.loads((other / demand.FILE).read_text(encoding="utf-8"))
    (other / demand.FILE).write_text(
        json.dumps(told | {"traces": {"traces/mine.npy": demand._sha256(path)}}), encoding="utf-8"
    )


def other_experiment(one: Path, other: Path) -> None:
    text = (other / wall.EXPERIMENT).read_text(encoding="utf-8")
    (other / wall.EXPERIMENT).write_text(text.replace("batch = 8", "batch = 16"), encoding="utf-8")


def other_plan(one: Path, other: Path) -> None:
    made = plan.read(other / wall.PLAN)
    write_whole(other / wall.PLAN, to_json(replace(made, launches=made.launches[::-1])))


def twice(one: Path, other: Path) -> None:
    name, record = next(iter(records(one).items()))
    folder = other / wall.CELLS / name
    write_whole(folder / wall.RECORD, to_json(replace(record, message="measured again")))


def another_model(one: Path, other: Path) -> None:
    changed(one, on_gpu("GPU-0"))
    changed(other, on_gpu("GPU-1", "A100"))


def split_over_boards(one: Path, other: Path) -> None:
    changed(one, on_gpu("GPU-0"))
    name = next(iter(records(one)))
    shutil.move(one / wall.CELLS / name / wall.RECORD, other / wall.CELLS / name / wall.RECORD)
    changed(other, on_gpu("GPU-1"))


def misplaced(one: Path, other: Path) -> None:
    first, second = list(records(other))[:2]
    shutil.copy(other / wall.CELLS / first / wall.RECORD, other / wall.CELLS / second / wall.RECORD)


def linked(one: Path, other: Path) -> None:
    path = other / wall.CELLS / next(iter(records(other))) / wall.RECORD
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def at_work(one: Path, other: Path) -> None:
    (other / wall.LAUNCHES).mkdir()


def no_run(one: Path, other: Path) -> None:
    (other / wall.PLAN).unlink()


def without_records(one: Path, other: Path) -> None:
    for half in (one, other):
        for path in half.glob(f"{wall.CELLS}/*/{wall.RECORD}"):
            path.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (other_trace, r"other/traces/mine\.npy: is not the trace that .*one measured"),
        (other_experiment, r"other: is of another experiment than .*one \(other workload\)"),
        (other_plan, r"other: has another plan\.json than .*one, so another version"),
        (twice, r"other: has measured .*-r0, and so has .*one; .*--part 1/2"),
        (another_model, r"other: is of another model of GPU \(A100\) than .*one; `harness report"),
        (split_over_boards, r"other: holds a part of replicate 1 from GPU GPU-1, and .*one the rest"),
        (misplaced, r"record\.json: is the record of another cell"),
        (linked, r"record\.json: is a link"),
        (at_work, r"other: is at work, or was killed"),
        (no_run, r"other: is not the folder of a run \(it has no plan\.json\)"),
        (without_records, r"neither this run nor the others hold any record"),
    ],
)
def test_what_does_not_belong_together_is_refused_and_nothing_written(
    spoil: Callable[[Path, Path], None], said: str, halves: tuple[Path, Path], tmp_path: Path
) -> None:
    spoil(*halves)
    with pytest.raises(BadInputError, match=said):
        merging.merge(halves, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_other_sources_are_refused(experiment: Experiment, tmp_path: Path) -> None:
    given = replace(experiment, workload=Workload(tables=2, rows=1000, dim=16, batch=8, pooling=4))
    roots = [tmp_path / "one", tmp_path / "other"]
    for number, root in enumerate(roots, 1):
        runner = FakeRunner()

        def measure(cell: Any, output: Path, own: str = f"source {number}") -> None:
            leave_record(cell, output, kernel=KernelFacts("x", own, "NVRTC", "sm_90", 1, 0, 0, 1.0, ""))

        runner.measure = measure
        campaign.start(given, runner, root, part=part.Part(number, 2))
        changed(root, lambda record: replace(record, status="ok", message=""))
    for root, own in zip(roots, ("a", "b"), strict=True):
        for name, record in records(root).items():
            kernel = KernelFacts("x", own, "NVRTC", "sm_90", 1, 0, 0, 1.0, "")
            write_whole(root / wall.CELLS / name / wall.RECORD, to_json(replace(record, kernel=kernel)))
    with pytest.raises(BadInputError, match=r"other: .* is of other sources \(b\) than in .*one \(a\)"):
        merging.merge(roots, tmp_path / "whole")


def built(build: str) -> Callable[[CellRecord], CellRecord]:
    """Measured with a library of this build, or by a program that told of none."""
    libraries = {"fbgemm_gpu/fbgemm.so": build} if build else {}
    kernel = KernelFacts("fbgemm", "a", "FBGEMM", "sm_90", 1, 0, 0, 1.0, "", libraries)
    return lambda record: replace(record, kernel=kernel)


@pytest.mark.parametrize(("one", "other"), [("a", "a"), ("a", "")])
def test_one_build_of_a_library_is_joined(
    one: str, other: str, halves: tuple[Path, Path], tmp_path: Path
) -> None:
    changed(halves[0], built(one))
    changed(halves[1], built(other))
    assert merging.merge(halves, tmp_path / "whole") == 8


def test_other_builds_of_a_library_are_refused(halves: tuple[Path, Path], tmp_path: Path) -> None:
    """Though it is of one version, and what binds it is the same."""
    changed(halves[0], built("a" * 64))
    changed(halves[1], built("b" * 64))
    said = r"other: fbgemm_gpu/fbgemm\.so is of another build \(b{12}\) than in .*one \(a{12}\)"
    with pytest.raises(BadInputError, match=said):
        merging.merge(halves, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_nothing_is_joined_into_a_run_that_is_there(halves: tuple[Path, Path]) -> None:
    with pytest.raises(BadInputError, match="holds a run already"):
        merging.merge(halves, halves[0])
    with pytest.raises(BadInputError, match="is one run; name those"):
        merging.merge(halves[:1], halves[0].with_name("whole"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3", "is no part of a whole"),
        ("0/2", "is no part"),
        ("3/2", "is no part"),
        ("1/3", "the experiment's 2 replicates make 2 parts at most; .*--set replicates=3"),
    ],
)
def test_parts_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(BadInputError, match=f"--part '?{text}'?: .*{said}"):
        part.of_text(text, 2)


def invoke(*arguments: object) -> Sequence[object]:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=True)
    return result.exit_code, str(result.exception), result.stdout


def test_the_command_line(halves: tuple[Path, Path], tmp_path: Path) -> None:
    code, _, said = invoke("merge", *halves, "--output", tmp_path / "whole")
    assert code == 0
    assert "whole, 8 cells with a record" in str(said)
    code, error, _ = invoke("run", "smoke", "--local", "--part", "9/9", "--output", tmp_path / "run")
    assert "parts at most" in str(error)
    assert not (tmp_path / "run").exists()
