"""How many processor cores this process and its children may keep busy."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path, PurePosixPath

_GROUPS = Path("/sys/fs/cgroup")


def ours(groups: Path = _GROUPS, member: Path = Path("/proc/self/cgroup")) -> float:
    """Those of its affinity, or as many as the tightest quota of its control groups is worth, where that is
    less: in a container with a limit, all of the machine's cores are in the affinity.

    `groups`: where the control groups are mounted (version 2, or the controllers of version 1 below it).
    `member`: which of them the process is in."""
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return min([float(len(affinity)), *_quotas(groups, member)])


def _quotas(groups: Path, member: Path) -> list[float]:
    """In cores, of every group that the process is in and that has one."""
    try:
        lines = member.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = groups / controllers if controllers else groups
        # Within a container the path may be the host's, and the mounted root is the container's own group.
        inner = PurePosixPath(path.lstrip("/"))
        for group in (inner, *inner.parents):
            found += _quota(mounted / group)
    return found


def _quota(group: Path) -> list[float]:
    """Of one group: none where it has no limit, or is not there."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        with contextlib.suppress(OSError, ValueError):
            quota, period = " ".join((group / name).read_text(encoding="ascii") for name in names).split()
            if quota not in ("max", "-1"):
                return [int(quota) / int(period)]
    return []
