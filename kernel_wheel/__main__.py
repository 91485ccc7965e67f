"""python -m kernel_wheel [--output FOLDER | --in-place] [--arch 90 ... | --here]

Needs a C++ compiler, PyTorch and pip; no GPU, no CUDA toolkit. What was compiled once comes from the cache.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.errors import BadInputError, HarnessError, MachineError
from kernel_wheel import kernels, library, wheel


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m kernel_wheel", description="Builds embedding-kernels.")
    parser.add_argument(
        "--output", type=Path, default=Path("dist"), help="folder for the wheel (default: dist)"
    )
    parser.add_argument(
        "--in-place", action="store_true", help="build into this checkout's package, and pack no wheel"
    )
    parser.add_argument(
        "--arch", type=int, action="append", help="for example 90; may be repeated (default: all, and PTX)"
    )
    parser.add_argument("--here", action="store_true", help="of the architectures, that of the GPU at hand")
    given = parser.parse_args()
    try:
        if given.here:
            given.arch = [_arch_here()]
        if unknown := sorted(set(given.arch or ()) - set(kernels.ARCHS)):
            known = ", ".join(map(str, kernels.ARCHS))
            raise BadInputError(
                f"--arch {unknown[0]}: is none that kernels are compiled for; they are {known}."
            )
        built = library.build_in_place()
        kernels.build(built.parent / "kernels", given.arch or kernels.ARCHS, ptx=not given.arch)
        print(built.parent if given.in_place else wheel.pack(built, given.output))
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _arch_here() -> int:
    import torch

    if not torch.cuda.is_available():
        raise MachineError(
            "--here: PyTorch finds no NVIDIA GPU on this machine; name an architecture by --arch."
        )
    major, minor = torch.cuda.get_device_capability()
    fitting = [arch for arch in kernels.ARCHS if arch // 10 == major and arch % 10 <= minor]
    if not fitting:
        raise MachineError(f"--here: kernels are not compiled for a GPU of sm_{major}{minor}.")
    return max(fitting)


if __name__ == "__main__":
    sys.exit(main())
