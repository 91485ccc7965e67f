"""PyTorch's own kernel out of a wheel, an installation or a folder: a compiled design, kept in the cache."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import codec, designs, records
from harness.build import kernels, likeness
from harness.build.published import find, take
from harness.errors import BadInputError
from harness.patch import manifest
from harness.patch.manifest import Manifest
from harness.records import is_torch_version
from tests import synthetic_wheel as synthetic
from tests.synthetic_wheel import Packing

VERSION = "2.1.0+cu121"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return synthetic.published(tmp_path / "torch.whl")


def rewritten(folder: Path, **changes: object) -> Path:
    """The folder with other values in its manifest."""
    path = folder / manifest.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return folder


@pytest.mark.parametrize("packing", ["plain", "lz4", "zstandard"])
def test_out_of_a_wheel(tmp_path: Path, cache: Path, packing: Packing) -> None:
    folder = take(synthetic.published(tmp_path / "torch.whl", packing=packing))
    assert folder.parent == cache / "published"
    done = manifest.read(folder)
    assert (done.design, done.toolchain, done.compiler) == (
        "stock",
        VERSION,
        f"nvcc 12.1, in PyTorch {VERSION}",
    )
    assert done.source_hash == "7bcf7da3a268b435"  # of PyTorch's own commit
    # An architecture that we know nothing of (sm_50) and types that we do not look up (float64) are left out.
    assert {(e.arch, e.dtype, e.index_dtype) for e in done.entries} == {
        (arch, dtype, index_dtype)
        for arch in ("sm_80", "sm_86", "sm_90")
        for dtype in ("float32", "float16", "bfloat16")
        for index_dtype in ("int32", "int64")
    }
    entry = next(e for e in done.entries if (e.arch, e.dtype, e.index_dtype) == ("sm_90", "float32", "int64"))
    assert entry.symbol == synthetic.symbol()
    assert (entry.registers, entry.spill_bytes, entry.occupancy) == (74, 0, 24 / 64)
    assert (done.dtypes, done.index_dtypes) == (["float32", "float16", "bfloat16"], ["int32", "int64"])
    assert (done.launch.threads_x, done.launch.threads_y, done.launch.blocks) == (32, 8, 1024)
    assert done.parameters[:4] == ["indices", "offsets", "weights", "output"]
    assert len(done.parameters) == len(set(done.parameters)) == 16


def test_a_stack_frame_stands_for_what_is_spilled(tmp_path: Path) -> None:
    code = synthetic.cubin(synthetic.embedding_bag(42, stack_bytes=68))
    path = synthetic.write_wheel(
        tmp_path / "w.whl", {"libtorch_cuda.so": synthetic.libtorch_cuda({80: code})}
    )
    assert {(e.registers, e.spill_bytes) for e in manifest.read(take(path)).entries} == {(42, 68)}


def test_out_of_an_installation_and_of_what_was_taken_out_before(wheel: Path, tmp_path: Path) -> None:
    folder = take(wheel)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site-packages")
    torch = tmp_path / "site-packages" / "torch"
    assert take(torch) == take(torch / "lib" / "libtorch_cuda.so") == folder
    kernels.export([folder], tmp_path / "carried")
    carried = tmp_path / "carried" / f"stock-{VERSION}"
    assert {path.name for path in carried.iterdir()} == {
        "manifest.json",
        *(f"sm_{n}.cubin" for n in (80, 86, 90)),
    }
    shutil.rmtree(folder)
    assert take(carried) == folder
    assert manifest.read(folder) == manifest.read(carried)


def test_what_an_older_version_kept_is_read_and_not_kept_twice(
    wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of before `generic`, which was `general`, when launches had a `rows_per_block`."""
    with monkeypatch.context() as older:
        older.setattr(manifest, "write", written_before)
        older.setattr(records, "to_json", lambda made: json.dumps(before(made)))
        folder = take(wheel)
    assert '"general"' in (folder / manifest.MANIFEST).read_text(encoding="utf-8")
    assert take(wheel) == find(VERSION) == folder
    assert all(entry.generic for entry in manifest.read(folder).entries)
    rewritten(folder, other=1)
    assert take(wheel) != folder  # no longer what was put there, so taken out anew


def before(made: Manifest) -> dict[str, Any]:
    """A manifest with the names that it had."""
    found: dict[str, Any] = json.loads(json.dumps(made, default=codec.fields))
    for entry in found["entries"]:
        entry["general"] = entry.pop("generic")
    found["launch"]["rows_per_block"] = [0, 0]
    return found


def written_before(folder: Path, made: Manifest) -> None:
    (folder / manifest.MANIFEST).write_text(json.dumps(before(made)), encoding="utf-8")


def test_a_kernel_in_another_of_the_libraries(tmp_path: Path) -> None:
    code = synthetic.cubin(synthetic.embedding_bag())
    other = synthetic.libtorch_cuda({80: synthetic.cubin({"_Z5otherv": synthetic.Facts()})})
    libraries = {"libtorch_cuda.so": other, "libtorch_cuda_more.so": synthetic.libtorch_cuda({80: code})}
    assert take(synthetic.write_wheel(tmp_path / "torch.whl", libraries)).is_dir()


def test_what_was_taken_out_is_found_by_its_version_and_compiled_already(wheel: Path, tmp_path: Path) -> None:
    folder = take(wheel)
    assert find(VERSION) == folder
    stock = designs.get("stock")
    assert kernels.compile_design(stock, VERSION, ["sm_90"]) == folder
    assert kernels.archs_for(VERSION, (9, 0)) is None
    newer = take(synthetic.published(tmp_path / "newer.whl", 40, "2.11.0+cu130", "zstandard"))
    assert (find(VERSION), find("2.11.0+cu130")) == (folder, newer)
    with pytest.raises(
        BadInputError, match=r"2\.9\.1 is not here \(there: 2\.1\.0\+cu121, 2\.11\.0\+cu130\)"
    ):
        find("2.9.1")
    with pytest.raises(BadInputError, match="there is nothing to compile"):
        kernels.compile_design(stock, "12.1")


def test_nothing_was_taken_out() -> None:
    with pytest.raises(BadInputError, match=r"not here \(there: none\).*`harness baseline extract WHEEL`"):
        find(VERSION)


def test_two_of_the_same_version_are_told_apart_by_nobody(wheel: Path, tmp_path: Path) -> None:
    take(wheel)
    take(synthetic.published(tmp_path / "another.whl", 75))
    with pytest.raises(
        BadInputError, match=rf"Two kernels .* PyTorch {VERSION.replace('+', '.')}'s; delete /"
    ):
        find(VERSION)


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "cannot be read: No such file or directory"),
    "text": (lambda path: path.write_text("no wheel"), "is no wheel, or a damaged one"),
    "empty": (lambda path: path.write_bytes(b""), "is no wheel, or a damaged one"),
    "an empty folder": (lambda path: path.mkdir(), "holds no PyTorch"),
    "another package's wheel": (
        lambda path: zipfile.ZipFile(path, "w").writestr("numpy/version.py", "version = '2.0.0'"),
        "holds no PyTorch",
    ),
    "a wheel for the CPU": (
        lambda path: synthetic.write_wheel(path, {}, "2.13.0+cpu", None),
        r"PyTorch 2\.13\.0\+cpu has no code for NVIDIA GPUs",
    ),
    "without its kernel": (
        lambda path: synthetic.write_wheel(path, {"libtorch_cuda.so": synthetic.library()}),
        "holds no EmbeddingBag_updateOutputKernel_sum_mean for sm_80, sm_86",
    ),
    "for old GPUs alone": (
        lambda path: synthetic.write_wheel(
            path,
            {"libtorch_cuda.so": synthetic.libtorch_cuda({70: synthetic.cubin(synthetic.embedding_bag())})},
        ),
        "holds no EmbeddingBag_updateOutputKernel_sum_mean for sm_80, sm_86",
    ),
    "for doubles alone": (
        lambda path: synthetic.write_wheel(
            path,
            {
                "libtorch_cuda.so": synthetic.libtorch_cuda(
                    {80: synthetic.cubin({synthetic.symbol("float64"): synthetic.Facts()})}
                )
            },
        ),
        "for none of float32, float16, bfloat16",
    ),
    "a library that is cut": (
        lambda path: synthetic.write_wheel(
            path, {"libtorch_cuda.so": synthetic.libtorch_cuda({80: bytes(999)})[:4200]}
        ),
        r"libtorch_cuda\.so: the fat binary at byte \d+ has \d+ bytes, of which the file holds \d+; it",
    ),
    "a version that is a path": (
        lambda path: synthetic.write_wheel(path, {}, "2.1.0/../../up"),
        r"names no version such as 2\.1\.0, but '2\.1\.0/",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_holds_no_such_kernel_is_refused(kind: str, tmp_path: Path, cache: Path) -> None:
    make, sentence = FOREIGN[kind]
    make(tmp_path / "given")
    with pytest.raises(BadInputError, match=sentence) as raised:
        take(tmp_path / "given")
    assert str(raised.value).startswith(str(tmp_path / "given"))
    assert not (cache / "published").exists()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.999])
def test_a_wheel_that_is_cut_is_refused(wheel: Path, share: float) -> None:
    content = wheel.read_bytes()
    wheel.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadInputError, match="is no wheel, or a damaged one"):
        take(wheel)


def test_a_wheel_whose_library_is_damaged_is_refused(wheel: Path) -> None:
    content = bytearray(wheel.read_bytes())
    at = content.index(b"libtorch_cuda.so") + len("libtorch_cuda.so")
    content[at + 40 : at + 90] = bytes(50)
    wheel.write_bytes(content)
    with pytest.raises(BadInputError, match=r"(is no wheel, or a damaged one|the file is damaged|cut short)"):
        take(wheel)


@pytest.mark.parametrize(
    "changed",
    [
        synthetic.Facts(parameter_bytes=synthetic.PARAMETERS[:-1]),
        synthetic.Facts(parameter_bytes=(*synthetic.PARAMETERS, 8)),
        synthetic.Facts(parameter_bytes=(8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8)),
    ],
)
def test_a_kernel_with_other_parameters_is_not_called(tmp_path: Path, changed: synthetic.Facts) -> None:
    code = synthetic.cubin({synthetic.symbol(): changed})
    path = synthetic.write_wheel(
        tmp_path / "w.whl", {"libtorch_cuda.so": synthetic.libtorch_cuda({80: code})}
    )
    with pytest.raises(BadInputError, match="takes other parameters than that of PyTorch"):
        take(path)


def test_a_kernel_with_parameters_of_other_types_is_not_called(tmp_path: Path) -> None:
    code = synthetic.cubin({synthetic.symbol().replace("llllli", "llllil"): synthetic.Facts()})
    path = synthetic.write_wheel(
        tmp_path / "w.whl", {"libtorch_cuda.so": synthetic.libtorch_cuda({80: code})}
    )
    with pytest.raises(BadInputError, match="takes other parameters than that of PyTorch"):
        take(path)


def test_a_folder_that_was_brought_is_looked_at_first(wheel: Path, tmp_path: Path) -> None:
    kernels.export([take(wheel)], tmp_path)
    brought = tmp_path / f"stock-{VERSION}"
    (brought / "sm_90.cubin").write_bytes(b"another")
    with pytest.raises(BadInputError, match=r"sm_90\.cubin: is not the file that the manifest describes"):
        take(brought)
    for design, toolchain in (("baseline", "12.1"), ("stock", "pytorch"), ("stock", "../../2.1.0")):
        with pytest.raises(BadInputError, match=f"holds {design}@{toolchain} and not a kernel of PyTorch's"):
            take(rewritten(brought, design=design, toolchain=toolchain))
    entries = json.loads((brought / manifest.MANIFEST).read_text(encoding="utf-8"))["entries"]
    entries[0]["cubin"] = "../../secret"
    rewritten(brought, design="stock", toolchain=VERSION, entries=entries)
    with pytest.raises(BadInputError, match=r"cubin: is not the name of a file in this folder"):
        take(brought)


def read(path: Path) -> Manifest:
    return manifest.read(take(path))


def test_likeness_is_told_instance_by_instance(tmp_path: Path) -> None:
    first, second = (read(synthetic.published(tmp_path / f"{n}.whl", n)) for n in (74, 52))
    assert len(likeness.pairs(first, first)) == 18
    assert all(pair.alike for pair in likeness.pairs(first, first))
    assert not any(pair.alike for pair in likeness.pairs(first, second))
    code = synthetic.cubin(synthetic.embedding_bag(74, stack_bytes=8))
    library = {"libtorch_cuda.so": synthetic.libtorch_cuda({80: code, 100: code})}
    spilling = read(synthetic.write_wheel(tmp_path / "s.whl", library, "2.2.0"))
    pairs = likeness.pairs(spilling, spilling)
    assert {pair.arch for pair in likeness.pairs(first, spilling)} == {"sm_80"}
    assert not any(pair.alike for pair in pairs)
    newest = {"libtorch_cuda.so": synthetic.libtorch_cuda({120: code})}
    other = read(synthetic.write_wheel(tmp_path / "n.whl", newest, "2.3.0"))
    sentence = r"stock@2\.3\.0 \(sm_120\) and stock@2\.2\.0 \(sm_80, sm_100\) have no architecture in common"
    with pytest.raises(BadInputError, match=sentence):
        likeness.pairs(other, spilling)


@pytest.mark.parametrize(
    ("text", "whether"),
    [
        ("2.1.0", True),
        ("2.1.0+cu121", True),
        ("2.9.0a0+git5811a8d", True),
        ("12.1", False),
        ("pytorch", False),
    ]
    + [(text, False) for text in ("", "2.1.0/..", "2.1.0\n", "..", "v2.1.0")],
)
def test_a_version_is_told_from_a_toolchain(text: str, whether: bool) -> None:
    assert is_torch_version(text) is whether
