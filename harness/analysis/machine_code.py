"""Whether a design's kernels are, instruction by instruction, those of other sources of it.

Sources change more often than what they are compiled to: a change for one type of rows leaves the kernels of
others as they were, and with them what was measured. `results/reference/machine-code.json` has hashes of the
machine code of all sources that reference runs are of, and of today's; `python -m tests.machine_code` adds
today's, and a test holds them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from harness.records import CellRecord, load

FILE = Path(__file__).resolve().parents[2] / "results" / "reference" / "machine-code.json"


@dataclass(frozen=True)
class Compiled:
    """What sources of a design are compiled to."""

    launch: str
    """Hash of how kernels are launched, and of all else that a design says of itself but prose."""
    kernels: dict[str, dict[str, str]]
    """Hash of every kernel by compiler, architecture and type of rows ("NVRTC 13.0.88 sm_90 float32"), and
    then by the rest of its name."""


@dataclass(frozen=True)
class MachineCode:
    """By design and source hash."""

    designs: dict[str, dict[str, Compiled]]

    def same(self, record: CellRecord, today: str) -> bool:
        """Whether what a record measured is what sources with the hash `today` are compiled to; not where
        that is not known."""
        if record.kernel is None:
            return False
        of_design = self.designs.get(record.kernel.name, {})
        then, now = of_design.get(record.kernel.source_hash), of_design.get(today)
        if then is None or now is None or then.launch != now.launch:
            return False
        where = key(record.kernel.compiler, record.kernel.arch, record.cell.workload.dtype)
        return where in then.kernels and then.kernels[where] == now.kernels.get(where)


def key(compiler: str, arch: str, dtype: str) -> str:
    """Of kernels that a record may have launched."""
    return f"{compiler} {arch} {dtype}"


@functools.cache
def known() -> MachineCode:
    """What this checkout has; none where the program is installed without one."""
    return load(MachineCode, FILE) if FILE.is_file() else MachineCode({})
