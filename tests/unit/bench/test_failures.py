"""Every way a cell can end has a status and one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness import patch
from harness.bench import design, failures
from harness.bench.batch import Batch
from harness.bench.cell import Bench
from harness.bench.failures import CellError, describe, require_gpu
from harness.bench.tables import TableStore
from harness.errors import BadInputError
from harness.patch import manifest
from harness.records import Cell, to_json
from tests.effort import calls


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Pretends a CUDA build whose start fails with the given error."""

    def pretend(error: Exception) -> None:
        def fail() -> None:
            raise error

        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "init", fail)

    return pretend


NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU\nand installed"
TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update"


@pytest.mark.parametrize(
    ("said", "runner", "expected"),
    [
        (NO_DRIVER, "docker", r"^No NVIDIA GPU is visible in this container: start it with --gpus"),
        (
            "No CUDA GPUs are available",
            "local",
            r"^No NVIDIA GPU is visible in this process: check nvidia-smi",
        ),
        (TOO_OLD, "docker", r"^The NVIDIA driver is too old for CUDA 13\.0 .*found version 11040"),
        (
            "Unexpected error 802: system not yet initialized",
            "local",
            r"could not be initialised .* error 802",
        ),
    ],
)
def test_no_usable_gpu_is_explained(
    cuda_build: Callable[[Exception], None],
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    runner: str,
    expected: str,
) -> None:
    monkeypatch.setenv("HARNESS_RUNNER", runner)
    cuda_build(RuntimeError(said))
    with pytest.raises(CellError, match=expected) as raised:
        require_gpu()
    assert raised.value.status == "failed"
    assert "\n" not in str(raised.value)


def test_a_cell_for_the_gpu_fails_with_that_sentence(
    cell: Callable[..., Cell], cuda_build: Callable[[Exception], None], tmp_path: Path
) -> None:
    cuda_build(RuntimeError(NO_DRIVER))
    record = Bench(tmp_path).measure(cell(device="cuda"))
    assert record.status == "failed"
    assert record.message.startswith("No NVIDIA GPU is visible in this process")
    assert record.environment is not None
    assert (record.environment.device, record.environment.gpu) == ("cuda", "")
    assert "device: cuda" in record.log_tail
    to_json(record)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nmore"), "oom", "20 GiB"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: 9 bytes"), "oom", "9 bytes"),
        (MemoryError(), "oom", "MemoryError"),
        (
            RuntimeError("CUDA error: device-side assert triggered\nCompile with"),
            "failed",
            "device-side assert",
        ),
        (
            RuntimeError("Design x is compiled for sm_80.\nException raised"),
            "failed",
            "^Design x is compiled",
        ),
        (BadInputError("mine.npy: is wrong."), "failed", r"^mine\.npy: is wrong\.$"),
        (KeyError("what"), "failed", "KeyError"),
    ],
)
def test_errors_become_a_status_and_a_sentence(error: Exception, status: str, said: str) -> None:
    found = describe(error)
    assert found[0] == status
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(found[1])
    assert "\n" not in found[1]


def test_an_unforeseen_error_leaves_its_trace_in_the_record_and_frees_the_tables(
    cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    monkeypatch.setattr(Batch, "lookup", lambda self, table: 1 / 0)
    record = bench.measure(cell())
    assert record.status == "failed"
    assert "ZeroDivisionError" in record.message
    assert "Traceback" in record.log_tail
    assert not bench._tables.hold(cell().workload, 7)
    monkeypatch.undo()
    assert bench.measure(cell()).status == "ok"


def test_a_lost_gpu_fails_the_rest_and_names_the_culprit(
    cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: Batch, table: int) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Batch, "lookup", crash)
    monkeypatch.setattr(failures, "context_lost", lambda: True)
    bench = Bench(tmp_path)
    first, second = bench.measure(cell(id="bad")), bench.measure(cell(id="innocent"))
    assert "illegal memory access" in first.message
    assert second.message == "Not measured: cell bad left the GPU unusable for this process."
    assert [first.status, second.status] == ["failed", "failed"]
    third = bench.measure(cell(id="third"))
    assert "cell bad" in third.message


def test_too_little_memory_is_found_before_anything_is_made(
    cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TableStore, "get", lambda *_: pytest.fail("tables were made"))
    records = []
    asked = cell(tables=10_000, rows=10_000_000, dim=128)
    # Each number of tables that may fit is tried; none of the tables is looked at for that.
    assert calls(lambda: records.append(Bench(tmp_path).measure(asked))) < 500 * 10_000
    (record,) = records
    assert record.status == "oom"
    assert "GB of memory" in record.message


def test_sample_weights_with_mean_are_refused(cell: Callable[..., Cell], tmp_path: Path) -> None:
    record = Bench(tmp_path).measure(cell(weighted=True, mode="mean"))
    assert record.status == "failed"
    assert record.message.startswith("workload.weighted: ")


def test_another_design_than_the_cells_is_refused(
    cell: Callable[..., Cell], tmp_path: Path, compiled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DESIGN", str(compiled_folder))
    record = Bench(tmp_path).measure(cell(design="optmt"))
    assert record.message == "The cell asks for optmt@12.1, but baseline@12.1 is what this process carries."
    record = Bench(tmp_path).measure(cell(toolchain="13.0"))
    assert (
        record.message == "The cell asks for baseline@13.0, but baseline@12.1 is what this process carries."
    )
    assert Bench(tmp_path).measure(cell()).status == "ok"


def test_only_the_design_may_have_answered(monkeypatch: pytest.MonkeyPatch, compiled_folder: Path) -> None:
    contestant = design.Contestant(manifest.read(compiled_folder), tunables={"distance": 2})
    ran = {"design": 12, "stock": 0, "kernel": "lookup_fi", "arch": "sm_90", "fallback": ""}
    monkeypatch.setattr(patch, "calls", lambda: ran)
    facts = design.confirm(contestant)
    assert (facts.name, facts.arch, facts.registers) == ("baseline", "sm_90", 88)
    ran |= {"stock": 3, "fallback": "mode is max"}
    with pytest.raises(
        CellError, match=r"PyTorch's own kernel, and not baseline, .* 3 of 15 .*: mode is max\."
    ):
        design.confirm(contestant)
    ran |= {"design": 0, "stock": 0}
    with pytest.raises(CellError, match="0 of 0"):
        design.confirm(contestant)
