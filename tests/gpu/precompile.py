"""Compiles what the GPU tests run, on a machine that need not have a GPU: `precompile.py FOLDER ARCH...`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import designs
from harness.build.kernels import compile_design
from harness.build.toolchain import toolchains

DATA = Path(__file__).resolve().parent.parent / "data"


def everything() -> dict[str, tuple[designs.Design, str]]:
    """Design and toolchain by "design@toolchain", those made for tests too."""
    found = [design for design in designs.discover().values() if design.compiled]
    found += [designs.get(name, DATA) for name in ("wrong_design", "slow_tables")]
    return {f"{d.name}@{t}": (d, t) for t in toolchains() for d in found}


def compile_one(name: str, archs: Sequence[str]) -> Path:
    design, toolchain = everything()[name]
    return compile_design(design, toolchain, archs)


if __name__ == "__main__":
    output, archs = Path(sys.argv[1]), sys.argv[2:]
    for name in everything():
        shutil.copytree(compile_one(name, archs), output / name, dirs_exist_ok=True)
        print(name)
