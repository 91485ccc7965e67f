"""Every figure in the README's table of results comes from the records that ship with the project."""

from __future__ import annotations

import json
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


def test_the_rates_of_the_self_test_are_those_of_its_run() -> None:
    (path,) = REFERENCE_DIR.glob("*/selftest/selftest.json")
    (tested,) = json.loads(path.read_text(encoding="utf-8"))["tests"]
    rate = {(r["injected"], r["dataset"], r["order"]): r["rate"] for r in tested["rates"]}
    names = ("one_item", "medium", "random")
    text = (README.parent / "docs" / "measurement.md").read_text(encoding="utf-8")
    for injected, title in [
        (0.0, "nothing injected (false verdicts)"),
        (0.01, "1 % slower"),
        (0.02, "2 % slower"),
        (0.05, "5 % slower"),
    ]:
        orders = ("shuffled", "consecutive")
        pairs = [[f"{rate[injected, name, order]:.1%}" for order in orders] for name in names]
        cells = " | ".join(" / ".join(pair).replace("%", " %") for pair in pairs)
        assert f"| {title} | {cells} |" in text
