"""What the cache holds is what was put into it, or it is made again: some of it is code that is run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.build import toolchain
from harness.build.cache import SEAL, make_once
from harness.build.toolchain import Toolchain
from harness.errors import MachineError
from harness.report import embed


def make(folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "code.so").write_bytes(b"code" * 1000)
    (folder / "manifest.json").write_text("{}", encoding="utf-8")


def cut(folder: Path) -> None:
    os.truncate(folder / "lib" / "code.so", 100)


def one_byte(folder: Path) -> None:
    content = bytearray((folder / "lib" / "code.so").read_bytes())
    content[2000] ^= 1
    (folder / "lib" / "code.so").write_bytes(content)


def endless(folder: Path) -> None:
    os.truncate(folder / "lib" / "code.so", 2**36)


def linked(folder: Path) -> None:
    (folder / "lib" / "code.so").rename(folder.parent / "code.so")
    (folder / "lib" / "code.so").symlink_to(folder.parent / "code.so")


def waiting(folder: Path) -> None:
    (folder / "lib" / "code.so").unlink()
    os.mkfifo(folder / "lib" / "code.so")


def one_more(folder: Path) -> None:
    (folder / "lib" / "more.h").touch()


def one_less(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def unsealed(folder: Path) -> None:
    (folder / SEAL).unlink()


def seal_of_another(folder: Path) -> None:
    (folder / SEAL).write_text('{"lib/code.so": [4000, "0"]}', encoding="utf-8")


def no_seal(folder: Path) -> None:
    (folder / SEAL).write_text("[" * 100_000, encoding="utf-8")


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("no folder", encoding="utf-8")


def nowhere(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder.parent / "nowhere")


DAMAGE = [
    cut,
    one_byte,
    endless,
    linked,
    waiting,
    one_more,
    one_less,
    unsealed,
    seal_of_another,
    no_seal,
    a_file,
    nowhere,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_again(damage: Callable[[Path], None], tmp_path: Path) -> None:
    folder = make_once(tmp_path / "cache" / "entry", make)
    damage(folder)
    again = make_once(folder, make)
    assert (again / "lib" / "code.so").read_bytes() == b"code" * 1000
    assert sorted(path.name for path in again.rglob("*")) == sorted([SEAL, "code.so", "lib", "manifest.json"])
    made = (again / "manifest.json").stat().st_mtime_ns
    assert (make_once(folder, make) / "manifest.json").stat().st_mtime_ns == made
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["entry"]


def test_what_cannot_be_made_again_stays(tmp_path: Path) -> None:
    folder = make_once(tmp_path / "entry", make)
    cut(folder)

    def fails(_: Path) -> None:
        raise MachineError("no network")

    with pytest.raises(MachineError):
        make_once(folder, fails)
    assert (folder / "lib" / "code.so").stat().st_size == 100


def test_a_compiler_that_was_cut_short_is_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To map a library that lacks its end would end this process."""
    name = "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"

    def fetch(chosen: Toolchain, folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"whole" * 1000)

    loaded = []
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(toolchain, "_fetch", fetch)
    monkeypatch.setattr(toolchain, "Nvrtc", lambda library: loaded.append(library.read_bytes()))
    chosen = toolchain.find("12.1")
    for _ in range(2):
        toolchain.install.__wrapped__(chosen)
        (library,) = tmp_path.glob(f"toolchains/*/{name}")
        os.truncate(library, 1000)
    assert loaded == [b"whole" * 1000] * 2


def test_a_script_that_was_cut_short_is_on_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    whole = embed.bundle.__wrapped__()
    (script,) = tmp_path.glob("charts/*/bundle.js")
    for damage in (b"", whole.encode()[:1000], b"alert(1)"):
        script.write_bytes(damage)
        assert embed.bundle.__wrapped__() == whole
