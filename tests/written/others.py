"""Blocks on who measured what on which GPU, and on the tests that were run there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.analysis.figures import speedup
from harness.report import units
from tests.gpu import coverage
from tests.written import runs
from tests.written.runs import NotMeasuredError, Place, label, table

OURS = "the project"


def gpus(place: Place) -> str:
    """A row a run, those that others have sent too: GPU, who measured, and what came out."""
    rows = [_row(plan.parent, OURS) for plan in place.files("*/plan.json") if _is_comparison(plan.parent)]
    rows += [_row(folder, _who(folder)) for folder in place.sent_runs() if _is_comparison(folder)]
    if not rows:
        raise NotMeasuredError
    return table(["measured by", "driver", "run", "commit", "fastest on", ""], sorted(rows), "GPU")


def of_older_sources(place: Place) -> str:
    """Which runs here measured designs that have changed since."""
    folders = [plan.parent for plan in place.files("*/plan.json")]
    told = {f"{folder.parent.name}/{folder.name}": runs.older(folder) for folder in folders}
    found = [
        f"- `{name}`: {', '.join(f'`{one}`' for one in changed)}\n"
        for name, changed in told.items()
        if changed
    ]
    if not folders:
        raise NotMeasuredError
    if not found:
        return (
            "The kernels that every run here measured are still those that our designs compile to, "
            "instruction by instruction; what else has changed since, each run's commit says.\n"
        )
    return f"Of older sources, for these designs have changed since they were measured:\n\n{''.join(found)}"


def tests_on_gpus(place: Place) -> str:
    """What each record of `make test-gpu` says."""
    told = list(_tests(place))
    if not told:
        raise NotMeasuredError("Not run yet on these sources.\n")
    return "".join(told)


def _is_comparison(folder: Path) -> bool:
    """Whether it compares designs: not a self-test of the harness, nor counters alone."""
    return not (folder / "selftest.json").exists() and bool(runs.analysed(folder).winners)


def _row(folder: Path, who: str) -> list[str]:
    run = runs.analysed(folder)
    seen = runs.environments(folder)
    gpu, driver = (", ".join(sorted({str(getattr(one, what)) for one in seen})) for what in ("gpu", "driver"))
    commits = ", ".join(sorted({one.git_commit[:12] or units.NONE for one in seen}))
    with_changes = " with changes" if any(one.git_dirty for one in seen) else ""
    old = ", of older sources" if runs.older(folder) else ""
    dataset = next(name for name in reversed(run.datasets) if run.winner(name, run.headline))
    winner = run.winner(dataset, run.headline)
    assert winner is not None
    over = units.text(run.figure(winner.variant, dataset, speedup(run.headline)))
    headline = f"{label(winner.variant)}, {over} {label(run.reference)}"
    headline += ", its embedding stage" if run.figure(winner.variant, dataset, "e2e_us") else ""
    boards = len({one.gpu_uuid for one in seen})
    named = f"{boards} × {gpu}" if boards > 1 else gpu
    name = folder.name.partition("-")[2] if who != OURS else folder.name
    return [named, who, driver, f"`{name}`", f"{commits}{with_changes}{old}", dataset, headline]


def _who(folder: Path) -> str:
    return folder.name.partition("-")[0]


def _tests(place: Place) -> Iterator[str]:
    for file in sorted(place.folder.glob("gpu-tests-*.json")):
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        changed = len(coverage.changed(record["files"], coverage.hashes()))
        old = f" Of older sources: {changed} files changed since." if changed else ""
        machine = f"{units.count(len(record['gpus']), 'GPU')} ({', '.join(sorted(set(record['gpus'])))})"
        yield (
            f"- On {machine}, driver {record['driver']}, PyTorch {record['torch']}: "
            f"{record['passed']:,} passed, {record['failed']} failed, {record['skipped']} skipped; "
            f"commit {record['commit'][:12]}{'' if record['clean'] else ' with changes'}.{old}\n"
        )
