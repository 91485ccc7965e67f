"""What the host keeps an eye on while a launch runs: how much it writes, and who else uses its GPU."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from harness.files import Folder
from harness.run.attempt import Attempt, CalledOffError
from harness.run.gpu import Gpu

if TYPE_CHECKING:
    from harness.run.runner import Listener

_MOST_BYTES, _BYTES_PER_CELL = 2**30, 16 * 2**20
_MOST_FILES, _FILES_PER_CELL = 256, 4
_LEAST_FREE_BYTES = 16 * 2**20
_NEIGHBOURS_S = 2.0
"""How often the driver is asked: it is busy enough while times are taken."""
_HOSTS_PIDS = 0xEFFFFFFC
"""The kernel's own number of the first namespace of processes, whose numbers the driver's are."""


def too_much(output: Folder, cells: int) -> str:
    """Why a launch of so many cells has to be stopped for what it writes; empty where it has not."""
    most_files, most_bytes = _MOST_FILES + _FILES_PER_CELL * cells, _MOST_BYTES + _BYTES_PER_CELL * cells
    files = written = 0
    try:
        with os.scandir(output.fileno()) as entries:
            for entry in entries:
                files += 1
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        return "it made a folder in its output, which is for files"
                    written += entry.stat(follow_symlinks=False).st_blocks * 512
                if files > most_files:
                    return f"it left more than {most_files} files"
                if written > most_bytes:
                    return f"it wrote more than {most_bytes / 2**30:.1f} GiB"
    except OSError as error:
        return f"its output folder cannot be read: {error.strerror}"
    return ""


def require_room(output: Folder) -> None:
    """OSError where the disk is as good as full: a launch would fail for nothing of its own."""
    state = os.fstatvfs(output.fileno())
    if state.f_bavail * state.f_frsize < _LEAST_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output.path))


class Neighbours:
    """Other processes on a GPU, as the driver lists them. Sees none without a GPU, or where the driver's
    numbers of processes are not ours: within a container of this program itself."""

    def __init__(self, gpu: Gpu | None, is_ours: Callable[[int], bool]) -> None:
        """`is_ours`: whether a process belongs to the launch."""
        self._gpu = gpu if _sees_hosts_pids() else None
        self._is_ours = is_ours
        self._nvml: Any = None
        self._handle: Any = None
        self._looked = -_NEIGHBOURS_S

    def __enter__(self) -> Neighbours:
        if self._gpu is not None:
            import pynvml

            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlInit()
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(self._gpu.uuid)
                self._nvml = pynvml
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    @property
    def due(self) -> bool:
        """Whether it is time to look again."""
        return self._nvml is not None and time.monotonic() - self._looked >= _NEIGHBOURS_S

    def look(self) -> list[str]:
        """Those that are there now, described."""
        if self._nvml is None:
            return []
        self._looked = time.monotonic()
        return [in_words(pid) for pid in self._pids() if not self._is_ours(pid) and _is_there(pid)]

    def _pids(self) -> Iterator[int]:
        seen: set[int] = set()
        for kind in ("Compute", "Graphics"):
            with contextlib.suppress(self._nvml.NVMLError, AttributeError):
                running = getattr(self._nvml, f"nvmlDeviceGet{kind}RunningProcesses")(self._handle)
                seen |= {int(process.pid) for process in running}
        yield from sorted(seen)


def in_words(pid: int) -> str:
    """A process as a user recognises it; only its number where it is gone or hidden."""
    known = []
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
        known.append(name if name.isprintable() else ascii(name))
    with contextlib.suppress(OSError, KeyError):
        known.append(f"user {pwd.getpwuid(os.stat(f'/proc/{pid}').st_uid).pw_name}")
    return f"process {pid}" + (f" ({', '.join(known)})" if known else "")


def _is_there(pid: int) -> bool:
    """The driver's list is a moment old; and a process may be hidden from us and there all the same."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sees_hosts_pids() -> bool:
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/ns/pid").st_ino == _HOSTS_PIDS
    return False


def in_container(container: str) -> Callable[[int], bool]:
    """Whether a process runs in the container with this id."""

    def is_ours(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return container in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
        return False

    return is_ours


def in_session(leader: int) -> Callable[[int], bool]:
    """Whether a process is of the session that this one leads."""

    def is_ours(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return os.getsid(pid) == leader
        return False

    return is_ours


class Watch:
    """Both at once, for the runner that follows a launch: told every second or so, it says when to stop."""

    def __init__(self, attempt: Attempt, neighbours: Neighbours, listener: Listener) -> None:
        self._cells = len(attempt.launch.cells)
        self._called_off = attempt.called_off
        self._output = attempt.written()
        self._neighbours = neighbours
        self._listener = listener
        self.why = ""
        """Why the launch has to be stopped; empty where it has not."""

    def __enter__(self) -> Watch:
        self._neighbours.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.neighbours(self._neighbours.look())
        self._neighbours.__exit__(kind, error, trace)
        self._output.close()

    def stop(self) -> bool:
        """Looks, and says whether the launch has to be stopped. OSError where the disk is full,
        CalledOffError where the run ends."""
        if self._called_off.is_set():
            raise CalledOffError("The launch was called off.")
        if self._neighbours.due:
            self._listener.neighbours(self._neighbours.look())
        require_room(self._output)
        self.why = self.why or too_much(self._output, self._cells)
        return bool(self.why)
