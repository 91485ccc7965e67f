"""What `make check-reference` refuses, on records made up here; and how such records come about."""

from __future__ import annotations

import copy
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli import cli
from tests import check_reference
from tests import synthetic_run as synthetic
from tests.gpu import coverage

Record = dict[str, Any]


@functools.cache
def covered() -> dict[str, str]:
    """The files of this checkout, with their hashes."""
    return coverage.hashes()


@functools.cache
def whole() -> tuple[str, ...]:
    """Every test of this checkout that a machine with two GPUs can run."""
    return tuple(coverage.functions())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the tests on GPUs are about."""
    for name in covered():
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(coverage.ROOT / name, tmp_path / "checkout" / name)
    return tmp_path / "checkout"


def good(gpus: int) -> Record:
    """Of this checkout: everything passed; on one GPU what needs two was skipped."""
    tests = {name: {"passed": 3} for name in whole()}
    if gpus == 1:
        tests |= {name: {"skipped": 3} for name in set(whole()) - set(coverage.functions(gpus=1))}
    return {
        "schema_version": 1,
        "commit": "c0ffee" * 6,
        "clean": True,
        "gpus": ["H100"] * gpus,
        "driver": "580.1",
        "torch": "2.11",
        "passed": 3 * len(tests),
        "skipped": 0,
        "failed": 0,
        "failures": [],
        "tests": tests,
        "files": covered(),
    }


@pytest.fixture
def refused(checkout: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """What is refused of a good record for one and for two GPUs, each with changes."""

    def check(one: Record | None = None, two: Record | None = None) -> list[str]:
        for gpus, changes in ((1, one or {}), (2, two or {})):
            path = tmp_path / f"gpu-tests-{gpus}.json"
            path.write_text(json.dumps(good(gpus) | changes), encoding="utf-8")
        return list(check_reference.of_gpu_tests(tmp_path, checkout))

    return check


def test_good_records_for_one_and_two_gpus_are_enough(refused: Callable[..., list[str]]) -> None:
    assert refused() == []


def test_a_record_that_is_missing_is_told(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "gpu-tests-1.json").write_text(json.dumps(good(1)), encoding="utf-8")
    (two,) = check_reference.not_shown(tmp_path)
    assert (
        "gpu-tests-2.json: is missing: that the tests pass on two GPUs is not shown; run `make test-gpu`"
        in two
    )
    assert not list(check_reference.of_gpu_tests(tmp_path, checkout)), (
        "that of one speaks for what one can run"
    )


def test_what_one_gpu_can_run_may_not_be_skipped_there(checkout: Path, tmp_path: Path) -> None:
    one = good(1)
    test = "tests/gpu/test_patch.py::test_a_lookup_on_another_gpu_than_the_current_one"
    one["tests"] |= {name: {"skipped": 3} for name in list(one["tests"])[:1]}
    (tmp_path / "gpu-tests-1.json").write_text(json.dumps(one), encoding="utf-8")
    (refused,) = check_reference.of_gpu_tests(tmp_path, checkout)
    assert "did not pass" in refused
    two = good(2)
    two["tests"][test] = {"skipped": 3}
    (tmp_path / "gpu-tests-1.json").write_text(json.dumps(good(1)), encoding="utf-8")
    (tmp_path / "gpu-tests-2.json").write_text(json.dumps(two), encoding="utf-8")
    assert all(test in sentence for sentence in check_reference.of_gpu_tests(tmp_path, checkout))


@pytest.mark.parametrize(
    "name",
    [
        "opt_designs/fused/kernel.cuh",
        "opt_designs/common/lookup_args.h",
        "opt_designs/vectorized/design.toml",
        "harness/patch/tables.cpp",
        "harness/patch/launching/driver.h",
        "harness/bench/stopwatch.py",
        "harness/bench/read_rows.ptx",
        "harness/records.py",
        "tests/gpu/test_patch.py",
        "tests/data/slow_tables/kernel.cuh",
    ],
)
def test_a_changed_file_is_named(checkout: Path, refused: Callable[..., list[str]], name: str) -> None:
    with (checkout / name).open("a", encoding="utf-8") as file:
        file.write("\nnew = 1\n")
    found = refused()
    assert len(found) == 2
    assert all(f"{name} changed since commit c0ffeec0ffee; run `make test-gpu`" in said for said in found)


def test_new_and_removed_files_count_and_comments_in_kernels_do_not(
    checkout: Path, refused: Callable[..., list[str]]
) -> None:
    kernel = checkout / "opt_designs" / "fused" / "kernel.cuh"
    kernel.write_text("// Another comment.\n" + kernel.read_text(encoding="utf-8"), encoding="utf-8")
    (checkout / "opt_designs" / "fused" / "LOG.md").write_text("prose", encoding="utf-8")
    assert refused() == []
    (checkout / "opt_designs" / "mine").mkdir()
    (checkout / "opt_designs" / "mine" / "kernel.cuh").write_text("", encoding="utf-8")
    (checkout / "opt_designs" / "smpf" / "kernel.cuh").unlink()
    assert "opt_designs/mine/kernel.cuh, opt_designs/smpf/kernel.cuh changed since" in refused()[0]


def test_what_a_covered_file_imports_from_now_on_is_covered(
    checkout: Path, refused: Callable[..., list[str]]
) -> None:
    (checkout / "harness" / "traces" / "newer.py").write_text("", encoding="utf-8")
    assert refused() == []
    with (checkout / "harness" / "bench" / "cell.py").open("a", encoding="utf-8") as file:
        file.write("\ndef late():\n    from harness.traces import newer\n")
    assert "harness/bench/cell.py, harness/traces/newer.py changed since" in refused()[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"failed": 1, "failures": ["tests/gpu/test_patch.py::test_x[a]"]},
            "1 tests failed, tests/gpu/test_patch.py",
        ),
        ({"passed": 0}, "no test passed"),
        ({"commit": ""}, "does not name its commit"),
        ({"gpus": ["H100"] * 3}, "was made on 3 GPUs"),
        ({"schema_version": 9}, "is of version 9 and not 1"),
        ({"files": None}, "is no record of this version"),
        ({"tests": {}}, "did not pass"),
    ],
)
def test_a_record_that_shows_too_little_is_refused(
    refused: Callable[..., list[str]], changes: Record, said: str
) -> None:
    assert any("gpu-tests-2.json" in sentence and said in sentence for sentence in refused(two=changes))


def test_a_file_that_is_no_json_is_refused(checkout: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"gpu-tests-{number}.json").write_text("{", encoding="utf-8")
    found = list(check_reference.of_gpu_tests(tmp_path, checkout))
    assert all("is no record of this version" in sentence for sentence in found)
    assert len(found) == 2


def test_runs_of_designs_that_changed_since_are_named(tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "gpu" / "paper", synthetic.experiment())
    assert list(check_reference.of_runs(tmp_path)) == []
    for path in run.glob("cells/optmt*/record.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        record["kernel"]["source_hash"] = "f00"
        path.write_text(json.dumps(record), encoding="utf-8")
    (said,) = check_reference.of_runs(tmp_path)
    assert said == f"{run}: optmt changed since; measure it again and replace the run."


def test_self_tests_that_were_judged_by_other_statistics_are_named(tmp_path: Path) -> None:
    what = synthetic.experiment(
        replicates=6, arms=synthetic.experiment().arms[:1], datasets=("random", "medium")
    )
    run = synthetic.write_run(tmp_path / "gpu" / "selftest", what)
    judged = CliRunner().invoke(cli, ["selftest", "--from", str(run), "--splits", "5", "--threshold", "2"])
    assert judged.exit_code in (0, 4), judged.output
    assert list(check_reference.of_selftests(tmp_path)) == []

    path = run / "selftest.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    changes: list[Callable[[Record], object]] = [
        lambda test: test["rates"][0].update(verdicts={"same": 3, "inconclusive": 2}),
        lambda test: test["lag_1"].update(random=0.99),
        lambda test: test.pop("lag_1"),
        lambda test: test.update(threshold=0.001),
        lambda test: test.update(arm="optmt@12.1"),
    ]
    for change in changes:
        changed = copy.deepcopy(whole)
        change(changed["tests"][0])
        path.write_text(json.dumps(changed), encoding="utf-8")
        (said,) = check_reference.of_selftests(tmp_path)
        assert said == f"{path}: is of other statistics; `harness selftest --from {run}` judges anew."


def test_only_what_the_tests_are_about_counts(checkout: Path) -> None:
    then = coverage.hashes(checkout)
    # As recorded when the tests were still about what reads other people's files.
    (checkout / "harness/traces/formats.py").write_text("", encoding="utf-8")
    today = coverage.hashes(checkout)
    assert "harness/traces/formats.py" not in today
    for more, changed in (
        ({}, []),
        ({"harness/traces/formats.py": "then"}, []),
        ({"harness/gone.py": "then"}, ["harness/gone.py"]),
        ({"harness/files.py": "then"}, ["harness/files.py"]),
    ):
        assert coverage.changed(then | more, today, checkout) == changed


STAND_IN = """
import pytest
@pytest.mark.parametrize("n", range(4))
def test_even(n):
    if n == 2:
        pytest.skip("no two here")
    assert n != 3
def test_fine(): pass
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_a_run_is_recorded_with_and_without_workers(tmp_path: Path, workers: list[str]) -> None:
    """The recording of the real tests, round others that need no GPU."""
    for name in ("pyproject.toml", "tests/conftest.py", "tests/__init__.py", *covered()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(coverage.ROOT / name, tmp_path / name)
    for name in coverage.RECORDING:
        shutil.copy(coverage.ROOT / name, tmp_path / name)
    for path in (tmp_path / "tests" / "gpu").glob("test_*.py"):
        path.unlink()
    (tmp_path / "tests" / "gpu" / "conftest.py").write_text("", encoding="utf-8")
    (tmp_path / "tests" / "gpu" / "test_stand_in.py").write_text(STAND_IN, encoding="utf-8")

    def pytest_(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "tests/gpu", "--gpu-record", "out", *more]
        environment = {"PATH": "/usr/bin:/bin", "HARNESS_GIT_COMMIT": "c0ffee", "HARNESS_GIT_DIRTY": "0"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    assert "is for all tests of tests/gpu" in pytest_("-k", "even", *workers).stderr
    done = pytest_(*workers)
    assert "1 failed, 3 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    record = json.loads((tmp_path / "out" / "gpu-tests-0.json").read_text(encoding="utf-8"))
    assert {name: record[name] for name in ("commit", "clean", "gpus", "passed", "failed", "skipped")} == {
        "commit": "c0ffee",
        "clean": True,
        "gpus": [],
        "passed": 3,
        "failed": 1,
        "skipped": 1,
    }
    assert record["failures"] == ["tests/gpu/test_stand_in.py::test_even[3]"]
    assert record["skips"] == {"no two here": 1}
    assert record["tests"] == {
        "tests/gpu/test_stand_in.py::test_even": {"failed": 1, "passed": 2, "skipped": 1},
        "tests/gpu/test_stand_in.py::test_fine": {"passed": 1},
    }
    assert record["files"]["opt_designs/baseline/kernel.cuh"] == covered()["opt_designs/baseline/kernel.cuh"]


def test_the_tests_on_gpus_are_told_by_their_functions() -> None:
    found = whole()
    assert "tests/gpu/test_patch.py::test_a_lookup_on_another_gpu_than_the_current_one" in found
    assert not any("fbgemm" in name for name in found)
