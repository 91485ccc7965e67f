"""The compilers that toolchains.toml names, each installed from its own wheels into a folder of its own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.build.cache import cache_dir, make_once
from harness.build.nvrtc import Nvrtc
from harness.errors import BadInputError, MachineError
from harness.validation import read_toml, validated

TOOLCHAINS_FILE = Path(__file__).with_name("toolchains.toml")


@dataclass(frozen=True)
class Toolchain:
    """One version of NVRTC with its headers."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by pydantic, no field)
    name: str
    """For example "12.1": NVRTC's own version, major and minor."""
    packages: tuple[str, ...]
    """Exact pins of the wheels, NVRTC first."""
    minimum_driver: str
    """The oldest Linux driver that loads what it makes."""
    archs: tuple[str, ...]
    """What is compiled unless other GPUs are asked for."""

    @property
    def compiler(self) -> str:
        """For example "NVRTC 12.1.105"."""
        return f"NVRTC {self.packages[0].partition('==')[2]}"


@dataclass(frozen=True)
class Installation:
    """A toolchain on this machine, ready to compile."""

    nvrtc: Nvrtc
    include_dirs: tuple[Path, ...]


def toolchains(path: Path = TOOLCHAINS_FILE) -> dict[str, Toolchain]:
    """All toolchains by name, in the file's order."""
    raw = read_toml(path)
    named = {name: {**fields, "name": name} for name, fields in raw.items()}
    return validated(dict[str, Toolchain], named, path)


def find(name: str) -> Toolchain:
    """One toolchain by name; BadInputError names the known ones where there is none."""
    known = toolchains()
    if name not in known:
        raise BadInputError(f"There is no toolchain {name!r}; known: {', '.join(known)}.")
    return known[name]


@cache
def install(toolchain: Toolchain) -> Installation:
    """The toolchain, its wheels fetched by pip on first use; MachineError where they cannot be had."""
    key = hashlib.sha256("\n".join(toolchain.packages).encode()).hexdigest()[:16]
    folder = cache_dir() / "toolchains" / f"nvrtc-{toolchain.name}-{key}"
    make_once(folder, lambda scratch: _fetch(toolchain, scratch))
    libraries = sorted(folder.glob("nvidia/*/lib/libnvrtc.so.*"))
    if len(libraries) != 1:
        raise MachineError(
            f"{folder}: holds {len(libraries)} NVRTC libraries instead of one; delete the folder."
        )
    return Installation(Nvrtc(libraries[0]), tuple(sorted(folder.glob("nvidia/*/include"))))


def _fetch(toolchain: Toolchain, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--no-compile", "--target", str(folder), *toolchain.packages]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        said = (
            (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1].removeprefix("ERROR: ")
        )
        raise MachineError(
            f"pip could not get {' and '.join(toolchain.packages)} ({said}); without a network, set "
            "PIP_NO_INDEX=1 and PIP_FIND_LINKS to a folder that holds these wheels."
        )
