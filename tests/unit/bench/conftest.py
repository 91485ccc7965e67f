"""Cells small enough for a laptop, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.patch import manifest
from harness.records import Cell, Dataset, Timing, Workload

QUICK = Timing(warmup_passes=1, min_passes=8, max_passes=12, max_seconds=0.2, relative_interval=0.5)


@pytest.fixture
def cell() -> Callable[..., Cell]:
    """Makes a cell; keywords change its workload, or by their names the cell itself."""

    def make(**changes: Any) -> Cell:
        cell_fields: dict[str, Any] = {
            "id": "a",
            "design": "baseline",
            "toolchain": "12.1",
            "dataset": Dataset("medium"),
            "timing": QUICK,
            "replicate": 0,
            "seed": 7,
        }
        cell_fields |= {
            name: changes.pop(name) for name in list(changes) if name in Cell.__dataclass_fields__
        }
        work = {"device": "cpu", "tables": 3, "rows": 2000, "dim": 16, "batch": 32, "pooling": 10, **changes}
        return Cell(workload=Workload(**work), **cell_fields)

    return make


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    """As in the bench: nothing here keeps gradients."""
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a runner would set is unset."""
    for name in (
        "HARNESS_DESIGN",
        "HARNESS_RUNNER",
        "HARNESS_IMAGE",
        "HARNESS_GIT_COMMIT",
        "HARNESS_GIT_DIRTY",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def compiled_folder(tmp_path: Path) -> Path:
    """What a compiled design looks like on disk, without machine code."""
    folder = tmp_path / "compiled"
    folder.mkdir()

    def entry(arch: str, registers: int) -> manifest.Entry:
        return manifest.Entry(
            "lookup",
            arch,
            f"{arch}.cubin",
            "lookup_fi",
            "float32",
            "int64",
            {"distance": 2},
            registers,
            0,
            0,
            0.5,
            "f00d",
        )

    written = manifest.Manifest(
        design="baseline",
        source_hash="abc",
        toolchain="12.1",
        compiler="NVRTC 12.1.105",
        options=[],
        launch=manifest.LaunchShape(32, 8, 0, 1, 0, 0),
        tunables={"distance": 2},
        dtypes=["float32"],
        index_dtypes=["int64"],
        modes=["sum"],
        weighted=True,
        padding=True,
        max_dim=0,
        dim_multiple=1,
        prepares=False,
        all_tables=False,
        entries=[entry("sm_80", 74), entry("sm_90", 88)],
    )
    manifest.write(folder, written)
    return folder
