"""`harness baseline`: PyTorch's kernel out of a wheel, and our baseline beside it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.build import kernels, published
from harness.cli import cli
from harness.experiment import Experiment
from harness.patch import manifest
from harness.records import Cell, CellRecord
from harness.run import campaign, runner
from tests import synthetic_run
from tests import synthetic_wheel as synthetic


def harness(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=True)


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for our compiled baseline, of 74 registers on sm_80 and sm_90: no test here compiles."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    taken = manifest.read(published.take(synthetic.published(tmp_path / "ours.whl", version="0.0.1")))
    folder = tmp_path / "ours"
    folder.mkdir()
    entries = [e for e in taken.entries if e.arch != "sm_86" and e.dtype != "bfloat16"]
    compiled = dataclasses.replace(taken, design="baseline", toolchain="12.1", entries=entries)
    manifest.write(folder, dataclasses.replace(compiled, compiler="NVRTC 12.1.105"))
    monkeypatch.setattr(kernels, "compile_design", lambda design, version, **more: folder)
    return folder


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[Experiment]]:
    """Lets a run measure nothing: PyTorch's kernel is given so many times the baseline's time."""

    def pretend(factor: float, processes_differ: float = 0.0005) -> list[Experiment]:
        begun: list[Experiment] = []

        def make(cell: Cell) -> CellRecord:
            record = synthetic_run.record(cell, passes=12)
            aim = 100 * (factor if cell.design == "stock" else 1.0)
            # Each for itself: what a replicate's processes have in common says nothing of the two.
            aim *= 1 + processes_differ * ((cell.replicate + (cell.design == "stock")) % 3 - 1)
            return dataclasses.replace(
                record, samples={"kernel_us": [aim * (1 + 0.001 * (n % 3)) for n in range(12)]}
            )

        def start(what: Experiment, chosen: Any, root: Path, *, progress: Any) -> Path:
            begun.append(what)
            return synthetic_run.write_run(root, what, make)

        monkeypatch.setattr(runner, "choose", lambda **how: None)
        monkeypatch.setattr(campaign, "start", start)
        return begun

    return pretend


def test_registers_alike(ours: Path, tmp_path: Path) -> None:
    done = harness("baseline", "verify", synthetic.published(tmp_path / "torch.whl"))
    assert done.exit_code == 0, done.output
    assert "nvcc 12.1, in PyTorch 2.1.0+cu121" in done.output
    assert "Alike: 8 of 8 kernels that both have." in done.output


def test_registers_that_differ(ours: Path, tmp_path: Path) -> None:
    wheel = synthetic.published(tmp_path / "torch.whl", 52, "2.9.1+cu128")
    done = harness("baseline", "verify", wheel, "--json")
    assert done.exit_code == 3, done.output
    found = json.loads(done.stdout)
    assert (found["pytorch"], found["baseline"], found["alike"], found["timing"]) == (
        "2.9.1+cu128",
        "baseline@12.1",
        False,
        None,
    )
    assert {(k["theirs"]["registers"], k["ours"]["registers"], k["alike"]) for k in found["kernels"]} == {
        (52, 74, False)
    }


@pytest.mark.parametrize(
    ("factor", "processes_differ", "code"),
    [(1.0, 0.0005, 0), (1.004, 0.0005, 0), (1.05, 0.0005, 3), (0.95, 0.0005, 3), (1.0, 0.03, 4)],
)
def test_speed_that_is_the_same_or_not(
    ours: Path, measured: Any, tmp_path: Path, factor: float, processes_differ: float, code: int
) -> None:
    begun = measured(factor, processes_differ)
    wheel = synthetic.published(tmp_path / "torch.whl")
    done = harness("baseline", "verify", wheel, "--time", "--local", "--output", tmp_path / "run", "--json")
    assert done.exit_code == code, done.output
    timing = json.loads(done.stdout)["timing"]
    assert [c["dataset"] for c in timing["comparisons"]] == ["one_item", "high", "medium", "low", "random"]
    assert {(c["a"], c["b"], c["metric"]) for c in timing["comparisons"]} == {
        ("baseline@12.1", "stock@2.1.0+cu121", "kernel_us")
    }
    assert (tmp_path / "run" / "plan.json").is_file()
    assert begun[0].replicates == 5


def test_a_threshold_and_settings_of_one_s_own(ours: Path, measured: Any, tmp_path: Path) -> None:
    begun = measured(1.02)
    wheel = synthetic.published(tmp_path / "torch.whl")
    options = ["--time", "--threshold", 5, "--set", "replicates=3", "--output", tmp_path / "run"]
    done = harness("baseline", "verify", wheel, *options)
    assert done.exit_code == 0, done.output
    assert begun[0].replicates == 3
    assert f"harness report {tmp_path / 'run'}" in done.output


def test_other_registers_are_told_whatever_the_speed(ours: Path, measured: Any, tmp_path: Path) -> None:
    measured(1.0)
    wheel = synthetic.published(tmp_path / "torch.whl", 52)
    assert harness("baseline", "verify", wheel, "--time", "--output", tmp_path / "run").exit_code == 3


def test_what_cannot_be_asked_is_refused(ours: Path, tmp_path: Path) -> None:
    wheel = synthetic.published(tmp_path / "torch.whl")
    assert "--set goes with --time" in harness("baseline", "verify", wheel, "--set", "seed=2").output
    cpu = harness("baseline", "verify", wheel, "--time", "--set", "workload.device=cpu")
    assert "--time measures kernels of GPUs" in str(cpu.exception)


def test_kernels_are_taken_out_shown_and_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    wheels = [
        synthetic.published(tmp_path / "old.whl"),
        synthetic.published(tmp_path / "new.whl", 40, "2.11.0+cu130", "zstandard"),
    ]
    done = harness("baseline", "extract", *wheels, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"stock-2.1.0+cu121", "stock-2.11.0+cu130"}
    (old, new) = (line for line in done.output.splitlines() if "stock" in line)
    assert (old.split()[1], old.split()[5]) == ("2.1.0+cu121", "74")
    assert (new.split()[1], new.split()[5]) == ("2.11.0+cu130", "40")
    rows = json.loads(harness("baseline", "extract", tmp_path / "out" / "stock-2.1.0+cu121", "--json").stdout)
    assert len(rows) == 18
    assert {row["registers"] for row in rows} == {74}
