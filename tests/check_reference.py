"""Refuses measurements, self-tests and GPU tests that are of older sources: `make check-reference`.

Apart from the tests, so that whoever has no such GPU can change a kernel and see them pass. What ships with
the project was measured and tested as it stands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import cell_files, designs, wall
from harness.analysis import frame, selftest, sources
from harness.cli.shared import REFERENCE_DIR
from harness.errors import BadInputError
from harness.records import CellRecord
from tests.gpu import coverage
from tests.gpu.recording import SCHEMA_VERSION

AGAIN = "run `make test-gpu` on a machine with {gpus} and commit what it writes"
GPUS = {1: "one GPU", 2: "two GPUs"}
FEW = 3
"""So many are named, and the others counted."""


def main() -> int:
    """Prints what is refused, one sentence a line; 1 where anything is."""
    refused = [*of_runs(), *of_selftests(), *of_gpu_tests()]
    for sentence in refused:
        print(sentence, file=sys.stderr)
    for sentence in not_shown():
        print(sentence)
    if not refused:
        print(f"{REFERENCE_DIR}: every run and test on GPUs that is recorded is of the sources of today.")
    return 1 if refused else 0


def recorded(reference: Path = REFERENCE_DIR) -> Iterator[tuple[Path, list[CellRecord]]]:
    """Every run's folder and records."""
    for plan in sorted(reference.glob("*/*/plan.json")):
        with cell_files.opened(plan.parent) as files:
            there = [cell_id for cell_id in files.ids() if files.kind(cell_id, wall.RECORD)]
            yield plan.parent, [cell_files.load(CellRecord, files, cell_id, wall.RECORD) for cell_id in there]


def of_runs(reference: Path = REFERENCE_DIR) -> Iterator[str]:
    """Runs that measured designs which have changed since."""
    for run, records in recorded(reference):
        older = sources.older(records, designs.source_hashes())
        if older:
            yield f"{run}: {named(older)} changed since; measure it again and replace the run."


def of_selftests(reference: Path = REFERENCE_DIR) -> Iterator[str]:
    """Runs whose processes the statistics of today judge otherwise than their selftest.json says."""
    for path in sorted(reference.glob("*/*/selftest.json")):
        try:
            run = frame.load_run(path.parent)
            told = json.loads(path.read_text(encoding="utf-8"))["tests"]
            same = all(_judged_alike(run, one) for one in told)
        except (BadInputError, ValueError, KeyError, TypeError, AttributeError):
            same = False
        if not same:
            yield f"{path}: is of other statistics; `harness selftest --from {path.parent}` judges anew."


def _judged_alike(run: frame.LoadedRun, told: dict[str, Any]) -> bool:
    """Whether the same splits get the same verdicts today."""
    asked = {name: told[name] for name in ("metric", "replicates", "threshold")}
    splits = max(rate["splits"] for rate in told["rates"])
    anew = selftest.examine(run, run.variant(told["arm"]), splits=splits, **asked)
    return told["lag_1"] == pytest.approx(anew.lag_1) and [
        (rate["dataset"], rate["order"], rate["injected"], rate["verdicts"]) for rate in told["rates"]
    ] == [(rate.dataset, rate.order, rate.injected, rate.verdicts) for rate in anew.rates]


def of_gpu_tests(reference: Path = REFERENCE_DIR, root: Path = coverage.ROOT) -> Iterator[str]:
    """What keeps the records of tests on one and on two GPUs from speaking for the checkout. Where that of
    two is missing, the other speaks for what one GPU can run; see `not_shown`."""
    today, passed_on_two = coverage.hashes(root), set[str]()
    needed = coverage.functions(root, gpus=2 if (reference / "gpu-tests-2.json").exists() else 1)
    for number in sorted(GPUS, reverse=True):
        path, again = reference / f"gpu-tests-{number}.json", AGAIN.format(gpus=GPUS[number])
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            yield from (f"{path}: {why}; {again}." for why in _refusals(record, number, today, root))
            passed = {test for test, counts in record["tests"].items() if counts.get("passed")}
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            yield f"{path}: is no record of this version ({error!r}); {again}."
            continue
        passed_on_two |= passed if number == 2 else set()
        if never := [test for test in needed if test not in passed | passed_on_two]:
            yield f"{path}: {named(never)} did not pass; {again}."


def not_shown(reference: Path = REFERENCE_DIR) -> Iterator[str]:
    """What no record claims: that the tests passed on a GPU. To be said, and no falsehood to be refused."""
    for number, gpus in GPUS.items():
        path = reference / f"gpu-tests-{number}.json"
        if not path.exists():
            again = AGAIN.format(gpus=gpus)
            yield f"{path}: is missing: that the tests pass on {gpus} is not shown; {again}."


def _refusals(record: dict[str, Any], number: int, today: dict[str, str], root: Path) -> Iterator[str]:
    """Clauses, most telling first."""
    if record["schema_version"] != SCHEMA_VERSION:
        yield f"is of version {record['schema_version']} and not {SCHEMA_VERSION}"
        return
    if len(record["gpus"]) != number:
        yield f"was made on {len(record['gpus'])} GPUs"
    if not record["commit"]:
        yield "does not name its commit"
    if record["failed"] or record["failures"]:
        yield f"{record['failed']} tests failed, {named(record['failures'])}"
    elif not record["passed"]:
        yield "no test passed"
    if changed := coverage.changed(record["files"], today, root):
        yield f"{named(changed)} changed since commit {record['commit'][:12]}"


def named(names: list[str]) -> str:
    """The first few, and how many others."""
    more = f" and {len(names) - FEW} others" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


if __name__ == "__main__":
    sys.exit(main())
