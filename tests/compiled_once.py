"""Small libraries that stand in for a GPU's, compiled once for all processes of the tests and kept."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from harness.build.cache import cache_dir, make_once


def libraries(name: str, commands: Mapping[str, Sequence[str]], reads: Sequence[Path]) -> Path:
    """The folder with a file for each command, which writes it by `-o`; made again where a command, one of
    the files that it `reads`, the compiler or PyTorch has changed."""
    version = subprocess.run(["c++", "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(repr([sorted(commands.items()), version, torch.__version__]).encode())
    for path in sorted(reads):
        key.update(path.read_bytes())

    def make(folder: Path) -> None:
        for file, command in commands.items():
            subprocess.run([*command, "-o", str(folder / file)], check=True)

    return make_once(cache_dir() / "tests" / f"{name}-{key.hexdigest()[:16]}", make)
