"""Images built by a real engine from the real Dockerfile, without a network.

The base is a Debian made on this machine, the packages come from a folder of wheels. The images go by
another name than the product's, so that those are left alone, and stay in the engine, so that the next test
run is quick.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import docker
import pytest
from filelock import FileLock

from harness.build import engine, images, kernels
from harness.build.cache import cache_dir, make_once
from harness.build.images import Settings, Target
from harness.build.wheelhouse import download
from tests.docker.checkout import Copy

REGISTRY = "embedding-harness-test"
TOOLCHAIN = "12.1"
_PACKAGES = "python3,python3-venv,g++"


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    with engine.connection() as connected:
        yield connected


@pytest.fixture(scope="session")
def base_image(client: docker.DockerClient) -> str:
    """A minimal Debian or Ubuntu with Python and a compiler; HARNESS_TEST_BASE_IMAGE names another."""
    if given := os.environ.get("HARNESS_TEST_BASE_IMAGE"):
        return given
    system = platform.freedesktop_os_release()
    suite = system.get("VERSION_CODENAME", "")
    tag = f"{REGISTRY}/base:{suite}-{hashlib.sha256(_PACKAGES.encode()).hexdigest()[:8]}"
    with _alone("base"):
        return _made_base(tag, suite, client)


@contextlib.contextmanager
def _alone(what: str) -> Iterator[None]:
    """One test process at a time makes what all of them use."""
    with FileLock(Path(tempfile.gettempdir()) / f"{REGISTRY}-{what}.lock"):
        yield


def _made_base(tag: str, suite: str, client: docker.DockerClient) -> str:
    if client.images.list(tag):
        return tag
    if shutil.which("debootstrap") is None or os.getuid():
        pytest.skip("needs debootstrap and root, or HARNESS_TEST_BASE_IMAGE, for its base image")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        call("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", suite, str(root), _mirror())
        unused = [f"--exclude=./{name}" for name in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc")]
        archive = Path(folder) / "root.tar"
        call("tar", "-C", str(root), *unused, "-cf", str(archive), ".")
        call("docker", "import", str(archive), tag)
    return tag


def call(*command: str) -> None:
    """Runs a command; the test fails with its words where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def _mirror() -> str:
    """Where this machine gets its own packages from."""
    listed = [p for p in Path("/etc/apt").rglob("*") if p.suffix in (".list", ".sources")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in listed)
    addresses = re.findall(
        r"^(?:deb\s.*?|URIs:\s*)(https?://\S+/(?:debian|ubuntu)/?)(?:\s|$)", text, re.MULTILINE
    )
    if not addresses:
        pytest.skip("needs a package source in /etc/apt, or HARNESS_TEST_BASE_IMAGE, for its base image")
    return str(addresses[0])


@pytest.fixture(scope="session")
def wheelhouse(base_image: str, client: docker.DockerClient) -> Path:
    """Everything that the build would download, for the base image's Python."""
    found = client.containers.run(base_image, ["python3", "--version"], remove=True, network_mode="none")
    python = re.search(r"(\d+\.\d+)", found.decode())
    assert python is not None
    torch = version("torch").partition("+")[0]
    needed = [path.read_text(encoding="utf-8") for path in (images.REPOSITORY / "docker").glob("*.txt")]
    content = [python[1], torch, kernels.toolchains()[TOOLCHAIN].packages, *needed]
    cache = Path(os.environ.get("HARNESS_TEST_CACHE") or cache_dir() / "tests")
    folder = cache / f"wheelhouse-{hashlib.sha256(repr(content).encode()).hexdigest()[:16]}"
    return make_once(
        folder, lambda made: download(made, python=python[1], torch=torch, toolchains=[TOOLCHAIN])
    )


@pytest.fixture(scope="session")
def settings(base_image: str, wheelhouse: Path) -> Settings:
    """A build without a network."""
    torch = version("torch").partition("+")[0]
    return Settings(base_image=base_image, torch_version=torch, archs=("sm_90",), wheelhouse=wheelhouse)


@contextlib.contextmanager
def _own_registry() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "REGISTRY", REGISTRY)
        yield


@pytest.fixture(scope="module", autouse=True)
def own_names() -> Iterator[None]:
    """Images of these tests under names of their own; other tests of the process need the usual ones."""
    with _own_registry():
        yield


@pytest.fixture(scope="session")
def built(settings: Settings) -> list[Target]:
    """The images of baseline and stock."""
    with _own_registry(), _alone("images"):
        wanted = images.targets(["baseline", "stock"], [TOOLCHAIN])
        images.build(wanted, settings)
    return wanted


@pytest.fixture
def copy(
    tmp_path: Path, settings: Settings, built: list[Target], client: docker.DockerClient
) -> Iterator[Copy]:
    made = Copy(tmp_path / "copy", settings, REGISTRY)
    yield made
    for image in client.images.list(f"{made.registry}/*"):
        for tag in image.tags:
            if tag.startswith(made.registry):
                client.images.remove(tag)
