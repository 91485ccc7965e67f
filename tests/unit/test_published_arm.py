"""A kernel taken out of PyTorch's wheel, as an arm of an experiment: planned, given to processes, images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import designs, experiment, plan
from harness.build import images, kernels, published
from harness.build.images import Settings, Target
from harness.errors import BadInputError
from harness.progress import Silent
from harness.run.local import LocalRunner
from tests import synthetic_wheel as synthetic

VERSION = "2.1.0+cu121"


@pytest.fixture
def taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's folder, in a cache of the test's own."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    return published.take(synthetic.published(tmp_path / "torch.whl"))


@pytest.fixture
def target() -> Target:
    return Target(designs.get("stock"), VERSION)


def test_an_experiment_names_it_by_its_version(tmp_path: Path) -> None:
    what = experiment.of_published(VERSION, "12.1", ["replicates=2"])
    assert [arm.label for arm in what.arms] == ["baseline@12.1", f"stock@{VERSION}"]
    assert (what.reference, what.replicates) == ("baseline@12.1", 2)
    path = tmp_path / "experiment.toml"
    path.write_text(experiment.to_toml(what), encoding="utf-8")
    assert experiment.read(path) == what
    launches = plan.make(what).launches
    assert {(launch.design, launch.toolchain) for launch in launches} == {
        ("baseline", "12.1"),
        ("stock", VERSION),
    }
    # Names of folders and files.
    assert all("+" not in cell.id and "/" not in cell.id for launch in launches for cell in launch.cells)


@pytest.mark.parametrize("design", ["fbgemm", "baseline"])
def test_a_version_is_for_pytorch_s_own_kernel_alone(design: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        f'title = "x"\nreference = "stock"\narms = [{{ design = "{design}", toolchain = "{VERSION}" }}]\n',
        encoding="utf-8",
    )
    with pytest.raises(BadInputError, match=r"arms\.0\.toolchain: (there is no toolchain|fbgemm brings no)"):
        experiment.read(path)


def test_a_local_process_runs_it(taken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.patch.build.build_op", lambda: Path("op.so"))
    launches = {
        launch.design: launch for launch in plan.make(experiment.of_published(VERSION, "12.1")).launches
    }
    environment = LocalRunner()._environment(launches["stock"], None, Silent())
    assert environment["HARNESS_DESIGN"] == str(taken)
    assert environment["HARNESS_OP_LIBRARY"] == "op.so"


def test_a_run_is_refused_before_it_begins_where_it_was_not_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    launches = {
        launch.design: launch for launch in plan.make(experiment.of_published(VERSION, "12.1")).launches
    }
    with pytest.raises(
        BadInputError, match=r"PyTorch 2\.1\.0\+cu121 is not here .*`harness baseline extract"
    ):
        LocalRunner()._environment(launches["stock"], None, Silent())


def test_an_image_is_given_it(taken: Path, target: Target, tmp_path: Path) -> None:
    assert images.targets(["stock"], [VERSION]) == [target]
    assert target.reference == "embedding-harness/stock:2.1.0-cu121"
    folders = images._stage_compiled([target, *images.targets(["stock"])], Settings(), tmp_path, Silent())
    assert list(folders) == [target.reference]
    # Laid out as the cache, where the build's own look for it finds it.
    inside = folders[target.reference] / taken.relative_to(kernels.cache_dir())
    assert {path.name for path in inside.iterdir()} >= {"manifest.json", "sm_80.cubin", "sm_90.cubin"}
    one = images.bake_definition([target], Settings(), folders)["target"][target.bake_name]
    assert (one["target"], one["tags"]) == ("design", [target.reference])
    assert one["args"] == {"DESIGN": "stock", "TOOLCHAIN": VERSION}
    assert one["contexts"] == {"compiled": str(folders[target.reference])}


def test_another_kernel_of_that_name_makes_the_image_stale(
    taken: Path, target: Target, tmp_path: Path
) -> None:
    before = images.build_hash(target, "")
    for path in taken.iterdir():
        path.unlink()
    published.take(synthetic.published(tmp_path / "another.whl", 75))
    assert images.build_hash(target, "") != before


def test_images_of_designs_and_of_pytorch_as_it_is_stay_what_they_were() -> None:
    assert [target.toolchain for target in images.targets(["combined", "stock", "fbgemm"], ["13.0"])] == [
        "13.0",
        "pytorch",
        "pytorch",
    ]
    with pytest.raises(BadInputError, match=rf"no toolchain '{VERSION.replace('+', '.')}' for combined"):
        images.targets(["combined"], [VERSION])


def test_a_cell_of_it_asks_for_it(taken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness import patch
    from harness.bench import design

    applied: list[Any] = []
    monkeypatch.setattr(patch, "apply", lambda folder, tunables: applied.append(folder))
    monkeypatch.setenv("HARNESS_DESIGN", str(taken))
    cell = next(
        cell for cell in plan.make(experiment.of_published(VERSION, "12.1")).cells if cell.design == "stock"
    )
    contestant = design.load(cell)
    assert applied == [taken]
    assert contestant.compiled is not None
    assert not contestant.prepares
