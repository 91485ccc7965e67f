"""Runs that others send are input: what is wrong with one is said in a sentence, and nothing else happens."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import plan, wall
from harness.cli import shared
from harness.cli.shared import SENT_DIR
from harness.files import Folder
from harness.groups import TableGroup
from harness.records import Workload, to_json
from harness.run import manifest, verify
from harness.workload import summary
from tests import check_sent
from tests.unit.run.packed import member, rewrite
from tests.written import others, runs
from tests.written.runs import Place

SOURCE = Path(__file__).resolve().parents[1] / "data" / "runs" / "nvidia-h200" / "peers"
"""A finished run, as somebody sent it; of kernels that have changed since, which does no harm."""


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    """One good run of somebody's."""
    shutil.copytree(SOURCE, tmp_path / "sent" / SOURCE.parent.name / "ada-run")
    return tmp_path / "sent"


def the_run(sent: Path) -> Path:
    (run,) = sent.glob("*/ada-run")
    return run


def with_environment(sent: Path, **changes: Any) -> None:
    """Every record says something else, and the manifest agrees with that."""

    def change(record: dict[str, Any]) -> None:
        record["environment"] |= changes

    with_records(sent, change)


def with_records(sent: Path, spoil: Callable[[dict[str, Any]], None]) -> None:
    """Every record is another, and the manifest agrees with that."""
    run = the_run(sent)

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(wall.RECORD):
            return content
        record = json.loads(content)
        spoil(record)
        return json.dumps(record).encode()

    rewrite(run, change)
    told = json.loads((run / manifest.FILE).read_text(encoding="utf-8"))
    with Folder.open(run) as folder:
        told["files"] = dict(manifest.files(plan.read(run / wall.PLAN), folder))
    (run / manifest.FILE).write_text(json.dumps(told), encoding="utf-8")


def test_every_run_that_was_sent_can_be_believed() -> None:
    assert list(check_sent.of_all(SENT_DIR)) == []


def test_a_good_run_is_believed_and_in_the_table(sent: Path, tmp_path: Path) -> None:
    (sent / "README.md").write_text("What lies here.", encoding="utf-8")
    assert list(check_sent.of_all(sent)) == []
    made = others.gpus(Place(tmp_path / "none", sent))
    gpu = runs.gpu(the_run(sent))
    assert f"| {gpu} | ada | " in made
    assert "| `run` | " in made


def fail(record: dict[str, Any]) -> None:
    record |= {"status": "failed", "message": "It failed.", "samples": {}, "check": None}


def test_what_a_failed_cell_says_of_its_machine_is_in_no_table(sent: Path, tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        if record["cell"]["replicate"] == 0:
            fail(record)
            record["environment"] |= {"gpu": "[x](http://example.org) | <b>", "driver": "<i>"}

    with_records(sent, change)
    assert list(check_sent.of_all(sent)) == []
    made = others.gpus(Place(tmp_path / "none", sent))
    assert "| ada | " in made
    assert "example.org" not in made
    assert "<i>" not in made


@pytest.mark.parametrize("what", check_sent.MUST_HOLD)
def test_silence_is_no_answer(sent: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = verify.verify
    monkeypatch.setattr(verify, "verify", lambda run: [one for one in honest(run) if one.what != what])
    (sentence,) = check_sent.of_all(sent)
    assert sentence.endswith(f"ada-run: nothing can be said of its {what}; measure it anew.")


def test_it_is_nobody_s_own_run(sent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "RESULTS_DIR", sent.parent)
    assert shared.own_runs() == [the_run(sent)]
    monkeypatch.setattr(shared, "SENT_DIR", sent)
    assert shared.own_runs() == []


def linked_file(sent: Path) -> None:
    (the_run(sent) / wall.EXPERIMENT).unlink()
    (the_run(sent) / wall.EXPERIMENT).symlink_to("/etc/passwd")


def linked_run(sent: Path) -> None:
    the_run(sent).rename(sent.parent / "elsewhere")
    (sent / SOURCE.parent.name / "ada-run").symlink_to(sent.parent / "elsewhere")


def linked_gpu(sent: Path) -> None:
    the_run(sent).parent.rename(sent.parent / "elsewhere")
    (sent / SOURCE.parent.name).symlink_to(sent.parent / "elsewhere")


def pipe(sent: Path) -> None:
    (the_run(sent) / wall.PACKED).unlink()
    os.mkfifo(the_run(sent) / wall.PACKED)


def large(sent: Path) -> None:
    with (the_run(sent) / wall.PLAN).open("ab") as file:
        file.truncate(2**24 + 1)


def strange_file(sent: Path) -> None:
    (the_run(sent) / "conftest.py").write_text("", encoding="utf-8")


def unpacked(sent: Path) -> None:
    (the_run(sent) / wall.PACKED).unlink()
    (the_run(sent) / wall.CELLS).mkdir()


def unfinished(sent: Path) -> None:
    (the_run(sent) / manifest.FILE).unlink()


def misnamed(sent: Path) -> None:
    the_run(sent).rename(the_run(sent).with_name("Run"))


def bomb(sent: Path) -> None:
    rewrite(the_run(sent), lambda _, content: content, (member("cells/a/mine"), bytes(2**27)))


def link_within(sent: Path) -> None:
    made = member("cells/a/mine", stat.S_IFLNK | 0o777)
    rewrite(the_run(sent), lambda _, content: content, (made, b"/etc/passwd"))


def faster(sent: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        return re.sub(rb'("stage_us": \[)', rb"\g<1>1.0, ", content, count=1)

    rewrite(the_run(sent), change)


def another_plan(sent: Path) -> None:
    text = (the_run(sent) / wall.EXPERIMENT).read_text(encoding="utf-8")
    changed = re.sub(r"(?m)^replicates = \d+", "replicates = 1", text)
    (the_run(sent) / wall.EXPERIMENT).write_text(changed, encoding="utf-8")


def own_trace(sent: Path) -> None:
    path = the_run(sent) / wall.PLAN
    made = json.loads(path.read_text(encoding="utf-8"))
    made["launches"][0]["cells"][0]["dataset"]["path"] = "traces/clicks.npy"
    path.write_text(json.dumps(made), encoding="utf-8")


def own_trace_in_a_model(sent: Path) -> None:
    path = the_run(sent) / wall.PLAN
    launch, *others = plan.read(path).launches
    group = TableGroup(10, 8, trace="/home/ada/clicks", trace_sha256="a" * 64)
    work = Workload(**{**summary((group,)), "groups": (group,)})  # type: ignore[arg-type]
    cell = dataclasses.replace(launch.cells[0], workload=work)
    changed = dataclasses.replace(launch, cells=(cell, *launch.cells[1:]))
    path.write_text(to_json(plan.Plan((changed, *others))), encoding="utf-8")


def all_failed(sent: Path) -> None:
    with_records(sent, fail)


def no_plan(sent: Path) -> None:
    (the_run(sent) / wall.PLAN).write_text("[" * 10_000, encoding="utf-8")


def with_changes(sent: Path) -> None:
    with_environment(sent, git_dirty=True)


def another_gpu(sent: Path) -> None:
    with_environment(sent, gpu="NVIDIA B200")


def markup(sent: Path) -> None:
    with_environment(sent, gpu="NVIDIA | [H200](http://example.org)")


def on_the_cpu(sent: Path) -> None:
    with_environment(sent, device="cpu")


REFUSED = [
    (linked_file, "experiment.toml: is no plain file of at most 1 MiB."),
    (linked_run, "holds 'ada-run', which is not the folder of a run"),
    (linked_gpu, "is not the folder of a GPU"),
    (pipe, "cells.zip: is no plain file"),
    (large, "plan.json: is no plain file of at most 16 MiB."),
    (strange_file, "holds 'conftest.py', which is no part of a packed run"),
    (unpacked, "holds 'cells', which is no part of a packed run"),
    (unfinished, "lacks manifest.json; finish the run"),
    (misnamed, "holds 'Run', which is not the folder of a run"),
    (bomb, "MiB, more than 100 times its size"),
    (link_within, "which is a link or a device and not a file"),
    (faster, "has changed"),
    (another_plan, "plan.json is not the plan that experiment.toml makes"),
    (own_trace, "is of a trace of its own"),
    (own_trace_in_a_model, "is of a trace of its own"),
    (all_failed, "commit: none is named; 0 cells"),
    (no_plan, "plan.json"),
    (with_changes, "cells with uncommitted changes"),
    (another_gpu, "was measured on 'NVIDIA B200'; its folder is 'nvidia-b200'."),
    (markup, "its records call their gpu 'NVIDIA | [H200](http://example.org)', which is no name."),
    (on_the_cpu, "or some that a CPU did"),
]


@pytest.mark.parametrize(("spoil", "said"), REFUSED, ids=[spoil.__name__ for spoil, _ in REFUSED])
def test_what_is_wrong_is_said_in_one_sentence(sent: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(sent)
    (sentence,) = check_sent.of_all(sent)
    assert said in sentence
    assert "\n" not in sentence
