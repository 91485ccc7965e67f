"""Models whose tables replay recorded traces, on a real GPU: batches of unequal lookups, empty ones too."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from harness import designs, models, tuning
from harness.bench.cell import Bench
from harness.designs import RowType
from harness.patch import manifest
from harness.records import Workload
from harness.traces import copies, recorded
from harness.traces.trace import array_blocks, write_trace
from tests.gpu.cells import ONCE, Measure, assert_sampled, make_cell

pytestmark = pytest.mark.gpu

BAGS = 3000
MODEL = """
title = "Replayed"
source = "made up"
batch = 300
tables = [
    { rows = 40_000, dim = 128, trace = "long", bags = "own" },
    { rows = 900, dim = 128, trace = "rare", bags = "own" },
    { rows = 40_000, dim = 128, trace = "long", bags = "own", features = 2 },
    { rows = 5_000, dim = 128, trace = "plain", pooling = 3 },
]
"""


@pytest.fixture
def work(tmp_path: Path) -> Workload:
    """Of the model, with the traces where the bench looks for them."""
    made = np.random.default_rng(3)
    # Batch 1 of ten looks up no row of "rare".
    rare = made.poisson(0.02, BAGS) * (np.arange(BAGS) // 300 != 1)
    lengths = {"long": made.geometric(0.03, BAGS) - 1, "rare": rare, "plain": None}
    for (name, own), rows in zip(lengths.items(), (40_000, 900, 5_000), strict=True):
        indices = made.integers(0, rows, 7_000 if own is None else int(own.sum()))
        offsets = None if own is None else np.concatenate([[0], np.cumsum(own)])
        write_trace(tmp_path / name, array_blocks(indices), rows=rows, origin="made up", offsets=offsets)
    (tmp_path / "replayed.toml").write_text(MODEL, encoding="utf-8")
    found = models.read(str(tmp_path / "replayed.toml")).example()
    for table in recorded.traces_of(found.groups):
        copies.copy(table, partial(tuning.write, tmp_path))
    return found


def test_every_design_looks_up_what_was_recorded(each_design: Path, measure: Measure, work: Workload) -> None:
    found = manifest.read(each_design)
    dtypes: list[RowType] = [dtype for dtype in ("float32", "float16", "int8") if dtype in found.dtypes]
    for dtype in dtypes:
        one = dataclasses.replace(work, dtype=dtype)
        record = measure(each_design, work=one, dataset="own", timing=ONCE)
        assert_sampled(record, one, all_tables=found.all_tables)


def test_pytorch_looks_up_what_was_recorded(bench: Bench, work: Workload) -> None:
    weighted = dataclasses.replace(work, weighted=True)
    assert_sampled(bench.measure(make_cell(work=weighted, dataset="own", timing=ONCE)), weighted)


@pytest.mark.fbgemm
@pytest.mark.parametrize("path", [0, 1, 2])
def test_fbgemm_looks_up_what_was_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, work: Workload, path: int
) -> None:
    monkeypatch.setenv("HARNESS_PEER", str(designs.get("fbgemm").folder))
    record = bench.measure(
        make_cell("fbgemm", work=work, tunables={"path": path, "index_bits": 0}, dataset="own", timing=ONCE)
    )
    assert_sampled(record, work, all_tables=True)
