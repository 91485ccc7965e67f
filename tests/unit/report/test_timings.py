"""Charts of samples and times stay readable, whatever one sample took and whatever is drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from harness.analysis.analyse import analyse
from harness.records import Cell, CellRecord, Variant
from harness.report import page
from harness.report.sections import samples
from tests import synthetic_run as synthetic


def test_one_sample_far_beyond_is_named_and_does_not_set_the_axis(tmp_path: Path) -> None:
    def made(cell: Cell) -> CellRecord:
        record = synthetic.record(cell)
        if cell.design != "optmt" or cell.replicate:
            return record
        times = record.samples["kernel_us"]
        return dataclasses.replace(
            record, samples={**record.samples, "kernel_us": [*times[:-1], 50 * max(times)]}
        )

    arms = Variant("baseline", "12.1"), Variant("optmt", "12.1")
    what = synthetic.experiment(arms=arms, datasets=("medium",))
    found = analyse([synthetic.write_run(tmp_path / "run", what, made)])
    chart = samples.chart(found, found.runs, "medium")
    assert chart is not None
    rows = chart.spec["data"]["values"]
    edge = samples.FAR * max(row["p95"] for row in rows)
    (beyond,) = [row for row in rows if row["beyond"]]
    assert (beyond["arm"], beyond["end"]) == ("optmt@12.1", edge)
    assert beyond["most"] > 10 * edge
    assert beyond["beyond"].startswith("→ ")
    assert all(row["end"] == row["most"] for row in rows if row is not beyond)


def test_the_key_is_of_what_is_drawn(tmp_path: Path) -> None:
    """No colour for preparing where no design prepares."""
    arms = (Variant("baseline", "12.1"), Variant("optmt", "12.1"))
    plain = analyse([synthetic.write_run(tmp_path / "plain", synthetic.experiment(arms=arms))])
    pins = analyse([synthetic.write_run(tmp_path / "pins", synthetic.experiment())])
    assert not plain.runs[0].prepares
    assert pins.runs[0].prepares
    assert "key prepare" not in page.html(plain).partition("<main")[2]
    assert "key prepare" in page.html(pins).partition("<main")[2]
