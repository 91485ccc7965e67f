"""The library of `embedding_kernels`: C++ against PyTorch's stable ABI, one for every PyTorch and Python."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from harness.design_source import COMMON_DIR
from harness.errors import HarnessError, MachineError

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "embedding_kernels" / "csrc"
LAUNCHING = ROOT / "harness" / "patch" / "launching"
"""Headers that it shares with the patch's library; they know no PyTorch."""
OLDEST_TORCH = (2, 10)
_FLAGS = ("-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-shared")


def build(output: Path) -> None:
    """Compiles the library into a file.

    MachineError where there is no C++ compiler, HarnessError in its words where it fails.
    """
    import torch

    folder = Path(torch.__file__).resolve().parent
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    command = [
        *compiler,
        *_FLAGS,
        target_option(),
        *("-isystem", str(folder / "include")),
        *("-I", str(COMMON_DIR), "-iquote", str(LAUNCHING.parent)),
        *map(str, sorted(SOURCES.glob("*.cpp"))),
        *("-o", str(output)),
        *(f"-L{folder / 'lib'}", "-ltorch_cpu", "-ldl"),
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    except FileNotFoundError as error:
        raise MachineError(
            f"The library of embedding_kernels needs a C++ compiler, and there is no {compiler[0]!r}; "
            "install one (apt-get install g++)."
        ) from error
    if done.returncode:
        raise HarnessError(f"The library of embedding_kernels does not build:\n{done.stderr[-4000:]}")


def target_option() -> str:
    """For the compiler: nothing that came after the oldest PyTorch."""
    major, minor = OLDEST_TORCH
    return f"-DTORCH_TARGET_VERSION=0x{major:02x}{minor:02x}000000000000"


def build_in_place() -> Path:
    """The library where the package of this checkout looks for it, built anew if its sources have changed."""
    library = SOURCES.parent / "lib" / "embedding_kernels.so"
    stamp = library.with_suffix(".sha256")
    library.parent.mkdir(exist_ok=True)
    with FileLock(library.with_suffix(".lock")):
        digest = hashlib.sha256(" ".join(_FLAGS).encode())
        for path in made_of():
            digest.update(path.read_bytes())
        if not library.is_file() or not stamp.is_file() or stamp.read_text() != digest.hexdigest():
            part = library.with_suffix(".part")
            build(part)
            part.replace(library)
            stamp.write_text(digest.hexdigest())
    return library


def made_of() -> list[Path]:
    """Every file of ours that it is made of."""
    headers = [COMMON_DIR / "lookup_args.h", COMMON_DIR / "tables_args.h", *sorted(LAUNCHING.iterdir())]
    return [*sorted(SOURCES.iterdir()), *headers, Path(__file__)]


def platform_tag(library: Path) -> str:
    """The tag of a wheel with this library: by the newest C library that it asks for.

    For example "manylinux_2_34_x86_64", which pip installs where glibc is 2.34 or later.
    """
    from elftools.elf.elffile import ELFFile

    needed = [(2, 17)]
    with library.open("rb") as file:
        elf = ELFFile(file)
        machine = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}.get(elf["e_machine"])
        if machine is None:
            raise HarnessError(f"{library}: is for {elf['e_machine']}, for which wheels have no name here.")
        for _, versions in cast(Any, elf.get_section_by_name(".gnu.version_r")).iter_versions():
            for version in versions:
                if match := re.fullmatch(r"GLIBC_(\d+)\.(\d+)(\.\d+)?", version.name):
                    needed.append((int(match[1]), int(match[2])))
    major, minor = max(needed)
    return f"manylinux_{major}_{minor}_{machine}"
