"""Whether designs and libraries are one and the same in all of a run, and still what they were then."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from harness.analysis import machine_code
from harness.records import CellRecord


def older(records: Iterable[CellRecord], today: Mapping[str, str]) -> list[str]:
    """Designs that were measured from other sources than today's, in alphabetical order.

    `today`: source hashes by design. One that is not among them is not named: nobody can say whether it has
    changed. Nor is one whose kernels for the rows that were measured are still the same machine code.
    """
    changed = [
        record
        for record in records
        if record.kernel
        and today.get(record.kernel.name, record.kernel.source_hash) != record.kernel.source_hash
    ]
    code = machine_code.known()
    return sorted({r.kernel.name for r in changed if r.kernel and not code.same(r, today[r.kernel.name])})


def libraries(records: Iterable[CellRecord]) -> dict[str, list[str]]:
    """Shared libraries of other libraries that were measured, and the different SHA-256 that records tell of
    each: more than one where parts of a run measured another build."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        for name, digest in (record.kernel.libraries if record.kernel else {}).items():
            found[name][digest] = None
    return {name: list(digests) for name, digests in sorted(found.items())}
