"""The bake definition is made of opt_designs/, and an image is current only while its sources are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ImageNotFound

from harness import __version__, designs
from harness.build import engine, images, kernels
from harness.build.images import Settings, Target
from harness.errors import BadInputError, HarnessError, MachineError
from harness.progress import Silent

DOCKERFILE = (images.REPOSITORY / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture
def baseline() -> Target:
    return Target(designs.get("baseline"), "12.1")


def test_a_folder_is_an_image() -> None:
    references = [target.reference for target in images.targets()]
    expected = [
        f"embedding-harness/{design.name}:{tag}"
        for design in designs.discover().values()
        for tag in (kernels.toolchains() if design.compiled else ["pytorch"])
    ]
    assert references == expected
    assert [t.reference for t in images.targets(["combined"], ["13.0"])] == [
        "embedding-harness/combined:13.0"
    ]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"no toolchain '9\.9'; known: 12\.1"):
        images.targets([], ["9.9"])
    with pytest.raises(BadInputError, match="no design 'nope'"):
        images.targets(["nope"])


def test_the_definition(baseline: Target) -> None:
    stock = Target(designs.get("stock"), "pytorch")
    made = images.bake_definition([baseline, stock], Settings(archs=("sm_90",)), {})
    assert made["group"]["default"]["targets"] == ["baseline-12_1", "stock-pytorch"]
    one = made["target"]["baseline-12_1"]
    assert one["target"] == "design"
    assert one["args"] == {"ARCHS": "sm_90", "DESIGN": "baseline", "TOOLCHAIN": "12.1"}
    assert one["tags"] == ["embedding-harness/baseline:12.1"]
    assert one["labels"]["embedding-harness.design-hash"] == baseline.design.source_hash
    assert f"ARG TORCH_VERSION={one['labels']['embedding-harness.torch']}\n" in DOCKERFILE
    assert "network" not in one
    other = made["target"]["stock-pytorch"]
    assert other["target"] == "stock"
    assert "DESIGN" not in other["args"]


def test_a_peer_is_an_image_of_its_own() -> None:
    (peer,) = images.targets(["fbgemm"])
    assert peer.reference == "embedding-harness/fbgemm:pytorch"
    one = images.bake_definition([peer], Settings(), {})["target"]["fbgemm-pytorch"]
    assert one["target"] == "peer"
    assert one["args"] == {"DESIGN": "fbgemm"}


def test_fbgemm_is_that_of_the_images_pytorch() -> None:
    """FBGEMM's release n is built for PyTorch's of the same month: 1.6 for 2.11, 1.8 for 2.13."""
    pinned = (designs.get("fbgemm").folder / "requirements.txt").read_text(encoding="utf-8")
    release = re.search(r"^fbgemm-gpu==1\.(\d+)\.", pinned, re.MULTILINE)
    assert release is not None
    assert images.torch_version().startswith(f"2.{int(release[1]) + 5}.")


def test_a_wheelhouse_means_no_network(baseline: Target, tmp_path: Path) -> None:
    one = images.bake_definition([baseline], Settings(wheelhouse=tmp_path), {})["target"]["baseline-12_1"]
    assert one["network"] == "none"
    assert one["contexts"] == {"wheelhouse": str(tmp_path)}
    assert one["args"]["PIP_NO_INDEX"] == "1"


def test_settings_of_the_environment(tmp_path: Path) -> None:
    given = {"HARNESS_TORCH_IMAGE": "torch:mine", "HARNESS_ARCHS": "sm_80 sm_90", "HARNESS_PRECOMPILED": "1"}
    settings = Settings.from_environment(given | {"HARNESS_WHEELHOUSE": str(tmp_path)})
    assert settings == Settings(
        torch_image="torch:mine", archs=("sm_80", "sm_90"), wheelhouse=tmp_path, precompiled=True
    )
    assert Settings.from_environment({}) == Settings()
    with pytest.raises(BadInputError, match="HARNESS_WHEELHOUSE=/no/such: is not a folder"):
        Settings.from_environment({"HARNESS_WHEELHOUSE": "/no/such"})


def test_every_build_argument_is_one_of_the_dockerfile(baseline: Target, tmp_path: Path) -> None:
    full = Settings("base", "torch", "1", ("sm_90",), tmp_path, True)
    given = images.bake_definition([baseline], full, {baseline.reference: tmp_path})["target"][
        "baseline-12_1"
    ]
    assert set(given["args"]) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    assert set(given["contexts"]) <= set(re.findall(r"^FROM scratch AS (\w+)", DOCKERFILE, re.MULTILINE))


class Client:
    """A Docker client that knows the labels of images."""

    def __init__(self, known: dict[str, dict[str, str]]) -> None:
        self.known = known
        self.images = self

    def get(self, reference: str) -> Any:
        if reference not in self.known:
            raise ImageNotFound("none")
        return type("Image", (), {"labels": self.known[reference]})


def built(target: Target, settings: Settings) -> Any:
    made = images.bake_definition([target], settings, {})["target"][target.bake_name]
    return Client({target.reference: made["labels"]})


def test_missing_stale_current(baseline: Target) -> None:
    client = built(baseline, Settings())
    assert images.state(client, baseline, Settings()) == "current"
    assert images.state(client, Target(baseline.design, "13.0"), Settings()) == "missing"
    changed = Target(replace(baseline.design, max_registers=32), "12.1")
    assert images.state(client, changed, Settings()) == "stale"
    assert images.state(client, changed) == "stale"


def test_other_settings_make_an_image_stale_for_a_build_but_not_for_a_run(baseline: Target) -> None:
    client = built(baseline, Settings(torch_image="torch:mine"))
    assert images.state(client, baseline, Settings()) == "stale"
    assert images.state(client, baseline) == "current"


def test_an_image_of_somebody_else_is_stale(baseline: Target) -> None:
    assert images.state(Client({baseline.reference: {}}), baseline) == "stale"  # type: ignore[arg-type]


def test_the_hash_covers_what_the_dockerfile_copies(
    baseline: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    covered = {str(path.relative_to(images.REPOSITORY)) for path in images._copied()}
    assert {
        "Dockerfile",
        "docker/requirements.txt",
        "harness/bench/__main__.py",
        "harness/records.py",
    } <= covered
    assert {"harness/patch/op.cpp", "harness/build/kernels.py", "opt_designs/common/lookup_args.h"} <= covered
    assert "harness/patch/launching/driver.h" in covered
    elsewhere = {"harness/cli/__init__.py", "harness/build/images.py", "opt_designs/baseline/kernel.cuh"}
    assert not elsewhere & covered
    before = images.build_hash(baseline, "{}")
    monkeypatch.setattr(images, "_copied", lambda: [images.REPOSITORY / "Dockerfile"])
    assert images.build_hash(baseline, "{}") != before


def test_the_dockerfile_needs_no_frontend_image() -> None:
    assert "syntax=" not in DOCKERFILE.split("FROM", 1)[0]


def test_the_entry_point_in_images_is_the_packages() -> None:
    project = tomllib.loads((images.REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = images.REPOSITORY / "docker" / "embedding_harness.dist-info"
    expected = "[torch.backends]\n" + "".join(
        f"{name} = {value}\n" for name, value in project["entry-points"]["torch.backends"].items()
    )
    assert (info / "entry_points.txt").read_text(encoding="utf-8") == expected
    metadata = (info / "METADATA").read_text(encoding="utf-8").splitlines()
    assert f"Name: {project['name']}" in metadata
    assert f"Version: {project['version']}" in metadata
    assert project["version"] == __version__


def test_precompiled_kernels_come_one_design_at_a_time(
    baseline: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))

    def compiled(design: designs.Design, toolchain: str, *_: Any, **__: Any) -> Path:
        folder = tmp_path / "cache" / "compiled" / f"{design.name}-{toolchain}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}", encoding="utf-8")
        return folder

    monkeypatch.setattr(kernels, "compile_design", compiled)
    wanted = [baseline, Target(designs.get("stock"), "pytorch")]
    staging = tmp_path / "staging"
    assert images._stage_compiled(wanted, Settings(), staging, Silent()) == {}
    folders = images._stage_compiled(wanted, Settings(precompiled=True), staging, Silent())
    assert list(folders) == [baseline.reference]
    files = [p.relative_to(folders[baseline.reference]) for p in folders[baseline.reference].rglob("*.json")]
    assert files == [Path("compiled/baseline-12.1/manifest.json")]


FAILED = """\
#12 [baseline-12_1 op 3/3] RUN python3 -m harness.patch.build
#12 ERROR: process did not complete successfully: exit code: 1
------
 > [baseline-12_1 op 3/3] RUN python3 -m harness.patch.build:
0.312 In file included from x.cpp:
0.313 x.h:38:12: error: 'had' was not declared
0.313    38 |   return had;
------
Dockerfile:40
--------------------
  39 |     # A reason.
  40 | >>> RUN python3 -m harness.patch.build
--------------------
ERROR: target baseline-12_1: failed to solve
"""


def test_a_failed_build_is_one_sentence() -> None:
    assert images._failure(FAILED.splitlines()) == "x.h:38:12: error: 'had' was not declared"
    assert images._failure(["#1 x", "ERROR: no builder"]) == "ERROR: no builder"
    assert images._failure([]) == "docker buildx bake said nothing."


def fake_docker(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `docker` command that builds by this script, in the context "mine"."""
    context = {"Name": "mine", "Endpoints": {"docker": {"Host": "unix:///mine.sock"}}}
    told = f"[ $1 = context ] && echo '{json.dumps([context])}' && exit"
    (folder / "docker").write_text(f"#!/bin/sh\n{told}\n{script}\n", encoding="utf-8")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_progress_and_log_of_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen(Silent):
        def __init__(self) -> None:
            self.told: list[Any] = []

        def now(self, what: str) -> None:
            self.told.append(what)

        def advance(self, steps: int = 1) -> None:
            self.told.append(steps)

    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    log = "#9 [a-12_1 kernels 2/2] RUN x\n#9 DONE\n#30 naming to embedding-harness/a:12.1 done\n"
    (tmp_path / "log").write_text(log, encoding="utf-8")
    fake_docker(tmp_path, f"cat > {tmp_path}/definition; cat {tmp_path}/log", monkeypatch)
    seen = Seen()
    images._bake({"target": {}}, seen)
    assert seen.told == ["stage a-12_1 kernels", 1]
    assert (tmp_path / "build.log").read_text(encoding="utf-8") == log
    assert json.loads((tmp_path / "definition").read_text(encoding="utf-8")) == {"target": {}}


def test_a_build_is_for_the_daemon_that_runs_are_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    fake_docker(tmp_path, 'cat > /dev/null; echo "$@ in $DOCKER_CONTEXT"', monkeypatch)
    images._bake({}, Silent())
    said = (tmp_path / "build.log").read_text(encoding="utf-8")
    assert said == "buildx --builder mine bake --progress plain -f - in mine\n"


def test_a_build_that_ends_before_it_reads_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    fake_docker(tmp_path, "exec <&-; echo 'ERROR: no builder'; exit 1", monkeypatch)
    with pytest.raises(HarnessError, match="could not be built: ERROR: no builder"):
        images._bake({"target": "x" * 10_000_000}, Silent())


def test_a_build_that_fails_names_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    fake_docker(tmp_path, "cat > /dev/null; echo 'ERROR: no room'; exit 1", monkeypatch)
    with pytest.raises(HarnessError, match=f"ERROR: no room .the whole log: {tmp_path}/build.log"):
        images._bake({}, Silent())


def test_a_base_image_out_of_reach_is_the_machine_s_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    told = "ERROR: failed to solve: base:1: failed to do request: no such host"
    fake_docker(tmp_path, f"cat > /dev/null; echo '{told}'; exit 1", monkeypatch)
    with pytest.raises(MachineError, match="no such host; give an image that is there by HARNESS_BASE_IMAGE"):
        images._bake({}, Silent())


def test_no_buildx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, "exit 1", monkeypatch)
    with pytest.raises(MachineError, match="no buildx plugin"):
        engine.require_buildx()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(MachineError, match="no `docker` command"):
        engine.require_buildx()


def test_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(MachineError, match="No Docker daemon answers"), engine.connection():
        pass


def test_the_stage_that_compiles_has_all_that_it_imports(tmp_path: Path) -> None:
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))
    (tmp_path / "harness").mkdir()
    for stage in ("base", "compiler"):
        for sources, target in re.findall(r"^COPY (harness/.*) (harness/\S*)$", stages[stage], re.MULTILINE):
            for source in map(images.REPOSITORY.joinpath, sources.split()):
                if source.is_dir():
                    shutil.copytree(source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, tmp_path / target)
    # Without site, by which an editable installation would lend what is missing.
    packages = f"{tmp_path}:{sysconfig.get_path('purelib')}"
    command = [sys.executable, "-S", "-m", "harness.build.kernels", "--help"]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": packages}, check=True)
