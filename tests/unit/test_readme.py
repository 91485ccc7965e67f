"""Every figure in the README's tables of results comes from the records that ship with the project."""

from __future__ import annotations

import functools
import json
import math
import statistics
from datetime import datetime
from pathlib import Path

import pytest

from harness.analysis import frame
from harness.analysis.analyse import analyse
from harness.analysis.figures import speedup
from harness.analysis.frame import LoadedRun
from harness.analysis.report import Run
from harness.cli.shared import REFERENCE_DIR
from harness.records import Variant
from harness.report import shares, units

README = Path(__file__).resolve().parents[2] / "README.md"
TABLES = 12


STOCK, FBGEMM, FUSED = Variant("stock"), Variant("fbgemm"), Variant("fused", "13.0")
VECTORIZED = Variant("vectorized", "13.0")


@functools.cache
def derived(name: str) -> Run:
    (folder,) = REFERENCE_DIR.glob(f"*/{name}")
    return analyse([folder]).runs[0]


@functools.cache
def loaded(name: str) -> LoadedRun:
    (folder,) = REFERENCE_DIR.glob(f"*/{name}")
    return frame.load_run(folder)


def words(page: Path) -> str:
    """A page's text, whatever its lines."""
    return " ".join(page.read_text(encoding="utf-8").split())


def line(label: str, cells: list[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"


def ratio(run: Run, variant: Variant, dataset: str, metric: str) -> str:
    found = run.figure(variant, dataset, speedup(metric))
    assert found is not None
    return units.text(found)


def microseconds(run: Run, variant: Variant, dataset: str, metric: str, per: int = 1) -> float:
    measured = run.figure(variant, dataset, metric)
    assert measured is not None
    return measured.value / per


def figure(run: Run, variant: Variant, dataset: str, metric: str, *, decimals: int = 0, per: int = 1) -> str:
    """The reference's time, any other variant's speedup over it."""
    if variant == run.reference:
        return f"{microseconds(run, variant, dataset, metric, per):.{decimals}f}"
    return ratio(run, variant, dataset, metric)


def table(name: str) -> list[str]:
    """A run as the README shows it: the reference's times, then speedups with the pin counted and not."""
    run = derived(name)
    stage = run.headline == "stage_us"
    lines = [line("", run.datasets), line("---", ["---:"] * len(run.datasets))]
    for variant in run.variants:
        if variant == run.reference:
            metric, per = ("stage_us", TABLES) if stage else ("kernel_us", 1)
            times = [f"{microseconds(run, variant, dataset, metric, per):.0f}" for dataset in run.datasets]
            lines.append(line(f"`{variant.label}`, µs per table", times))
            continue
        cells = []
        for dataset in run.datasets:
            counted = ratio(run, variant, dataset, run.headline)
            alone = not stage and run.figure(variant, dataset, "prepare_us") is not None
            cells.append(f"{counted} ({ratio(run, variant, dataset, 'kernel_us')})" if alone else counted)
        lines.append(line(f"`{variant.label}`", cells))
    return lines


def whole_model() -> list[str]:
    """The whole model in the run of all kernels, as a CUDA graph: the reference's times, then speedups."""
    run = derived("kernels")
    lines = [line("", run.datasets), line("---", ["---:"] * len(run.datasets))]
    for variant in run.variants:
        cells = [figure(run, variant, dataset, "e2e_graph_us") for dataset in run.datasets]
        name = f"`{variant.label}`"
        lines.append(line(f"{name}, µs" if variant == run.reference else name, cells))
    return lines


def smaller_rows() -> list[str]:
    """Fused and FBGEMM by the type of the rows: µs per table, and how much faster fused is."""
    datasets = derived("kernels").datasets
    lines = [line("", datasets), line("---", ["---:"] * len(datasets))]
    for name, label in (("kernels", "float32"), ("float16", "float16"), ("int8", "int8"), ("int4", "int4")):
        run, cells = derived(name), []
        for dataset in datasets:
            ours, theirs = (
                microseconds(run, variant, dataset, "stage_us", TABLES) for variant in (FUSED, FBGEMM)
            )
            cells.append(f"{ours:.1f} / {theirs:.1f} ({theirs / ours:.1f}×)")
        lines.append(line(label, cells))
    return lines


def large_model() -> list[str]:
    """250 tables: the reference's times, then speedups; of the stage, and in brackets of the whole model."""
    run = derived("large")
    lines = [line("", run.datasets), line("---", ["---:"] * len(run.datasets))]
    for variant in run.variants:
        cells = []
        for dataset in run.datasets:
            stage, whole = (
                figure(run, variant, dataset, metric, decimals=1, per=1000)
                for metric in ("stage_us", "e2e_graph_us")
            )
            cells.append(f"{stage} ({whole})")
        name = f"`{variant.label}`"
        lines.append(line(f"{name}, ms" if variant == run.reference else name, cells))
    return lines


def stages(name: str) -> dict[tuple[str, str], dict[Variant, float]]:
    """Medians of the stage by dataset and point, of every variant."""
    found: dict[tuple[str, str], dict[Variant, list[float]]] = {}
    for record in loaded(name).whole.records:
        at = found.setdefault((record.cell.dataset.name, record.cell.point), {})
        at.setdefault(record.cell.variant, []).append(statistics.median(record.samples["stage_us"]))
    return {at: {v: statistics.geometric_mean(t) for v, t in of.items()} for at, of in found.items()}


@pytest.mark.parametrize("name", ["paper", "modern", "kernels"])
def test_a_table_of_results_is_that_of_the_records(name: str) -> None:
    assert "\n".join(table(name)) in README.read_text(encoding="utf-8")


def test_the_table_of_the_whole_model_is_that_of_the_records() -> None:
    assert "\n".join(whole_model()) in README.read_text(encoding="utf-8")


def test_the_table_of_smaller_rows_is_that_of_the_records() -> None:
    assert "\n".join(smaller_rows()) in README.read_text(encoding="utf-8")


def test_the_table_of_many_tables_is_that_of_the_records() -> None:
    assert "\n".join(large_model()) in README.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "names", [("kernels", "float16", "int8", "int4"), ("paper",), ("modern",), ("large",)]
)
def test_a_table_is_of_one_board(names: tuple[str, ...]) -> None:
    records = [record for name in names for record in loaded(name).whole.records]
    assert len({record.environment.gpu_uuid for record in records if record.environment}) == 1


def test_the_share_of_the_limit_is_that_of_the_records() -> None:
    found = [shares.text(derived("kernels"), FUSED, dataset) for dataset in ("low", "random")]
    said = f"On low and random `fused` reaches {' and '.join(found)} of the limit"
    assert said in words(README)


def test_what_is_said_of_ragged_bags_is_what_the_records_say() -> None:
    ratios = [found[FBGEMM] / found[FUSED] for found in stages("ragged").values()]
    said = f"`fused` is {min(ratios):.0f} to {max(ratios):.0f} times as fast as FBGEMM"
    assert said in words(README)


def test_what_is_said_of_other_shapes_is_what_the_records_say() -> None:
    text, found = words(README), stages("shapes")
    beside = {
        variant: {point: times[variant] / times[FUSED] for (_, point), times in found.items()}
        for variant in (STOCK, FBGEMM, VECTORIZED)
    }
    assert f"at least {math.floor(min(beside[STOCK].values()) * 10) / 10} times as fast as PyTorch" in text
    level = {point for point, ratio in beside[FBGEMM].items() if ratio < 1.02}
    assert level == {"pooling=4", "pooling=16", "pooling=500"}
    assert min(beside[FBGEMM].values()) > 0.99
    assert (
        "FBGEMM is level with it, or up to 1 % ahead, at pooling 4, 16 and 500 and behind everywhere" in text
    )
    behind = {point: 1 / ratio for point, ratio in beside[VECTORIZED].items() if ratio < 0.99}
    assert f"250 tables of 100,000 rows (by {behind.pop('tables=250,rows=100000'):.2f}×)" in text
    assert all("tables=1" in point.split(",") for point in behind), behind
    assert f"with a single table by up to {max(behind.values()) - 1:.0%}".replace("%", " %") in text


def test_what_a_run_costs_is_what_its_records_say() -> None:
    run = loaded("paper")
    begin, end = (
        f(getattr(r, when) for r in run.records) for f, when in ((min, "started_at"), (max, "finished_at"))
    )
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    in_cells, sampling = (sum(r.facts[name] for r in run.records) for name in ("cell_s", "sampling_s"))
    text = words(README.parent / "docs" / "measurement.md")
    assert (
        f"took {seconds:.0f} s on an H100, of which {in_cells:.0f} s were spent in cells and {sampling:.0f} s"
        in text
    )


def test_the_rates_of_the_self_test_are_those_of_its_run() -> None:
    (path,) = REFERENCE_DIR.glob("*/selftest/selftest.json")
    (tested,) = json.loads(path.read_text(encoding="utf-8"))["tests"]
    rate = {(r["injected"], r["dataset"], r["order"]): r["rate"] for r in tested["rates"]}
    text = (README.parent / "docs" / "measurement.md").read_text(encoding="utf-8")
    for injected, title in [
        (0.0, "nothing injected (false verdicts)"),
        (0.01, "1 % slower"),
        (0.02, "2 % slower"),
        (0.05, "5 % slower"),
    ]:
        orders = ("shuffled", "consecutive")
        names = ("one_item", "medium", "random")
        pairs = [[f"{rate[injected, name, order]:.1%}" for order in orders] for name in names]
        cells = " | ".join(" / ".join(pair).replace("%", " %") for pair in pairs)
        assert f"| {title} | {cells} |" in text
