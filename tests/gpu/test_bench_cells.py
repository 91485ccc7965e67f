"""Cells of every kind on a real GPU: each is looked up right, and as often as its record says.

Nothing here is about how long a lookup takes, so that many may run at once.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from harness import designs, wall
from harness.bench.cell import Bench
from harness.designs import RowType
from harness.groups import TableGroup
from harness.patch import manifest
from harness.records import PYTORCH, QUANTISED, Workload, to_json
from harness.workload import summary
from tests.gpu.cells import ONCE, SMALL, Measure, assert_sampled, make_cell

pytestmark = pytest.mark.gpu


def test_every_type_of_row_is_checked_in_ragged_bags(each_design: Path, measure: Measure) -> None:
    found = manifest.read(each_design)
    for dtype in found.dtypes:
        work = dataclasses.replace(SMALL, dtype=cast(RowType, dtype), bags="ragged")
        record = measure(each_design, work=work, timing=ONCE)
        assert_sampled(record, work, all_tables=found.all_tables)
        assert (record.facts.get("quantisation_error", 0.0) > 0) == (dtype != "float32")


def model(dtype: str, **changes: Any) -> Workload:
    """Tables that differ in rows, bags and, but for quantised ones, columns; one of them for two features."""
    wide = dtype in QUANTISED

    def dim(wanted: int) -> int:
        return 128 if wide else wanted

    groups = (
        TableGroup(20_000, dim(64), count=3, pooling=20),
        TableGroup(3, dim(4)),
        TableGroup(300_000, dim(128), pooling=100),
        TableGroup(900, dim(16), pooling=5, bags="normal", deviation=4.0, longest=12, coverage=0.6),
        TableGroup(5_000, dim(12), features=2, pooling=2, zipf_s=1.1, zipf_q=2.0),
    )
    fields = {**summary(groups), "groups": groups, "batch": 300, "dtype": dtype, **changes}
    return Workload(**fields)


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_a_model_whose_tables_differ_is_checked_and_timed(
    each_design: Path, measure: Measure, mode: str
) -> None:
    found = manifest.read(each_design)
    for dtype in found.dtypes:
        work = model(dtype, mode=mode)
        record = measure(each_design, work=work, dataset="own", timing=ONCE)
        assert_sampled(record, work, all_tables=found.all_tables)


def test_pytorch_looks_up_a_model_too(bench: Bench) -> None:
    work = model("float32", weighted=True)
    assert_sampled(bench.measure(make_cell(work=work, dataset="skewed", timing=ONCE)), work)


@pytest.mark.fbgemm
@pytest.mark.parametrize("index_bits", [0, 32])
@pytest.mark.parametrize(
    ("dtype", "path"),
    [(dtype, path) for dtype in ("float32", "float16") for path in (0, 1, 2)] + [("int8", 0), ("int4", 0)],
)
def test_fbgemm_looks_up_a_model_by_every_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, dtype: str, path: int, index_bits: int
) -> None:
    monkeypatch.setenv("HARNESS_PEER", str(designs.get("fbgemm").folder))
    work, tunables = model(dtype), {"path": path, "index_bits": index_bits}
    record = bench.measure(make_cell("fbgemm", work=work, tunables=tunables, dataset="own", timing=ONCE))
    assert_sampled(record, work, all_tables=True)


@pytest.mark.fbgemm
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
@pytest.mark.parametrize(("mode", "weighted"), [("sum", False), ("sum", True), ("mean", False)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int4"])
def test_fbgemm_is_checked_and_timed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, dtype: str, index_dtype: str, mode: str, weighted: bool
) -> None:
    monkeypatch.setenv("HARNESS_PEER", str(designs.get("fbgemm").folder))
    work = Workload(3, 20_000, 64, 256, 40, dtype, index_dtype, mode, weighted, bags="ragged")  # type: ignore[arg-type]
    record = bench.measure(make_cell("fbgemm", work=work, timing=ONCE))
    assert_sampled(record, work, all_tables=True)
    assert record.kernel is not None
    assert record.kernel.compiler.startswith("FBGEMM 1.")


@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("mode", "weighted"), [("sum", False), ("sum", True), ("mean", False)])
def test_pytorch_as_it_is_passes_the_check(
    bench: Bench, dtype: str, index_dtype: str, mode: str, weighted: bool
) -> None:
    work = Workload(3, 20_000, 64, 256, 40, dtype, index_dtype, mode, weighted)  # type: ignore[arg-type]
    record = bench.measure(make_cell(work=work, timing=ONCE))
    assert_sampled(record, work)
    assert record.kernel is not None
    assert record.kernel.name == PYTORCH


def test_a_wrong_kernel_is_invalid_and_the_worst_element_named(wrong: Path, measure: Measure) -> None:
    record = measure(wrong)
    assert record.status == "invalid"
    assert "table 0 in ragged bags, bag " in record.message, (
        "the bags of the workload are even, as the paper's"
    )
    assert "expected " in record.message
    assert record.samples == {}


def test_small_batches_are_many_and_each_is_checked_and_timed(each_design: Path, measure: Measure) -> None:
    work = Workload(tables=3, rows=500_000, dim=128, batch=16, pooling=10)
    record = measure(each_design, work=work, timing=ONCE)
    assert_sampled(record, work, all_tables=manifest.read(each_design).all_tables)
    assert record.facts["batches"] > 100


def test_each_table_of_mixed_pins_its_own_rows(pinning: Path, measure: Measure) -> None:
    record = measure(pinning, dataset="mixed", tunables={"pinned_rows": 4000})
    assert_sampled(record, SMALL)
    assert 4000 < record.facts["pinned_rows"] * 3 - 4000 <= 4000 + 2025, "the first has only 2,025 hot rows"


def test_a_crashed_gpu_fails_the_remaining_cells_and_names_the_culprit(tmp_path: Path) -> None:
    cells = [make_cell(dataset="medium"), make_cell(dataset="random")]
    place = wall.Place(str(tmp_path), str(tmp_path), str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    for cell in cells:
        (tmp_path / wall.file_of(cell.id)).write_text(to_json(cell), encoding="utf-8")
    crash = (
        "import sys, torch\n"
        "from harness import wall\n"
        "from harness.bench.batch import Batch\n"
        "from harness.bench.__main__ import main\n"
        "def crash(self, table):\n"
        "    wild = torch.full((self.work.batch,), 10**9, device='cuda')\n"
        "    return self.weights[table][wild]\n"
        "Batch.lookup = crash\n"
        "sys.exit(main(wall.parse('test', None)))\n"
    )
    command = [sys.executable, "-c", crash, *place.arguments([cell.id for cell in cells], 300)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (
        json.loads((tmp_path / "out" / wall.file_of(c.id)).read_text(encoding="utf-8")) for c in cells
    )
    assert [first["status"], second["status"]] == ["failed", "failed"]
    assert "CUDA error" in first["message"]
    assert first["environment"]["gpu"]
    assert second["message"] == f"Not measured: cell {cells[0].id} left the GPU unusable for this process."
