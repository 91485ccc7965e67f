"""Toolchains as data, and their installation."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from harness.build import toolchain
from harness.build.cache import make_once
from harness.build.toolchain import Toolchain
from harness.errors import BadInputError, MachineError


def test_toolchains_are_pinned_exactly_and_named_after_their_version() -> None:
    known = toolchain.toolchains()
    assert {"12.1", "13.0"} <= set(known)
    for name, chosen in known.items():
        assert all(package.count("==") == 1 for package in chosen.packages)
        assert chosen.compiler.startswith(f"NVRTC {name}.")


def test_unknown_toolchain_names_the_known() -> None:
    with pytest.raises(BadInputError, match=r"no toolchain '9\.9'; known: 12\.1, 13\.0"):
        toolchain.find("9.9")


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "toolchains.toml"
    path.write_text(
        '["12.1"]\npackages = []\nminimum_driver = "1"\narchs = []\narch = "sm_80"\n', encoding="utf-8"
    )
    with pytest.raises(BadInputError, match=r"toolchains\.toml: 12\.1\.arch: is not a known key"):
        toolchain.toolchains(path)


def test_wheels_that_cannot_be_had_give_a_sentence_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    missing = Toolchain("0.1", ("nvidia-cuda-nvrtc==0.1.2",), "1", ("sm_80",))
    with pytest.raises(
        MachineError, match=r"pip could not get nvidia-cuda-nvrtc==0\.1\.2 \(.*PIP_FIND_LINKS"
    ):
        toolchain.install(missing)
    assert not [p for p in (tmp_path / "cache" / "toolchains").iterdir() if p.is_dir()]


def test_a_folder_is_made_once_by_whoever_comes_first(tmp_path: Path) -> None:
    made = []
    both_started = threading.Barrier(2)

    def make(scratch: Path) -> None:
        (scratch / "file").write_text("whole", encoding="utf-8")
        assert not (tmp_path / "folder").exists(), "the folder must not be seen before it is complete"
        made.append(scratch)

    def ask() -> None:
        both_started.wait()
        make_once(tmp_path / "folder", make)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (tmp_path / "folder" / "file").read_text(encoding="utf-8") == "whole"


def test_a_folder_that_could_not_be_made_is_not_there(tmp_path: Path) -> None:
    def make(scratch: Path) -> None:
        (scratch / "half").touch()
        raise MachineError("no")

    with pytest.raises(MachineError):
        make_once(tmp_path / "folder", make)
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]
