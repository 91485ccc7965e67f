"""Builds the operators, the .cpp files here, with the host's C++ compiler against PyTorch's headers.

Neither a CUDA toolkit nor a GPU is needed: the driver is found when the first lookup runs. One build serves
one version of PyTorch. From the command line: `python -m harness.patch.build --output FILE.so`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from harness.errors import BadInputError, HarnessError, MachineError

SOURCES = Path(__file__).resolve().parent
# Where the compiler links the C++ library into what it builds, that copy stays unseen: half of it would
# otherwise be the process's own, and the first number in an error message would end the process.
_FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wl,--exclude-libs,ALL")
_CONTRACT = ("lookup_args.h", "tables_args.h")


def contract_dir() -> Path:
    """Where the contracts with kernels are: HARNESS_LOOKUP_ARGS_DIR, or the checkout's opt_designs/common."""
    folder = Path(
        os.environ.get("HARNESS_LOOKUP_ARGS_DIR") or SOURCES.parent.parent / "opt_designs" / "common"
    )
    for name in _CONTRACT:
        if not (folder / name).is_file():
            raise BadInputError(
                f"{folder}: holds no {name}; set HARNESS_LOOKUP_ARGS_DIR to the folder opt_designs/common."
            )
    return folder


def made_of() -> list[Path]:
    """Every file of ours that the operator is compiled from."""
    contract = [contract_dir() / name for name in _CONTRACT]
    return [*sorted(SOURCES.glob("*.cpp")), *sorted(SOURCES.rglob("*.h")), *contract]


def build_op(out: Path | None = None) -> Path:
    """Builds the operator into `out`, or into the cache unless it is there already; returns where it is.

    Raises MachineError where there is no C++ compiler, and HarnessError in the compiler's words if it fails.
    """
    import torch

    headers = contract_dir()
    torch_dir = Path(torch.__file__).resolve().parent
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(compiler[0]) is None:
        raise MachineError(
            f"The patch must be built, and there is no C++ compiler {compiler[0]!r} here; install one "
            "(apt-get install g++), or set HARNESS_OP_LIBRARY to a library built elsewhere for this PyTorch."
        )
    if out is not None and out.exists() and not out.is_file():
        raise BadInputError(f"{out}: is no file, and is not replaced by one; choose another name.")
    cached = out is None
    if out is None:
        out = _cache_dir() / "op" / f"{_identity(torch.__version__, compiler, made_of())}.so"
        if _is_whole(out):
            return out
    out.parent.mkdir(parents=True, exist_ok=True)
    # Built beside its place and renamed, so that two processes that build at once do not meet.
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    command = [
        *compiler,
        *_FLAGS,
        # Include folders of PyTorch, as those of a system library: its warnings are not ours.
        *("-isystem", str(torch_dir / "include")),
        *("-isystem", str(torch_dir / "include" / "torch" / "csrc" / "api" / "include")),
        *("-I", str(headers)),
        *map(str, sorted(SOURCES.glob("*.cpp"))),
        *("-o", str(part)),
        *(f"-L{torch_dir / 'lib'}", "-lc10", "-ltorch_cpu", "-ldl"),
    ]
    try:
        result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        if result.returncode:
            raise HarnessError(
                f"The patch does not build with {compiler[0]} and PyTorch {torch.__version__}:\n"
                + result.stderr[-4000:]
            )
        if cached:
            _seal(out).write_text(_digest(part), encoding="utf-8")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return out


def _is_whole(library: Path) -> bool:
    """Whether it is the one that was built: to load one that was cut short would end the process."""
    try:
        return _seal(library).read_text(encoding="utf-8") == _digest(library)
    except (OSError, ValueError):
        return False


def _seal(library: Path) -> Path:
    return library.with_name(f"{library.name}.sha256")


def _digest(library: Path) -> str:
    with library.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _identity(torch_version: str, compiler: list[str], sources: list[Path]) -> str:
    digest = hashlib.sha256(repr((torch_version, compiler, _FLAGS, sys.platform)).encode())
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def _cache_dir() -> Path:
    """Where platformdirs, which containers do not have, puts the cache of this program on Linux."""
    try:
        if named := os.environ.get("HARNESS_CACHE_DIR"):
            return Path(named).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embedding-harness"
    except RuntimeError as error:
        raise MachineError(
            "There is no folder to keep the built patch in: this user has no home; set HARNESS_CACHE_DIR (or "
            "XDG_CACHE_HOME) to a folder that can be written."
        ) from error


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m harness.patch.build", description="Build the patch's operator."
    )
    parser.add_argument("--output", type=Path, required=True, help="the library to write")
    try:
        print(build_op(parser.parse_args().output))
    except HarnessError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    _main()
