"""Writes down what the tests on GPUs showed, and of which files: `pytest tests/gpu --gpu-record FOLDER`.

The file, FOLDER/gpu-tests-N.json for N GPUs, is committed; `make check-reference` compares it with the files.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.coverage import ROOT, hashes

SCHEMA_VERSION = 1


class Recorder:
    """Counts outcomes as they come, of xdist's workers too, and writes them at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._outcomes: dict[str, str] = {}
        self._reasons: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of several phases the worst counts."""
        if report.failed:
            self._outcomes[report.nodeid] = "failed"
        elif report.skipped:
            self._outcomes.setdefault(report.nodeid, "skipped")
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else ""
            self._reasons[str(reason).removeprefix("Skipped: ")] += 1
        elif report.when == "call":
            self._outcomes.setdefault(report.nodeid, "passed")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Writes the record; none where the run was broken off."""
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        machine = machine_facts()
        path = self._folder / f"gpu-tests-{len(machine['gpus'])}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "schema_version": SCHEMA_VERSION,
            **commit_facts(),
            **machine,
            "finished_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            **{kind: list(self._outcomes.values()).count(kind) for kind in ("passed", "skipped", "failed")},
            "failures": sorted(test for test, outcome in self._outcomes.items() if outcome == "failed"),
            "skips": dict(sorted(self._reasons.items())),
            "tests": self._by_function(),
            "files": hashes(),
        }
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def _by_function(self) -> dict[str, dict[str, int]]:
        """How often each test function passed, was skipped and failed."""
        counts: dict[str, Counter[str]] = {}
        for test, outcome in self._outcomes.items():
            function = test.partition("[")[0].partition("@")[0]
            counts.setdefault(function, Counter())[outcome] += 1
        return {function: dict(sorted(counts[function].items())) for function in sorted(counts)}


def recorder(config: pytest.Config) -> Recorder | None:
    """Who records, where that is asked for; in xdist's workers nobody does.

    UsageError where not all tests are run: a record of some would look like one of all.
    """
    folder = config.getoption("--gpu-record")
    if folder is None or hasattr(config, "workerinput"):
        return None
    some = [
        name for name in ("keyword", "markexpr", "deselect", "lf", "maxfail") if config.getoption(name, None)
    ]
    if some or [os.path.relpath(argument, ROOT) for argument in config.args] != ["tests/gpu"]:
        raise pytest.UsageError(
            "--gpu-record: is for all tests of tests/gpu; name that folder alone, without -k, -m, -x, --lf, "
            "--maxfail and --deselect."
        )
    return Recorder(Path(folder).absolute())


def commit_facts() -> dict[str, Any]:
    """Which commit, and whether anything was changed; without git HARNESS_GIT_COMMIT and _DIRTY tell."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    if commit := git("rev-parse", "HEAD"):
        return {"commit": commit, "clean": git("status", "--porcelain") == ""}
    told = os.environ.get("HARNESS_GIT_COMMIT", "")
    return {"commit": told, "clean": bool(told) and os.environ.get("HARNESS_GIT_DIRTY") == "0"}


def machine_facts() -> dict[str, Any]:
    """GPUs in sight, driver and PyTorch."""
    import torch

    return {
        "gpus": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "driver": _driver(),
        "torch": torch.__version__,
    }


def _driver() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
    except Exception:  # whatever NVML lacks, tests have run
        return ""
    return version.decode() if isinstance(version, bytes) else str(version)
