"""How like one of ours a kernel is that others compiled: instance by instance, by what a compiler decides."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import BadInputError
from harness.patch.manifest import Entry, Manifest


@dataclass(frozen=True)
class Pair:
    """The same instance of both: for one architecture, type of rows and type of indices."""

    arch: str
    dtype: str
    index_dtype: str
    theirs: Entry
    ours: Entry

    @property
    def alike(self) -> bool:
        """Whether both take as many registers and spill nothing. How much each spills could not be compared:
        of ours the bytes moved are known, of theirs the stack frame."""
        registers = self.theirs.registers == self.ours.registers
        return registers and self.theirs.spill_bytes == self.ours.spill_bytes == 0


def pairs(theirs: Manifest, ours: Manifest) -> list[Pair]:
    """Every instance of `lookup` that both have; BadInputError where there is none."""
    by_place = {(entry.arch, entry.dtype, entry.index_dtype): entry for entry in theirs.entries}
    found = [
        Pair(*place, by_place[place], entry)
        for entry in ours.entries
        if entry.function == "lookup" and (place := (entry.arch, entry.dtype, entry.index_dtype)) in by_place
    ]
    if not found:
        raise BadInputError(
            f"{_described(theirs)} and {_described(ours)} have no architecture in common; choose another "
            "--toolchain."
        )
    return found


def _described(compiled: Manifest) -> str:
    archs = ", ".join(dict.fromkeys(entry.arch for entry in compiled.entries))
    return f"{compiled.design}@{compiled.toolchain} ({archs})"
