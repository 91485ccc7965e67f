"""Files of packages that are installed here: whatever a record calls them, there is an answer."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from harness.run import installed


def test_a_file_that_is_there() -> None:
    held = Path(np.__file__).read_bytes()
    assert installed.hash_of("numpy/__init__.py") == hashlib.sha256(held).hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        "numpy",
        "numpy/nothing.so",
        "numpy/../numpy/__init__.py",
        "/etc/passwd",
        "nobody/x.so",
        f"numpy/{'x' * 300}.so",
        f"numpy/{'x/' * 5000}y.so",
        f"{'x' * 300}/y.so",
        "numpy/a\0b",
        "numpy/a\ud800b",
        "",
    ],
    ids=lambda name: ascii(name[:20]),
)
def test_what_is_no_file_of_a_package_has_no_hash(name: str) -> None:
    assert installed.hash_of(name) is None


def test_a_file_that_cannot_be_read_is_as_good_as_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "their_library").mkdir()
    (tmp_path / "their_library" / "__init__.py").touch()
    (tmp_path / "their_library" / "round.so").symlink_to("round.so")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed.hash_of("their_library/round.so") is None
    assert installed.hash_of("their_library/__init__.py") is not None
