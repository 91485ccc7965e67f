"""Charts of samples stay readable whatever one sample took."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from harness.analysis import frame, results
from harness.experiment import Arm
from harness.records import Cell, CellRecord
from harness.report import timings
from tests import synthetic_run as synthetic


def test_one_sample_far_beyond_is_named_and_does_not_set_the_axis(tmp_path: Path) -> None:
    def made(cell: Cell) -> CellRecord:
        record = synthetic.record(cell)
        if cell.design != "optmt" or cell.replicate:
            return record
        samples = record.samples["kernel_us"]
        return dataclasses.replace(
            record, samples={**record.samples, "kernel_us": [*samples[:-1], 50 * max(samples)]}
        )

    what = synthetic.experiment(arms=(Arm("baseline", "12.1"), Arm("optmt", "12.1")), datasets=("medium",))
    found = results.derive(frame.load([synthetic.write_run(tmp_path / "run", what, made)]))
    chart = timings.distributions(found, found.loaded.runs, "medium")
    assert chart is not None
    rows = chart.spec["data"]["values"]
    edge = timings.FAR * max(row["p95"] for row in rows)
    (beyond,) = [row for row in rows if row["beyond"]]
    assert (beyond["arm"], beyond["end"]) == ("optmt@12.1", edge)
    assert beyond["most"] > 10 * edge
    assert beyond["beyond"].startswith("→ ")
    assert all(row["end"] == row["most"] for row in rows if row is not beyond)
