"""The operators' library in the cache: built once, and again where it is not the one that was built."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.patch import build
from kernel_wheel import library as wheel_library

COMPILER = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
echo built >> "$0.log"
cat "$0" > "$2"
"""


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretends to be a compiler; the file of the log has a line for each time that it was called."""
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER, encoding="utf-8")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "compiler.log"


def read_by_compiler(sources: list[Path], *options: str) -> set[Path]:
    """The files of ours that these are compiled from."""
    torch_headers = Path(torch.__file__).resolve().parent / "include"
    system = [torch_headers, torch_headers / "torch" / "csrc" / "api" / "include"]
    command = ["c++", "-std=c++20", "-MM", *options, *map(str, sources)]
    command += ["-iquote", str(build.SOURCES), "-I", str(build.contract_dir())]
    command += [word for folder in system for word in ("-isystem", str(folder))]
    rules = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = [word for word in rules.replace("\\\n", " ").split() if not word.endswith(".o:")]
    return {Path(name).resolve() for name in names}


def test_a_library_that_was_cut_or_exchanged_is_built_again(builds: Path) -> None:
    library = build.build_op()
    assert build.build_op() == library
    assert builds.read_text(encoding="utf-8").splitlines() == ["built"]
    whole = library.read_bytes()
    for count, damage in enumerate((b"", whole[:-1], whole + b"x", b"another"), 2):
        library.write_bytes(damage)
        assert build.build_op() == library
        assert library.read_bytes() == whole
        assert len(builds.read_text(encoding="utf-8").splitlines()) == count
    library.with_name(f"{library.name}.sha256").unlink()
    build.build_op()
    assert len(builds.read_text(encoding="utf-8").splitlines()) == 6


def test_a_library_built_elsewhere_comes_alone(builds: Path, tmp_path: Path) -> None:
    out = tmp_path / "image" / "op.so"
    build.build_op(out)
    assert os.listdir(out.parent) == ["op.so"]


def test_a_changed_header_that_embedding_kernels_shares_makes_another_library(
    builds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_LOOKUP_ARGS_DIR", str(build.contract_dir()))
    copy = tmp_path / "patch"
    shutil.copytree(build.SOURCES, copy)
    monkeypatch.setattr(build, "SOURCES", copy)
    library = build.build_op()
    with (copy / "launching" / "driver.h").open("a", encoding="utf-8") as header:
        header.write("// changed\n")
    assert build.build_op() != library
    assert builds.read_text(encoding="utf-8").splitlines() == ["built", "built"]


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("library", "options", "folders"),
    [
        (build, [], [build.SOURCES, build.contract_dir()]),
        (
            wheel_library,
            [wheel_library.target_option()],
            [wheel_library.SOURCES, wheel_library.LAUNCHING, build.contract_dir()],
        ),
    ],
    ids=["patch", "embedding_kernels"],
)
def test_whatever_of_ours_is_compiled_in_decides_whether_a_library_is_todays(
    library: Any, options: list[str], folders: list[Path]
) -> None:
    """And lies in these folders alone: images and the program's wheel carry the patch's own."""
    read = read_by_compiler(sorted(library.SOURCES.glob("*.cpp")), *options)
    assert {"driver.h", "tickets.h", "tables_args.h"} <= {path.name for path in read}
    assert read <= set(library.made_of())
    assert all(any(folder in path.parents for folder in folders) for path in read)


@pytest.mark.compiler
def test_what_both_libraries_share_knows_no_pytorch(tmp_path: Path) -> None:
    source = tmp_path / "all.cpp"
    headers = sorted(wheel_library.LAUNCHING.iterdir())
    includes = [f'#include "launching/{header.name}"\n' for header in headers]
    source.write_text("".join(includes), encoding="utf-8")
    folders = ["-iquote", str(wheel_library.LAUNCHING.parent), "-I", str(build.contract_dir())]
    command = ["c++", "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *folders, str(source)]
    subprocess.run(command, check=True)
