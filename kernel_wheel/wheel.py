"""Packs the package of this checkout, with its library and kernels, into a wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.errors import HarnessError
from kernel_wheel import kernels, library

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "embedding_kernels"


def pack(built: Path, output: Path) -> Path:
    """The wheel in the folder `output`. `built`: the library, beside its folder `kernels`.

    HarnessError in pip's words where that fails.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch)
        package = staged / "embedding_kernels"
        package.mkdir()
        for source in (*sorted(PACKAGE.glob("*.py")), PACKAGE / "py.typed"):
            shutil.copy(source, package)
        for design in kernels.DESIGNS:
            shutil.copytree(built.parent / "kernels" / design, package / "lib" / "kernels" / design)
        shutil.copy(built, package / "lib")
        for source in (Path(__file__).with_name("pyproject.toml"), PACKAGE / "README.md", ROOT / "LICENSE"):
            shutil.copy(source, staged)
        # Without code for one Python alone, but for one machine.
        tag = library.platform_tag(built)
        (staged / "setup.cfg").write_text(
            f"[bdist_wheel]\npython_tag = py3\nplat_name = {tag}\n", encoding="utf-8"
        )
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        command += ["--no-build-isolation", "--wheel-dir", str(staged / "dist"), str(staged)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        if done.returncode:
            raise HarnessError(f"pip could not pack embedding-kernels:\n{done.stderr[-4000:]}")
        (wheel,) = (staged / "dist").glob("*.whl")
        return Path(shutil.copy(wheel, output))
