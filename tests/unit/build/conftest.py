"""Compiled designs for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import designs
from harness.build import kernels
from harness.build.toolchain import Installation
from harness.patch import manifest
from harness.patch.manifest import Manifest


@pytest.fixture
def compiled(installed: Callable[[str], Installation]) -> Callable[[str, str], tuple[Path, Manifest]]:
    """Compiles one of our designs by name under a toolchain: its folder and manifest."""

    def compile_one(design: str, version: str) -> tuple[Path, Manifest]:
        installed(version)
        folder = kernels.compile_design(designs.get(design), version)
        return folder, manifest.read(folder)

    return compile_one
