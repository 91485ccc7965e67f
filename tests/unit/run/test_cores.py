"""The cores that a process has are those of its affinity, or what a quota leaves of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.run import cores


@pytest.mark.parametrize(
    ("member", "files", "expected"),
    [
        ("0::/\n", {}, 64),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/\n", {"cpu.max": "20000000 100000\n"}, 64),
        ("0::/job/step\n", {"job/cpu.max": "300000 100000\n", "job/step/cpu.max": "max 100000\n"}, 3),
        ("0::/host/path/that/is/not/here\n", {"cpu.max": "100000 100000\n"}, 1),
        (
            "3:memory:/pod\n2:cpu,cpuacct:/pod\n",
            {"cpu,cpuacct/pod/cpu.cfs_quota_us": "150000\n", "cpu,cpuacct/pod/cpu.cfs_period_us": "50000\n"},
            3,
        ),
        (
            "2:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            64,
        ),
        ("0::/\n", {"cpu.max": "what\n"}, 64),
    ],
)
def test_the_tightest_quota_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, files: dict[str, str], expected: float
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    groups, told = tmp_path / "groups", tmp_path / "member"
    told.write_text(member, encoding="utf-8")
    for name, text in files.items():
        path = groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert cores.ours(groups, told) == expected


def test_without_control_groups_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5})
    assert cores.ours(tmp_path, tmp_path / "none") == 2


def test_this_machine_has_some() -> None:
    assert 0 < cores.ours() <= (os.cpu_count() or 1)
