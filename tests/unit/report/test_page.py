"""The page as text: what it says, what it escapes, and that it needs nothing from elsewhere."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.analyse import analyse
from harness.errors import BadInputError
from harness.records import Cell, CellRecord, Variant
from harness.report import page
from tests import effort
from tests import synthetic_run as synthetic

HOSTILE = "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'>{{7*7}}"


class Page(HTMLParser):
    """Text outside scripts and styles, JSON blocks, and every id and link."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.scripts, self._inside = "", 0, ""
        self.blocks: dict[str, Any] = {}
        self.ids: list[str] = []
        self.links: list[str] = []
        self.outside: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if identity := known.get("id"):
            self.ids.append(identity)
        if tag == "a":
            self.links.append(known.get("href") or "")
        self.outside += [
            v for k, v in attrs if k in ("src", "srcset") or (tag == "link" and k == "href" and v != "data:,")
        ]
        self._inside = ""
        if tag in ("script", "style"):
            self._inside = (known.get("id") or tag) if tag == "script" else "style"
            self.scripts += tag == "script"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.blocks[self._inside] = self.blocks.get(self._inside, "") + data
        else:
            self.text += data


def rendered(tmp_path: Path, *runs: Path) -> Page:
    return Page(page.write(analyse(list(runs)), tmp_path / "report.html").read_text(encoding="utf-8"))


def unpacked(value: object) -> Any:
    """What the page carries, as its script unpacks it."""
    if isinstance(value, list):
        return [unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"names", "rows"}:
        return [dict(zip(value["names"], unpacked(row), strict=True)) for row in value["rows"]]
    return {name: unpacked(item) for name, item in value.items()}


def data(found: Page) -> Any:
    """The report inside the page."""
    return unpacked(json.loads(found.blocks["data"]))


def hostile(cell: Cell) -> CellRecord | None:
    if cell.design == "optmt":
        return synthetic.failed(cell, "failed", f"It broke: {HOSTILE}", f"line 1\n{HOSTILE}")
    record = synthetic.record(cell)
    assert record.environment is not None
    odd = dataclasses.replace(record.environment, gpu=HOSTILE, driver=f"{cell.replicate}{HOSTILE}")
    return dataclasses.replace(record, environment=odd)


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    paper = synthetic.write_run(tmp_path / "paper", synthetic.experiment())
    modern = synthetic.write_run(tmp_path / "modern", synthetic.experiment("13.0", stock=True))
    found = rendered(tmp_path, paper, modern)
    assert "2 runs side by side" in found.text
    assert "up to 53 % gain" in found.text
    assert "NVRTC 12.1.105 gives the baseline 88 registers" in found.text
    assert "NVRTC 13.0.105 gives the baseline 56 registers" in found.text
    assert "Nothing speaks against these figures." in found.text
    runs = data(found)["runs"]
    assert sum(len(run["cells"]) for run in runs) == 165
    assert [run["reference"]["toolchain"] for run in runs] == ["12.1", "13.0"]


def test_limits_and_pins_are_told_in_words(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord:
        record = synthetic.record(cell)
        assert record.kernel is not None
        spills = (
            380 if cell.design.endswith(("optmt", "combined")) and not cell.design.startswith("rpf") else 0
        )
        kernel = dataclasses.replace(record.kernel, spill_bytes=spills)
        samples = record.samples
        if (cell.design, cell.dataset.name) == ("rpf_optmt", "low"):
            samples = {name: [value / 100 for value in values] for name, values in samples.items()}
        return dataclasses.replace(record, kernel=kernel, samples=samples)

    found = rendered(tmp_path, synthetic.write_run(tmp_path / "run", synthetic.experiment(), make))
    assert "rpf_optmt@12.1 on low is faster than each row once allows, where memory to L2 binds" in found.text
    assert "faster than any kernel can be, beyond 105 % of the limit: rpf_optmt@12.1 on low" in found.text
    assert "¹ A model, no limit: if L2 and an L1 of 256 KiB were LRU caches" in found.text
    assert "beats the limit" in found.text
    assert "% of the limit" in found.text  # on the cards of the first screen
    assert "against optmt@12.1" in found.text
    assert "measured right after a fresh pin" in found.text
    (run,) = data(found)["runs"]
    assert len(run["limits"]) == 5
    shares = [
        (place["dataset"], figure["name"])
        for place in run["places"]
        for figure in place["figures"]
        if figure["name"].startswith("limit_share") and (figure["low"] or 0) > 1
    ]
    assert shares == [("low", "limit_share")]
    assert {pin["without"]["design"] for pin in run["pins"]} == {"optmt"}


def test_the_papers_gpu_and_ours_are_named(tmp_path: Path) -> None:
    found = rendered(tmp_path, synthetic.write_run(tmp_path / "run", synthetic.experiment()))
    assert "paper, NVIDIA A100" in found.text
    assert "ours, SYNTHETIC GPU 80GB (no such thing)" in found.text
    assert "these runs on SYNTHETIC GPU 80GB" in found.text


def test_every_figure_leads_to_a_record(tmp_path: Path) -> None:
    found = rendered(tmp_path, synthetic.write_run(tmp_path / "run", synthetic.experiment()))
    assert len(found.ids) == len(set(found.ids))
    inner = [link[1:] for link in found.links if link.startswith("#")]
    assert {link for link in inner if link.startswith("cell-")}
    assert set(inner) <= set(found.ids)
    assert sum(name.startswith("cell-") for name in found.ids) == 75
    assert "cells/optmt-12.1-random-r2/record.json" in found.text


def test_nothing_is_fetched_and_only_our_scripts_may_run(tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment())
    text = page.write(analyse([run]), tmp_path / "report.html").read_text(encoding="utf-8")
    assert Page(text).outside == []
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe-inline" not in policy[1].split("script-src")[1].split(";")[0]
    assert len(text) < 5_000_000


def test_untrusted_text_stays_text(tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(), hostile)
    clean = synthetic.write_run(tmp_path / "clean", synthetic.experiment())
    found = rendered(tmp_path, run)
    assert found.scripts == rendered(tmp_path, clean).scripts
    assert f"It broke: {HOSTILE}" in found.text
    assert f"line 1\n{HOSTILE}" in found.text
    assert data(found)["runs"][0]["cells"][0]["gpu"] == HOSTILE
    assert found.outside == []


def test_failures_and_pending_cells_are_named(tmp_path: Path) -> None:
    def make(cell: Cell) -> CellRecord | None:
        if cell.replicate == 2:
            return None
        broke = cell.design == "l2p_optmt"
        return (
            synthetic.failed(cell, "oom", "Too large.", "the log's end") if broke else synthetic.record(cell)
        )

    found = rendered(tmp_path, synthetic.write_run(tmp_path / "run", synthetic.experiment(), make))
    assert "10 oom, 25 not run yet of 75" in found.text
    assert "Do not cite" in found.text
    assert "Too large." in found.text
    assert "the log's end" in found.text
    assert "25 cells planned, without a record" in found.text


def test_cpu_run_says_so_and_names_no_winner(tmp_path: Path) -> None:
    what = synthetic.experiment(workload=synthetic.CPU, timing=synthetic.QUICK, replicates=1)
    found = rendered(tmp_path, synthetic.write_run(tmp_path / "run", what, synthetic.cpu_record))
    assert "Measured on the CPU with PyTorch's own operator; not a GPU result." in found.text
    assert "no design wins" in found.text
    assert "nothing finer is claimed than the self-test's processes allow" in found.text
    assert "No record carries measured ceilings." in found.text
    assert "No limit is known" in found.text
    assert data(found)["runs"][0]["winners"] == []


@pytest.mark.parametrize("state", ["nothing measured", "all failed", "one arm", "reference failed"])
def test_every_state_of_a_run_has_a_page(tmp_path: Path, state: str) -> None:
    def make(cell: Cell) -> CellRecord | None:
        if state == "nothing measured":
            return None
        failed = state == "all failed" or (state == "reference failed" and cell.design == "baseline")
        return synthetic.failed(cell) if failed else synthetic.record(cell)

    arms = (Variant("baseline", "12.1"),) if state == "one arm" else synthetic.experiment().arms
    found = rendered(tmp_path, synthetic.write_run(tmp_path / "run", synthetic.experiment(arms=arms), make))
    assert "SYNTHETIC" in found.text
    expected = {
        "nothing measured": "Nothing has been measured yet.",
        "all failed": "No dataset has two measured designs to compare.",
        "one arm": "No dataset has two measured designs to compare.",
        "reference failed": "rpf_optmt@12.1",
    }
    assert expected[state] in found.text


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", synthetic.experiment(replicates=1))
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadInputError, match="cannot be written"):
        page.write(analyse([run]), tmp_path / "file" / "report.html")


def test_a_large_page_is_small_and_its_making_grows_in_step_with_the_cells(tmp_path: Path) -> None:
    """150 and 600 cells; the chart library takes 0.9 MB of either page, and a further figure with
    its section 75 kB of the larger."""

    def made(datasets: int) -> tuple[int, int]:
        names = tuple(f"trace{n}" for n in range(datasets))
        what = synthetic.experiment(datasets=names, timing=synthetic.QUICK)
        run = synthetic.write_run(
            tmp_path / f"run{datasets}", what, lambda cell: synthetic.record(cell, passes=10)
        )
        written = tmp_path / f"{datasets}.html"
        calls = effort.calls(lambda: page.write(analyse([run]), written))
        return calls, written.stat().st_size

    made(1)  # what is imported and parsed once
    (few, _), (many, size) = made(10), made(40)
    assert many < 4.2 * few
    assert size < 3_500_000
