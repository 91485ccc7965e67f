"""The report as one tidy table for pandas, R or a spreadsheet: a row per figure, a column per fact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.analysis.report import Report, Run

if TYPE_CHECKING:
    import pandas as pd

FACTS = ["run", "gpu", "variant", "design", "toolchain", "dataset", "point", "figure", "title"]
NUMBERS = ["value", "low", "high", "unit", "replicates"]


def frame(report: Report) -> pd.DataFrame:
    """Columns `FACTS` and `NUMBERS`, then one for each key that a run sweeps (`workload.batch`), empty where
    another run's figures stand. `low` and `high` are of the 95 % interval, empty where a figure has none."""
    import pandas as pd

    rows = [row for run in report.runs for row in _rows(run)]
    swept = list(dict.fromkeys(key for row in rows for key in row if key not in (*FACTS, *NUMBERS)))
    return pd.DataFrame(rows, columns=[*FACTS, *NUMBERS, *swept]).astype({"replicates": "int64"})


def csv(report: Report) -> str:
    """The same as CSV; whole precision, an empty field where nothing is known."""
    return frame(report).to_csv(index=False, lineterminator="\n")


def _rows(run: Run) -> list[dict[str, object]]:
    gpu = " and ".join(map(str, run.environment.get("gpu", [])))
    return [
        {
            "run": run.name,
            "gpu": gpu,
            "variant": place.variant.label,
            "design": place.variant.design,
            "toolchain": place.variant.toolchain,
            "dataset": place.dataset,
            "point": place.point,
            "figure": figure.name,
            "title": figure.title,
            "value": figure.value,
            "low": figure.low,
            "high": figure.high,
            "unit": figure.unit,
            "replicates": figure.replicates,
            **place.settings,
        }
        for place in [*run.places, *(run.sweep.places if run.sweep else [])]
        for figure in place.figures
    ]
