"""Downloads everything that building the images would, so that they can be built without a network.

    python -m harness.build.wheelhouse FOLDER [--python 3.12] [--torch 2.11.0 | --no-torch] [--toolchain 12.1]
                                       [--peer fbgemm | --no-peers]

Then HARNESS_WHEELHOUSE=FOLDER makes `harness build` take from there, in a build that has no network at all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import designs
from harness.build import images, toolchain
from harness.errors import HarnessError, MachineError


def download(
    folder: Path, *, python: str, torch: str, toolchains: Sequence[str] = (), peers: Sequence[str] = ()
) -> None:
    """Fills `folder` with wheels for images with this version of Python.

    `torch`: a version; empty where a torch image brings it. `toolchains`: empty for all. `peers`: designs
    that are other libraries. MachineError, with pip's words, where a wheel cannot be had.
    """
    chosen = [toolchain.find(name) for name in toolchains or toolchain.toolchains()]
    wanted = [package for each in chosen for package in each.packages]
    if torch:
        wanted.append(f"torch=={torch}")
    lists = [images.REPOSITORY / "docker" / name for name in ("requirements.txt", "compiler.txt")]
    for path in [*lists, *(designs.get(name).folder / "requirements.txt" for name in peers)]:
        wanted += ["-r", str(path)]
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--only-binary=:all:"]
    command = [*pip, "--python-version", python, "--dest", str(folder), *wanted]
    # pip's own progress stays visible: PyTorch is gigabytes.
    done = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
            "it did not say why"
        ]
        raise MachineError(f"pip could not download what the images need: {said[0]}")


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.build.wheelhouse", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="the base image's version of Python (default: 3.12)")
    parser.add_argument("--torch", default=images.torch_version(), help="default: the Dockerfile's")
    parser.add_argument(
        "--no-torch", dest="torch", action="store_const", const="", help="the image brings it"
    )
    parser.add_argument("--toolchain", action="append", default=[], help="repeatable; default: all")
    others = [name for name, design in designs.discover().items() if design.measured_by_peer]
    parser.add_argument(
        "--peer", action="append", choices=others, help="repeatable; default: every library measured beside"
    )
    parser.add_argument("--no-peers", dest="peer", action="store_const", const=[], help="none of them")
    given = parser.parse_args()
    peers = others if given.peer is None else given.peer
    try:
        download(
            given.folder, python=given.python, torch=given.torch, toolchains=given.toolchain, peers=peers
        )
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main())
