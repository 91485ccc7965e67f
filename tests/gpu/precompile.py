"""Compiles what the GPU tests run, as many designs at a time as there are cores.

`precompile.py`: for the GPU at hand, into the cache, from which the tests take it; and the patch for PyTorch.
`precompile.py FOLDER ARCH...`: into a folder, on a machine that need not have a GPU.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from harness import designs
from harness.build.kernels import compile_design
from harness.build.toolchain import install, toolchains
from harness.errors import HarnessError
from harness.patch.build import build_op

DATA = Path(__file__).resolve().parent.parent / "data"


def everything() -> dict[str, tuple[designs.Design, str]]:
    """Design and toolchain by "design@toolchain", those made for tests too."""
    found = [design for design in designs.discover().values() if design.compiled]
    found += [designs.get(name, DATA) for name in ("wrong_design", "slow_tables")]
    return {f"{d.name}@{t}": (d, t) for t in toolchains() for d in found}


def compile_one(name: str, archs: Sequence[str]) -> Path:
    design, toolchain = everything()[name]
    return compile_design(design, toolchain, archs)


def arch_at_hand() -> str:
    """That of the first GPU, for example "sm_90"."""
    import torch

    if not torch.cuda.is_available():
        sys.exit("precompile.py: no GPU to compile for; name a folder and an architecture, such as sm_90.")
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def main(arguments: Sequence[str]) -> None:
    output, archs = (Path(arguments[0]), arguments[1:]) if arguments else (None, [arch_at_hand()])
    for toolchain in toolchains().values():
        install(toolchain)  # once, and not by every process
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        patch = pool.submit(build_op) if output is None else None
        # The largest first, so that none is left for the end.
        names = sorted(everything(), key=lambda name: not everything()[name][0].all_tables)
        compiled = {pool.submit(compile_one, name, archs): name for name in names}
        for done in as_completed(compiled):
            if output is not None:
                shutil.copytree(done.result(), output / compiled[done], dirs_exist_ok=True)
            print(compiled[done], done.result(), flush=True)
        if patch is not None:
            print("the patch", patch.result(), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except HarnessError as error:
        sys.exit(f"precompile.py: {error}")
