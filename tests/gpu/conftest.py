"""Every design under every toolchain, compiled for the GPU at hand.

Where HARNESS_TEST_DESIGNS_DIR names a folder, the designs compiled there beforehand are used, so the machine
with the GPU needs no compiler: `python tests/gpu/precompile.py FOLDER sm_90` fills it on any machine.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import patch
from harness.bench.cell import Bench
from harness.bench.gpu import Gpu
from harness.patch import manifest
from harness.records import CellRecord
from tests.gpu.cells import Measure, make_cell
from tests.gpu.precompile import compile_one, everything
from tests.gpu.workers import among_others

WRONG = "wrong_design"
SLOW = "slow_tables"


def _of_these_workers() -> None:
    """Spreads pytest-xdist's workers over the boards, and the host's cores over the workers.

    Before CUDA looks round: each worker's first GPU is another one, and all are in sight."""
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if not worker or not workers:
        return
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(workers)))
    if "CUDA_VISIBLE_DEVICES" not in os.environ and (boards := torch.cuda.device_count()) > 1:
        first = int(worker.removeprefix("gw")) % boards
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str((first + n) % boards) for n in range(boards))


_of_these_workers()


@functools.cache
def precompiled() -> dict[str, Path]:
    """Folders by "design@toolchain"; empty where nothing was compiled beforehand."""
    named = os.environ.get("HARNESS_TEST_DESIGNS_DIR")
    if not named:
        return {}
    folders = [path.parent for path in sorted(Path(named).rglob(manifest.MANIFEST))]
    compiled = {
        f"{found.design}@{found.toolchain}": (folder, found.source_hash)
        for folder in folders
        if (found := manifest.read(folder))
    }
    for name, (design, _) in everything().items():
        if name not in compiled or compiled[name][1] != design.source_hash:
            raise pytest.UsageError(
                f"HARNESS_TEST_DESIGNS_DIR={named}: has {name} not at all or of older sources; fill it anew "
                f"with `python tests/gpu/precompile.py {named} ARCH`."
            )
    return {name: folder for name, (folder, _) in compiled.items()}


@functools.cache
def known() -> dict[str, bool]:
    """Every design under every toolchain, and whether it takes all tables in one launch."""
    if precompiled():
        return {name: manifest.read(folder).all_tables for name, folder in precompiled().items()}
    return {name: design.all_tables for name, (design, _) in everything().items()}


def names() -> list[str]:
    """Every design under every toolchain, those made for tests apart."""
    return [name for name in known() if not name.startswith((WRONG, SLOW))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`compiled`: every design. `per_table`: those for EmbeddingBag. `for_all_tables`: the others.
    `each_design`: every design under its newest toolchain, for what no toolchain decides."""
    newest = {name.partition("@")[0]: name for name in sorted(names())}
    chosen = {
        "compiled": names(),
        "each_design": list(newest.values()),
        "per_table": [name for name in names() if not known()[name]],
        "for_all_tables": [name for name, all_tables in known().items() if all_tables],
    }
    for fixture, designs in chosen.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, designs, indirect=True)


def compiled_folder(name: str) -> Path:
    if name in precompiled():
        return precompiled()[name]
    import torch

    major, minor = torch.cuda.get_device_capability()
    return compile_one(name, [f"sm_{major}{minor}"])


@pytest.fixture
def compiled(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The folder of a compiled design; the test applies it."""
    yield compiled_folder(request.param)
    patch.remove()


@pytest.fixture
def each_design(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The folder of a compiled design; the test applies it."""
    yield compiled_folder(request.param)
    patch.remove()


@pytest.fixture
def per_table(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The folder of a compiled design that takes EmbeddingBag's place."""
    yield compiled_folder(request.param)
    patch.remove()


@pytest.fixture
def for_all_tables(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The folder of a compiled design that serves embedding_bags."""
    yield compiled_folder(request.param)
    patch.remove()


@pytest.fixture
def any_compiled() -> Iterator[Path]:
    """One design, where it does not matter which."""
    yield compiled_folder(names()[0])
    patch.remove()


@pytest.fixture
def wrong() -> Iterator[Path]:
    """A design that computes the wrong thing."""
    toolchain = names()[0].partition("@")[2]
    yield compiled_folder(f"{WRONG}@{toolchain}")
    patch.remove()


@pytest.fixture
def pinning() -> Iterator[Path]:
    """A design that pins hot rows in L2."""
    yield compiled_folder(next(name for name in names() if manifest.read(compiled_folder(name)).prepares))
    patch.remove()


@pytest.fixture
def all_tables() -> Iterator[Path]:
    """A design that takes all tables in one launch."""
    yield compiled_folder(next(name for name in names() if manifest.read(compiled_folder(name)).all_tables))
    patch.remove()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that want the GPU to themselves come last, on one worker: each waits until no other test runs.
    The longest, which compile models, come first. pytest-xdist keeps this order if --no-loadscope-reorder
    says so."""

    def turn(item: pytest.Item) -> int:
        if item.get_closest_marker("alone"):
            return 2
        return 0 if item.path.stem == "test_compiled_on_gpu" else 1

    items.sort(key=turn)
    for item in items:
        if item.get_closest_marker("alone"):
            item.add_marker(pytest.mark.xdist_group("alone"))


@pytest.fixture(autouse=True)
def at_the_gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests marked `alone` run while no other does."""
    with among_others(alone=request.node.get_closest_marker("alone") is not None):
        yield


@functools.cache
def _measured_gpu(*, alone: bool) -> Gpu:
    return Gpu()


@pytest.fixture
def gpu(request: pytest.FixtureRequest, at_the_gpu: None) -> Gpu:
    """The GPU, with its ceilings measured; while no other test runs, where the test wants it to itself."""
    return _measured_gpu(alone=request.node.get_closest_marker("alone") is not None)


@pytest.fixture
def bench(tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench on that GPU, in a process that carries no design."""
    monkeypatch.delenv("HARNESS_DESIGN", raising=False)
    made = Bench(tmp_path)
    made._gpu = gpu
    return made


@pytest.fixture
def measure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Measures a compiled design."""

    def run(folder: Path, **changes: Any) -> CellRecord:
        monkeypatch.setenv("HARNESS_DESIGN", str(folder))
        found = manifest.read(folder)
        return bench.measure(make_cell(f"{found.design}@{found.toolchain}", **changes))

    return run
