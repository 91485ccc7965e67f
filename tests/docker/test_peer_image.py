"""Another library in an image of its own, built without a network and measured on the CPU."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import docker
import pytest

from harness.records import CellRecord, load
from tests.docker.checkout import Copy

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(900),
]

# The library: one that the wheels hold and no image of ours does.
REQUIREMENT = "platformdirs==4.14.7"
PEER = """
import platformdirs
import torch

def version():
    return f"platformdirs {platformdirs.__version__}"

def make(batch, tunables):
    return lambda given: lambda: torch.cat([given.lookup(t) for t in range(given.work.tables)], dim=1)
"""
EXPERIMENT = """
title = "A library"
arms = [{ design = "tiny" }]
reference = "tiny"
datasets = ["one_item"]
replicates = 1
workload = { device = "cpu", tables = 2, rows = 1000, dim = 16, batch = 8, pooling = 4 }
timing = { max_seconds = 0.1 }
"""
RUN = """
import os, sys
from pathlib import Path
from harness import experiment
from harness.build import images
from harness.run import campaign
from harness.run.docker import DockerRunner
images.REGISTRY = os.environ["REGISTRY"]
campaign.start(experiment.read(Path(sys.argv[1])), DockerRunner(), Path(sys.argv[2]))
"""


def test_a_folder_with_a_library_is_built_and_measured(
    copy: Copy, client: docker.DockerClient, tmp_path: Path
) -> None:
    folder = copy.folder / "opt_designs" / "tiny"
    folder.mkdir()
    (folder / "design.toml").write_text(
        'title = "Tiny"\nsummary = "A library."\nkind = "peer"\nall_tables = true\n', encoding="utf-8"
    )
    (folder / "requirements.txt").write_text(f"{REQUIREMENT}\n", encoding="utf-8")
    (folder / "peer.py").write_text(PEER, encoding="utf-8")
    (tmp_path / "tiny.toml").write_text(EXPERIMENT, encoding="utf-8")

    assert copy.build("tiny") == {"tiny:pytorch": "built"}
    copy.run(RUN, str(tmp_path / "tiny.toml"), str(tmp_path / "run"))
    (path,) = (tmp_path / "run").glob("cells/*/record.json")
    record = load(CellRecord, path)
    assert (record.status, record.message) == ("ok", "")
    assert record.kernel is not None
    assert (record.kernel.name, record.kernel.compiler) == ("tiny", REQUIREMENT.replace("==", " "))
    assert record.environment is not None
    assert record.environment.torch == version("torch"), "the library has not brought another"
    assert record.environment.image.startswith(f"{copy.registry}/tiny:pytorch@sha256:")

    assert copy.build("tiny") == {"tiny:pytorch": "up to date"}
    (folder / "peer.py").write_text(f"{PEER}\n# changed", encoding="utf-8")
    assert copy.build("tiny") == {"tiny:pytorch": "built"}
    user = client.images.get(f"{copy.registry}/tiny:pytorch").attrs["Config"]["User"]
    assert user == "1000:1000"
