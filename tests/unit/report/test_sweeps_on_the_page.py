"""Sweeps on the page: their charts, and what the tables say."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from playwright.sync_api import Browser
from rich.console import Console

from harness import experiment
from harness.analysis.analyse import analyse
from harness.experiment import Experiment
from harness.records import Cell, CellRecord
from harness.report import page, terminal
from harness.report.blocks import Block, Charts, Fold, Group, Heading, Items, Paragraph, Table
from harness.report.charts import Chart
from harness.report.sections import sweeps
from tests import synthetic_run
from tests.unit.report.tabs import opened

ARMS = [
    {"design": "baseline", "toolchain": "12.1"},
    {"design": "rpf_optmt", "toolchain": "12.1"},
    {"design": "combined", "toolchain": "12.1"},
    {"design": "stock"},
]
BATCH = {"key": "workload.batch", "values": [16, 2048, 16384]}
DISTANCE = {"key": "tunables.distance", "values": [1, 2, 4]}
DTYPE = {"key": "workload.dtype", "values": ["float32", "float16"]}


def what(folder: Path, *axes: dict[str, Any], **changes: Any) -> Experiment:
    raw: dict[str, Any] = {
        "title": "SYNTHETIC",
        "arms": ARMS,
        "reference": "baseline@12.1",
        "sweep": list(axes),
    }
    raw |= {"datasets": ["medium", "random"], "workload": {"tables": 2}, "replicates": 2} | changes
    (folder / "e.toml").write_text(tomli_w.dumps(raw), encoding="utf-8")
    return experiment.read(folder / "e.toml")


def record(cell: Cell) -> CellRecord:
    """Batches scale times; a distance of 4 is best; PyTorch is slow where batches are large."""
    made = synthetic_run.record(cell)
    factor = cell.workload.batch / 2048 * {1: 1.1, 2: 1.0, 4: 0.8}[cell.tunables.get("distance", 2)]
    if cell.design == "stock" and cell.workload.batch > 2048:
        factor *= 5
    samples = {n: [value * factor for value in values] for n, values in made.samples.items()}
    return dataclasses.replace(made, samples=samples)


def view(folder: Path, made: Experiment) -> list[Block]:
    """What the section says of the run."""
    section = sweeps.page(analyse([synthetic_run.write_run(folder / "run", made, record)]))
    assert section is not None
    (group,) = [block for block in section.blocks if isinstance(block, Group)]
    return list(group.blocks)


def drawn(found: list[Block]) -> list[list[Chart]]:
    return [list(block.charts) for block in found if isinstance(block, Charts)]


def after(found: list[Block], heading: str) -> Block | None:
    """What stands below a heading; None where there is none."""
    titles = [block.text if isinstance(block, Heading) else "" for block in found]
    return next((found[n + 1] for n, title in enumerate(titles) if str(title).startswith(heading)), None)


def wins(found: list[Block]) -> Block | None:
    return after(found, "Where each design wins")


def stock(found: list[Block]) -> Block | None:
    return after(found, "Beside other libraries")


def losses(found: list[Block]) -> list[Block]:
    """The table of every place where a design loses, if there is any."""
    folds = [block for block in found if isinstance(block, Fold)]
    return [fold.blocks[0] for fold in folds if fold.summary.startswith("Every place")]


def texts(table: Block | None) -> list[list[str]]:
    assert isinstance(table, Table)
    return [[cell.text for cell in row] for row in table.rows]


def test_a_pair_of_charts_per_axis_and_dataset(tmp_path: Path) -> None:
    found = view(tmp_path, what(tmp_path, BATCH, DISTANCE))
    assert [b.text for b in found if isinstance(b, Heading)][-2:] == ["By batch", "By distance"]
    batch, distance = drawn(found)
    assert [chart.title for chart in batch] == [
        "Prepare + kernel by batch on medium",
        "Speedup over baseline@12.1 by batch on medium",
        "Prepare + kernel by batch on random",
        "Speedup over baseline@12.1 by batch on random",
    ]
    time, speedup = batch[:2]
    values = time.spec["data"]["values"]
    assert {(row["arm"], row["value"]) for row in values} == {
        (arm, batch)
        for arm in ("baseline@12.1", "rpf_optmt@12.1", "combined@12.1", "stock")
        for batch in (16, 2048, 16384)
    }
    assert all(row["time_low"] < row["time"] < row["time_high"] for row in values)
    assert {row["dataset"] for row in values} == {"medium"}
    scale = speedup.spec["layer"][1]["encoding"]["x"]["scale"]
    assert scale["type"] == "log"
    assert {row["arm"] for row in distance[0].spec["data"]["values"]} == {"rpf_optmt@12.1", "combined@12.1"}


def test_values_without_an_order_stand_side_by_side(tmp_path: Path) -> None:
    (charts,) = drawn(view(tmp_path, what(tmp_path, DTYPE)))
    encoding = charts[0].spec["layer"][0]["encoding"]
    assert encoding["x"]["type"] == "nominal"


def test_the_best_value_per_design_and_dataset(tmp_path: Path) -> None:
    found = view(tmp_path, what(tmp_path, BATCH, DISTANCE))
    (table,) = [b for b in found if isinstance(b, Table) and b.caption.startswith("Best")]
    assert "Best distance on SYNTHETIC GPU" in table.caption
    assert table.columns == ["design", "medium", "random"]
    # combined pins: by prepare + kernel, then by the kernel alone.
    assert texts(table) == [[arm, "4", "4"] for arm in ("rpf_optmt@12.1", *["combined@12.1"] * 2)]
    assert [row[0].detail for row in table.rows] == ["prepare + kernel", "prepare + kernel", "kernel alone"]
    assert table.rows[0][1].kind == "number faster"
    assert table.rows[0][1].detail.startswith("1.2")


def test_winners_and_where_a_design_loses_to_pytorch(tmp_path: Path) -> None:
    found = view(tmp_path, what(tmp_path, BATCH))
    assert texts(wins(found)) == [
        ["as the experiment has it", "stock", "stock"],
        ["batch 16", "stock", "stock"],
        ["batch 16,384", *["rpf_optmt@12.1"] * 2],
    ]
    told = stock(found)
    assert isinstance(told, Items)
    least = "rpf_optmt@12.1: slower than PyTorch in 4 of 6 places; least 0."
    assert str(told.items[1].text).startswith(least)
    (lost,) = losses(found)
    assert ["rpf_optmt@12.1"] in texts(lost)
    assert not any("batch 16,384" in row[0] for row in texts(lost))


def test_the_terminal_tells_it_in_a_few_lines(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", what(tmp_path, BATCH, DISTANCE), record)
    assert [block.text for block in sweeps.closing(analyse([run])) if isinstance(block, Paragraph)] == [
        "Best distance of rpf_optmt@12.1: medium 4, random 4",
        "Best distance of combined@12.1: medium 4, random 4",
        "Fastest of 6 shapes and datasets: stock in 4, rpf_optmt@12.1 in 2",
        "Slower than PyTorch: baseline@12.1 in 4 of 6, rpf_optmt@12.1 in 4 of 6, combined@12.1 in 4 of 6",
    ]
    console = Console(file=io.StringIO(), width=80)
    terminal.show(analyse([run]), console)
    assert isinstance(console.file, io.StringIO)
    assert "Best distance of combined@12.1: medium 4" in console.file.getvalue()


def test_the_page_has_them_and_every_other_section_its_own_point(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", what(tmp_path, BATCH, DISTANCE), record)
    text = page.write(analyse([run]), tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<section id="sweeps">' in text
    assert 'href="#sweeps"' in text
    for chart in ("sweep-time-run-workload.batch-medium", "sweep-speedup-run-tunables.distance-random"):
        assert f'data-chart="{chart}"' in text
    assert "baseline-12.1-medium-batch=16-r0" in text
    start = text.index('id="data">') + len('id="data">')
    data = json.loads(text[start : text.index("</script>", start)])
    assert data["runs"][0]["sweep"]["lines"]


def test_a_page_without_a_sweep_has_no_such_section(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", synthetic_run.experiment(replicates=1))
    text = page.write(analyse([run]), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "#sweeps" not in text
    assert 'id="sweeps"' not in text


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_sweep_on_the_cpu_names_no_winner(tmp_path: Path, on_cpu: bool) -> None:
    device = "cpu" if on_cpu else "cuda"
    found = view(tmp_path, what(tmp_path, BATCH, workload={"tables": 2, "device": device}))
    assert (wins(found) is None, losses(found) == [], stock(found) is None) == (on_cpu,) * 3


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("width", [1280, 390])
def test_every_chart_is_drawn_with_all_its_points(browser: Browser, tmp_path: Path, width: int) -> None:
    run = synthetic_run.write_run(tmp_path / "run", what(tmp_path, BATCH, DISTANCE, DTYPE), record)
    found = opened(browser, page.write(analyse([run]), tmp_path / "report.html"), width=width)
    assert found.troubles == []
    charts = found.tab.locator("[data-chart^=sweep]")
    assert charts.count() == 3 * 2 * 2  # axes, datasets, times and speedups
    for number in range(charts.count()):
        name = charts.nth(number).get_attribute("data-chart") or ""
        arms, values = (2, 3) if "distance" in name else (4, 2 if "dtype" in name else 3)
        points = charts.nth(number).locator("svg .mark-symbol.role-mark path")
        assert points.count() == arms * values, name
    assert found.tab.evaluate("document.documentElement.scrollWidth") <= width


def test_what_stays_in_l2_is_said(tmp_path: Path) -> None:
    # 2 tables × 16 bags × 150 rows × 512 bytes are 2.5 MB; of 2048 bags they are more than 50 MB.
    first = view(tmp_path, what(tmp_path, BATCH, timing={"cache": "steady"}))[0]
    assert isinstance(first, Paragraph)
    said = " ".join(str(first.text).split())
    assert "fits L2" in said
    assert "at: batch 16." in said
    for cache in ("cold", "rotating"):
        (tmp_path / cache).mkdir()
        other = what(tmp_path / cache, BATCH, timing={"cache": cache})
        assert not isinstance(view(tmp_path / cache, other)[0], Paragraph)
