"""Nothing stands outside the gate: every test is collected, every file is linted, typed and packed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from mypy.main import process_options

from tests.conftest import OBSTACLES, required

ROOT = Path(__file__).resolve().parents[2]


def files(folder: Path, pattern: str) -> set[str]:
    """Files under a folder as paths from there, without what tools leave behind."""
    found = {path.relative_to(folder) for path in folder.rglob(pattern) if path.is_file()}
    return {str(path) for path in found if not any(p.startswith((".", "__pycache__")) for p in path.parts)}


def python_files() -> set[str]:
    """All of the checkout, programs without an ending among them."""
    programs = set()
    for name in files(ROOT, "*"):
        if "." not in Path(name).name:
            with (ROOT / name).open("rb") as file:
                first = file.readline(80)
            programs |= {name} if first.startswith(b"#!") and b"python" in first else set()
    return files(ROOT, "*.py") | programs


def collected(folder: Path) -> set[str]:
    """The files in which pytest finds tests, where it is told no more than `pytest`."""
    # Plain assertions: rewriting them is half of the work, and changes nothing of what is found.
    quick = ["--assert=plain", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", *quick]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return set(re.findall(r"^(\S+\.py): \d+$", done.stdout, re.MULTILINE))


def test_every_test_on_disk_is_collected() -> None:
    tests = files(ROOT, "test_*.py") | {
        name
        for name in files(ROOT, "*.py")
        if re.search(r"^(async )?def test_", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"tests/unit/build/test_kernels.py", "tests/gpu/test_patch.py"} <= tests
    assert collected(ROOT) == tests


def test_a_folder_of_any_name_may_hold_tests(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    names = ["build", "dist", "node_modules", "venv", "CVS", "x.egg", "_darcs", "{arch}"]
    there = {f"tests/{name}/test_{n}.py" for n, name in enumerate(names)}
    for path in there:
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("def test_it(): pass\n", encoding="utf-8")
    assert collected(tmp_path) == there


def test_tests_of_one_group_stay_in_one_process(tmp_path: Path) -> None:
    """Versions of pytest and pytest-xdist that do not agree would spread them, and they would take away each
    other's images, ports and files."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_group.py").write_text(
        "import pathlib\n"
        "import pytest\n"
        "@pytest.mark.xdist_group('together')\n"
        "@pytest.mark.parametrize('n', range(12))\n"
        "def test_it(n, worker_id):\n"
        "    pathlib.Path(worker_id).touch()\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "12 passed" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(list(tmp_path.glob("gw*"))) == 1


def test_every_file_is_linted() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = {str(Path(line).relative_to(ROOT)) for line in done.stdout.splitlines()}
    assert "scripts/simulate-campaign" in python_files() <= shown


def test_every_file_is_type_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sources, options = process_options([])
    assert {os.path.relpath(source.path or "") for source in sources} == python_files()
    assert options.disallow_untyped_defs
    assert not options.ignore_errors


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(
        ROOT / "harness",
        tmp_path / "harness",
    )
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / done.stdout.splitlines()[-1]) as wheel:
        packed = {name for name in wheel.namelist() if name.startswith("harness/")}
    assert packed == {f"harness/{name}" for name in files(ROOT / "harness", "*")}


def test_a_marker_that_nobody_knows_is_not_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_REQUIRE", "docker,brwser")
    with pytest.raises(pytest.UsageError, match="HARNESS_REQUIRE: 'brwser' is none of the markers docker, "):
        required.__wrapped__()
    registered = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]
    markers = {line.partition(":")[0] for line in registered["ini_options"]["markers"]}
    assert markers == {*OBSTACLES, "alone"}


def test_no_test_reads_a_clock_save_to_set_a_deadline() -> None:
    clock = re.compile(r"\b(perf_counter|process_time|thread_time|monotonic|time\.time)(_ns)?\(\)(?! \+)")
    tests = ROOT / "tests"
    read = [n for n in files(tests, "*.py") if clock.search((tests / n).read_text(encoding="utf-8"))]
    assert read == [], "what a busy machine does is no fault; tests/effort.py tells work without a clock"
