"""One verdict per page, over runs that can be compared; and what stands beside it on the first screen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.analysis.analyse import analyse
from harness.analysis.figures import Figure
from harness.analysis.stats import Estimate
from harness.design_source import DESIGNS_DIR
from harness.groups import TableGroup
from harness.records import Cell, CellRecord, Variant, Workload
from harness.report import blocks, markdown, page, sections, summary, units, verdict
from harness.report.blocks import Charts, Fold
from harness.report.sections import times
from harness.sweep import Axis
from harness.workload import summary as summarised
from kernel_wheel import kernels
from tests import synthetic_run as synthetic

BASELINE, FUSED, STOCK = Variant("baseline", "12.1"), Variant("optmt", "12.1"), Variant("stock")


def measured(
    folder: Path,
    times: dict[str, float],
    *,
    reached: Callable[[Cell], bool] = lambda _: True,
    **changes: object,
) -> Path:
    """A run whose designs take so many µs, hardly different from process to process; cells that were not
    reached have no record."""
    arms = tuple(variant for variant in (BASELINE, FUSED, STOCK) if variant.design in times)
    settings = {"arms": arms, "datasets": ("medium", "random"), "replicates": 3} | changes
    what = synthetic.experiment(**settings)  # type: ignore[arg-type]

    def make(cell: Cell) -> CellRecord | None:
        if not reached(cell):
            return None
        record = synthetic.record(cell)
        aim = times[cell.design] * (1 + 0.0005 * cell.replicate)
        samples = {
            name: [aim * (1 + 0.001 * (n % 3)) for n in range(30)] for name in ("kernel_us", "stage_us")
        }
        return dataclasses.replace(record, samples=samples)

    return synthetic.write_run(folder, what, make)


def test_what_beats_pytorch_is_to_be_used(tmp_path: Path) -> None:
    report = analyse([measured(tmp_path / "run", {"baseline": 100, "optmt": 25, "stock": 50})])
    found = verdict.of(report)
    assert found is not None
    assert (found.variant, found.use) == (FUSED, True)
    assert found.sentence == "fastest on both datasets, 2.00 × PyTorch."
    assert "Use <strong>optmt@12.1</strong>" in page.html(report)
    assert markdown.of(report).startswith("Use **optmt@12.1**: fastest")


def test_what_the_wheel_carries_is_shipped_in_one_line_and_all_else_applied(tmp_path: Path) -> None:
    own = [design for design, folder in kernels.DESIGNS.items() if folder == DESIGNS_DIR]
    assert [f"{design}@{kernels.TOOLCHAIN}" for design in own] == [*verdict.SERVED]
    lines = {}
    for variant in (Variant("fused", "13.0"), Variant("fused", "12.1"), FUSED):
        times_us, arms = {variant.design: 25.0, "stock": 50.0}, (variant, STOCK)
        run = measured(tmp_path / variant.label, times_us, arms=arms, reference=STOCK)
        found = verdict.of(analyse([run]))
        assert found is not None
        lines[variant.label] = found.code.partition(";")[0]
    assert lines == {
        "fused@13.0": "model = embedding_kernels.optimize(model)",
        "fused@12.1": 'patch.apply(Path("compiled/fused-12.1"))',
        "optmt@12.1": 'patch.apply(Path("compiled/optmt-12.1"))',
    }


@pytest.mark.parametrize(
    ("of_datasets", "said"),
    [
        ({"one_item": 20.6, "high": 3.2, "random": 2.4}, "2.40 to 3.20 × FBGEMM (more on one_item)"),
        ({"one_item": 1.01, "high": 1.6, "random": 1.2}, "1.01 to 1.60 × FBGEMM"),
        ({"one_item": 20.6}, "20.60 × FBGEMM"),
        ({"medium": 1.2, "random": 1.2}, "1.20 × FBGEMM"),
        ({"high": 0.96, "random": 1.2}, "0.96 to 1.20 × FBGEMM (slower on high)"),
        ({"high": 0.992, "random": 1.2}, "0.99 to 1.20 × FBGEMM"),  # not beyond doubt
        (
            {"one_item": 3, "high": 0.9, "low": 0.8, "random": 1.2},
            "0.80 to 1.20 × FBGEMM (more on one_item, slower on high and low)",
        ),
    ],
)
def test_what_one_rows_address_made_is_not_the_most_of_a_gain(
    of_datasets: dict[str, float], said: str
) -> None:
    within_a_hundredth = {dataset: [x, x - 0.01, x + 0.01] for dataset, x in of_datasets.items()}
    assert verdict.gains("FBGEMM", within_a_hundredth) == said


def test_losses_in_other_work_are_named(tmp_path: Path) -> None:
    """The verdict rests on float32 rows; on float16 ones its design is slower than PyTorch."""
    half = Workload(dtype="float16")
    report = analyse(
        [
            measured(tmp_path / "full", {"baseline": 100, "optmt": 25, "stock": 50}),
            measured(tmp_path / "half", {"baseline": 100, "optmt": 50, "stock": 25}, workload=half),
            measured(tmp_path / "fast", {"optmt": 25, "stock": 50}, workload=Workload(dtype="bfloat16")),
        ]
    )
    lost = ["half on medium (0.50 × PyTorch)", "half on random (0.50 × PyTorch)"]
    assert verdict.lost_elsewhere(report) == lost
    assert f"optmt@12.1 is slower in {', '.join(lost)}." in summary.work(report)
    alone = analyse([tmp_path / "full"])
    assert verdict.lost_elsewhere(alone) == []
    assert "slower" not in summary.work(alone)


def test_gains_over_a_sweep_stand_beside_those_at_its_own_workload(tmp_path: Path) -> None:
    swept = (Axis("workload.batch", (2048, 64)),)
    folder = measured(tmp_path / "run", {"optmt": 25, "stock": 50}, sweep=swept)
    found = verdict.of(analyse([folder]))
    assert found is not None
    assert found.sentence.endswith("; over all 4 shapes and datasets 2.00 × PyTorch.")
    one = verdict.of(analyse([measured(tmp_path / "one", {"optmt": 25, "stock": 50})]))
    assert one is not None
    assert one.swept == ""


def test_where_pytorch_was_not_measured_nothing_is_recommended(tmp_path: Path) -> None:
    report = analyse([measured(tmp_path / "run", {"baseline": 100, "optmt": 25})])
    found = verdict.of(report)
    assert found is not None
    assert (found.variant, found.use, found.over) == (FUSED, False, [])
    assert "PyTorch's own kernel was not measured beside it" in found.sentence
    html = page.html(report)
    assert "Use <strong>" not in html
    assert "patch.apply" not in html.partition("<main")[0]


def test_runs_that_disagree_give_one_verdict(tmp_path: Path) -> None:
    """Of the same work the one furthest ahead of PyTorch counts, and none that lacks PyTorch."""
    folders = [
        measured(tmp_path / "without", {"baseline": 100, "optmt": 1}),
        measured(tmp_path / "stock wins", {"baseline": 100, "stock": 20}),
        measured(tmp_path / "ahead", {"baseline": 100, "optmt": 25, "stock": 50}),
        measured(
            tmp_path / "other work", {"optmt": 90, "baseline": 100, "stock": 50}, workload=Workload(batch=64)
        ),
    ]
    report = analyse(folders)
    found = verdict.of(report)
    assert found is not None
    assert [run.name for run in found.runs] == ["ahead"]
    assert found.sentence == "fastest on both datasets, 2.00 × PyTorch."
    html = page.html(report)
    assert html.count('<p class="verdict">') == html.count("Use <strong>") == 1
    assert "Of other work: other work." in html
    texts = {row[0].text[2:]: [cell.detail for cell in row[1:]] for row in summary.matrix(report).rows}
    assert texts["ahead"] == ["2.00× PyTorch", "2.00× PyTorch"]
    assert texts["without"] == ["100.00× baseline@12.1"] * 2
    assert texts["stock wins"] == ["PyTorch itself"] * 2


def test_a_verdict_that_rests_on_an_unfinished_run_says_so(tmp_path: Path) -> None:
    """On every first screen of several runs; a run alone lists its findings there."""
    took = {"baseline": 100.0, "optmt": 25.0, "stock": 50.0}
    half = measured(
        tmp_path / "half", took, reached=lambda cell: cell.design != "baseline" and cell.replicate < 2
    )
    # Another's gaps do not concern the verdict.
    other = measured(tmp_path / "other", {"baseline": 100}, reached=lambda cell: cell.replicate < 2)
    report = analyse([half, other])
    which = "some of optmt@12.1 and stock, all of baseline@12.1"
    told = f"half is not finished: 10 of 18 cells are missing, {which}."
    assert summary.unfinished(report) == told
    assert told in page.html(report).partition("<main")[0]
    assert told in markdown.of(report)
    assert summary.unfinished(analyse([half])) == ""
    whole = analyse([measured(tmp_path / "whole", took), other])
    assert summary.unfinished(whole) == ""
    assert "unfinished" not in page.html(whole).partition("<header")[2]


def test_datasets_stand_in_the_papers_order_whichever_run_lacks_some(tmp_path: Path) -> None:
    took = {"baseline": 100.0, "stock": 50.0}
    report = analyse(
        [
            measured(tmp_path / "few", took, datasets=("skewed", "one_item", "random")),
            measured(tmp_path / "all", took, datasets=("one_item", "high", "medium", "low", "random")),
        ]
    )
    columns = list(summary.matrix(report).columns)
    assert columns == ["run", "one_item", "high", "medium", "low", "random", "skewed"]


def test_a_bar_beside_findings_is_of_the_gravest(tmp_path: Path) -> None:
    took = {"baseline": 100.0, "stock": 50.0}
    runs = [
        measured(tmp_path / name, took, reached=lambda cell: cell.replicate < 2) for name in ("a", "b", "c")
    ]
    html = page.html(analyse([measured(tmp_path / "whole", took), *runs]))
    assert html.count('<div class="trust verdict-note">') == len(runs)
    assert html.count('<div class="trust verdict-good">') == 1


@pytest.mark.parametrize(("trace", "joined"), [("a", True), ("b", False)])
def test_where_a_replayed_trace_was_kept_makes_no_other_work(
    trace: str, joined: bool, tmp_path: Path
) -> None:
    def replaying(place: str, sha256: str) -> Workload:
        group = TableGroup(10, 8, count=4, trace=place, trace_sha256=sha256 * 64)
        return Workload(**{**summarised((group,)), "groups": (group,)})  # type: ignore[arg-type]

    took = {"baseline": 100.0, "optmt": 25.0, "stock": 50.0}
    here, there = replaying("/here/user", "a"), replaying("/there/user", trace)
    report = analyse(
        [
            measured(tmp_path / "one", took, datasets=("own",), workload=here),
            measured(tmp_path / "other", took, datasets=("random",), workload=there),
        ]
    )
    found = verdict.of(report)
    assert found is not None
    assert [run.name for run in found.runs] == (["one", "other"] if joined else ["one"])
    assert ("Of other work: other." in summary.work(report)) != joined


def test_of_many_runs_those_stand_first_that_the_verdict_rests_on(tmp_path: Path) -> None:
    """Their pictures in the open, all of the others folded away."""
    took: dict[str, dict[str, float]] = {
        "first": {"baseline": 100, "optmt": 50},
        "second": {"baseline": 100, "optmt": 60},
        "ahead": {"baseline": 100, "optmt": 25, "stock": 50},
    }
    report = analyse([measured(tmp_path / name, us) for name, us in took.items()])
    assert [row[0].text[2:] for row in summary.matrix(report).rows] == ["ahead", "first", "second"]
    ahead, first, *_ = sections.page(report)
    assert (ahead.link, first.link) == ("ahead", "first")
    open_ = [chart for block in ahead.blocks if isinstance(block, Charts) for chart in block.charts]
    assert [chart.id for chart in open_] == ["speedup-kernel_us-ahead"]
    unfolded = [block.summary for block in ahead.blocks if isinstance(block, Fold) and block.unfolded]
    assert unfolded == ["Times"]
    assert not any(isinstance(block, Charts) for block in first.blocks)
    assert not any(block.unfolded for block in first.blocks if isinstance(block, Fold))


def test_bars_begin_with_the_fastest(tmp_path: Path) -> None:
    report = analyse([measured(tmp_path / "run", {"baseline": 100, "optmt": 25, "stock": 50})])
    (chart, *_) = times.per_dataset(report, times.chart)
    values = chart.spec["data"]["values"]
    for kind in ("bar", "process"):
        names = dict.fromkeys(row["name"] for row in values if row["kind"] == kind)
        assert list(names) == ["optmt@12.1", "stock", "baseline@12.1"]
    assert "optmt@12.1 is fastest with 25" in chart.description


def test_a_figure_whose_interval_says_nothing_is_grey(tmp_path: Path) -> None:
    report = analyse([measured(tmp_path / "run", {"baseline": 100, "optmt": 25})])
    (run,) = report.runs
    sure = Figure("speedup_total_us", "speedup", 4.0, "×", "ratio", low=3.9, high=4.1, replicates=3)
    unsure = dataclasses.replace(sure, low=1.1, high=40.0)
    assert blocks.number(run, sure, sure.verdict).kind == "number faster"
    told = blocks.number(run, unsure, unsure.verdict)
    assert (told.kind, told.detail) == ("number wide", units.DISAGREE)


def test_no_verdict_where_nothing_won(tmp_path: Path) -> None:
    report = analyse([measured(tmp_path / "run", {"baseline": 100})])
    assert verdict.of(report) is None
    assert '<p class="verdict">' not in page.html(report)


@pytest.mark.parametrize("printed", [page.html, markdown.of])
def test_the_work_and_the_names_are_told(printed: object, tmp_path: Path) -> None:
    report = analyse([synthetic.write_run(tmp_path / "run", synthetic.experiment(stock=True))])
    assert callable(printed)
    said = printed(report)
    assert "12 tables of 500,000 rows × 128 float32, in each 2,048 bags of 150 rows summed" in said
    for term in ("12.1: compiled by", "baseline: the paper", "how often rows come back", "its time counts"):
        assert term in said


@pytest.mark.parametrize(
    ("datasets", "said"),
    [
        (("random", "skewed"), "random: rows drawn uniformly; skewed: a few rows come back often"),
        (("medium", "random"), "medium to random: how often rows come back"),
        (("medium",), "medium: rows that come back as in the paper"),
        (("one_item",), "one_item: one row only"),
    ],
)
def test_every_dataset_on_the_page_is_explained(datasets: tuple[str, ...], said: str, tmp_path: Path) -> None:
    told = summary.terms(analyse([measured(tmp_path / "run", {"stock": 50.0}, datasets=datasets)]))
    assert told.count("rows at random") == (len(datasets) > 1 and "skewed" not in datasets)
    assert said in told


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.0, 9e12, units.DISAGREE),
        (0.2, 0.9, units.DISAGREE),
        (0.9, 1.1, "0.90–1.10"),
        (1.0, 3.9, "1.00–3.90"),
    ],
)
def test_an_interval_that_says_nothing_is_not_shown(low: float, high: float, said: str) -> None:
    assert units.span(Estimate(1.0, low, high, 3)) == said
