"""`harness check`, and the walk of opt_designs/README.md, in a copy of the checkout."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.build.toolchain import Installation
from harness.design_source import DESIGNS_DIR
from harness.emulator.checking import STRIDES

pytestmark = pytest.mark.compiler

BLOCKS = re.findall(
    r"^ +```sh\n(.*?)^ +```$",
    (DESIGNS_DIR / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("harness", "opt_designs"):
        shutil.copytree(
            DESIGNS_DIR.parent / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def shell(checkout: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Runs it in the copy, whose program `harness` is."""
    program = f'harness() {{ "{sys.executable}" -m harness.cli "$@"; }}\nset -e\n'
    return subprocess.run(
        ["bash", "-c", program + script], cwd=checkout, capture_output=True, text=True, check=False
    )


def walked(checkout: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    """The walk's first steps, and of its commands for `harness` these."""
    indented = [re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in BLOCKS]
    steps = [block for block in indented if not block.startswith("harness") or block.startswith(commands)]
    return shell(checkout, "".join(steps))


@pytest.mark.nvrtc
def test_the_walk_of_the_readme(checkout: Path, installed: Callable[[str], Installation]) -> None:
    for version in ("12.1", "13.0"):
        installed(version)
    done = walked(checkout, "harness compile", "harness check")
    assert done.returncode == 0, done.stderr
    assert re.search(r"float32 kernel +12\.1 sm_80", done.stdout)
    assert re.search(r"tall_block +\d+", done.stdout)
    assert re.search(r"tall_block +sums and means of ragged and empty bags +8 +right", done.stdout)
    assert "WRONG" not in done.stdout


def test_a_wrong_kernel_is_told_and_ends_with_2(checkout: Path) -> None:
    walked(checkout)
    assertion = checkout / "opt_designs" / "common" / "assertion.cuh"
    code = assertion.read_text(encoding="utf-8")
    assert "if (!(condition)) {" in code
    assertion.write_text(code.replace("if (!(condition)) {", "if (false) {"), encoding="utf-8")
    done = shell(checkout, "harness check tall_block")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "reads outside the table, at row -1 where there are 50" in " ".join(done.stdout.split())
    done = shell(checkout, "harness check tall_block --json")
    assert done.returncode == 2
    found = {finding["check"]: finding["wrong"] for finding in json.loads(done.stdout)}
    assert found["sums and means of ragged and empty bags"] == ""
    assert found["an index outside the table is refused and never read"].startswith(
        "lookup<float, int, 1>: thread"
    )


def test_the_example_is_wrong_once_it_does_not_stride(checkout: Path) -> None:
    walked(checkout)
    kernel = checkout / "opt_designs" / "tall_block" / "kernel.cuh"
    code = kernel.read_text(encoding="utf-8")
    assert code.count("chunk += stride") == 1
    kernel.write_text(code.replace("chunk += stride", "chunk += 1000000000"), encoding="utf-8")
    done = shell(checkout, "harness check tall_block --json")
    found = {finding["check"]: finding["wrong"] for finding in json.loads(done.stdout)}
    assert re.search(r"bag \d+, of \d rows: column 0 is never written", found[STRIDES])


def test_a_broken_design_stops_nothing_of_the_others(checkout: Path) -> None:
    walked(checkout)
    kernel = checkout / "opt_designs" / "tall_block" / "kernel.cuh"
    kernel.write_bytes(kernel.read_bytes() + b"// caf\xe9\n")
    told = shell(checkout, "harness designs --json")
    assert told.returncode == 0
    assert "tall_block" not in [one["name"] for one in json.loads(told.stdout)]
    assert re.search(
        r"tall_block is left out: .*tall_block/kernel\.cuh: byte \d+ is not UTF-8; save", told.stderr
    )
    for command in ("harness designs", "harness check baseline"):
        assert shell(checkout, command).returncode == 0
    for command in (
        "check tall_block",
        "compile tall_block",
        "run --design tall_block --local --set workload.device=cpu",
    ):
        refused = shell(checkout, f"harness {command}")
        assert refused.returncode == 2
        assert "is not UTF-8; save it as UTF-8." in refused.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        ("harness check stock", 2, "harness: stock brings no kernel that could be checked"),
        ("harness check baselin", 2, "harness: There is no design 'baselin'; known: baseline,"),
        ("CXX=no-such-compiler harness check baseline", 5, "there is no 'no-such-compiler': install one"),
    ],
)
def test_what_cannot_be_checked_is_one_sentence(
    checkout: Path, command: str, code: int, sentence: str
) -> None:
    done = shell(checkout, command)
    assert done.returncode == code
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
