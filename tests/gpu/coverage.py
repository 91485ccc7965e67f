"""Which files the tests on GPUs are about, and a hash of each: what they showed holds for these alone.

Needs nothing but the checkout: the machine with the GPU may have little installed.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

from harness.design_source import without_comments

ROOT = Path(__file__).resolve().parents[2]
BEGIN = ("tests/gpu", "harness/bench", "harness/patch")
"""Folders of Python; what they import of ours belongs to it, and what that imports."""
DEVICE_CODE = (
    "opt_designs",
    "tests/data/wrong_design",
    "tests/data/slow_tables",
    "embedding_kernels/csrc",
    "harness/patch/launching",
)
OURS = ("harness", "tests", "embedding_kernels", "kernel_wheel")
CODE = (".cu", ".cuh", ".cpp", ".h")
ENDINGS = (*CODE, ".ptx", ".py", ".toml", ".txt")
RECORDING = ("tests/gpu/coverage.py", "tests/gpu/recording.py")
"""What writes the record is none of what it is about."""
APART = ("harness/traces/formats.py",)
"""Reads other people's files into traces, of which the tests on GPUs have none: they are not about it, nor
about what is imported for it alone."""
OPTIONAL = "fbgemm"
"""The marker of tests that need more than a GPU."""
SEVERAL = "two_gpus"
"""And of those that need another one."""


def hashes(root: Path = ROOT) -> dict[str, str]:
    """The files below `root`, each with a hash. Comments in C++ do not count."""
    found = {path for folder in DEVICE_CODE for path in (root / folder).rglob("*") if path.suffix in ENDINGS}
    imported = _imported(root, (path for folder in BEGIN for path in (root / folder).glob("*.py")))
    beside = {path for folder in {module.parent for module in imported} for path in folder.iterdir()}
    found |= imported | {path for path in beside if path.suffix in ENDINGS and path.suffix != ".py"}
    found -= {root / name for name in RECORDING}
    return {str(path.relative_to(root)): _hash(path) for path in sorted(found)}


def changed(then: dict[str, str], today: dict[str, str], root: Path = ROOT) -> list[str]:
    """The files whose hashes of `today` differ from a record's, or that are gone. One that is there and of
    which the tests are no longer does not count."""
    different = {name for name in then.keys() | today.keys() if then.get(name) != today.get(name)}
    return sorted(name for name in different if name in today or not (root / name).exists())


def functions(root: Path = ROOT, gpus: int = 2) -> list[str]:
    """Every test that a machine with so many GPUs can run, as file::function."""
    beyond = {OPTIONAL} | ({SEVERAL} if gpus < 2 else set())
    found = []
    for path in sorted((root / "tests" / "gpu").glob("test_*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        of_all = [ast.unparse(node) for node in body if isinstance(node, ast.Assign)]
        shared = " ".join(line for line in of_all if line.startswith("pytestmark"))
        for node in body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = " ".join([shared, *map(ast.unparse, node.decorator_list)])
                if not any(f"pytest.mark.{mark}" in marks for mark in beyond):
                    found.append(f"{path.relative_to(root)}::{node.name}")
    return found


def _hash(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix in CODE:
        content = without_comments(content.decode()).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _imported(root: Path, begin: Iterable[Path]) -> set[Path]:
    """These files, and those of ours that they import, at once or when something is called."""
    found: set[Path] = set()
    waiting = list(begin)
    while waiting:
        path = waiting.pop()
        if path in found or str(path.relative_to(root)) in APART:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
            for name in names:
                if name.partition(".")[0] in OURS:
                    place = root.joinpath(*name.split("."))
                    waiting += [p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()]
    return found
