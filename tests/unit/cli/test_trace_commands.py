"""`harness trace`: what it prints and writes, and one sentence where something is wrong."""

from __future__ import annotations

import gzip
import io
import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.shell_completion import ShellComplete
from playwright.sync_api import Browser

from harness.cli import cli, main, shared, traces
from harness.experiment import of_designs
from harness.traces import synth
from harness.traces.stats import describe
from harness.traces.trace import open_trace

ROWS = [4, 0, 9, 4, 2, 4]


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    sentence: str
    """The last line on stderr; progress comes before it."""


Run = Callable[..., Ran]


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `harness trace ...` as a shell would, in a folder that holds mine.txt, mine.npy and mine.csv."""
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("".join(f"{row}\n" for row in ROWS), encoding="utf-8")
    np.save("mine.npy", np.array(ROWS))
    Path("mine.csv").write_text("item,user\n" + "".join(f"{row},u{row}\n" for row in ROWS), encoding="utf-8")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["harness", "trace", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return Ran(int(ended.value.code or 0), shown.out, (shown.err.splitlines() or [""])[-1])

    return run


def row_of(table: str, name: str) -> list[str]:
    """The cells of the line of that name."""
    return next(line for line in table.splitlines() if line.strip().startswith(name)).split(name)[1].split()


def test_stats_stand_side_by_side(harness: Run) -> None:
    ran = harness("stats", "mine.txt", "medium", "--rows", 5000, "--pooling", 3)
    medium = describe(synth.synthesize("medium", 5000, synth.period_length("medium", 5000), 1), 3, rows=5000)
    assert ran.code == 0
    assert row_of(ran.out, "accesses ") == ["6", f"{medium.accesses:,}"]
    assert row_of(ran.out, "distinct rows") == ["4", f"{medium.distinct_rows:,}"]
    assert row_of(ran.out, "share of distinct rows") == ["0.08%", f"{medium.distinct_share:.2%}"]
    assert row_of(ran.out, "repeats inside a bag") == ["16.67%", f"{medium.bag_repeats:.2%}"]
    assert row_of(ran.out, "LRU hit rate at 1,000 rows") == ["0.333", f"{dict(medium.hit_rate)[1000]:.3f}"]


def test_stats_are_the_same_of_every_form_of_a_trace(harness: Run) -> None:
    assert harness("import", "mine.txt", "folder", "--rows", 10).code == 0
    ran = harness("stats", "mine.txt", "mine.npy", "folder", "--json", "--rows", 10)
    expected = json.loads(json.dumps(asdict(describe(np.array(ROWS), 150, rows=10))))
    assert json.loads(ran.out) == {"mine.txt": expected, "mine.npy": expected, "folder": expected}


def test_rows_are_those_of_the_import_or_unknown(harness: Run) -> None:
    harness("import", "mine.txt", "folder", "--rows", 40)
    found = json.loads(harness("stats", "mine.txt", "folder", "--json").out)
    assert (found["mine.txt"]["distinct_share"], found["folder"]["distinct_share"]) == (None, 0.1)


def test_a_traces_own_bags_are_described_unless_others_are_asked_for(harness: Run) -> None:
    packed = io.BytesIO()
    offsets = torch.tensor([0, 4, 4, 6, 7])
    torch.save((torch.tensor([*ROWS, 7]), offsets, torch.tensor([[4, 0], [2, 1]])), packed)
    Path("meta.pt.gz").write_bytes(gzip.compress(packed.getvalue()))
    ran = harness("import", "meta.pt.gz", "out/table", "--table", 0, "--rows", 10)
    assert ran.out.startswith("out/table: 4 accesses in 2 bags to a table of 10 rows.")
    assert open_trace(Path("out/table")).indices.tolist() == ROWS[:4]
    own = json.loads(harness("stats", "out/table", "--json").out)["out/table"]
    laid = json.loads(harness("stats", "out/table", "--json", "--pooling", 2).out)["out/table"]
    assert (own["bags"], own["bag_repeats"]) == (2, 0.25)
    assert (laid["bags"], laid["bag_repeats"]) == (2, 0)


def test_stats_end_in_what_a_trace_is_closest_to(harness: Run) -> None:
    assert harness("synth", "medium", "like.npy", "--seed", 7).code == 0
    told = harness("stats", "like.npy").out.splitlines()[-1]
    assert told.startswith("like.npy is closest to medium (LRU hit rates ")
    assert "expect what was measured there: " in told
    assert told.endswith("Measure yours: harness run kernels --dataset like.npy")
    assert "closest" not in harness("stats", "one_item").out
    imported = harness("import", "like.npy", "like", "--rows", 600_000)
    assert imported.code == 0
    told = harness("stats", "like").out.splitlines()[-1]
    assert told.endswith("harness run kernels --dataset like --set workload.rows=600000")


def test_stats_of_synthetic_traces_end_in_what_was_measured_on_them(
    harness: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = harness("stats", "medium").out.splitlines()[-1]
    assert re.fullmatch(r"medium: fused@[\d.]+, [\d.]+ × PyTorch on NVIDIA .*\.", told)
    monkeypatch.setattr(traces, "shipped_runs", list)
    lines = harness("stats", "medium", "high").out.splitlines()[-2:]
    assert lines == [f"{name}: nothing was measured there yet." for name in ("medium", "high")]


def test_an_import_says_how_to_go_on(harness: Run) -> None:
    ran = harness("import", "mine.txt", "my trace", "--rows", 10)
    _, look, measure = ran.out.splitlines()
    assert shlex.split(look)[3:] == ["harness", "trace", "stats", "my trace"]
    assert shlex.split(measure)[2:6] == ["harness", "run", "kernels", "--dataset"]
    dataset, _, setting = shlex.split(measure)[6:]
    made = of_designs(["optmt"], "12.1", [*shared.as_overrides([dataset], []), setting])
    assert (made.datasets, made.workload.rows) == (("my trace",), 10)


def test_what_an_import_proposes_is_no_option(harness: Run) -> None:
    said = harness("import", "--rows", 10, "--", "mine.txt", "-x y")
    _, look, measure = said.out.splitlines()
    assert shlex.split(look)[6] == shlex.split(measure)[6] == "./-x y"
    assert harness("stats", shlex.split(look)[6]).code == 0


@pytest.mark.parametrize("out", ["medium", "own", "mixed", "high.v2", "new/low", "new/-", "§"])
def test_a_trace_that_no_run_would_take_by_its_name_is_not_imported(harness: Run, out: str) -> None:
    """Nor is its source read, which may take hours."""
    ran = harness("import", "none.txt", out, "--rows", 10)
    why = "has no plain letter or digit" if Path(out).name in "-§" else "is called as the synthetic trace"
    assert ran.code == 2
    assert ran.sentence.startswith(f"harness: {out}: {why}")
    assert ran.sentence.endswith("give OUT another name, for reports and files go by it.")
    assert not Path("new").exists()


def test_stats_propose_no_run_that_would_refuse_the_name(harness: Run) -> None:
    Path("mine.txt").rename("medium")
    told = harness("stats", "./medium").out
    assert "Before you measure yours, give it another name: this one is called as the synthetic" in told
    assert "--dataset" not in told


def test_categories_are_imported_as_they_appear(harness: Run) -> None:
    arguments = ("mine.csv", "users", "--column", "user", "--mapping", "first_appearance", "--rows", 4)
    assert harness("import", *arguments).code == 0
    assert open_trace(Path("users")).indices.tolist() == [0, 1, 2, 0, 3, 0]


@pytest.mark.parametrize("name", ["mine.txt", "mine.npy"])
def test_categories_are_of_columns_alone(harness: Run, name: str) -> None:
    ran = harness("import", name, "made", "--rows", 10, "--mapping", "first_appearance")
    assert ran.code == 2
    assert f"{name}: only a column's values may be categories (csv, tsv, parquet); leave" in ran.sentence
    assert not Path("made").exists()
    as_column = ("--rows", 10, "--mapping", "first_appearance", "--format", "csv", "--column", "#1")
    assert harness("import", "mine.txt", "made", *as_column).code == 0


def test_files_of_one_name_are_told_apart(harness: Run) -> None:
    Path("other").mkdir()
    Path("other/mine.txt").write_text("1\n", encoding="utf-8")
    ran = harness("stats", "mine.txt", "other/mine.txt", "mine.txt")
    assert ran.out.splitlines()[2].split() == ["mine.txt", "other/mine.txt"]


def test_synth_writes_text_arrays_and_folders(harness: Run) -> None:
    for out in ("made/low.txt", "made/low.npy", "made/low"):
        ran = harness("synth", "low", out, "--rows", 1000, "--accesses", 2000, "--seed", 5)
        assert ran.out == f"{out}: 2,000 accesses to a table of 1,000 rows.\n"
    expected = synth.synthesize("low", 1000, 2000, 5).tolist()
    assert list(map(int, Path("made/low.txt").read_text(encoding="utf-8").split())) == expected
    assert np.load("made/low.npy").tolist() == expected
    folder = open_trace(Path("made/low"))
    assert folder.indices.tolist() == expected
    assert (folder.header.rows, folder.header.origin) == (1000, "synthetic low, seed 5")
    assert {path.name for path in Path("made").iterdir()} == {"low.txt", "low.npy", "low"}


def test_synth_makes_one_period_unless_told(harness: Run) -> None:
    assert harness("synth", "high", "high.npy", "--rows", 1000).code == 0
    assert len(np.load("high.npy")) == synth.period_length("high", 1000)


@pytest.mark.parametrize("out", ["mine.txt", "mine.npy", "folder"])
def test_nothing_is_written_over(harness: Run, out: str) -> None:
    harness("import", "mine.txt", "folder", "--rows", 10)
    for command in (("synth", "low", out), ("import", "mine.npy", out, "--rows", 10)):
        ran = harness(*command)
        assert (ran.code, ran.sentence) == (
            2,
            f"harness: {out}: exists already; remove it or choose another name.",
        )
    assert Path("mine.txt").read_text(encoding="utf-8").split() == list(map(str, ROWS))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["stats", "medum"],
            "medum: is no file, no imported trace and none of the synthetic ones: one_item,",
        ),
        (["stats", "."], ".: is no file, no imported trace"),
        (["stats", "mixed"], "mixed is several traces: its tables replay high,"),
        (["stats", "mine.csv"], "mine.csv: must be imported first, by `harness trace import`"),
        (["stats", "mine.txt", "--rows", "9"], "mine.txt: line 3: row 9 is outside the table (0 to 8)."),
        (["stats", "mine.npy", "--rows", "9"], "mine.npy: access 3: row 9 is outside the table (0 to 8)."),
        (["stats", "large.txt"], "large.txt: holds row 99,999,999,999; say with --rows"),
        (["stats", "low", "--chart", "mine.txt/x.html"], "mine.txt/x.html: cannot be written: "),
        (["synth", "low", "mine.txt/low.npy"], "mine.txt/low.npy: cannot be written: "),
        (["synth", "low", "x", "--rows", "999999999"], "A synthetic trace needs 1 to 268435456 rows"),
        (["import", "mine.csv", "x/y", "--rows", "10"], "mine.csv: name the column that holds"),
        (["import", "mine.txt", "x/y", "--rows", "9"], "mine.txt: line 3: row 9 is outside"),
        (["import", "none.txt", "x/y", "--rows", "9"], "none.txt: cannot be read: No such file"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(harness: Run, arguments: list[str], said: str) -> None:
    Path("large.txt").write_text("99999999999\n", encoding="utf-8")
    before = sorted(Path().iterdir())
    ran = harness(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.sentence.startswith(f"harness: {said}")
    assert [path for path in sorted(Path().rglob("*")) if path.is_file()] == before


@pytest.mark.parametrize(
    "arguments",
    [["stats"], ["stats", "low", "--rows", "0"], ["synth", "mixed", "x"], ["import", "mine.txt", "x"]],
)
def test_misuse_exits_with_2(harness: Run, arguments: list[str]) -> None:
    ran = harness(*arguments)
    assert ran.code == 2
    assert ran.sentence.startswith("Error: ")


def test_the_page_has_the_table_and_needs_no_other_file(harness: Run) -> None:
    hostile = Path("<script>alert(1)<")
    hostile.write_text("1\n1\n", encoding="utf-8")
    ran = harness("stats", "mine.txt", hostile, "--chart", "out/page.html")
    assert ran.out.splitlines()[-1] == "Page: out/page.html"
    page = Path("out/page.html").read_text(encoding="utf-8")
    assert str(hostile) not in page
    assert "<td>33.33%</td><td>50.00%</td>" in page
    assert "<script src" not in page
    assert "<link" not in page


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
def test_the_page_draws_its_curves_from_disk(harness: Run, tmp_path: Path, browser: Browser) -> None:
    Path("</script><b>").mkdir(parents=True)
    Path("</script><b>", "mine.txt").write_text("1\n1\n", encoding="utf-8")
    harness("stats", "mine.txt", "</script><b>/mine.txt", "--chart", "page.html")
    tab = browser.new_page()
    requests: list[str] = []
    troubles: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("console", lambda message: troubles.append(message.text))
    tab.goto((tmp_path / "page.html").as_uri())
    tab.wait_for_selector("#charts .marks")
    heading = tab.inner_text("h1")
    tab.close()
    assert heading == "Locality of mine.txt and </script><b>/mine.txt"
    assert requests == [(tmp_path / "page.html").as_uri()]
    assert troubles == []


def test_the_shell_completes_names_and_files() -> None:
    complete = ShellComplete(cli, {}, "harness", "_HARNESS_COMPLETE")
    found = complete.get_completions(["trace", "stats"], "me")
    assert [(item.type, item.value) for item in found] == [("file", "me"), ("plain", "medium")]
    assert [item.value for item in complete.get_completions(["trace", "synth"], "")] == list(synth.NAMES)
    commands = [item.value for item in complete.get_completions(["trace"], "")]
    assert commands == ["import", "model", "stats", "synth"]
    assert synth.NAMES == shared.SYNTHETIC


@pytest.mark.parametrize("command", [[], ["stats"], ["synth"], ["import"]])
def test_help_fits_80_columns(harness: Run, command: list[str]) -> None:
    ran = harness(*command, "--help")
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "..." not in ran.out.partition("Commands:")[2]
