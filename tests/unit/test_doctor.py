"""The doctor finds what is missing beforehand, names the remedy and never fails itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import doctor
from harness.build import kernels
from harness.errors import MachineError
from harness.run import gpu as gpus
from harness.run import ncu


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with nothing on it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))

    def none() -> list[gpus.Gpu]:
        raise MachineError("There is no NVIDIA GPU; install one.")

    monkeypatch.setattr(gpus, "gpus", none)
    monkeypatch.setattr(ncu, "_PLACES", ())


@pytest.mark.usefixtures("bare")
def test_nsight_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ncu").write_text("#!/bin/sh\necho Version 2025.3.1.0\n", encoding="utf-8")
    (tmp_path / "ncu").chmod(0o755)
    for parameters, said in (("RmProfilingAdminOnly: 0", "everybody"), ("", "administrator")):
        (tmp_path / "params").write_text(f"{parameters}\n", encoding="utf-8")
        monkeypatch.setattr(ncu, "_PARAMETERS", tmp_path / "params")
        (found,) = (one for one in doctor.examine() if one.name == "Nsight Compute")
        assert found.ok
        assert found.what.startswith("2025.3.1.0 in ")
        assert said in found.what


@pytest.mark.usefixtures("bare")
def test_a_bare_machine() -> None:
    found = {finding.name: finding for finding in doctor.examine()}
    for name in ("Docker daemon", "Docker buildx", "GPUs in containers", "NVIDIA GPU"):
        assert not found[name].ok
        assert found[name].required
        assert found[name].remedy
    assert found["NVIDIA GPU"].what == "There is no NVIDIA GPU"
    assert found["NVIDIA GPU"].remedy == "install one."
    assert not found["C++ compiler"].ok
    assert not found["C++ compiler"].required
    assert found["NVRTC 12.1"].what == "will be downloaded on first use"
    assert "not installed" in found["Nsight Compute"].what
    assert not found["Nsight Compute"].required


@pytest.mark.usefixtures("bare")
def test_drivers_are_held_against_every_toolchain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "gpus", lambda: [gpus.Gpu(0, "GPU-1", "H100", "535.10", 2**36, 2**35)])
    found = {finding.name: finding for finding in doctor.examine("GPU-1")}
    assert found["NVIDIA GPU"].what == "H100, 32 of 64 GiB free, GPU-1"
    assert {name: found[f"driver for NVRTC {name}"].ok for name in kernels.toolchains()} == {
        "12.1": True,
        "13.0": False,
    }
    assert "needed: 580" in found["driver for NVRTC 13.0"].what


@pytest.mark.usefixtures("bare")
def test_an_unknown_gpu() -> None:
    assert not {finding.name: finding for finding in doctor.examine("GPU-9")}["NVIDIA GPU"].ok


@pytest.mark.usefixtures("bare")
def test_what_nobody_thought_of_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode() -> doctor.Finding:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(doctor, "_compiler", explode)
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["C++ compiler"].what == "could not be found out: ZeroDivisionError: by zero"


@pytest.mark.usefixtures("bare")
def test_a_downloaded_compiler_is_found(tmp_path: Path) -> None:
    (tmp_path / "toolchains" / "nvrtc-12.1-abc").mkdir(parents=True)
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["NVRTC 12.1"].what == "in the cache"
