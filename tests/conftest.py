"""Which tests this machine can run. The others are skipped and named with the reason.

HARNESS_REQUIRE lists markers (for example "docker,browser") that must not be skipped: where the machine lacks
what they need they run and fail, so a broken set-up cannot pass for a good one.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

import pytest


@functools.cache
def _missing(marker: str) -> str:
    """Why tests with this marker cannot run here; empty where they can."""
    if marker == "docker":
        if shutil.which("docker") is None:
            return "needs the docker command (see `harness doctor`)"
        if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
            return "needs a Docker daemon that answers (see `harness doctor`)"
        if subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode:
            return "needs Docker's buildx plugin (see `harness doctor`)"
    if marker == "gpu":
        import torch

        if not torch.cuda.is_available():
            return "needs an NVIDIA GPU and a CUDA build of PyTorch"
    if marker == "browser" and shutil.which("chromium") is None:
        return "needs Chromium (apt-get install chromium)"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, with the reason, what this machine cannot run."""
    required = set(filter(None, os.environ.get("HARNESS_REQUIRE", "").split(",")))
    for item in items:
        for marker in ("docker", "gpu", "browser"):
            if item.get_closest_marker(marker) and marker not in required and (why := _missing(marker)):
                item.add_marker(pytest.mark.skip(reason=why))
