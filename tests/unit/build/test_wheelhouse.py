"""Filling a folder with wheels, by a pip that finds none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness import designs
from harness.build import wheelhouse
from harness.errors import MachineError


def test_what_pip_lacks_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(MachineError, match=r"^pip could not download.*ERROR: .*\S$") as raised:
        wheelhouse.download(tmp_path / "wheels", python="3.12", torch="2.11.0", toolchains=["12.1"])
    assert "\n" not in str(raised.value)


def test_what_peers_need_is_asked_for_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.extend(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    wheelhouse.download(tmp_path, python="3.12", torch="", toolchains=["12.1"], peers=["fbgemm"])
    assert str(designs.get("fbgemm").folder / "requirements.txt") in asked
