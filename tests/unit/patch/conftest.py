"""Compiled designs without NVIDIA's compiler: a manifest, and files in place of cubins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import patch
from harness.designs import OUTPUTS
from harness.patch.manifest import LaunchShape, Manifest, write
from tests.unit.patch import fake_gpu
from tests.unit.patch.pretended_entry import entries

MakeDesign = Callable[..., Path]


@pytest.fixture(scope="session")
def fake_cuda() -> Path:
    """The folder with the pretended driver and backend."""
    if torch.version.cuda is not None:
        pytest.skip("this PyTorch has a CUDA backend of its own")
    return fake_gpu.libraries()


@pytest.fixture
def make_design(tmp_path: Path) -> Iterator[MakeDesign]:
    """Writes a design for sm_80 and sm_90: kernels of `combined`, with the template tunable `distance` of 2
    or 4, and the run-time `pinned_rows`."""

    def make(name: str = "two_way", **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        manifest = Manifest(
            design=name,
            source_hash="0" * 16,
            toolchain="12.1",
            compiler="NVRTC 12.1.105",
            options=[],
            launch=LaunchShape(
                threads_x=32, threads_y=8, blocks=1024, bags_per_block=1, columns_per_block=0, blocks_per_sm=0
            ),
            tunables={"distance": 2, "pinned_rows": 60_000},
            dtypes=["float32", "float16"],
            index_dtypes=["int32", "int64"],
            modes=["sum", "mean"],
            weighted=True,
            padding=True,
            max_dim=0,
            dim_multiple=1,
            prepares=True,
            all_tables=False,
            entries=entries(folder, "combined", archs=("sm_80", "sm_90"), distance=(2, 4)),
        )
        write(folder, dataclasses.replace(manifest, **changes))
        return folder

    yield make
    patch.remove()


@pytest.fixture
def make_tables_design(make_design: MakeDesign, tmp_path: Path) -> MakeDesign:
    """Writes a design for sm_90 that takes all tables, of every type: the kernels of `fused` for any call, or
    those of another."""

    def make(name: str = "every_table", kernels_of: str = "fused", **changes: Any) -> Path:
        launch = LaunchShape(
            threads_x=32, threads_y=4, blocks=0, bags_per_block=1, columns_per_block=0, blocks_per_sm=0
        )
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        settings: dict[str, Any] = {
            "launch": launch,
            "tunables": {},
            "dtypes": list(OUTPUTS),
            "modes": ["sum", "mean", "max"],
            "prepares": False,
            "all_tables": True,
            "entries": entries(folder, kernels_of, function=["lookup_tables"]),
        }
        return make_design(name, **{**settings, **changes})

    return make
