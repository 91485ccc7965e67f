"""The real Dockerfile, built by the real engine."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound
from docker.models.images import ImageCollection

from harness import __version__
from harness.build import engine, images
from harness.build.images import Settings, Target
from harness.patch import manifest
from tests.docker.checkout import Copy

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(900),
]


def run(client: docker.DockerClient, target: Target, code: str, **options: Any) -> str:
    """What Python code prints in a container of an image."""
    said: bytes = client.containers.run(
        target.reference, ["-c", code], entrypoint="python3", remove=True, network_mode="none", **options
    )
    return said.decode()


def test_labels_and_user(client: docker.DockerClient, built: list[Target]) -> None:
    for target in built:
        image = client.images.get(target.reference)
        labels = {
            k.split(".", 1)[1]: v for k, v in image.labels.items() if k.startswith("embedding-harness.")
        }
        assert labels["design"] == target.design.name
        assert labels["design-hash"] == target.design.source_hash
        assert labels["toolchain"] == target.toolchain
        assert labels["version"] == __version__
        assert labels["torch"] in run(client, target, "import torch; print(torch.__version__)")
        assert image.attrs["Config"]["User"] == "1000:1000"
        assert images.state(client, target) == "current"


def test_a_design_is_in_pytorch_from_its_import_on(client: docker.DockerClient, built: list[Target]) -> None:
    code = "import torch; from harness import patch; print(patch.active())"
    assert {t.design.name: run(client, t, code).strip() for t in built} == {
        "baseline": "baseline",
        "stock": "None",
    }


def test_an_image_holds_its_design_and_no_compiler(
    client: docker.DockerClient, built: list[Target], tmp_path: Path
) -> None:
    text = run(client, built[0], "print(open('/opt/harness/design/manifest.json').read())")
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    found = manifest.read(tmp_path)
    assert (found.design, found.source_hash) == ("baseline", built[0].design.source_hash)
    assert {entry.arch for entry in found.entries} == {"sm_90"}
    code = "import os; print(os.path.exists('/opt/harness/design'), os.path.exists('/opt/compiler'))"
    assert run(client, built[1], code).split() == ["False", "False"]


def test_building_again_builds_nothing(
    settings: Settings, built: list[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(images, "_bake")
    outcome = images.build(built, settings)
    assert [row["state"] for row in outcome] == ["up to date", "up to date"]


def test_touching_one_design_rebuilds_that_one_only(copy: Copy, client: docker.DockerClient) -> None:
    def ids() -> dict[str, str]:
        names = ("baseline:12.1", "optmt:12.1", "stock:pytorch")
        return {name: client.images.get(f"{copy.registry}/{name}").id or "" for name in names}

    copy.build()
    before = ids()
    copy.cap(48)
    assert copy.build() == {
        "baseline:12.1": "up to date",
        "optmt:12.1": "built",
        "stock:pytorch": "up to date",
    }
    after = ids()
    assert [name for name in before if before[name] != after[name]] == ["optmt:12.1"]
    # All that is larger than a design is shared: the images differ in their last layers alone.
    optmt = client.images.get(f"{copy.registry}/optmt:12.1").attrs["RootFS"]["Layers"]
    baseline = client.images.get(f"{copy.registry}/baseline:12.1").attrs["RootFS"]["Layers"]
    assert optmt[:-1] == baseline[:-1]


def test_kernels_compiled_before_are_used(
    copy: Copy, client: docker.DockerClient, tmp_path: Path, wheelhouse: Path
) -> None:
    copy.cap(random.randrange(64, 250))  # not yet in the builder's own cache, which outlives this test
    cache = tmp_path / "cache"
    copy.environment |= {"HARNESS_CACHE_DIR": str(cache)}
    # With a mark among the kernels, made before the cache takes them in and seals them.
    code = """
from pathlib import Path
from harness import designs
from harness.build import kernels
compiled = kernels._compile
def marked(*given):
    compiled(*given)
    next(one for one in given if isinstance(one, Path)).joinpath("from_the_host.cubin").touch()
kernels._compile = marked
kernels.compile_design(designs.get("optmt"), "12.1", ["sm_90"])
"""
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheelhouse)}
    subprocess.run([sys.executable, "-c", code], cwd=copy.folder, env=copy.environment | offline, check=True)
    assert copy.build(HARNESS_PRECOMPILED="1")["optmt:12.1"] == "built"
    listed = client.containers.run(
        f"{copy.registry}/optmt:12.1",
        ["-c", "import os; print(os.listdir('/opt/harness/design'))"],
        entrypoint="python3",
        remove=True,
        network_mode="none",
    )
    assert b"from_the_host" in listed


def test_the_daemon_says_whether_it_can_give_gpus(
    client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    remove = ImageCollection.remove

    def noted(self: ImageCollection, image: str, **options: Any) -> None:
        removed.append(image)
        remove(self, image, **options)

    monkeypatch.setattr(ImageCollection, "remove", noted)
    obstacle = engine.gpu_obstacle(client)
    assert obstacle == "" or "device" in obstacle or "nvidia" in obstacle.lower()
    (probe,) = removed
    with pytest.raises(ImageNotFound):
        client.images.get(probe)
