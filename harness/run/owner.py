"""Which process something belongs to, told so that it is still true after that process is gone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def mine() -> str:
    """This process: the machine's boot, the namespace that numbers processes, the number, and when it
    began."""
    pid = os.getpid()
    return f"{_boot()} {_namespace()} {pid} {_started(pid)}"


def is_gone(owner: str) -> bool:
    """Whether that process is no more; False where this cannot be known from here."""
    words = owner.split()
    if len(words) != 4 or not words[2].isdecimal():
        return False
    boot, namespace, pid, started = words[0], words[1], int(words[2]), words[3]
    if boot != _boot():
        return True
    if namespace != _namespace():
        return False
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
    now = _started(pid)
    return "?" not in (started, now) and started != now  # another process has taken over the number


def _boot() -> str:
    return _line("/proc/sys/kernel/random/boot_id")


def _namespace() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return "?"


def _started(pid: int) -> str:
    """Clock ticks since the boot; "?" where the system does not tell."""
    # The program's name comes before, in brackets, and may hold anything.
    after = _line(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return after[19] if len(after) > 19 else "?"


def _line(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace").strip() or "?"
    return "?"
