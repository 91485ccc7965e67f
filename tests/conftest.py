"""Which tests this machine can run. The others are skipped and named with the reason.

HARNESS_REQUIRE lists markers (for example "docker,browser") that must not be skipped: where the machine lacks
what they need they run and fail, so a broken set-up cannot pass for a good one.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.build.toolchain import Installation


def _no_docker() -> str:
    if shutil.which("docker") is None:
        return "needs the docker command (see `harness doctor`)"
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
        return "needs a Docker daemon that answers (see `harness doctor`)"
    if subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode:
        return "needs Docker's buildx plugin (see `harness doctor`)"
    return ""


def _no_podman() -> str:
    if shutil.which("podman") is None:
        return "needs the podman command (apt-get install podman)"
    from harness.build import podman
    from harness.errors import MachineError

    try:
        podman.require_limits()
    except MachineError as error:
        return str(error)
    return ""


def _no_slurm() -> str:
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if missing or importlib.util.find_spec("submitit") is None:
        return f"needs {', '.join(missing) or 'submitit'} (apt-get install slurm-wlm; pip install submitit)"
    return "needs root, to start Slurm's daemons" if os.getuid() else ""


def _no_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "needs an NVIDIA GPU and a CUDA build of PyTorch"


def _no_two_gpus() -> str:
    import torch

    return "" if torch.cuda.device_count() > 1 else "needs two NVIDIA GPUs"


def _no_fbgemm() -> str:
    return "" if importlib.util.find_spec("fbgemm_gpu") else "needs FBGEMM for this PyTorch (fbgemm-gpu)"


def _no_browser() -> str:
    return "" if shutil.which("chromium") else "needs Chromium (apt-get install chromium)"


def _no_compiler() -> str:
    return "" if shutil.which("c++") else "needs a C++ compiler (apt-get install g++)"


OBSTACLES: dict[str, Callable[[], str]] = {
    "docker": functools.cache(_no_docker),
    "podman": functools.cache(_no_podman),
    "slurm": functools.cache(_no_slurm),
    "gpu": functools.cache(_no_gpu),
    "two_gpus": functools.cache(_no_two_gpus),
    "fbgemm": functools.cache(_no_fbgemm),
    "browser": functools.cache(_no_browser),
    "compiler": functools.cache(_no_compiler),
    "nvrtc": lambda: "",  # the fixture `installed` finds out
}
"""By marker, why tests with it cannot run here; empty where they can."""


@functools.cache
def required() -> frozenset[str]:
    """The markers that HARNESS_REQUIRE names."""
    named = frozenset(filter(None, os.environ.get("HARNESS_REQUIRE", "").split(",")))
    if unknown := sorted(named - set(OBSTACLES)):
        raise pytest.UsageError(
            f"HARNESS_REQUIRE: {unknown[0]!r} is none of the markers {', '.join(OBSTACLES)}."
        )
    return named


def pytest_addoption(parser: pytest.Parser) -> None:
    """What tests/gpu/recording.py needs to be told."""
    parser.addoption("--gpu-record", metavar="FOLDER", help="write there what the tests on GPUs showed")


def pytest_configure(config: pytest.Config) -> None:
    """Has the tests on GPUs recorded where that is asked for."""
    # A shell's `make test &` has Ctrl-C ignored, and nohup the end of a terminal, here and in every program
    # that tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if config.getoption("--gpu-record") is not None:
        from tests.gpu.recording import recorder

        if (records := recorder(config)) is not None:
            config.pluginmanager.register(records)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, with the reason, what this machine cannot run."""
    for item in items:
        for marker in OBSTACLES.keys() - required():
            if item.get_closest_marker(marker) and (why := OBSTACLES[marker]()):
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def installed() -> Callable[[str], Installation]:
    """Installs a toolchain by name; the test is skipped where its wheels cannot be had."""
    from harness.build import toolchain
    from harness.errors import MachineError

    def install(name: str) -> Installation:
        try:
            return toolchain.install(toolchain.find(name))
        except MachineError as error:
            if "nvrtc" in required():
                raise
            pytest.skip(str(error))

    return install
