"""The compiled figures of every design, and the cache. Needs no GPU: the compiler is a library."""

from __future__ import annotations

import contextlib
import itertools
import json
import locale
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import designs
from harness.build import cubin, kernels
from harness.build.nvrtc import CompilationError
from harness.build.resources import from_report
from harness.build.toolchain import Installation
from harness.design_source import DESIGNS_DIR
from harness.errors import BadInputError
from harness.patch import manifest
from harness.patch.manifest import Entry, Manifest

pytestmark = pytest.mark.nvrtc

Compile = Callable[[str, str], tuple[Path, Manifest]]
OURS = [design.name for design in designs.discover().values() if design.compiled]
VERSIONS = list(kernels.toolchains())


def paper_shape(compiled: Manifest, arch: str) -> Entry:
    """The instance that the paper's workload runs: float32, int64, tunables at their defaults."""
    (found,) = (
        e
        for e in compiled.entries
        if (e.function, e.arch, e.dtype, e.index_dtype) == ("lookup", arch, "float32", "int64")
        and all(compiled.tunables[name] == value for name, value in e.tunables.items())
    )
    return found


@pytest.mark.parametrize(
    ("version", "arch", "registers", "warps_of_64"),
    # 74 on sm_80 is what PyTorch 2.1.0's published wheel has: if ours does not, our baseline is not theirs.
    [
        ("12.1", "sm_80", 74, 24),
        ("12.1", "sm_90", 74, 24),
        ("13.0", "sm_80", 54, 32),
        ("13.0", "sm_90", 52, 32),
    ],
)
def test_baseline_takes_the_registers_of_pytorch_2_1(
    compiled: Compile, version: str, arch: str, registers: int, warps_of_64: int
) -> None:
    entry = paper_shape(compiled("baseline", version)[1], arch)
    assert (entry.registers, entry.spill_bytes, entry.shared_bytes) == (registers, 0, 0)
    assert entry.occupancy == warps_of_64 / 64


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["optmt", "rpf_optmt", "l2p_optmt", "combined"])
def test_the_cap_gives_42_registers_and_40_warps(compiled: Compile, name: str, version: str) -> None:
    done = compiled(name, version)[1]
    assert "--maxrregcount=42" in done.options
    for arch in ("sm_80", "sm_90"):
        entry = paper_shape(done, arch)
        assert (entry.registers, entry.occupancy) == (42, 0.625)
    assert all(e.registers <= 42 for e in done.entries)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OURS)
def test_every_instance_that_a_design_promises_is_there(compiled: Compile, name: str, version: str) -> None:
    folder, done = compiled(name, version)
    design = designs.get(name)
    types = len(design.supports.dtypes)
    if design.all_tables:  # each type of rows into two of output, float32 into itself alone
        types = 2 * types - ("float32" in design.supports.dtypes)
    instances = types * len(design.supports.index_dtypes)
    if design.all_tables or design.fast:
        instances *= 2
    instances *= math.prod(len(t.values) for t in design.tunables.values() if t.values)
    function = "lookup_tables" if design.all_tables else "lookup"
    for arch in kernels.toolchains()[version].archs:
        here = [e for e in done.entries if e.arch == arch]
        assert len([e for e in here if e.function == function]) == instances
        assert len([e for e in here if e.function == "prepare"]) == (types if design.prepares else 0)
        assert len({e.symbol for e in here}) == len(here)
        assert all((folder / e.cubin).is_file() for e in here)
    assert done.source_hash == design.source_hash
    assert done.compiler.startswith(f"NVRTC {version}.")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OURS)
def test_the_report_agrees_with_what_is_in_the_cubin(compiled: Compile, name: str, version: str) -> None:
    folder, done = compiled(name, version)
    files = {entry.cubin for entry in done.entries}
    told = {name: cubin.kernels((folder / name).read_bytes(), name) for name in files}
    for entry in done.entries:
        kernel = told[entry.cubin][entry.symbol]
        assert kernel.registers == entry.registers
        assert entry.spill_bytes == 0 or kernel.stack_bytes > 0
        # From sm_90 on the driver keeps a kilobyte of a block's shared memory, beside what ptxas reports.
        kept = 1024 if entry.shared_bytes and entry.arch != "sm_80" else 0
        assert kernel.shared_bytes == entry.shared_bytes + kept


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("source", ['extern "C" __global__ void nothing() {}', "no code at all"])
def test_compiling_leaves_the_locale_alone(
    installed: Callable[[str], Installation], version: str, source: str
) -> None:
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    try:
        with contextlib.suppress(CompilationError):
            installed(version).nvrtc.compile(source, "nothing.cu", ["--gpu-architecture=sm_80"], [])
        assert locale.getencoding().upper() == "UTF-8"
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


@pytest.mark.parametrize("version", VERSIONS)
def test_shared_memory_is_read_as_the_cubin_has_it(
    installed: Callable[[str], Installation], version: str
) -> None:
    source = """extern "C" __global__ void reverse(float* x) {
      __shared__ float block[96];
      block[threadIdx.x] = x[threadIdx.x];
      __syncthreads();
      x[threadIdx.x] = block[95 - threadIdx.x];
    }"""
    options = ["--gpu-architecture=sm_80", "--ptxas-options=-v"]
    done = installed(version).nvrtc.compile(source, "reverse.cu", options, [])
    assert from_report(done.log)["reverse"].shared_bytes == 96 * 4
    assert cubin.kernels(done.code, "reverse")["reverse"].shared_bytes == 96 * 4


@pytest.mark.parametrize("version", VERSIONS)
def test_held_rows_stay_in_registers(
    installed: Callable[[str], Installation], version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What spills under the cap is the cap's doing, not an array in local memory: nothing spills without."""
    shutil.copytree(DESIGNS_DIR / "combined", tmp_path / "combined")
    text = (tmp_path / "combined" / "design.toml").read_text(encoding="utf-8")
    assert "max_registers = 42\n" in text
    (tmp_path / "combined" / "design.toml").write_text(
        text.replace("max_registers = 42\n", ""), encoding="utf-8"
    )
    installed(version)
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    done = manifest.read(kernels.compile_design(designs.get("combined", tmp_path), version, ["sm_80"]))
    assert {e.tunables["distance"] for e in done.entries if e.tunables} == {1, 2, 3, 4, 6, 8}
    assert {e.spill_bytes for e in done.entries} == {0}


def test_both_compilers_in_one_process(installed: Callable[[str], Installation]) -> None:
    assert [installed(version).nvrtc.version() for version in ("12.1", "13.0", "12.1")] == [
        "12.1",
        "13.0",
        "12.1",
    ]


def test_what_the_compiler_refuses_is_said(
    installed: Callable[[str], Installation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("12.1")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))  # the loaded compiler stays as it is
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "design.toml").write_text('title = "t"\nsummary = "s"\n', encoding="utf-8")
    (broken / "kernel.cuh").write_text(
        "template <typename s, typename i> __global__ void lookup(Arguments a) {}\n"
    )
    with pytest.raises(CompilationError, match=r'broken/kernel\.cuh\(1\).*"Arguments" is undefined'):
        kernels.compile_design(designs.get("broken", tmp_path), "12.1", ["sm_80"])
    assert not [p for p in (tmp_path / "cache" / "compiled").iterdir() if p.is_dir()]


def test_compiled_again_only_when_something_that_counts_has_changed(
    installed: Callable[[str], Installation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("12.1")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    mine = tmp_path / "mine"
    shutil.copytree(DESIGNS_DIR / "optmt", mine)

    def compiled() -> Path:
        return kernels.compile_design(designs.get("mine", tmp_path), "12.1", ["sm_80"])

    first = compiled()
    written = (first / "manifest.json").stat().st_mtime_ns
    (mine / "kernel.cuh").write_text(
        "// Another comment.\n" + (mine / "kernel.cuh").read_text(encoding="utf-8")
    )
    assert compiled() == first
    assert (first / "manifest.json").stat().st_mtime_ns == written

    toml = (mine / "design.toml").read_text(encoding="utf-8")
    (mine / "design.toml").write_text(
        toml.replace("max_registers = 42", "max_registers = 48"), encoding="utf-8"
    )
    capped = compiled()
    assert capped != first
    assert paper_shape(manifest.read(capped), "sm_80").registers == 48
    assert kernels.compile_design(designs.get("mine", tmp_path), "12.1", ["sm_90"]) != capped
    (mine / "kernel.cuh").write_text('#include "prefetched_rows.cuh"\n', encoding="utf-8")
    with pytest.raises(CompilationError):  # another source: not taken from the cache, and it lacks a tunable
        compiled()


def test_impossible_requests_are_one_sentence(installed: Callable[[str], Installation]) -> None:
    installed("12.1")
    baseline = designs.get("baseline")
    with pytest.raises(BadInputError, match="cannot compile for sm_120; it can for sm_80"):
        kernels.compile_design(baseline, "12.1", ["sm_120"])
    with pytest.raises(BadInputError, match="'sm_75' is no known GPU architecture"):
        kernels.compile_design(baseline, "12.1", ["sm_75"])
    with pytest.raises(BadInputError, match=r"no toolchain '12\.2'"):
        kernels.compile_design(baseline, "12.2")
    with pytest.raises(BadInputError, match="stock brings no kernel"):
        kernels.compile_design(designs.get("stock"), "12.1")


def test_rows_hold_the_usual_instance_unless_all_are_asked_for(compiled: Compile) -> None:
    folder, done = compiled("combined", "12.1")
    assert len(kernels.rows([folder], all_instances=True)) == len(done.entries)
    usual = kernels.rows([folder])
    assert [(row["kernel"], row["types"], row["arch"]) for row in usual] == [
        ("lookup distance=2", "float32, int64", "sm_80"),
        ("prepare", "float32", "sm_80"),
        ("lookup distance=2", "float32, int64", "sm_90"),
        ("prepare", "float32", "sm_90"),
    ]
    assert usual[0] == {
        "design": "combined",
        "kernel": "lookup distance=2",
        "toolchain": "12.1",
        "arch": "sm_80",
        "types": "float32, int64",
        "registers": 42,
        "spill_bytes": paper_shape(done, "sm_80").spill_bytes,
        "shared_bytes": 0,
        "occupancy": 0.625,
    }


def test_the_usual_instances_alone_are_those_of_the_whole(installed: Callable[[str], Installation]) -> None:
    installed("12.1")
    whole, alone = (
        kernels.compile_all(["combined"], ["12.1"], ["sm_90"], usual_only=usual) for usual in (False, True)
    )
    assert kernels.rows(alone) == kernels.rows(whole)
    assert kernels.rows(alone, all_instances=True) == kernels.rows(alone)
    assert alone != whole, "what is run is never a folder that lacks instances"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_design_for_all_tables_is_compiled_for_every_type_of_rows_and_output(
    installed: Callable[[str], Installation], version: str
) -> None:
    installed(version)
    data = Path(__file__).parents[2] / "data"
    folder = kernels.compile_design(designs.get("slow_tables", data), version, ["sm_90"])
    done = manifest.read(folder)
    written = {dtype: {e.output_dtype for e in done.entries if e.dtype == dtype} for dtype in done.dtypes}
    assert written == {
        "float32": {"float32"},
        "float16": {"float16", "float32"},
        "bfloat16": {"bfloat16", "float32"},
        "int8": {"float16", "float32"},
        "int4": {"float16", "float32"},
    }
    assert len({e.symbol for e in done.entries}) == len(done.entries) == 9 * 2 * 2
    assert sum(e.generic for e in done.entries) == 9 * 2
    assert [(row["kernel"], row["types"]) for row in kernels.rows([folder])] == [
        ("lookup_tables fast", "float32, int64"),
        ("lookup_tables", "float32, int64"),
    ]
    shown = {row["types"] for row in kernels.rows([folder], all_instances=True)}
    assert {"int4 to float16, int32", "bfloat16, int64"} <= shown


def test_a_fast_design_is_compiled_both_ways(
    installed: Callable[[str], Installation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("12.1")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "design.toml").write_text(
        'title = "t"\nsummary = "s"\nfast = true\noutput_only = true\n'
        '[supports]\ndtypes = ["bfloat16"]\nindex_dtypes = ["int32"]\n',
        encoding="utf-8",
    )
    (folder / "kernel.cuh").write_text(
        '#include <cuda_bf16.h>\n#include "lookup_args.h"\n'
        "template <typename scalar_t, typename index_t, bool generic>\n"
        "__global__ void lookup(LOOKUP_PARAMETERS) { if (generic) *output = *weights; }\n",
        encoding="utf-8",
    )
    done = manifest.read(kernels.compile_design(designs.get("both", tmp_path), "12.1", ["sm_80"]))
    assert [(e.dtype, e.generic) for e in done.entries] == [("bfloat16", False), ("bfloat16", True)]
    assert done.output_only


def test_special_kernels_are_compiled_for_their_types_with_their_own_threads(
    installed: Callable[[str], Installation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("12.1")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "design.toml").write_text(
        'title = "t"\nsummary = "s"\nall_tables = true\n'
        '[[special]]\nkernel = "lookup_wide"\ndtypes = ["float32"]\n'
        "launch = { threads = [32, 16], blocks_per_sm = 1 }\n"
        "when = [{ bags_per_sm = [4, 0], columns = [129, 0], alike = true }]\n"
        '[[special]]\nkernel = "lookup_few"\ntables_at_once = 7\n'
        "when = [{ rows_per_bag = [0, 8] }, { alike = false }]\n"
        "launch = { threads = [32, 2], threads_y_of = { float16 = 1 } }\n"
        '[supports]\ndtypes = ["float32", "float16"]\n',
        encoding="utf-8",
    )
    (folder / "kernel.cuh").write_text(
        '#include <cuda_fp16.h>\n#include "tables_args.h"\n'
        "template <typename row_t, typename output_t, typename index_t, bool generic>\n"
        "__global__ void lookup_tables(const __grid_constant__ TablesArgs args) {}\n"
        "template <typename row_t, typename output_t, typename index_t>\n"
        "__global__ void lookup_wide(const __grid_constant__ TablesArgs args) {}\n"
        "template <typename row_t, typename output_t, typename index_t>\n"
        "__global__ void lookup_few(const __grid_constant__ TablesArgs args) {}\n",
        encoding="utf-8",
    )
    built = kernels.compile_design(designs.get("mine", tmp_path), "12.1", ["sm_90"])
    done = manifest.read(built)

    def of(function: str) -> dict[tuple[str, str], int]:
        here = [e for e in done.entries if e.function == function and e.index_dtype == "int32"]
        assert not any(e.generic for e in here if function != "lookup_tables")
        return {(e.dtype, e.output_dtype): e.threads_y for e in here}

    assert of("lookup_wide") == {("float32", "float32"): 16}
    assert of("lookup_few") == {
        ("float32", "float32"): 2,
        ("float16", "float16"): 1,
        ("float16", "float32"): 1,
    }
    assert [
        (s.function, s.launch.blocks_per_sm, s.rows_per_bag, s.columns, s.alike, s.tables_at_once)
        for s in done.special
    ] == [
        ("lookup_wide", 1, (0, 0), (129, 0), True, 0),
        ("lookup_few", 0, (0, 8), (0, 0), None, 7),
        ("lookup_few", 0, (0, 0), (0, 0), False, 7),
    ]
    # 12 + 2 + 6 instances, 16 to a file.
    assert {e.cubin for e in done.entries} == {"sm_90-1.cubin", "sm_90-2.cubin"}
    assert len({e.symbol for e in done.entries}) == len(done.entries) == 20
    told = {
        name: cubin.kernels((built / name).read_bytes(), name) for name in {e.cubin for e in done.entries}
    }
    assert all(e.symbol in told[e.cubin] for e in done.entries)


def test_all_designs_under_all_toolchains_and_their_export(compiled: Compile, tmp_path: Path) -> None:
    for name, version in itertools.product(OURS, VERSIONS):
        compiled(name, version)
    folders = kernels.compile_all()
    assert len(folders) == len(OURS) * len(VERSIONS)
    kernels.export(folders[:1], tmp_path)
    assert manifest.read(tmp_path / f"baseline-{VERSIONS[0]}").design == "baseline"
    assert kernels.compile_all(["optmt"], ["13.0"]) == [compiled("optmt", "13.0")[0]]


def test_the_command_of_the_image_build(compiled: Compile, tmp_path: Path) -> None:
    compiled("optmt", "12.1")
    command = [sys.executable, "-m", "harness.build.kernels", "optmt", "--toolchain", "12.1"]
    subprocess.run([*command, "--output", str(tmp_path / "out")], check=True)
    assert manifest.read(tmp_path / "out").design == "optmt"
    assert (tmp_path / "out" / "sm_90.cubin").is_file()

    refused = subprocess.run([*command, "--arch", "sm_1", "--output", "x"], capture_output=True, text=True)
    assert refused.returncode == BadInputError.exit_code
    assert refused.stderr.startswith("'sm_1' is no known GPU architecture")
    assert refused.stderr.count("\n") == 1
    assert json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["toolchain"] == "12.1"


@pytest.mark.parametrize(
    ("toolchain", "capability", "archs"),
    [
        ("12.1", (9, 0), ["sm_90"]),
        ("12.1", (8, 9), ["sm_80"]),
        ("12.1", (12, 0), None),
        ("13.0", (12, 1), ["sm_120"]),
    ],
)
def test_a_gpu_runs_the_newest_of_its_major_version(
    toolchain: str, capability: tuple[int, int], archs: list[str] | None
) -> None:
    assert kernels.archs_for(toolchain, capability) == archs
