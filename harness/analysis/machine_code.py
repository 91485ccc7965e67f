"""Whether a design's kernels are, instruction by instruction, those of other sources of it.

Sources change more often than what they are compiled to: a change for one type of rows leaves the kernels of
others as they were, and with them what was measured; so does a new or other kernel for other widths or bags.
`results/reference/machine-code.json` has hashes of the machine code of all sources that reference runs are
of, and of today's; `python -m tests.machine_code` adds today's, and a test holds them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.records import CellRecord, Workload, load

_COUNTED = 2**31 - 1
"""Fewer rows of a table, and bags, surely are counted in 32 bits."""

FILE = Path(__file__).resolve().parents[2] / "results" / "reference" / "machine-code.json"


@dataclass(frozen=True)
class Calls:
    """Shapes of calls, as `harness.designs.When`: at least the first number and less than the second, where 0
    is no limit."""

    rows_per_bag: tuple[int, int] = (0, 0)
    columns: tuple[int, int] = (0, 0)
    alike: bool | None = None
    bags_per_sm: tuple[int, int] | None = None
    """None: not known."""


@dataclass(frozen=True)
class Special:
    """A kernel for calls of some shapes; see `harness.designs.Special`."""

    kernel: str
    dtypes: list[str]
    """Of rows; none: all."""
    when: list[Calls]
    """Any of these."""
    launch: str
    """Hash of all that design.toml says of it."""

    def takes(self, work: Workload) -> bool | None:
        """Whether calls of a workload come to it, or to one before it; None: some may."""
        if self.dtypes and work.dtype not in self.dtypes:
            return False
        return _any(_fits(when, work) for when in self.when)


@dataclass(frozen=True)
class Compiled:
    """What sources of a design are compiled to."""

    launch: str
    """Hash of how other kernels are launched, and of all else that design.toml says but prose."""
    special: list[Special]
    kernels: dict[str, dict[str, str]]
    """Hash of every kernel by compiler, architecture and type of rows ("NVRTC 13.0.88 sm_90 float32"), and
    then by the rest of its name."""

    def of(self, record: CellRecord) -> tuple[str, list[str], dict[str, str]] | None:
        """How the kernels are launched that a record's cell could come to, and their machine code; None where
        nothing is known of it. It comes to no special kernel for rows of other types or calls of other
        shapes, nor to one behind another that takes them all."""
        assert record.kernel is not None
        work = record.cell.workload
        kernels = self.kernels.get(key(record.kernel.compiler, record.kernel.arch, work.dtype))
        if kernels is None:
            return None
        here = []
        for special in self.special:
            takes = special.takes(work)
            if takes is not False:
                here.append(special)
            if takes:
                break
        others = {special.kernel for special in self.special} - {special.kernel for special in here}
        of_others = {name for name in kernels if name.partition(" ")[0] in others}
        return (
            self.launch,
            [special.launch for special in here],
            {name: code for name, code in kernels.items() if name not in of_others},
        )


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
        if then is None or now is None:
            return False
        measured = then.of(record)
        return measured is not None and measured == now.of(record)


def _fits(when: Calls, work: Workload) -> bool | None:
    """Whether calls of a workload have such a shape, and are told of to special kernels at all; None: some
    may."""
    rows_per_bag, alike = _rows_per_bag(work), _alike(work)
    found = (
        _within(work.dim, when.columns),
        None if rows_per_bag is None else _within(rows_per_bag, when.rows_per_bag),
        None if alike is None else when.alike in (None, alike),
        when.bags_per_sm == (0, 0) or None,
        (alike and max(work.rows, work.batch * work.columns) < _COUNTED) or None,
    )
    return False if False in found else None if None in found else True


def _any(found: Iterable[bool | None]) -> bool | None:
    """True where one is, otherwise None where one is not known."""
    known = set(found)
    return True if True in known else None if None in known else False


def _rows_per_bag(work: Workload) -> float | None:
    """On average over all bags of a call; None where it is not known, or differs from call to call."""
    if any(group.bags == "own" for group in work.groups) or (work.bags != "fixed" and not work.groups):
        return None
    return work.all_lookups / (work.batch * work.tables)


def _alike(work: Workload) -> bool | None:
    """Whether tables are of one width, in whole groups of 16 bytes; None where it is not known."""
    if len(work.dims) > 1:
        return False
    # Rows of 32 columns are whole groups in any type.
    return True if work.dim % 32 == 0 and not work.weighted else None


def _within(number: float, limits: tuple[int, int]) -> bool:
    least, below = limits
    return least <= number and (below == 0 or number < below)


def key(compiler: str, arch: str, dtype: str) -> str:
    """Of kernels that a record may have launched."""
    return f"{compiler} {arch} {dtype}"


@functools.cache
def known() -> MachineCode:
    """What this checkout has; none where the program is installed without one."""
    return load(MachineCode, FILE) if FILE.is_file() else MachineCode({})
