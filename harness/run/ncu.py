"""Nsight Compute: where it is, how it is called, and what its tables say.

Counters do not fit the hardware all at once, so they are taken in several passes. Nsight Compute's usual way,
to launch each kernel again and again, would show every pass but the first an L2 that the same kernel has just
filled. So the whole program is run again for every pass instead (`--replay-mode application`): each launch
then finds the caches as the launches before it left them, in every pass. Nothing flushes them between
(`--cache-control none`), and clocks are left alone (`--clock-control none`), as when times are measured.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HarnessError, MachineError
from harness.profiles import KernelLaunch
from harness.run import gpu as gpus

STALLS = (
    "long_scoreboard",
    "short_scoreboard",
    "lg_throttle",
    "mio_throttle",
    "math_pipe_throttle",
    "barrier",
    "wait",
    "not_selected",
    "selected",
    "no_instruction",
    "branch_resolving",
    "dispatch_stall",
)
STALL_METRIC = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
_COMPUTE = (
    "gpu__time_duration.sum",
    "gpc__cycles_elapsed.avg.per_second",
    "launch__registers_per_thread",
    "sm__maximum_warps_per_active_cycle_pct",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "smsp__inst_executed.sum",
)
_MEMORY = (
    "l1tex__t_sector_hit_rate.pct",
    "l1tex__m_xbar2l1tex_read_bytes.sum",
    "lts__t_sector_hit_rate.pct",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
)
_WAITING = (
    "smsp__average_warp_latency_per_inst_issued.ratio",
    *(STALL_METRIC.format(reason) for reason in STALLS),
)
METRICS = (*_COMPUTE, *_MEMORY, *_WAITING)
"""Names of compute capability 8.0 and 9.0."""
COUNTERS = {"compute": _COMPUTE, "memory": (*_COMPUTE, *_MEMORY), "all": METRICS}
"""What may be asked for: registers, warps and instructions; bytes out of caches and memory and hit rates,
too; what warps wait for, too. Each holds the one before, for which it takes no pass more."""
_PASSES = {"compute": 1, "memory": 2, "all": 5}
"""As CUPTI 13.0 deals these counters out (`cuptiProfilerHostGetNumOfPasses`) on GA100, AD102, GH100 and
GB100; of the reasons to wait three or four fit into a pass. Nsight Compute itself may take more."""
_OTHER_NAMES = {
    "dram__bytes_read.sum": "dram__bytes_op_read.sum",
    "dram__bytes_write.sum": "dram__bytes_op_write.sum",
}
"""What later GPUs call the same."""
_UNITS = {"byte": 1.0, "inst": 1.0, "s": 1e9, "second": 1e9, "hz": 1.0, "cycle/nsecond": 1e9, "cycle/ns": 1e9}
_PREFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_PLACES = ("/opt/nvidia/nsight-compute/*", "/usr/local/cuda*/nsight-compute-*", "/usr/local/cuda*/bin")
_PARAMETERS = Path("/proc/driver/nvidia/params")
_PERFMON_SINCE = "565"
"""The driver from which on the lesser capability is enough."""
_READING_S = 600
_PERMISSION = "ERR_NVGPUCTRPERM"


class UnknownMetricsError(HarnessError):
    """Nsight Compute does not know some of the metrics for this GPU."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"Nsight Compute does not know {', '.join(names)}.")
        self.names = names


@dataclass(frozen=True)
class Ncu:
    """One installation of Nsight Compute, and what it is to ask."""

    executable: Path
    version: str
    metrics: tuple[str, ...] = METRICS

    @property
    def about_passes(self) -> int:
        """How many passes these metrics should take; see `_PASSES`."""
        usual = {other: name for name, other in _OTHER_NAMES.items()}
        asked = {usual.get(name, name) for name in self.metrics}
        return next((_PASSES[name] for name, held in COUNTERS.items() if asked <= set(held)), _PASSES["all"])

    @property
    def folder(self) -> Path:
        """All that it needs to run, where it was unpacked."""
        return self.executable.parent

    def command(self, executable: str, report: str, program: Sequence[str]) -> list[str]:
        """Runs `program` under the profiler and leaves `report`. Paths are those of where it runs."""
        options = ["--target-processes", "all", "--profile-from-start", "off"]
        options += ["--replay-mode", "application", "--cache-control", "none", "--clock-control", "none"]
        options += ["--metrics", ",".join(self.metrics), "--force-overwrite", "--export", report]
        return [executable, *options, *program]

    def without(self, names: Sequence[str]) -> Ncu:
        """The same, asking for another name in place of each of these, or no more where there is none."""
        left = (_OTHER_NAMES.get(name, "") if name in names else name for name in self.metrics)
        return replace(self, metrics=tuple(filter(None, left)))

    def launches(self, report: Path) -> list[KernelLaunch]:
        """What a report holds; MachineError where the profiler cannot read it again."""
        command = [str(self.executable), "--import", str(report), "--csv", "--page", "raw"]
        try:
            done = subprocess.run(
                [*command, "--print-units", "base"],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                timeout=_READING_S,
            )
        except subprocess.TimeoutExpired:
            raise MachineError(f"{report}: Nsight Compute did not read it within {_READING_S} s.") from None
        if done.returncode:
            said = first_error((done.stdout + done.stderr).splitlines()) or f"exit code {done.returncode}"
            raise MachineError(f"{report}: Nsight Compute cannot read it: {said}")
        return list(read_csv(done.stdout.splitlines(), self.metrics))


def find() -> Ncu:
    """Nsight Compute of this machine: HARNESS_NCU, else the one on the path, else the newest installed.

    MachineError where there is none.
    """
    named = os.environ.get("HARNESS_NCU")
    if named:
        path = Path(named) / "ncu" if Path(named).is_dir() else Path(named)
        found = _answering(path)
        if found is None:
            raise MachineError(
                f"HARNESS_NCU={named}: is not Nsight Compute, nor a folder that holds its ncu."
            )
        return found
    on_path = shutil.which("ncu")
    installed = [place / "ncu" for pattern in _PLACES for place in sorted(Path("/").glob(pattern[1:]))[::-1]]
    for path in [*([Path(on_path)] if on_path else []), *installed]:
        if (found := _answering(path)) is not None:
            return found
    raise MachineError(
        "Nsight Compute is not installed here (no ncu on the path, in /opt/nvidia or /usr/local/cuda); it is "
        "part of the CUDA toolkit. If it is elsewhere, set HARNESS_NCU to its folder."
    )


def _answering(path: Path) -> Ncu | None:
    """The installation behind an `ncu`, which in a toolkit's bin/ is a script that starts the real one."""
    with contextlib.suppress(OSError):
        done = subprocess.run(
            [str(path), "--version"], capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if match := re.search(r"Version (\d[\w.]*)", done.stdout):
            return Ncu(_installed(path.resolve(), match[1]), match[1])
    return None


def _installed(path: Path, version: str) -> Path:
    """`ncu` in the folder that holds all it needs, so that the folder can be given to a container."""
    short = ".".join(version.split(".")[:3])
    toolkits = [path.parent.parent / f"nsight-compute-{short}", Path("/opt/nvidia/nsight-compute") / short]
    around = [path.parent, *toolkits]
    return next((folder / "ncu" for folder in around if (folder / "target").is_dir()), path)


def capability(driver: str) -> str:
    """What a container needs to read the GPU's performance counters; empty where anybody may."""
    with contextlib.suppress(OSError):
        if re.search(r"^RmProfilingAdminOnly: 0$", _PARAMETERS.read_text(encoding="utf-8"), re.MULTILINE):
            return ""
    return "SYS_ADMIN" if gpus.older(driver, _PERFMON_SINCE) else "PERFMON"


def check_log(lines: Sequence[str]) -> None:
    """Raises what a profiler's log says went wrong: UnknownMetricsError, or MachineError in a sentence."""
    text = "\n".join(lines)
    if names := re.findall(r"Failed to find metric (?:regex:\^)?([\w.]*\w)", text):
        asked = {metric.split(".")[0]: metric for metric in METRICS + tuple(_OTHER_NAMES.values())}
        raise UnknownMetricsError([asked.get(name.split(".")[0], name) for name in names])
    if _PERMISSION in text:
        raise MachineError(
            f"The driver keeps the GPU's performance counters for administrators ({_PERMISSION}): run as "
            "root, or put `options nvidia NVreg_RestrictProfilingToAdminUsers=0` into a file in "
            "/etc/modprobe.d and load the driver again; in a rootless Docker only the latter helps."
        )
    if "not compatible with Nsight Compute" in text:
        raise MachineError(
            "This Nsight Compute and the driver do not go together; install a newer one and set HARNESS_NCU."
        )


def first_error(lines: Iterable[str]) -> str:
    """The first thing that a log of the profiler calls an error, or nothing."""
    return next((line.split("==", 2)[-1].strip() for line in lines if line.startswith("==ERROR==")), "")


def read_csv(lines: Iterable[str], metrics: Sequence[str]) -> Iterator[KernelLaunch]:
    """Launches of a table of the page "raw": names, then units, then a row per launch.

    Lines of the profiler's own talk ("==PROF== …") are passed over. A value that it could not tell ("n/a") is
    left out.
    """
    table = csv.reader(line for line in lines if line.startswith('"'))
    head, units = next(table, []), next(table, [])
    if "Kernel Name" not in head:
        raise MachineError("Nsight Compute wrote no table of launches: it saw no kernel at all.")
    unit_of = dict(zip(head, units, strict=False))
    for row in table:
        cells = dict(zip(head, row, strict=False))
        found = {name: _value(cells.get(name, ""), unit_of.get(name, "")) for name in metrics}
        yield KernelLaunch(
            cells["Kernel Name"],
            cells.get("Grid Size", ""),
            cells.get("Block Size", ""),
            {name: value for name, value in found.items() if value is not None},
        )


def _value(text: str, unit: str) -> float | None:
    """A number in base units: bytes, nanoseconds, hertz; None where the text is not a number."""
    try:
        value = float(text.replace(",", "").split(" ")[0])
    except ValueError:
        return None
    return value * _scale(unit) if value == value else None  # NaN is no value either


def _scale(unit: str) -> float:
    """How many base units one is: older versions write "usecond" and "Kbyte", later ones "us"."""
    if unit in _UNITS:
        return _UNITS[unit]
    if unit[:1] in _PREFIXES and unit[1:] in _UNITS:
        return _PREFIXES[unit[0]] * _UNITS[unit[1:]]
    return 1.0
