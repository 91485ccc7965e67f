"""The tidy table holds every figure of the report, and nothing of it is lost on the way through CSV."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from harness.analysis.analyse import analyse
from harness.cli import cli
from harness.report import tidy
from harness.sweep import Axis
from tests import synthetic_run


def test_every_figure_is_a_row_with_its_interval(tmp_path: Path) -> None:
    report = analyse([synthetic_run.write_run(tmp_path / "run", synthetic_run.experiment())])
    (run,) = report.runs
    table = tidy.frame(report)
    assert len(table) == sum(len(place.figures) for place in run.places) > 20
    place = run.places[1]
    figure = place.figures[0]
    at = (table.variant == place.variant.label) & (table.dataset == place.dataset)
    row = table[at & (table.figure == figure.name)].iloc[0]
    assert (row.value, row.low, row.high) == pytest.approx((figure.value, figure.low, figure.high))
    assert (row.unit, row.replicates, row.run) == (figure.unit, figure.replicates, run.name)


def test_what_a_sweep_varies_has_a_column_of_its_own(tmp_path: Path) -> None:
    axis = Axis("workload.batch", (16, 2048))
    run = synthetic_run.write_run(tmp_path / "run", synthetic_run.experiment(sweep=(axis,)))
    table = tidy.frame(analyse([run]))
    assert set(table["workload.batch"].dropna()) == {16, 2048}


def test_the_command_prints_what_pandas_reads_back(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", synthetic_run.experiment())
    done = CliRunner().invoke(cli, ["report", str(run), "--format", "csv"])
    assert done.exit_code == 0, done.output
    read, made = pd.read_csv(io.StringIO(done.stdout)), tidy.frame(analyse([run]))
    assert list(read.columns) == list(made.columns)
    assert read.value.tolist() == pytest.approx(made.value.tolist(), rel=1e-15)
