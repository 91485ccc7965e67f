"""A copy of the checkout, for tests that change what is built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from harness.build import images
from harness.build.images import Settings

_BUILD = """
import json, os, sys
from pathlib import Path
from harness.build import images
images.REGISTRY = os.environ["REGISTRY"]
outcome = images.build(images.targets(sys.argv[1:], ["12.1"]))
print(json.dumps({row["image"].split("/")[-1]: row["state"] for row in outcome}))
"""


class Copy:
    """A copy of the checkout, whose designs may be changed."""

    def __init__(self, folder: Path, settings: Settings, registry: str) -> None:
        self.folder = folder
        self.registry = f"{registry}/{uuid.uuid4().hex[:12]}"
        for name in ("harness", "opt_designs", "docker"):
            shutil.copytree(images.REPOSITORY / name, folder / name)
        for name in ("Dockerfile", ".dockerignore"):
            shutil.copy(images.REPOSITORY / name, folder / name)
        self.environment = os.environ | {
            "REGISTRY": self.registry,
            "HARNESS_BASE_IMAGE": settings.base_image,
            "HARNESS_TORCH_VERSION": settings.torch_version,
            "HARNESS_ARCHS": " ".join(settings.archs),
            "HARNESS_WHEELHOUSE": str(settings.wheelhouse),
        }

    def build(self, *names: str, **environment: str) -> dict[str, str]:
        """Builds images (default: three) and tells what was done about each."""
        done = self.run(_BUILD, *(names or ("baseline", "optmt", "stock")), **environment)
        return dict(json.loads(done))

    def run(self, code: str, *arguments: str, **environment: str) -> str:
        """What Python code prints that sees the copy in place of the checkout."""
        command = [sys.executable, "-c", code, *arguments]
        env = self.environment | environment
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def cap(self, registers: int) -> None:
        """Changes one design: the register cap of optmt."""
        path = self.folder / "opt_designs" / "optmt" / "design.toml"
        lines = path.read_text(encoding="utf-8").splitlines()
        changed = [f"max_registers = {registers}" if x.startswith("max_registers") else x for x in lines]
        assert changed != lines
        path.write_text("\n".join(changed) + "\n", encoding="utf-8")
