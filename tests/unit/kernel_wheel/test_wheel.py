"""The wheel: what is in it, and that it works where there is neither this repository nor a compiler."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.build import fatbin as reader
from harness.build.toolchain import Installation
from kernel_wheel import kernels, library, wheel

pytestmark = [
    pytest.mark.compiler,
    pytest.mark.nvrtc,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("wheel"),
]

TORCH = [importlib.metadata.version("torch"), *os.environ.get("HARNESS_SERVED_TORCH", "").split()]
"""Versions to serve with; others than that at hand may take gigabytes to install."""
PROGRAM = """
import copy, pickle, shutil, sys
import torch
from torch import nn
assert shutil.which("c++") is None and shutil.which("cc") is None
import embedding_kernels as ek
assert sys.prefix in ek.__file__, ek.__file__
bags = nn.ModuleList([nn.EmbeddingBag(20, 4, mode="sum"), nn.EmbeddingBag(9, 6, mode="mean")]).eval()
model = copy.deepcopy(bags)
model = ek.optimize(model, strict=True)
indices, offsets = torch.tensor([3, 1, 19, 0, 8, 2]), torch.tensor([0, 2, 3, 3, 6])
output = model(indices, offsets)
wanted = [bags[0](indices[:3], torch.tensor([0, 2])), bags[1](indices[3:], torch.tensor([0, 0]))]
torch.testing.assert_close(output, torch.cat(wanted, dim=1))
model(torch.tensor([77]), torch.tensor([0, 1, 1]))
assert ek.bad_lookups(model)[0].index == 77
assert torch.equal(pickle.loads(pickle.dumps(model))(indices, offsets), output)
ready = ek.check("cuda")
assert ready or ready.why_not
try:
    output.sum().backward()
except RuntimeError as error:
    assert "has no gradient" in str(error)
print(torch.__version__.partition("+")[0], "served")
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, installed: Callable[[str], Installation]) -> Path:
    """The wheel, with kernels for one architecture, which are compiled in two minutes and then kept."""
    installed(kernels.TOOLCHAIN)
    folder = tmp_path_factory.mktemp("wheel")
    built = folder / "embedding_kernels.so"
    shutil.copy(library.build_in_place(), built)  # as the other tests have it: compiled once
    kernels.build(folder / "kernels", (90,), ptx=False)
    return wheel.pack(built, folder / "dist")


def test_its_name_and_what_it_holds(packed: Path) -> None:
    name, version, python, abi, platform = packed.stem.split("-")
    assert (name, version, python, abi) == ("embedding_kernels", "0.1.0", "py3", "none")
    assert platform.startswith("manylinux_2_")
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
        metadata = archive.read("embedding_kernels-0.1.0.dist-info/METADATA").decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert required == ["Requires-Dist: torch>=2.10"]
    folders = {name.partition("/")[0] for name in names}
    assert folders == {"embedding_kernels", "embedding_kernels-0.1.0.dist-info"}
    assert not [name for name in names if name.endswith((".cpp", ".h", ".lock"))]
    fatbins = sorted("/".join(Path(name).parts[-2:]) for name in names if name.endswith(".fatbin"))
    assert fatbins == [
        f"{design}/{row_type}.fatbin" for design in kernels.DESIGNS for row_type in sorted(kernels.OUTPUTS)
    ]


@pytest.mark.parametrize("design", list(kernels.DESIGNS))
def test_every_kernel_that_is_listed_is_in_its_file(packed: Path, design: str) -> None:
    folder = f"embedding_kernels/lib/kernels/{design}"
    with zipfile.ZipFile(packed) as archive:
        lines = archive.read(f"{folder}/kernels.txt").decode().splitlines()
        listed = [line.split() for line in lines if line.startswith("kernel ")]
        for row_type in kernels.OUTPUTS:
            wanted = {words[-1] for words in listed if words[2] == row_type}
            with archive.open(f"{folder}/{row_type}.fatbin") as file:
                ((position, binary),) = reader.binaries(file, row_type)
            (entry,) = reader.entries(binary, row_type, position)
            assert entry.arch == "sm_90"
            assert len(entry.payload) < entry.size / 4
            assert wanted <= symbols(entry.cubin())
            assert len(wanted) >= 8


def symbols(cubin: bytes) -> set[str]:
    import io

    table = ELFFile(io.BytesIO(cubin)).get_section_by_name(".symtab")
    return {symbol.name for symbol in table.iter_symbols()}  # type: ignore[union-attr]


def test_the_library_asks_pytorch_for_its_stable_interface_alone(packed: Path) -> None:
    with (packed.parent.parent / "embedding_kernels.so").open("rb") as file:
        elf = ELFFile(file)
        needed = {symbol.name for symbol in elf.get_section_by_name(".dynsym").iter_symbols()}  # type: ignore[union-attr]
    of_pytorch = {name for name in needed if "torch" in name or "c10" in name or name.startswith("Py")}
    assert {name for name in of_pytorch if not name.startswith(("aoti_torch_", "torch_"))} == set()
    assert "aoti_torch_library_def" in of_pytorch


def link_installed(names: Sequence[str], into: Path) -> None:
    """Has another environment hold these distributions of this one, what they require, and nothing else."""
    waiting, done = list(names), set[str]()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in done:
            continue
        done.add(name)
        distribution = importlib.metadata.distribution(name)
        for required in map(Requirement, distribution.requires or []):
            if required.marker is None or required.marker.evaluate({"extra": ""}):
                waiting.append(required.name)
        tops = {
            file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")
        }
        for top in sorted(tops):
            place = Path(str(distribution.locate_file(top)))
            if place.exists() and not (into / top).exists():
                (into / top).symlink_to(place)


@pytest.mark.parametrize("version", TORCH)
def test_it_serves_on_a_cpu_without_compiler_and_repository(
    version: str, packed: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    install += ["--disable-pip-version-check"]
    if version == TORCH[0]:
        # It is at hand: half a gigabyte is not unpacked again. What else the wheel may ask for is not.
        (folder,) = environment.glob("lib/python*/site-packages")
        link_installed(["torch", "setuptools"], folder)
        install += ["--no-index"]
    done = subprocess.run(
        [*install, str(packed), f"torch=={version}", "setuptools"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    served = subprocess.run(
        [str(python), "-c", PROGRAM],
        env={"PATH": str(environment / "bin"), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert served.returncode == 0, served.stderr
    assert served.stdout == f"{version.partition('+')[0]} served\n"
