"""Every figure in the README's table of results comes from the records that ship with the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.analysis import frame, results
from harness.cli.shared import REFERENCE_DIR

README = Path(__file__).resolve().parents[2] / "README.md"


def table(run: Path) -> list[str]:
    """The run as the README shows it: the reference's times, then speedups with the pin counted and not."""
    loaded = frame.load([run])
    (only,) = loaded.runs
    derived = results.derive(loaded)

    def line(label: str, cells: list[str]) -> str:
        return f"| {label} | {' | '.join(cells)} |"

    lines = [line("", only.datasets), line("---", ["---:"] * len(only.datasets))]
    for arm in only.arms:
        found = [derived.measurement(only, arm, name, "kernel_us") for name in only.datasets]
        if arm == only.reference:
            lines.append(line(f"`{arm}`, µs per table", [f"{m.time.value:.0f}" for m in found if m]))
            continue
        cells = []
        for name in only.datasets:
            counted, alone = (
                derived.speedup(only, arm, name, metric) for metric in ("total_us", "kernel_us")
            )
            assert counted is not None
            assert alone is not None
            pins = derived.measurement(only, arm, name, "prepare_us") is not None
            text = f"{counted.ratio.value:.2f}×"
            cells.append(f"{text} ({alone.ratio.value:.2f}×)" if pins else text)
        lines.append(line(f"`{arm}`", cells))
    return lines


@pytest.mark.parametrize("name", ["paper", "modern"])
def test_the_table_of_results_is_that_of_the_records(name: str) -> None:
    (run,) = REFERENCE_DIR.glob(f"*/{name}")
    assert "\n".join(table(run)) in README.read_text(encoding="utf-8")
