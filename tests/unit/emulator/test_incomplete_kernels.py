"""Kernels that do only a part of the work, or lack what every kernel has, are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.emulator.checking import STRIDES
from harness.emulator.program import Program
from harness.errors import BadInputError
from tests.unit.emulator.test_wrong_kernels import LOOKUP, SETTINGS, TABLES, changed, design, wrong

pytestmark = pytest.mark.compiler


def test_a_kernel_that_stops_after_its_first_work_is_told(tmp_path: Path) -> None:
    settings = SETTINGS.replace("threads = [32, 1]", "threads = [32, 16]\nblocks = 512")
    by_warp = [("bag = blockIdx.x;", "bag = blockIdx.x * blockDim.y + threadIdx.y;")]
    once = [*by_warp, ("bag += gridDim.x", "bag += 1000000000")]
    assert set(wrong(design(tmp_path, changed(LOOKUP, *once), settings))) == {STRIDES}
    (tmp_path / "right").mkdir()
    by_warp.append(("bag += gridDim.x", "bag += gridDim.x * blockDim.y"))
    assert wrong(design(tmp_path / "right", changed(LOOKUP, *by_warp), settings)) == {}


def test_so_is_one_for_all_tables(tmp_path: Path) -> None:
    settings = SETTINGS.replace("[launch]", "all_tables = true\n[launch]\nblocks = 512")
    first = changed(
        TABLES,
        (
            "  const TableRows table = args.tables[blockIdx.y];\n  const lookup_int64 bag = blockIdx.x;\n",
            "  const lookup_int64 all = args.n_bags * args.n_tables;\n"
            "  for (lookup_int64 work = blockIdx.x; work < all; work += STRIDE) {\n"
            "  const TableRows table = args.tables[work / args.n_bags];\n"
            "  const lookup_int64 bag = work % args.n_bags;\n",
        ),
        ("+ column] = sum;\n  }\n", "+ column] = sum;\n  }\n  }\n"),
    )
    assert wrong(design(tmp_path, first.replace("STRIDE", "gridDim.x"), settings)) == {}
    (tmp_path / "few").mkdir()
    few = first.replace("STRIDE", "(work < 60 ? gridDim.x : 1000000000)")
    assert STRIDES in wrong(design(tmp_path / "few", few, settings))


def test_a_kernel_without_its_contract_is_told(tmp_path: Path) -> None:
    bare = "template <typename s, typename i> __global__ void lookup(const s* weights) {}\n"
    said = r"kernel\.cuh: does not include lookup_args\.h, which says .*; add #include \"lookup_args\.h\""
    with pytest.raises(BadInputError, match=said):
        Program(design(tmp_path, bare))
