"""What Podman is asked for, and sentences where it cannot be had: with a command that stands in for it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness import plan, wall
from harness.build import archives, images, podman
from harness.cli import cli
from harness.errors import BadInputError, MachineError
from harness.experiment import Experiment
from harness.files import Folder
from harness.plan import Launch
from harness.progress import Silent
from harness.records import to_json, write_whole
from harness.run import attempt, reaper
from harness.run import podman as podman_runner
from harness.run.attempt import Attempt
from harness.run.containers import OWNER_LABEL, RUN_LABEL
from harness.run.gpu import Gpu
from harness.run.podman import PodmanRunner
from harness.run.runner import choose

HOST = {"cgroupControllers": ["memory", "pids"], "cgroupVersion": "v2", "security": {"rootless": True}}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a `podman` in place that runs these lines of shell; it notes what it was asked."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")

    def put(lines: str) -> Path:
        noted = tmp_path / "noted"
        (place / "podman").write_text(f'#!/bin/sh\nshift\necho "$@" >>{noted}\n{lines}\n', encoding="utf-8")
        (place / "podman").chmod(0o755)
        return noted

    return put


def test_without_podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: Experiment) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"There is no `podman` command here .*apt-get install podman"):
        PodmanRunner().check(plan.make(experiment), tmp_path, Silent())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cgroupControllers": ["cpu"]}, "cannot limit memory and pids"),
        ({"cgroupControllers": None}, "cannot limit memory and pids"),
        ({"cgroupVersion": "v1"}, r"cannot limit memory and pids of containers for this user \(cgroups v1\)"),
    ],
)
def test_a_machine_that_cannot_limit_is_refused(
    changes: dict[str, Any], said: str, stand_in: Callable[[str], Path]
) -> None:
    stand_in(f"echo '{json.dumps({'host': HOST})}'")
    podman.require_limits()
    stand_in(f"echo '{json.dumps({'host': HOST | changes})}'")
    with pytest.raises(MachineError, match=said):
        podman.require_limits()


def test_podmans_own_words_are_passed_on(stand_in: Callable[[str], Path]) -> None:
    stand_in("echo 'time=now level=warning msg=x' >&2; echo 'Error: cannot set up namespace' >&2; exit 125")
    with pytest.raises(MachineError, match=r"^`podman info` failed: cannot set up namespace\.$"):
        podman.require_limits()
    with pytest.raises(MachineError, match=r"cannot run a container here: cannot set up namespace; try"):
        podman.require_running(podman.Image("sha256:0"), [])
    with pytest.raises(MachineError, match="cannot look at the image x: cannot set up namespace"):
        podman.image("x")
    stand_in("echo 'Error: x: image not known' >&2; exit 125")
    assert podman.image("x") is None


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Callable[[Launch], Attempt]]:
    """Makes an attempt at a launch of a run."""
    with Folder.open(tmp_path) as root, contextlib.ExitStack() as opened:
        yield lambda launch: opened.enter_context(attempt.begun(launch, root))


def options(made: Attempt, board: Gpu | None = None) -> list[str]:
    return PodmanRunner()._options(made, board, wall.Provenance("podman", "image"), 60)


def test_what_a_container_may_do(
    experiment: Experiment, begun: Callable[[Launch], Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = begun(plan.make(experiment).launches[0])
    words = options(made)
    for word in (
        "--network=none",
        "--read-only=true",
        "--read-only-tmpfs=false",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--pids-limit=4096",
        "--ulimit=core=0:0",
        "--http-proxy=false",
        "--log-driver=none",
        "--pull=never",
        f"--mount=type=bind,src={made.cells},dst=/launch/cells,ro=true",
        f"--mount=type=bind,src={made.output},dst=/launch/out",
        f"--label={RUN_LABEL}={made.root}",
        "--env=NVIDIA_VISIBLE_DEVICES=void",
    ):
        assert word in words
    assert not [word for word in words if word.startswith(("--device", "--privileged", "--volume"))]
    memory = {word.partition("=")[2] for word in words if word.startswith("--memory")}
    assert len(memory) == 1
    monkeypatch.setattr(podman, "rootless", lambda: True)
    assert "--userns=keep-id" in options(made)


def test_a_gpu_is_a_cdi_device_of_the_launchs_board(
    experiment: Experiment, begun: Callable[[Launch], Attempt]
) -> None:
    on_gpu = replace(experiment, workload=replace(experiment.workload, device="cuda"))
    made = begun(plan.make(on_gpu).launches[0])
    board = Gpu(3, "GPU-77", "H100", "580", 1, 1)
    assert [w for w in options(made, board) if w.startswith("--device")] == ["--device=nvidia.com/gpu=GPU-77"]


def test_gpus_that_no_specification_describes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman_runner, "CDI_FOLDERS", (tmp_path,))
    with pytest.raises(MachineError, match=r"describes GPU GPU-1; .*nvidia-ctk cdi generate"):
        podman_runner.require_cdi(["GPU-1"])
    (tmp_path / "nvidia.yaml").write_text("kind: nvidia.com/gpu\ndevices:\n- name: GPU-1\n", encoding="utf-8")
    podman_runner.require_cdi(["GPU-1"])
    with pytest.raises(MachineError, match="describes GPU GPU-2"):
        podman_runner.require_cdi(["GPU-1", "GPU-2"])


def test_a_path_that_a_mount_cannot_name(experiment: Experiment, tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    with (
        Folder.open(tmp_path / "a,b") as root,
        attempt.begun(plan.make(experiment).launches[0], root) as made,
        pytest.raises(MachineError, match="mounts no path with a comma"),
    ):
        options(made)


def test_the_reaper_asks_podman(stand_in: Callable[[str], Path]) -> None:
    noted = stand_in(
        'case "$1" in ps) test -e $0.gone && echo "[]" || echo \'[{"Id": "c0ffee", "Labels": null}]\';; '
        "rm) touch $0.gone;; container) exit 1;; esac"
    )
    assert not reaper._none_left_in_podman("me")
    assert reaper._none_left_in_podman("me")
    asked = noted.read_text(encoding="utf-8")
    assert f"--filter label={OWNER_LABEL}=me" in asked
    assert "rm --force --time 0 --volumes c0ffee" in asked


def test_podman_is_chosen() -> None:
    assert isinstance(choose(local=False, podman=True, gpu="0", wait=False, build=True), PodmanRunner)


def archive(folder: Path, stand_in: Callable[[str], Path], there: str) -> Path:
    """An archive of one image, and a Podman that knows it by another id."""
    file = folder / "images.tar"
    file.write_bytes(b"layers")
    told = archives.Contents({"embedding-harness/stock:pytorch": "sha256:ours"}, archives._sha256(file))
    write_whole(archives.listing_of(file), to_json(told))
    stand_in(f"""case "$1" in image) echo '[{{"Id": "{there}"}}]';; esac""")
    return file


def test_images_are_known_by_their_digests(tmp_path: Path, stand_in: Callable[[str], Path]) -> None:
    file = archive(tmp_path, stand_in, "ours")
    result = CliRunner().invoke(cli, ["images", "load", str(file), "--podman"], catch_exceptions=False)
    assert result.stdout == "embedding-harness/stock:pytorch sha256:ours\n"
    file = archive(tmp_path, stand_in, "theirs")
    with pytest.raises(MachineError, match="was loaded as sha256:theirs, and is sha256:ours in"):
        archives.restore(file, into_podman=True, progress=Silent())
    file.write_bytes(b"other layers")
    with pytest.raises(BadInputError, match=r"images\.tar: is not the file that .*\.json tells of"):
        archives.restore(file, into_podman=True, progress=Silent())
    file.unlink()
    with pytest.raises(BadInputError, match=r"images\.tar: cannot be read: No such file"):
        archives.restore(file, into_podman=True, progress=Silent())
    with pytest.raises(BadInputError, match=r"images\.tar\.json: is there already"):
        archives.save(images.targets(["stock"]), file, Silent())
