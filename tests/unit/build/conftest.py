"""Toolchains for tests: installed on first use, from the network or from pip's own settings for wheels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import designs
from harness.build import kernels, toolchain
from harness.build.toolchain import Installation
from harness.errors import MachineError
from harness.patch import manifest
from harness.patch.manifest import Manifest


@pytest.fixture
def installed() -> Callable[[str], Installation]:
    """Installs a toolchain by name; the test is skipped where its wheels cannot be had."""

    def install(name: str) -> Installation:
        try:
            return toolchain.install(toolchain.find(name))
        except MachineError as error:
            if "nvrtc" in os.environ.get("HARNESS_REQUIRE", "").split(","):
                raise
            pytest.skip(str(error))

    return install


@pytest.fixture
def compiled(installed: Callable[[str], Installation]) -> Callable[[str, str], tuple[Path, Manifest]]:
    """Compiles one of our designs by name under a toolchain: its folder and manifest."""

    def compile_one(design: str, version: str) -> tuple[Path, Manifest]:
        installed(version)
        folder = kernels.compile_design(designs.get(design), version)
        return folder, manifest.read(folder)

    return compile_one
