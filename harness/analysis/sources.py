"""Whether the designs that a run measured are still what they were then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.records import CellRecord


def older(records: Iterable[CellRecord], today: Mapping[str, str]) -> list[str]:
    """Designs that were measured from other sources than today's, in alphabetical order.

    `today`: source hashes by design. One that is not among them is not named: nobody can say whether it has
    changed.
    """
    measured = {(record.kernel.name, record.kernel.source_hash) for record in records if record.kernel}
    return sorted({name for name, source in measured if today.get(name, source) != source})
