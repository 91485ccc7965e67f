"""What both runners share: exit codes in words, checks of the machine."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import plan
from harness.build import kernels
from harness.errors import BadInputError, MachineError
from harness.experiment import Experiment
from harness.progress import Silent
from harness.run import gpu as gpus
from harness.run import lease
from harness.run.runner import check_machine, exit_sentence, held_gpus
from harness.sweep import Axis

H100 = gpus.Gpu(0, "GPU-1", "H100", "580.65.06", 80 * 2**30, 79 * 2**30)


@pytest.mark.parametrize(
    ("code", "said"),
    [(137, "SIGKILL"), (-9, "SIGKILL"), (139, "SIGSEGV (a crash"), (-11, "SIGSEGV"), (1, "exit code 1.")],
)
def test_exit_codes_in_words(code: int, said: str) -> None:
    assert said in exit_sentence(code)


@pytest.fixture
def on_gpu(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the plan of a GPU workload, on a machine with one H100."""
    monkeypatch.setattr(gpus, "gpus", lambda: [H100])
    monkeypatch.setattr(kernels, "toolchains", lambda: {"12.1": SimpleNamespace(minimum_driver="525.60.13")})

    def make(**changes: Any) -> plan.Plan:
        workload = replace(experiment.workload, device="cuda", **changes)
        return plan.make(replace(experiment, workload=workload))

    return make


def test_a_good_machine(on_gpu: Any, experiment: Experiment, tmp_path: Path) -> None:
    assert check_machine(on_gpu(), tmp_path / "not" / "yet", "0") == [H100]
    assert check_machine(on_gpu(), tmp_path, "GPU-1") == [H100]
    assert check_machine(plan.make(experiment), tmp_path, "7") == []


def test_an_unknown_gpu(on_gpu: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"--gpu 1: .*there are: 0 \(H100, GPU-1\)"):
        check_machine(on_gpu(), tmp_path, "1")


def test_an_old_driver(on_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "gpus", lambda: [replace(H100, driver="525.9")])
    with pytest.raises(MachineError, match=r"NVRTC 12.1 need NVIDIA driver 525.60.13 .* has 525.9"):
        check_machine(on_gpu(), tmp_path, "0")


def test_too_little_gpu_memory(on_gpu: Any, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"needs about 17\d.\d GiB .* has 79.0 of 80.0 GiB free"):
        check_machine(on_gpu(tables=12, rows=30_000_000, dim=128), tmp_path, "0")


def test_points_of_a_sweep_that_do_not_fit_stop_nothing(
    on_gpu: Any, experiment: Experiment, tmp_path: Path
) -> None:
    work = replace(experiment.workload, device="cuda")
    sweep = (Axis("workload.rows", (1000, 30_000_000), {"tables": 12, "dim": 128}),)
    assert check_machine(plan.make(replace(experiment, workload=work, sweep=sweep)), tmp_path, "0") == [H100]


def test_a_full_disk(on_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * 2**20))
    with pytest.raises(MachineError, match=f"{tmp_path}: has 10 MiB left"):
        check_machine(on_gpu(), tmp_path / "run", "0")


def test_drivers_are_compared_by_number() -> None:
    assert gpus.older("525.60.13", "580.65.06")
    assert gpus.older("99.1", "525.60.13")
    assert not gpus.older("580.65.06", "580.65.06")


def test_several_gpus_are_held_in_one_order_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise two runs that wait could wait for each other."""
    held: list[str] = []

    @contextlib.contextmanager
    def hold(uuid: str, *_: Any, **__: Any) -> Iterator[None]:
        held.append(uuid)
        yield
        held.remove(uuid)

    monkeypatch.setattr(lease, "gpu", hold)
    boards = [replace(H100, uuid=f"GPU-{number}", index=number) for number in (2, 0, 1)]
    with held_gpus(boards, tmp_path, wait=True, progress=Silent()):
        assert held == ["GPU-0", "GPU-1", "GPU-2"]
    assert held == []


def test_boards_of_a_run_have_memory_enough_each(
    on_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = replace(H100, index=1, uuid="GPU-2", free_bytes=2**20)
    monkeypatch.setattr(gpus, "gpus", lambda: [H100, busy])
    assert check_machine(on_gpu(), tmp_path, "0") == [H100]
    with pytest.raises(MachineError, match=r"but GPU 1 \(H100\) has 0.0 of 80.0 GiB free"):
        check_machine(on_gpu(), tmp_path, "all")
