"""README and docs say of the reference runs what their records say, and will of those to come."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness import experiment, fetched
from harness.analysis.peers import over_peer
from harness.records import Cell, CellRecord
from tests import synthetic_run as synthetic
from tests import written_results
from tests.unit.written.made_up import RUNS, of_two_boards, small
from tests.unit.written.records import GPU
from tests.written import runs
from tests.written.runs import FUSED, NotMeasuredError, Place
from tests.written_results import BLOCK, NOT_MEASURED, PAGES, ROOT

pytestmark = pytest.mark.xdist_group("written results")  # one process, which reads and makes the runs once


def blocks(page: str) -> list[str]:
    return [found[1] for found in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_the_records_say(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert written_results.written(text) == text, "run `make results` and read what has changed"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_found_and_holds_something(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count("<!-- results: ") == text.count("<!-- end -->") == len(blocks(page)) > 0
    assert all(found[2].strip() for found in BLOCK.finditer(text))


def test_another_figure_is_seen() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    found = BLOCK.search(text)
    assert found is not None
    assert written_results.written(text.replace(found[2], found[2].replace("1", "7"), 1)) == text


@pytest.mark.parametrize("page", PAGES)
def test_what_stands_side_by_side_is_of_one_model_of_gpu(page: str) -> None:
    for block in blocks(page):
        for name in block.split()[1:]:
            try:
                records = runs.loaded(Place().run(name)).whole.records
            except NotMeasuredError:
                continue
            assert len({record.environment.gpu for record in records if record.environment}) <= 1, block


@pytest.mark.parametrize("page", PAGES)
def test_a_run_is_never_told_without_its_machine(page: str) -> None:
    """And so without the sentence that says where sources have changed since."""
    tell = (
        "board",
        "comparison",
        "in_short",
        "by_model",
        "models_in_short",
        "by_batch",
        "by_shape",
        "shapes_in_short",
        "latencies",
        "losses",
        "whole_in_short",
    )
    told = {name for block in blocks(page) for name in block.split()[1:] if block.split()[0] in tell}
    for block in blocks(page):
        kind, *names = block.split()
        assert kind in ("cost", "selftest") or set(names) <= told, block


def test_a_run_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    made = written_results.written(text, Place(tmp_path, tmp_path))
    held = {found[2] for found in BLOCK.finditer(made)}
    assert held == {NOT_MEASURED, "No run here is of several boards.\n", "Not run yet on these sources.\n"}


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_every_run_that_a_page_speaks_of_appears_by_itself(page: str, place: Place) -> None:
    made = written_results.written((ROOT / page).read_text(encoding="utf-8"), place)
    for found in BLOCK.finditer(made):
        if not set(found[1].split()[1:]) & {"modern"}:  # not measured there
            assert found[2] != NOT_MEASURED, found[1]
            assert "–" not in found[2].replace(f"{GPU} –", "") or found[1] in ("serving",), found[1]


def test_the_readme_is_read_in_five_minutes_with_every_run_in_it(place: Place) -> None:
    made = written_results.written((ROOT / "README.md").read_text(encoding="utf-8"), place)
    assert len(made.split()) <= 1000


def test_a_table_of_speedups_names_what_they_are_over(place: Place) -> None:
    of_paper, of_many = (written_results.block(f"comparison {run}", place) for run in ("kernels", "many"))
    assert "| `fused` × the paper's baseline |" in of_paper
    assert "| `fused` × `vectorized@13.0` |" in of_many
    assert "baseline" not in of_many


def test_in_short_a_model_has_a_ratio_for_each_of_its_batches(place: Place) -> None:
    names = "dlrm_dcnv2 recflex_a"
    made = written_results.block(f"models_in_short {names}", place)
    in_full = written_results.block(f"by_model {names}", place)
    head, _, dlrm, recflex = (line.split(" | ") for line in made.splitlines() if line.startswith("|"))
    assert head == ["| batch", "64", "256", "512", "2048", "16384 |"]
    assert [bool(cell.strip(" |")) for cell in dlrm[1:]] == [True, False, True, True, True]
    assert [bool(cell.strip(" |")) for cell in recflex[1:]] == [False, True, False, True, False]
    ratios = [line.split(" | ")[-1] for line in in_full.splitlines() if line.startswith("|")][2:]
    shown = [cell.strip(" |") for cell in (*dlrm[1:], *recflex[1:]) if cell.strip(" |")]
    assert shown == [ratio.strip(" |") for ratio in ratios]
    assert made.splitlines()[-1] == in_full.splitlines()[-1]


def test_a_model_stands_beside_the_fastest_path_at_every_batch(place: Place) -> None:
    made = written_results.block("by_model dlrm_dcnv2 dlrm_dcnv2_float16 youtube", place)
    rows = [line.split(" | ") for line in made.splitlines() if line.startswith("|")][2:]
    assert [row[1] for row in rows] == ["64", "512", "2048", "16384"] * 3
    assert [row[0] for row in rows if row[0] != "| "] == [
        "| DLRM-DCNv2",
        "| DLRM-DCNv2, float16",
        "| YouTube's candidate generator",
    ]
    assert all(row[3].endswith("(v2)") and row[4].startswith(("0.90", "0.91", "0.92")) for row in rows)
    lost = "each by its own interval, `fused` is faster in 0, slower in 24; at worst 0.9"
    assert f"Of 24 with random and skewed rows, {lost}" in made
    assert f"Measured on 2 boards of {GPU}." in made


def test_where_ours_is_slower_is_named(place: Place) -> None:
    """In the made-up runs all over; in those that ship in so many places as their records say."""
    made = written_results.block("losses float16 ragged", place)
    assert made.startswith("Over `float16`, `ragged`, 10 datasets in all, `fused` beside the fastest of")
    assert "is faster in 0, slower in 10, worst `" in made
    assert made.count("(FBGEMM v2)") == 2
    assert made.endswith(f"Measured on 2 boards of {GPU}.\n")
    shipped = written_results.block("losses float16 nowhere", Place())
    run = runs.analysed(Place().run("float16"))
    lost = [
        dataset
        for dataset in run.datasets
        if (over := run.figure(FUSED, dataset, over_peer("stage_us"))) and over.estimate.high < 1
    ]
    assert f"slower in {len(lost)}" in shipped
    assert all(f"`float16` on {dataset}, 0." in shipped for dataset in lost[:2])


def test_who_reads_how_much_from_memory_is_told(place: Place) -> None:
    made = written_results.block("memory_read kernels", place)
    assert made.startswith(
        "- On medium, fused@13.0 reads 40 MB from memory, 50 % less than FBGEMM v2 (80 MB); each row and row "
        "number once is "
    )
    with pytest.raises(NotMeasuredError):
        written_results.BLOCKS["memory_read"](place, "int8")


def test_what_is_missing_of_several_models_is_named(place: Place) -> None:
    made = written_results.block("by_model dlrm_dcnv2 nowhere", place)
    assert made.endswith("Not measured yet on these sources: `nowhere`.\n")


def test_by_batch_has_every_arm_and_both_datasets(place: Place) -> None:
    made = written_results.block("by_batch dlrm_dcnv2", place)
    assert made.count("| batch 64 | batch 512 | batch 2048 | batch 16384 |") == 2
    assert made.count("| `fbgemm`, v1, µs |") == made.count("| `fused` × FBGEMM's fastest | 0.9") == 2


def test_by_shape_has_every_arm_at_every_point(place: Place) -> None:
    made = written_results.block("by_shape equal", place)
    heads = ["100 × 64 columns, 5 rows a bag", "100 × 64 columns, 20 rows a bag"]
    assert f"| random | {' | '.join(heads)} |" in made
    assert made.count("| `fbgemm`, v1, µs |") == made.count("| `fused` × FBGEMM's fastest |") == 1


def test_shapes_in_short_names_every_length(place: Place) -> None:
    made = written_results.block("shapes_in_short equal", place)
    assert made.startswith(
        "A hundred equal tables of 64 columns, 5 and 20 rows a bag: 0.91×, 0.91×. Measured on"
    )


def test_what_memory_gives_to_a_models_rows_stands_below_its_times(place: Place) -> None:
    folder = place.run("dlrm_dcnv2")
    forms = {"in_order": {"one": 9.0, "other": 8.0}, "sorted": {"one": 4.0, "other": 5.0}}
    cells = [{"dataset": "random", "point": point, **forms} for point in ("", "batch=64")]
    told = {"gpu": GPU, "gpu_uuid": "GPU-9", "commit": "c0ffee" * 6, "cells": cells}
    (folder / fetched.FILE).write_text(json.dumps(told), encoding="utf-8")
    try:
        random, skewed = written_results.block("by_batch dlrm_dcnv2", place).split("| skewed |")
    finally:
        (folder / fetched.FILE).unlink()
    assert "| rows fetched, in order, µs ² | – | – | 8.00 | – |" in random
    assert "| rows fetched, sorted, µs ² | – | – | 4.00 | – |" in random
    lines = [line.strip("| ").split(" | ") for line in random.splitlines() if line.startswith("| ")]
    at_2048 = {name: float(re.sub("[×%, ]", "", cells[2])) for name, *cells in lines if name != "random"}
    ours, fetch = at_2048["`fused@13.0`, µs"], at_2048["rows fetched, in order, µs ²"]
    theirs = ours * at_2048["`fused` × FBGEMM's fastest"]
    assert at_2048["the same × FBGEMM's fastest"] == pytest.approx(theirs / fetch, rel=0.02)
    limit = ours * at_2048["`fused`, of the limit"]
    assert at_2048["the same, of the limit"] == pytest.approx(limit / fetch, rel=0.05)
    assert "| rows fetched, in order, µs ² | – | – | – | – |" in skewed
    assert f"Rows fetched by one process on another board ({GPU}), commit c0ffeec0ffee.\n" in skewed


def test_two_boards_and_how_far_they_are_apart_are_told(place: Place) -> None:
    made = written_results.block("boards", place)
    assert made.count("\n- `") == len(RUNS) - 1
    assert "2 boards; speedups are formed within a board" in made
    assert f"2 boards of {GPU}, driver 580.00" in written_results.block("board kernels", place)


@pytest.mark.parametrize("read", [{"gpu": "[x](http://example.org) | <b>", "driver": "<i>"}, {"gpu": ""}])
def test_what_failed_cells_say_of_their_machine_is_not_shown(read: dict[str, str], tmp_path: Path) -> None:
    """Of a GPU that was lost nothing is read, and nobody has held the rest of it to be a name."""

    def make(cell: Cell) -> CellRecord:
        record = of_two_boards(cell)
        if cell.replicate != 3:
            return record
        assert record.environment
        other: dict[str, Any] = {"gpu_uuid": "GPU-lost", "torch": "", "git_commit": "", "git_dirty": True}
        environment = dataclasses.replace(record.environment, **{"driver": ""} | other | read)
        return dataclasses.replace(synthetic.failed(cell), environment=environment)

    small(tmp_path, "youtube", make)
    place = Place(tmp_path, tmp_path / "none")
    assert f"2 boards of {GPU}, driver 580.00, PyTorch 2.11.0" in written_results.block(
        "board youtube", place
    )
    assert f"Measured on 2 boards of {GPU}." in written_results.block("by_model youtube", place)
    assert f" s on 2 boards of {GPU}, of " in written_results.block("cost youtube", place)
    (row,) = written_results.block("gpus", place).splitlines()[2:]
    assert row.startswith(f"| 2 × {GPU} | the project | 580.00 | `youtube` | ")
    assert "with changes" not in row


def test_a_run_in_which_everything_failed_has_no_machine_to_tell(tmp_path: Path) -> None:
    small(tmp_path, "youtube", synthetic.failed)
    assert written_results.block("board youtube", Place(tmp_path, tmp_path / "none")) == NOT_MEASURED


def test_models_of_several_gpus_each_say_theirs(tmp_path: Path) -> None:
    def elsewhere(cell: Cell) -> CellRecord:
        record = of_two_boards(cell)
        assert record.environment
        environment = dataclasses.replace(record.environment, gpu="NVIDIA B200")
        return dataclasses.replace(record, environment=environment)

    small(tmp_path, "dlrm_dcnv2", of_two_boards)
    small(tmp_path, "youtube", elsewhere)
    made = written_results.block("by_model dlrm_dcnv2 youtube", Place(tmp_path, tmp_path / "none"))
    firsts = [line.split(" | ")[0] for line in made.splitlines() if line.startswith("|")][2:]
    assert [first for first in firsts if first != "| "] == [
        f"| DLRM-DCNv2, on {GPU}",
        "| YouTube's candidate generator, on NVIDIA B200",
    ]


@pytest.mark.parametrize("lacking", ["fbgemm", "stock"])
def test_the_fastest_of_both_is_told_only_where_both_have_a_time(lacking: str, tmp_path: Path) -> None:
    """Where all paths of one failed, a ratio over the other would look like one over both."""
    found = experiment.read(experiment.find("kernels"))
    assert {"fbgemm", "stock"} <= {arm.design for arm in found.arms}
    for name, failing in (("one", found.datasets[:1]), ("all", found.datasets)):

        def make(cell: Cell, failing: tuple[str, ...] = failing) -> CellRecord:
            lost = cell.design == lacking and cell.dataset.name in failing
            return synthetic.failed(cell) if lost else of_two_boards(cell)

        small(tmp_path / name, "kernels", make)
    one, all_ = (written_results.block("peers kernels", Place(tmp_path / name)) for name in ("one", "all"))
    assert "both" not in all_
    (told,) = (line for line in one.splitlines() if "both" in line)
    first, *others = told.split(" | ")[1:]
    assert first == "–"
    assert others
    assert all(other[0].isdigit() for other in others)


def test_older_sources_are_told_wherever_a_run_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_today", lambda: {"fused": "changed"})
    for block in ("board kernels", "by_model youtube", "comparison int8"):
        assert "Of older sources: `fused` changed since." in written_results.block(block, place)
    assert ", of older sources |" in written_results.block("gpus", place)
    assert "- `h200/youtube`: `fused`\n" in written_results.block("of_older_sources", place)
    assert "Of older sources" not in written_results.block("board paper", place)
