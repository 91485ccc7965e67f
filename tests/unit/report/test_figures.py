"""Every chart on paper: drawn, in ink, with its figures; and names of files that no dataset can misuse."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from harness.analysis.analyse import analyse
from harness.analysis.report import Report
from harness.errors import BadInputError
from harness.records import Cell, CellRecord, Variant, Workload
from harness.report import embed, figures, first_screen, sections
from tests import synthetic_run as synthetic

ODD = "../../a trace <b>=1+1</b>"


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory) -> Report:
    def make(cell: Cell) -> CellRecord:
        return synthetic.record(cell, passes=5)

    root = tmp_path_factory.mktemp("figures") / "run"
    what = synthetic.experiment(datasets=("medium", ODD), replicates=2)
    return analyse([synthetic.write_run(root, what, make)])


def test_every_chart_is_drawn_with_its_figures(derived: Report, tmp_path: Path) -> None:
    written = figures.write(derived, tmp_path / "figures")
    found = list(embed.charts_in([first_screen.picture(derived), *sections.page(derived)]))
    assert len(found) >= 8
    assert len(written) == 3 * len(found)
    assert {path.parent for path in written} == {tmp_path / "figures"}
    for path in written:
        if path.suffix == ".svg":
            text = path.read_text(encoding="utf-8")
            assert "var(--" not in text  # colours that only the page knows
            assert text.count("<path") >= 5
            assert "12 tables of 500,000 rows × 128 float32" in text
            assert "SYNTHETIC GPU" in text
        elif path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "figures" / "speedup-total_us-run.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    ratio = derived.runs[0].figure(Variant("optmt", "12.1"), "medium", "speedup_total_us")
    assert ratio is not None
    (row,) = [row for row in rows if (row["arm"], row["dataset"]) == ("optmt@12.1", "medium")]
    assert [float(row[name]) for name in ("value", "low", "high")] == [ratio.value, ratio.low, ratio.high]


def test_of_several_runs_each_chart_says_of_which_work_it_is(tmp_path: Path) -> None:
    def written(batch: int) -> Path:
        work = Workload(batch=batch)
        what = synthetic.experiment(workload=work, datasets=("medium",), replicates=1)
        return synthetic.write_run(tmp_path / str(batch), what)

    folders = [written(64), written(2048)]
    found = list(embed.charts_in(list(sections.page(analyse(folders)))))
    assert all("SYNTHETIC GPU" in chart.work for chart in found)
    own = [chart.work for chart in found if not chart.id.startswith(("registers", "occupancy"))]
    assert {"64 bags" in work for work in own} == {True, False}
    assert all("64 bags" in work or "2,048 bags" in work for work in own)


def test_a_folder_that_cannot_be_written_is_named(derived: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadInputError, match=r"file.*cannot be written"):
        figures.write(derived, tmp_path / "file")
