"""Fuzzed files of a run: records, plans, and what else a folder of results holds.

Whatever is in them: the commands that read them answer with figures or with a sentence, never with a
traceback; within 20 s and 2 GiB; what they print can be read; and what they accept is what a simple reader
makes of it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis import frame
from harness.records import Cell, CellRecord, Model, Variant, Workload
from harness.sweep import Axis
from tests import synthetic_run as synthetic
from tests.hostile import nasty, simple_reader
from tests.hostile.program import Answer, counted, harness, hostile

ARMS = (Variant("baseline", "12.1"), Variant("combined", "12.1"))
SMALL = Workload(tables=2, rows=2000, batch=16, pooling=8)


def record(cell: Cell) -> CellRecord | None:
    """Measured, failed or not reached, by the cell's name."""
    if cell.dataset.name == "low" and cell.design == "combined":
        return synthetic.failed(cell, log="the end of a log\n") if cell.replicate else None
    return synthetic.record(cell, passes=8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One plain, one of whole models with profiles, one that sweeps."""
    root = tmp_path_factory.mktemp("runs")
    common: dict[str, Any] = {"arms": ARMS, "datasets": ("medium", "low"), "replicates": 2, "workload": SMALL}
    made = [
        synthetic.write_run(root / "plain", synthetic.experiment(**common), record),
        synthetic.write_run(root / "model", synthetic.experiment(**common, model=Model()), record),
    ]
    axis = Axis("workload.batch", (8, 32))
    made.append(synthetic.write_run(root / "swept", synthetic.experiment(**common, sweep=(axis,)), record))
    for path in made[1].glob("cells/*/cell.json"):
        cell = json.loads(path.read_text(encoding="utf-8"))
        launch = {"name": "lookup<float>(int)", "grid": "(1)", "block": "(2)", "metrics": METRICS}
        profile = {"cell": cell, "status": "ok", "launches": [launch], "profiler": "Nsight Compute 1"}
        path.with_name("profile.json").write_text(json.dumps(profile), encoding="utf-8")
    return made


METRICS = {
    "gpu__time_duration.sum": 5e4,
    "dram__bytes_read.sum": 1e8,
    "sm__warps_active.avg.pct_of_peak_sustained_active": 40.0,
    "launch__registers_per_thread": 40.0,
    "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio": 5.0,
}


@pytest.fixture
def copied(tmp_path: Path, runs: list[Path]) -> Callable[[int], Path]:
    """A fresh copy of one of the runs, beside the untouched plain one."""

    def copy(number: int) -> Path:
        target = tmp_path / "run"
        if target.exists():
            shutil.rmtree(target)
        return Path(shutil.copytree(runs[number], target, symlinks=True))

    return copy


def spoil(data: st.DataObject, path: Path) -> None:
    """Makes one file of a run something else."""
    text = path.read_text(encoding="utf-8")
    how = data.draw(st.integers(0, 9))
    if how == 0:
        data.draw(st.sampled_from(nasty.NO_FILES))(path)
    elif how > 5 and path.name == "record.json":
        nasty.put(path, json.dumps(data.draw(nasty.reworded(json.loads(text)))).encode())
    elif how == 1:
        nasty.put(path, nasty.spoilt(text, data.draw(st.integers(0, 2**32))))
    elif path.suffix == ".toml":
        import tomllib

        tree = data.draw(nasty.changed(tomllib.loads(text), nasty.toml_values))
        nasty.put(path, nasty.as_toml(tree).encode("utf-8", "replace"))
    else:
        tree = data.draw(nasty.changed(json.loads(text), nasty.json_values))
        nasty.put(path, json.dumps(tree, indent=data.draw(st.sampled_from([None, 1]))).encode())


def ask(data: st.DataObject, run: Path, other: Path) -> Answer:
    """One of the commands that read runs; what it prints is looked at."""
    command = data.draw(st.sampled_from(sorted(COMMANDS)))
    answer = harness(*(str(part) for part in COMMANDS[command](run, other)))
    if answer.code in (0, 3, 4, 6):
        if "json" in command:
            json.loads(answer.out, parse_constant=pytest.fail)
        assert simple_reader.seen(answer.out), "what is printed can be seen"
    assert simple_reader.seen(answer.err)
    if command == "page" and answer.code == 0:
        page = (run / "report.html").read_text(encoding="utf-8")
        script = page.index("<script")
        assert simple_reader.seen(page[:script])
    return answer


COMMANDS: dict[str, Callable[[Path, Path], list[object]]] = {
    "page": lambda run, other: ["report", run],
    "json": lambda run, other: ["report", run, "--json"],
    "md": lambda run, other: ["report", run, "--format", "md"],
    "beside": lambda run, other: ["report", other, run, "--output", run.parent / "beside.html"],
    "runs": lambda run, other: ["runs", run.parent],
    "runs json": lambda run, other: ["runs", run.parent, "--json"],
    "compare": lambda run, other: ["compare", other, run, "--allow-different"],
    "compare json": lambda run, other: ["compare", run, other, "--allow-different", "--json"],
    "compare md": lambda run, other: ["compare", run, "--format", "md"],
    "selftest json": lambda run, other: [
        *("selftest", "--from", run, "--replicates", "2", "--splits", "3", "--json")
    ],
}


@hostile
@given(data=st.data())
def test_records(data: st.DataObject, runs: list[Path], copied: Callable[[int], Path]) -> None:
    with counted("record") as ends:
        run = copied(data.draw(st.integers(0, 2)))
        path = data.draw(st.sampled_from(sorted(run.glob("cells/*/record.json"))))
        planned = simple_reader.read(simple_reader.CELL, path.with_name("cell.json").read_bytes())
        spoil(data, path)
        end = judged(run, path, planned)
        ask(data, run, runs[0])
        ends[end] += 1


def judged(run: Path, path: Path, planned: dict[str, Any]) -> str:
    """Holds what the program makes of a record against the simple reader's."""
    read = {record.cell.id: record for record in frame.load_run(run).whole.records}.get(planned["id"])
    content = path.read_bytes() if path.is_file() and not path.is_symlink() and small(path) else b""
    if read is None:
        assert not path.exists()
        assert not path.is_symlink()
        return "absent"
    try:
        simple = simple_reader.read(simple_reader.RECORD, content)
    except simple_reader.RefusedError:
        simple = None
    if read.message.startswith("Its record cannot be used"):
        assert read.status == "failed"
        assert simple is None or simple["cell"] != planned or has_no_time(simple), read.message
        return "refused"
    assert simple is not None, "the simple reader refuses it"
    assert simple["cell"] == planned
    assert simple_reader.same(dataclasses.asdict(read), simple)
    return "accepted"


def small(path: Path) -> bool:
    return path.stat().st_size < 2**24


def has_no_time(simple: dict[str, Any]) -> bool:
    return any(value < 1e-3 for values in simple["samples"].values() for value in values)


@hostile
@given(data=st.data())
def test_what_else_a_run_holds(data: st.DataObject, runs: list[Path], copied: Callable[[int], Path]) -> None:
    with counted("plan, experiment, datasets, profile of a run") as ends:
        run = copied(data.draw(st.integers(0, 2)))
        names = ["plan.json", "plan.json", "experiment.toml", "datasets.json", "cells/*/profile.json"]
        found = sorted(run.glob(data.draw(st.sampled_from(names)))) or [run / "plan.json"]
        spoil(data, data.draw(st.sampled_from(found)))
        answer = ask(data, run, runs[0])
        ends["refused" if answer.code == 2 else "read"] += 1


@hostile
@given(data=st.data())
def test_text_in_reports(data: st.DataObject, runs: list[Path], tmp_path: Path) -> None:
    """Names, messages and logs as anybody may write them, in otherwise good records."""
    with counted("text in a report") as ends:
        run = (
            tmp_path
            / "parent"
            / data.draw(st.sampled_from(["run", "a\x1b[31mb", "\u202erun", "[red]r", "-r"]))
        )
        if run.parent.exists():
            shutil.rmtree(run.parent)
        said = data.draw(st.lists(nasty.texts, min_size=8, max_size=8))

        def make(cell: Cell) -> CellRecord:
            made = synthetic.record(cell, passes=8)
            if cell.replicate:
                return synthetic.failed(cell, message=said[0], log=said[1])
            assert made.environment is not None
            assert made.kernel is not None
            assert made.check is not None
            seen = dataclasses.replace(
                made.environment,
                gpu=said[2],
                driver=said[3],
                image=said[4],
                hostname=said[5],
                git_commit=said[6],
            )
            kernel = dataclasses.replace(made.kernel, compiler=said[7], name=said[2])
            check = dataclasses.replace(made.check, worst=said[3])
            return dataclasses.replace(
                made, environment=seen, kernel=kernel, check=check, started_at=said[6], finished_at=said[7]
            )

        what = synthetic.experiment(arms=ARMS, datasets=("medium",), replicates=2, workload=SMALL)
        synthetic.write_run(run, what, make)
        title = nasty.as_toml(
            {"title": said[0], "reference": data.draw(st.just("baseline@12.1") | nasty.texts.filter(bool))}
        )
        (run / "experiment.toml").write_text(title, encoding="utf-8")
        answer = ask(data, run, runs[0])
        figures = data.draw(st.integers(0, 19)) == 0
        if figures:
            drawn = harness("report", str(run), "--figures", str(run.parent / "figures"))
            assert drawn.code == 0, drawn.err
        ends["drawn" if figures else "refused" if answer.code == 2 else "shown"] += 1


def test_the_runs_are_good_before_anything_is_done_to_them(runs: list[Path]) -> None:
    for run in runs:
        report = json.loads(harness("report", str(run), "--json").out)
        # Eight cells, of which one failed and one was not reached; at three points where it sweeps.
        assert report["runs"][0]["measured"] == 6 * (3 if run.name == "swept" else 1)
        profile = report["runs"][0]["profile"]
        profiled = len(profile["counters"]) + len(profile["failed"]) if profile else 0
        assert profiled == 4 * (run.name == "model")
