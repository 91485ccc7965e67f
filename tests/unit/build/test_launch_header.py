"""launch.h: device code gets the numbers of its launches from design.toml, from every compiler alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import designs
from harness.build import instances, kernels
from harness.build.nvrtc import CompilationError
from harness.build.toolchain import Installation
from harness.designs import Design
from harness.emulator import compilation
from harness.errors import BadInputError
from harness.patch import manifest

TOML = """title = "t"
summary = "s"
all_tables = true

[launch]
threads = [32, 8]
bags_per_block = 5
threads_y_of = { float16 = 4, bfloat16 = 3, int8 = 2, int4 = 1 }

[[special]]
kernel = "lookup_wide"
launch = { threads = [64, 16], blocks_per_sm = 3 }
when = [{ alike = true }]
tables_at_once = 7

[[special]]
kernel = "lookup_fixed"
launch = { threads = [32, 4], blocks = 11, columns_per_block = 9 }
when = [{ alike = false }]

[supports]
dtypes = ["float32", "float16", "bfloat16", "int8", "int4"]
index_dtypes = ["int32"]
"""
KERNEL = """#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "launch.h"
#include "tables_args.h"

namespace {
template <typename row_t>
constexpr int of_row = launch::kThreadsYOf<row_t>;
static_assert(launch::kThreadsX == 32 && launch::kThreadsOf<Int8Row> == 64);
static_assert(of_row<float> == 8 && of_row<__half> == 4 && of_row<__nv_bfloat16> == 3);
static_assert(of_row<Int8Row> == 2 && of_row<Int4Row> == 1);
static_assert(launch::kBlocks == 0 && launch::kBlocksPerSm == 0);
static_assert(launch::kBagsPerBlock == 5 && launch::kColumnsPerBlock == 0);
namespace wide = launch::lookup_wide;
static_assert(wide::kThreadsX == 64 && wide::kThreadsY == 16 && wide::kThreads == 1024);
static_assert(wide::kThreadsYOf<Int4Row> == 16 && wide::kBlocks == 0 && wide::kBlocksPerSm == 3);
static_assert(wide::kBagsPerBlock == 1 && wide::kTablesAtOnce == 7);
namespace fixed = launch::lookup_fixed;
static_assert(fixed::kThreads == 128 && fixed::kBlocks == 11);
static_assert(fixed::kColumnsPerBlock == 9 && fixed::kTablesAtOnce == 0);
}  // namespace

template <typename row_t, typename output_t, typename index_t, bool generic>
__global__ void __launch_bounds__(launch::kThreadsOf<row_t>)
    lookup_tables(const __grid_constant__ TablesArgs args) {}
template <typename row_t, typename output_t, typename index_t>
__global__ void __launch_bounds__(launch::lookup_wide::kThreads)
    lookup_wide(const __grid_constant__ TablesArgs args) {}
template <typename row_t, typename output_t, typename index_t>
__global__ void __launch_bounds__(launch::lookup_fixed::kThreads)
    lookup_fixed(const __grid_constant__ TablesArgs args) {}
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Design]:
    """The design, where its design.toml has one text in the place of another."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))

    def written(before: str = "", after: str = "") -> Design:
        folder = tmp_path / "designs" / "mine"
        folder.mkdir(parents=True, exist_ok=True)
        assert before in TOML
        (folder / "design.toml").write_text(TOML.replace(before, after), encoding="utf-8")
        (folder / "kernel.cuh").write_text(KERNEL, encoding="utf-8")
        return designs.get("mine", folder.parent)

    return written


@pytest.mark.parametrize("version", ["12.1", "13.0"])
def test_nvrtc_finds_it(
    installed: Callable[[str], Installation], mine: Callable[..., Design], version: str
) -> None:
    installed(version)
    done = manifest.read(kernels.compile_design(mine(), version, ["sm_90"]))
    assert {e.threads_y for e in done.entries if e.dtype == "bfloat16"} == {3, 16, 4}
    with pytest.raises(CompilationError, match="static assertion failed"):
        kernels.compile_design(mine("int8 = 2", "int8 = 4"), version, ["sm_90"])


def test_the_emulator_finds_it(mine: Callable[..., Design]) -> None:
    design = mine()
    assert compilation.compiled(design, instances.of(design)).program.is_file()
    for number, other in (
        ("threads = [64, 16]", "threads = [32, 16]"),
        ("blocks = 11", "blocks = 12"),
        ("tables_at_once = 7", "tables_at_once = 8"),
        ("bags_per_block = 5", "bags_per_block = 6"),
        ("{ float16 = 4", "{ float16 = 8"),
    ):
        changed = mine(number, other)
        with pytest.raises(BadInputError, match="static assertion failed"):
            compilation.compiled(changed, instances.of(changed))


def test_what_differs_by_type_has_no_single_number(mine: Callable[..., Design]) -> None:
    design = mine()
    kernel = design.folder / "kernel.cuh"
    kernel.write_text(f"{KERNEL}static_assert(launch::kThreads > 0);\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="kThreads"):
        compilation.compiled(design, instances.of(design))


def test_a_file_of_this_name_is_refused(mine: Callable[..., Design]) -> None:
    design = mine()
    (design.folder / "launch.h").write_text("", encoding="utf-8")
    with pytest.raises(BadInputError, match=r"mine/launch\.h: launch\.h is made of design\.toml"):
        designs.get("mine", design.folder.parent)


def test_a_launch_counts_in_the_hash_though_there_is_no_such_file(mine: Callable[..., Design]) -> None:
    first = mine()
    names = {source.name for source in first.sources}
    assert "tables_args.h" in names
    assert "launch.h" not in names
    assert mine("int8 = 2", "int8 = 4").source_hash != first.source_hash
