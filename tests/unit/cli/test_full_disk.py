"""A disk without room: one sentence and exit code 5, what was there stays, and nothing is left half done."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.build import kernels
from harness.errors import MachineError
from harness.patch import manifest
from harness.records import Variant
from tests import synthetic_run as synthetic


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    what = synthetic.experiment(arms=(Variant("baseline", "12.1"),), datasets=("medium",), replicates=1)
    return synthetic.write_run(tmp_path_factory.mktemp("full") / "run", what)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written whole finds the disk full once it is to lie there for good."""

    def fails(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fails)


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(
    ("command", "name"),
    [
        (lambda run, out: ["report", run, "--output", out], "page.html"),
        (lambda run, out: ["report", run, "--format", "md", "--output", out], "page.md"),
        (lambda run, out: ["report", run, "--format", "json", "--output", out], "page.json"),
        (lambda run, out: ["trace", "stats", "one_item", "--rows", "100", "--chart", out], "chart.html"),
    ],
)
def test_what_was_there_stays(
    command: Callable[[Path, Path], list[Any]],
    name: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out" / name
    out.parent.mkdir()
    out.write_text("as before", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["harness", *map(str, command(run, out))])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 5
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"harness: {out}: the disk is full; make room, or choose another place."
    assert {path.name: path.read_text(encoding="utf-8") for path in out.parent.iterdir()} == {
        name: "as before"
    }


@pytest.mark.usefixtures("full")
def test_of_figures_none_is_cut(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output", str(tmp_path / "page.json"), "--format", "json"]
    monkeypatch.setattr(sys, "argv", ["harness", "report", str(run), "--figures", str(tmp_path / "f"), *out])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 5
    assert "the disk is full" in capsys.readouterr().err
    assert list((tmp_path / "f").iterdir()) == []


def test_a_compiled_design_is_copied_manifest_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, out = tmp_path / "compiled", tmp_path / "out"
    compiled.mkdir()
    for name in ("sm_80.cubin", "sm_90.cubin"):
        (compiled / name).write_bytes(name.encode())
    shape = manifest.LaunchShape(32, 1, 0, 1, 0, 0)
    made = manifest.Manifest(
        design="mine",
        source_hash="0",
        toolchain="12.1",
        compiler="NVRTC",
        options=[],
        launch=shape,
        tunables={},
        dtypes=[],
        index_dtypes=[],
        modes=[],
        weighted=True,
        padding=True,
        max_dim=0,
        dim_multiple=1,
        prepares=False,
        all_tables=False,
    )
    manifest.write(compiled, made)
    written: list[str] = []

    def counts(descriptor: int) -> None:
        written.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", counts)
        with pytest.raises(MachineError, match="the disk is full"):
            kernels.export([compiled], out)
    assert sorted(path.name for path in (out / "mine-12.1").iterdir()) == ["sm_80.cubin", "sm_90.cubin"]
    kernels.export([compiled], out)
    assert manifest.read(out / "mine-12.1") == made


@pytest.mark.parametrize("arguments", [["designs", "--json"], ["designs"], ["report", "RUN", "--json"]])
def test_a_full_standard_output_is_said(arguments: list[str], run: Path) -> None:
    command = [sys.executable, "-m", "harness.cli", *(a.replace("RUN", str(run)) for a in arguments)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = done.stderr.splitlines()[-1]
    assert said == "harness: the standard output: the disk is full; make room, or choose another place."
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
