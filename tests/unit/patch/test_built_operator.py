"""The operators' library in the cache: built once, and again where it is not the one that was built."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.patch import build

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
